-- How many decisions each hour of event time has, by product: what a sample's share is made from.
select p.product, days_of(h.pack) * 24 + hour_of(h.pack) as hour, sum(h.n) as n
from (
    -- Product, day and hour alone.
    select pack & ~(((1::bigint << 28) - 1) << 12 | 127) as pack, count(*) as n
    from facts
    where received_us <= epoch_us($as_of)
    group by all
) h
join products p on p.number = product_of(h.pack)
group by all;
