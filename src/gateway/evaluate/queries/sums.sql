-- What the metrics are made of, from cells of some days: by a part of the traffic and by bucket.
-- `part` and `cells` are put in by the engine, from what it knows.
select
    product,
    {part} as part,
    bucket,
    sum(n) as n,
    sum(n) filter (went_through) as passed,
    sum(amount_minor) filter (went_through) as passed_amount,
    sum(n) filter (went_through and fraud) as fraud,
    sum(amount_minor) filter (went_through and fraud) as fraud_amount,
    sum(loss_minor) filter (went_through and fraud) as loss,
    sum(n) filter (fraud and liable = 'customer') as customer_frauds,
    sum(loss_minor) filter (fraud and liable = 'customer') as customer_loss,
    sum(n) filter (went_through and not explored and not fraud) as passed_genuine,
    sum(n) filter (went_through and not explored and fraud) as passed_fraud,
    sum(p) filter (went_through and not explored) as passed_p,
    sum(n) filter (explored and not fraud) as explored_genuine,
    sum(n) filter (explored and fraud) as explored_fraud,
    sum(p) filter (explored) as explored_p,
    sum(w) filter (explored and not fraud) as explored_w_genuine,
    sum(w) filter (explored and fraud) as explored_w_fraud,
    sum(w_p) filter (explored) as explored_w_p,
    sum(w2) filter (explored) as explored_w2,
    sum(n) filter (reached) as declined_n,
    sum(p) filter (reached) as declined_p,
    sum(n) filter (action = 'decline' and not reached) as unreached_n,
    sum(p) filter (action = 'decline' and not reached) as unreached_p,
    sum(n) filter (action = 'decline') as declined,
    sum(p_amount_minor) filter (action = 'decline') as declined_p_amount,
    sum(n) filter (action = 'step_up') as stepped_up,
    sum(n) filter (action = 'step_up' and step_up is not null) as step_up_known,
    sum(n) filter (action = 'step_up' and step_up = 'step_up_passed') as step_up_passed,
    sum(contacted_in_time) filter (action = 'step_up') as contacted_in_time,
    sum(n) filter (action = 'review') as reviewed,
    sum(n) filter (not stood_in) as by_model,
    sum(in_time) as in_time,
    sum(late) as late,
    sum(p) filter (went_through and not stood_in) as expected,
    sum(n) filter (went_through and not stood_in and fraud) as observed
from {cells}
where day between $first and $last
group by all
having sum(n) > 0;
