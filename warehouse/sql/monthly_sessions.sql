-- One row per organization and month.
-- For the months from :first_day, the first day of a month, to :last_day, the last day of a month.
with

days as (

    select
        cast(date_trunc('month', day) as date) as month,
        org_id,
        sessions_count

    from daily_sessions
    where day between :first_day and :last_day

),

months as (

    select
        month,
        org_id,
        cast(sum(sessions_count) as bigint) as sessions_count,
        cast(extract(day from month + interval '1 month' - interval '1 day') as integer) as days_expected,
        cast(count(*) as integer) as days_loaded

    from days
    group by month, org_id

)

select
    month,
    org_id,
    sessions_count,
    days_expected,
    days_loaded,
    days_loaded = days_expected as is_complete

from months
