-- How many sessions of each month belong to no counted user, and how many of them to nobody at all?
select
    cast(date_trunc('month', day) as date) as month,
    cast(sum(sessions_count) as bigint) as sessions,
    cast(sum(sessions_count) filter (where user_id = '') as bigint) as of_nobody
from user_unattributed_sessions
group by cast(date_trunc('month', day) as date)
order by month
