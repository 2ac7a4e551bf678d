-- What prices are put on: by bucket, cost class and action. Of what was declined the truth is the
-- model's belief.
select
    product,
    bucket,
    class,
    action,
    sum(n) as n,
    sum(amount_minor) as amount,
    sum(case when action = 'decline' then p when fraud then n else 0 end) as fraud,
    sum(case when action = 'decline' then p_amount_minor when fraud then amount_minor else 0 end)
        as fraud_amount
from cells
where day between $first and $last
group by all
having sum(n) <> 0;
