-- How many days does history span, and how many of them are loaded?
select
    first_day,
    last_day,
    last_day - first_day + 1 as days,
    (select count(*) from daily_totals where day between first_day and last_day) as days_loaded
from expected_days
