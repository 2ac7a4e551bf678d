-- The same of bins.
create or replace table bins as
select product, day, bucket, bin, sum(n) as n, sum(fraud) as fraud, sum(p) as p
from bins
group by all
having sum(n) > 0;
