-- One row per day of history, loaded or not.
select
    calendar.day,
    daily_totals.sessions_count as control_total,
    daily_totals.orgs_sessions_count,
    daily_totals.unattributed_count,
    daily_totals.orgs_expected,
    daily_totals.orgs_loaded,
    daily_totals.loaded_at,
    case
        when daily_totals.day is null then 'not loaded'
        when daily_totals.unattributed_count = 0 then 'proven'
        when daily_totals.unattributed_count > 0 then 'unattributed'
        else 'contradiction'
    end as verdict

from calendar
left join daily_totals on calendar.day = daily_totals.day
