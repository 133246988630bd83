-- How many days of history are loaded for each organization, and which is the first that isn't?
select
    org_id,
    org_name,
    count(*) as days,
    count(sessions_count) as days_loaded,
    min(day) filter (where sessions_count is null) as first_day_not_loaded
from session_grid
group by org_id, org_name
order by days_loaded, org_id
