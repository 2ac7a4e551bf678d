-- How many decisions each hour of event time has, by product: what a sample's share is made from.
select p.product, (h.day & 65535) * 24 + h.hour as hour, sum(h.n) as n
from (
    select pack >> 40 as day, (pack >> 7) & 31 as hour, count(*) as n
    from facts
    where received_us <= epoch_us($as_of)
    group by all
) h
join products p on p.number = h.day >> 16
group by all;
