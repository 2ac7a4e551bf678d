-- Decisions by groups of customers: what attributes say of their subjects. A subject of whom nothing
-- is said is in the group 'unknown'. The latest attribute that had come by then counts.
with said as (
    select
        subject,
        attribute,
        max_by(value, struct_pack(a := reported_time, b := source, c := value)) as value
    from attributes
    where received <= $as_of
    group by all
)
select
    d.product,
    c.attribute,
    coalesce(a.value, 'unknown') as value,
    cast(d.event_time as date) as day,
    (instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 1, 1)) - 1) * 8
        + (instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 2, 1)) - 1)
        // 2 as bucket,
    d.action,
    d.explored,
    d.action = 'decline' and d.propensity < 1 as reached,
    e.kind,
    e.fraud,
    e.step_up,
    count(*) as n,
    sum(d.probability) as p,
    sum(case when d.explored then 1 / d.propensity end) as w,
    sum(case when d.explored then 1 / (d.propensity * d.propensity) end) as w2,
    sum(case when d.explored then d.probability / d.propensity end) as w_p
from decisions d
join compared c on c.product = d.product
left join said a on a.subject = d.subject and a.attribute = c.attribute
anti join superseded s on s.decision_id = d.decision_id
left join evidence e on e.product = d.product and e.transaction_id = d.transaction_id
where d.received <= $as_of
group by all;
