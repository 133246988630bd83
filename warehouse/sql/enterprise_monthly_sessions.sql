-- One row per month with a loaded day, over the whole enterprise.
with

active as (

    select
        month,
        count(*) as active_orgs

    from monthly_sessions
    where sessions_count > 0
    group by month

),

months as (

    select
        cast(date_trunc('month', daily_totals.day) as date) as month,
        cast(sum(daily_totals.sessions_count) as bigint) as sessions_count,
        cast(sum(daily_totals.orgs_sessions_count) as bigint) as orgs_sessions_count,
        cast(sum(daily_totals.unattributed_count) as bigint) as unattributed_count,
        cast(
            extract(day from date_trunc('month', daily_totals.day) + interval '1 month' - interval '1 day') as integer
        ) as days_expected,
        cast(count(*) as integer) as days_loaded,
        cast(count(*) filter (where enterprise_sessions.is_settled) as integer) as days_settled

    from daily_totals
    left join enterprise_sessions on daily_totals.day = enterprise_sessions.day
    group by date_trunc('month', daily_totals.day)

)

select
    months.month,
    months.sessions_count,
    months.orgs_sessions_count,
    months.unattributed_count,
    coalesce(active.active_orgs, 0) as active_orgs,
    months.days_expected,
    months.days_loaded,
    months.days_loaded = months.days_expected as is_complete,
    months.days_settled = months.days_expected as is_settled

from months
left join active on months.month = active.month
