-- Which rollups are behind, and by which days? No rows means that all are up to date.
select
    rollup,
    count(*) as days,
    min(day) as first_day,
    max(day) as last_day
from stale_days
group by rollup
order by rollup
