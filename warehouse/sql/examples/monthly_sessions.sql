-- How many sessions per day did each organization have in each month? Incomplete months can be compared, too.
select
    month,
    org_id,
    sessions_count,
    round(1.0 * sessions_count / days_loaded, 1) as sessions_per_day,
    is_complete
from monthly_sessions
order by month, sessions_count desc
