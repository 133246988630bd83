-- When did each organization have its first and its last session? Those that have been quiet longest come last.
select
    org_id,
    org_name,
    min(day) filter (where sessions_count > 0) as first_active_day,
    max(day) filter (where sessions_count > 0) as last_active_day
from organizations
left join daily_sessions using (org_id)
group by org_id, org_name
order by last_active_day desc nulls last, org_id
