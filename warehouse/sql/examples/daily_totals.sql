-- When were the latest 14 loaded days last read, and what was found?
select
    day,
    loaded_at,
    sessions_count,
    orgs_loaded,
    orgs_expected,
    unattributed_count
from daily_totals
order by day desc
limit 14
