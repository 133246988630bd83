-- Which days does the API count differently when several are requested at once?
select
    first_day,
    last_day,
    org_id,
    max(block_sessions_count) as in_one_request,
    max(stored_sessions_count) as day_by_day
from contradictions
group by first_day, last_day, org_id
order by first_day, org_id nulls first
