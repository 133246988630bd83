-- When did each user last have a session? Those who never had one come first.
select
    user_id,
    max(day) filter (where sessions_count > 0) as last_active_day
from users
left join user_daily_sessions using (user_id)
group by user_id
order by last_active_day nulls first, user_id
