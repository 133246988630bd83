-- Which counts per user were restated in the last 30 days?
select
    revised_at,
    day,
    user_id,
    previous_count,
    new_count
from user_session_revisions
where revised_at > current_timestamp - interval '30 days'
order by revised_at desc, day, user_id
