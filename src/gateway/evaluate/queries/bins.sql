-- Reliability: what went through by the probability that the model gave, in halves of a unit of
-- log-odds.
insert into bins
select
    p.product,
    date '1970-01-01' + ((c.pack >> 40) & 65535)::integer as day,
    ((c.pack >> 33) & 127)::utinyint as bucket,
    ((c.pack & 127) - 43)::smallint as bin,
    {sign} sum(c.n) as n,
    {sign} sum(c.fraud) as fraud,
    {sign} sum(c.p) as p
from (
    select
        f.pack & ~(67108863::bigint << 7) as pack,
        count(*)::double as n,
        count_if(e.code & 8 > 0)::double as fraud,
        sum(f.p) as p
    from {counted} f
    left join evidence e on e.key = f.key
    where (f.pack >> 19) & 7 <> 3
        and (f.pack >> 18) & 1 = 0
        and f.pack & 127 > 0
        and coalesce(e.code, 0) & 96 not in (64, 96)
        and not ((f.pack >> 19) & 7 = 2 and coalesce(e.code, 0) & 7 = 4)
    group by all
) c
join products p on p.number = c.pack >> 56
group by all;
