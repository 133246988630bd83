-- Which organizations have sessions but are not counted, and since when?
select
    org_id,
    cast(sum(sessions_count) as bigint) as sessions,
    count(*) as days,
    min(day) as first_day,
    max(day) as last_day
from unattributed_sessions
group by org_id
order by sessions desc, org_id
