-- One row per day of history, loaded or not.
with

digits (n) as (

    values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)

),

days as (

    select cast(expected_days.first_day + (ones.n + 10 * tens.n + 100 * hundreds.n + 1000 * thousands.n) as date) as day

    from expected_days
    cross join digits as ones
    cross join digits as tens
    cross join digits as hundreds
    cross join digits as thousands
    where expected_days.first_day + (ones.n + 10 * tens.n + 100 * hundreds.n + 1000 * thousands.n) <= expected_days.last_day

)

select
    day,
    cast(date_trunc('week', day) as date) as week,
    cast(extract(isoyear from day) as integer) as iso_year,
    cast(extract(week from day) as integer) as iso_week,
    cast(date_trunc('month', day) as date) as month,
    cast(date_trunc('quarter', day) as date) as quarter,
    cast(extract(isodow from day) as integer) as weekday,
    case cast(extract(isodow from day) as integer)
        when 1 then 'Monday'
        when 2 then 'Tuesday'
        when 3 then 'Wednesday'
        when 4 then 'Thursday'
        when 5 then 'Friday'
        when 6 then 'Saturday'
        when 7 then 'Sunday'
    end as weekday_name,
    extract(isodow from day) >= 6 as is_weekend

from days
