-- Which version of the layout does this warehouse have?
select version
from warehouse_version
