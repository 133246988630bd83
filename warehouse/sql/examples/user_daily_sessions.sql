-- How many users were active on each of the last 28 days?
select
    day,
    count(*) filter (where sessions_count > 0) as active_users,
    cast(sum(sessions_count) as bigint) as sessions
from user_daily_sessions
where day > (select max(day) from user_daily_sessions) - 28
group by day
order by day
