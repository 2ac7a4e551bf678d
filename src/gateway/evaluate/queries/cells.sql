-- Decisions and what is known of them by now, added up: by product, day of the payment, bucket of
-- the customer, what was decided and what labels say. Pseudonyms are hex digits, so two of them say
-- one of 128 buckets: the same every day, so that a bucket holds whole customers and days add up.
--
-- went_through: labels tell of it. reached: it was declined, and exploration could have let it
-- through. delay: whole days from the payment to the first report of fraud.
create or replace temp table cells as
select
    d.product,
    cast(d.event_time as date) as day,
    ((instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 1, 1)) - 1) * 8
        + (instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 2, 1)) - 1)
        // 2)::utinyint as bucket,
    d.arm,
    (case
        when k.product is null then 0
        when k.up_to_minor is null or d.amount_minor <= k.up_to_minor then k.class
        else k.class_above
    end)::utinyint as class,
    (d.amount_minor >= 5 * p.unit)::utinyint + (d.amount_minor >= 20 * p.unit)::utinyint
        + (d.amount_minor >= 50 * p.unit)::utinyint + (d.amount_minor >= 200 * p.unit)::utinyint
        + (d.amount_minor >= 1000 * p.unit)::utinyint as band,
    d.action,
    d.stand_in <> 'none' as stood_in,
    coalesce(d.explored, false) as explored,
    d.action <> 'decline'
        and coalesce(e.step_up, '') not in ('step_up_failed', 'step_up_abandoned')
        and not (d.action = 'review' and coalesce(e.kind, '') = 'analyst_fraud') as went_through,
    d.action = 'decline' and d.propensity < 1 as reached,
    e.kind,
    coalesce(e.fraud, false) as fraud,
    coalesce(e.reversed, false) as reversed,
    e.step_up,
    e.liable,
    (case when e.fraud then greatest(date_diff('day', d.event_time, e.fraud_reported), 0) end)
        ::smallint as delay,
    count(*)::double as n,
    sum(d.amount_minor)::double as amount_minor,
    sum(case when e.fraud then coalesce(e.fraud_amount_minor, d.amount_minor) end)::double
        as loss_minor,
    sum(d.probability) as p,
    sum(d.probability * d.amount_minor) as p_amount_minor,
    count_if(d.in_time)::double as in_time,
    count_if(not d.in_time)::double as late,
    count_if(date_diff('microsecond', d.event_time, e.contacted) <= p.contact_within_us)::double
        as contacted_in_time,
    sum(case when d.explored then 1 / d.propensity end) as w,
    sum(case when d.explored then 1 / (d.propensity * d.propensity) end) as w2,
    sum(case when d.explored then d.probability / d.propensity end) as w_p
from decisions d
join products p on p.product = d.product
anti join superseded s on s.decision_id = d.decision_id
left join evidence e on e.product = d.product and e.transaction_id = d.transaction_id
left join categories k on k.product = d.product and k.mcc = d.category
where d.received <= $as_of
group by all;
