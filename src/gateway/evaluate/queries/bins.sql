-- Reliability: what went through by the probability that the model gave, in halves of a unit of
-- log-odds, over some days.
select
    d.product,
    floor(2 * ln(greatest(d.probability, 1e-9) / greatest(1 - d.probability, 1e-9)))::integer as bin,
    ((instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 1, 1)) - 1) * 8
        + (instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 2, 1)) - 1)
        // 2)::utinyint as bucket,
    count(*)::double as n,
    count_if(coalesce(e.fraud, false))::double as fraud,
    sum(d.probability) as p
from decisions d
join products p on p.product = d.product
anti join superseded s on s.decision_id = d.decision_id
left join evidence e on e.product = d.product and e.transaction_id = d.transaction_id
where d.action <> 'decline'
    and d.stand_in = 'none'
    and cast(d.event_time as date) between $first and $last
    and coalesce(e.step_up, '') not in ('step_up_failed', 'step_up_abandoned')
group by all;
