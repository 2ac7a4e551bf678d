-- What went through by day and bucket, and the reports of fraud among it by their delay; delay is
-- null where none was reported.
select
    product,
    day,
    bucket,
    case when fraud then delay end as delay,
    sum(n) as n,
    sum(amount_minor) as amount,
    sum(loss_minor) as loss
from cells
where went_through
group by all
having sum(n) <> 0;
