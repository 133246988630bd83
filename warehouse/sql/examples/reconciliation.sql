-- How many days are proven, and how many are not?
select
    verdict,
    count(*) as days,
    min(day) as first_day,
    max(day) as last_day
from reconciliation
group by verdict
order by verdict
