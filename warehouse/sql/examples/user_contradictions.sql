-- Which users does the API count differently over several days at once than day by day?
select
    user_id,
    count(*) as days
from user_contradictions
where user_id is not null
group by user_id
order by days desc, user_id
