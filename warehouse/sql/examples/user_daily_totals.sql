-- How many sessions in each month belong to none of the counted users?
select
    cast(date_trunc('month', day) as date) as month,
    sum(sessions_count) as sessions,
    sum(unattributed_count) as unattributed
from user_daily_totals
group by cast(date_trunc('month', day) as date)
order by month
