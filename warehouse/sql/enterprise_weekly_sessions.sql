-- One row per ISO week with a loaded day, over the whole enterprise.
with

active as (

    select
        week,
        count(*) as active_orgs

    from weekly_sessions
    where sessions_count > 0
    group by week

),

weeks as (

    select
        cast(date_trunc('week', daily_totals.day) as date) as week,
        cast(sum(daily_totals.sessions_count) as bigint) as sessions_count,
        cast(sum(daily_totals.orgs_sessions_count) as bigint) as orgs_sessions_count,
        cast(sum(daily_totals.unattributed_count) as bigint) as unattributed_count,
        7 as days_expected,
        cast(count(*) as integer) as days_loaded,
        cast(count(*) filter (where enterprise_sessions.is_settled) as integer) as days_settled

    from daily_totals
    left join enterprise_sessions on daily_totals.day = enterprise_sessions.day
    group by date_trunc('week', daily_totals.day)

)

select
    weeks.week,
    weeks.sessions_count,
    weeks.orgs_sessions_count,
    weeks.unattributed_count,
    coalesce(active.active_orgs, 0) as active_orgs,
    weeks.days_expected,
    weeks.days_loaded,
    weeks.days_loaded = weeks.days_expected as is_complete,
    weeks.days_settled = weeks.days_expected as is_settled

from weeks
left join active on weeks.week = active.week
