-- What share of the sessions in the last 28 days does each organization have?
select
    org_id,
    cast(sum(sessions_count) as bigint) as sessions,
    round(100.0 * sum(sessions_count) / nullif(sum(sum(sessions_count)) over (), 0), 1) as percent
from daily_sessions
where day > (select max(day) from daily_sessions) - 28
group by org_id
order by sessions desc
