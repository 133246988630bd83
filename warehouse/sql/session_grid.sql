-- One row per organization and day of history, loaded or not.
select
    calendar.day,
    organizations.org_id,
    organizations.org_name,
    daily_sessions.sessions_count

from calendar
cross join organizations
left join daily_sessions
    on calendar.day = daily_sessions.day
    and organizations.org_id = daily_sessions.org_id
