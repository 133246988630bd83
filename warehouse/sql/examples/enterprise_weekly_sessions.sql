-- How many sessions did the enterprise have in each complete week, and what is the change from the week before in percent?
select
    week,
    sessions_count,
    round(100.0 * sessions_count / nullif(lag(sessions_count) over (order by week), 0) - 100, 1) as percent
from enterprise_weekly_sessions
where is_complete
order by week
