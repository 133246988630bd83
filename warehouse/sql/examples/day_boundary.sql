-- In which time zone and at which hour does a day begin in this warehouse?
select
    timezone,
    day_start_hour
from day_boundary
