-- How many days later do counts still change? DEVIN_LOOKBACK_DAYS should cover most of the changes.
select
    cast(revised_at as date) - day as days_later,
    count(*) as revisions,
    cast(sum(abs(new_count - previous_count)) as bigint) as sessions
from session_revisions
group by cast(revised_at as date) - day
order by days_later
