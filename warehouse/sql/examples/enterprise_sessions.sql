-- How do the last 7 days compare with the 7 before them, in percent, considering settled days only?
select
    day,
    trailing_7_day_count,
    previous_week_count,
    round(cast(100 * week_over_week_change as numeric), 1) as percent
from enterprise_sessions
where is_settled
order by day desc
limit 14
