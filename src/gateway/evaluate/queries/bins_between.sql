-- Reliability: what went through by the probability that the model gave, over some days.
select product, bin, bucket, sum(n) as n, sum(fraud) as fraud, sum(p) as p
from bins
where day between $first and $last
group by all
having sum(n) > 0;
