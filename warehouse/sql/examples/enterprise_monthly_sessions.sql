-- How many sessions did the enterprise have in each month, and how many of them belong to no organization that was counted?
select
    month,
    sessions_count,
    orgs_sessions_count,
    unattributed_count,
    is_complete
from enterprise_monthly_sessions
order by month
