-- How many days afterwards do counts still change? DEVIN_LOOKBACK_DAYS should cover most of it.
select
    cast(revised_at as date) - day as days_afterwards,
    count(*) as revisions,
    sum(abs(new_count - previous_count)) as sessions
from session_revisions
group by cast(revised_at as date) - day
order by days_afterwards
