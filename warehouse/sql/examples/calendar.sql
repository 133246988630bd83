-- How many sessions does an average Monday have, an average Tuesday and so on?
select
    weekday_name,
    count(*) as days_loaded,
    round(avg(sessions_count), 1) as sessions_per_day
from calendar
inner join enterprise_sessions using (day)
group by weekday, weekday_name
order by weekday
