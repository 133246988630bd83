-- One row per organization and day of history, loaded or not, with everything to filter and group by.
select
    session_grid.day,
    session_grid.org_id,
    coalesce(session_grid.org_name, session_grid.org_id) as org_name,
    session_grid.sessions_count,
    session_grid.sessions_count is not null as is_loaded,
    calendar.week,
    calendar.iso_year,
    calendar.iso_week,
    calendar.month,
    calendar.quarter,
    calendar.weekday,
    calendar.weekday_name,
    calendar.is_weekend,
    reconciliation.verdict,
    reconciliation.verdict = 'proven' as is_proven,
    coalesce(enterprise_sessions.is_settled, false) as is_settled

from session_grid
inner join calendar on session_grid.day = calendar.day
inner join reconciliation on session_grid.day = reconciliation.day
left join enterprise_sessions on session_grid.day = enterprise_sessions.day
