-- One row per organization and day of history, loaded or not.
-- Only months that the rollup does not show as complete are searched for gaps: counts are never deleted.
with

open_months as (

    select
        months.month,
        organizations.org_id,
        organizations.org_name

    from (select distinct month from calendar) as months
    cross join organizations
    left join monthly_sessions
        on months.month = monthly_sessions.month
        and organizations.org_id = monthly_sessions.org_id
    where monthly_sessions.is_complete is not true

),

cells as (

    select
        daily_sessions.day,
        organizations.org_id,
        organizations.org_name,
        daily_sessions.sessions_count

    from daily_sessions
    inner join organizations
        on daily_sessions.org_id = organizations.org_id
    where daily_sessions.day in (select day from calendar)

    union all

    select
        calendar.day,
        open_months.org_id,
        open_months.org_name,
        cast(null as bigint) as sessions_count

    from calendar
    inner join open_months
        on calendar.month = open_months.month
    where not exists (
        select 1 from daily_sessions
        where daily_sessions.day = calendar.day
            and daily_sessions.org_id = open_months.org_id
    )

)

select
    day,
    org_id,
    org_name,
    sessions_count

from cells
