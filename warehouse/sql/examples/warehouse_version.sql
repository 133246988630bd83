-- Which layout does this warehouse have?
select version
from warehouse_version
