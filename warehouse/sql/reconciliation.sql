-- One row per day of history, loaded or not.
with

contradicted as (

    select
        day,
        max(case when org_id is null then block_sessions_count - stored_sessions_count end) as block_difference,
        cast(count(org_id) as integer) as contradicted_orgs

    from contradictions
    group by day

)

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
        when daily_totals.unattributed_count < 0 or contradicted.day is not null then 'contradiction'
        when daily_totals.unattributed_count = 0 then 'proven'
        else 'unattributed'
    end as verdict,
    contradicted.block_difference,
    coalesce(contradicted.contradicted_orgs, 0) as contradicted_orgs

from calendar
left join daily_totals on calendar.day = daily_totals.day
left join contradicted on calendar.day = contradicted.day
