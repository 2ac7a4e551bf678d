-- How many decisions each hour of event time has, by product: what a sample's share is made from.
select product, epoch_ms(event_time) // 3600000 as hour, count(*) as n
from decisions
where received <= $as_of
group by all;
