-- How many sessions in each month belong to none of the counted users?
select
    cast(date_trunc('month', day) as date) as month,
    cast(sum(sessions_count) as bigint) as sessions,
    cast(sum(unattributed_count) as bigint) as unattributed
from user_daily_totals
group by cast(date_trunc('month', day) as date)
order by month
