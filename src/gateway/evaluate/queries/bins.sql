-- Reliability: what went through by the probability that the model gave, in halves of a unit of
-- log-odds.
-- Product, day, bucket and bin alone.
create or replace temp table summed as
select
    f.pack & ~(67108863::bigint << 7) as pack,
    count(*)::double as n,
    count_if(is_fraud(e.code))::double as fraud,
    sum(f.p) as p
from {counted} f
left join evidence e on e.key = f.key
where has_bin(f.pack) and not stood_in(f.pack) and went_through(f.pack, coalesce(e.code, 0))
group by all;
insert into bins
select
    p.product,
    day_of(c.pack) as day,
    bucket_of(c.pack) as bucket,
    bin_of(c.pack) as bin,
    {sign} sum(c.n) as n,
    {sign} sum(c.fraud) as fraud,
    {sign} sum(c.p) as p
from summed c
join products p on p.number = product_of(c.pack)
group by all;
