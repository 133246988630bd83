-- How many sessions did each organization have on working days of each month, over the days that are expected to stay?
select
    month,
    org_name,
    cast(sum(sessions_count) as bigint) as sessions,
    count(*) filter (where not is_loaded) as days_not_loaded
from organization_days
where
    is_settled
    and not is_weekend
group by month, org_id, org_name
order by month, sessions desc nulls last, org_id
