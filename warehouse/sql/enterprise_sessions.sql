-- One row per day that is loaded, over the whole enterprise.
-- For the days from :first_day to :last_day.
with

active as (

    select
        day,
        count(*) as active_orgs

    from daily_sessions
    where
        sessions_count > 0
        and day between :first_day and :last_day
    group by day

),

-- Trailing sums look back up to 27 days, the previous week 13, the month to date 30.
read_days as (

    select *

    from daily_totals
    where day between cast(:first_day as date) - 31 and :last_day

),

sums as (

    select
        day,
        case when count(*) over seven = 7 then sum(sessions_count) over seven end as trailing_7_day_count,
        case when count(*) over twenty_eight = 28 then sum(sessions_count) over twenty_eight end as trailing_28_day_count,
        case
            when count(*) over month_to_date = extract(day from day) then sum(sessions_count) over month_to_date
        end as month_to_date_count

    from read_days
    window
        seven as (order by day range between interval '6 days' preceding and current row),
        twenty_eight as (order by day range between interval '27 days' preceding and current row),
        month_to_date as (partition by date_trunc('month', day) order by day)

)

select
    read_days.day,
    read_days.sessions_count,
    coalesce(active.active_orgs, 0) as active_orgs,
    cast(sums.trailing_7_day_count as bigint) as trailing_7_day_count,
    cast(sums.trailing_28_day_count as bigint) as trailing_28_day_count,
    cast(week_before.trailing_7_day_count as bigint) as previous_week_count,
    cast(sums.trailing_7_day_count as double precision)
        / nullif(week_before.trailing_7_day_count, 0) - 1 as week_over_week_change,
    cast(sums.month_to_date_count as bigint) as month_to_date_count,
    -- A reading in the future is one by a clock that was ahead: then nobody knows whether the day was over.
    read_days.loaded_at between read_days.window_end + :settled_after_days * interval '1 day' and current_timestamp
        as is_settled

from read_days
inner join sums on read_days.day = sums.day
left join sums as week_before on week_before.day = cast(read_days.day - interval '7 days' as date)
left join active on read_days.day = active.day
where read_days.day >= :first_day
