-- One row per organization and ISO week.
-- For the weeks from :first_day, a Monday, to :last_day, a Sunday.
with

days as (

    select
        cast(date_trunc('week', day) as date) as week,
        org_id,
        sessions_count

    from daily_sessions
    where day between :first_day and :last_day

)

select
    week,
    org_id,
    cast(sum(sessions_count) as bigint) as sessions_count,
    7 as days_expected,
    cast(count(*) as integer) as days_loaded,
    count(*) = 7 as is_complete

from days
group by week, org_id
