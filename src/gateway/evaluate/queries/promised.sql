-- What promises are held to, of some days: the few of the sums that they ask for.
select
    product,
    '' as part,
    bucket,
    sum(n) as n,
    sum(in_time) as in_time,
    sum(late) as late,
    sum(n) filter (not stood_in) as by_model,
    sum(n) filter (action = 'step_up') as stepped_up,
    sum(contacted_in_time) filter (action = 'step_up') as contacted_in_time,
    sum(n) filter (fraud and liable = 'customer') as customer_frauds,
    sum(loss_minor) filter (fraud and liable = 'customer') as customer_loss
from cells
where day between $first and $last
group by all
having sum(n) > 0;
