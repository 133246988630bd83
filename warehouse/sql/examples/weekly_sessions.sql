-- How many sessions did each organization have in the last complete week, and in the one before it?
select
    latest.week,
    latest.org_id,
    latest.sessions_count,
    previous.sessions_count as week_before
from weekly_sessions as latest
left join weekly_sessions as previous
    on latest.org_id = previous.org_id
    and latest.week = previous.week + 7
    and previous.is_complete
where
    latest.is_complete
    and latest.week = (select max(week) from weekly_sessions where is_complete)
order by latest.sessions_count desc
