-- The same cells by groups of customers and by watched segments of payments. What attributes say of a
-- subject is its group: the latest that had come by then; of whom nothing is said is in 'unknown'.
-- What two attributes say is a group too: both names, both values, ' × ' between.
-- {watch} is put in by the engine: the segments that the decisions carry.
create or replace temp table groups as
with newest as (
    select
        subject,
        attribute,
        max_by(value, struct_pack(a := reported_time, b := source, c := value)) as value
    from attributes
    where received <= $as_of
    group by all
),
said as (
    select subject, map(list(attribute), list(value)) as groups
    from newest
    group by subject
),
asked as (
    select
        p.product,
        list(struct_pack(one := c.attribute, beside := c.beside))
            filter (c.attribute is not null) as compared
    from products p
    left join compared c on c.product = p.product
    group by p.product
),
members as (
    select
        d.* exclude (product),
        p.product,
        unnest(
            list_concat(
                list_transform(
                    coalesce(q.compared, []),
                    lambda x: struct_pack(
                        kind := 'group',
                        name := concat_ws(' × ', x.one, x.beside),
                        value := concat_ws(
                            ' × ',
                            coalesce(a.groups[x.one], 'unknown'),
                            case
                                when x.beside is not null
                                    then coalesce(a.groups[x.beside], 'unknown')
                            end
                        )
                    )
                ),
                {watch}
            )
        ) as member
    from decisions d
    join products p on p.product = d.product
    join asked q on q.product = d.product
    left join said a on a.subject = d.subject
    where d.received <= $as_of
)
select
    d.product,
    d.member.kind as kind,
    d.member.name as name,
    d.member.value as value,
    cast(d.event_time as date) as day,
    ((instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 1, 1)) - 1) * 8
        + (instr('0123456789abcdef', substr(coalesce(d.subject, right(d.decision_id, 2)), 2, 1)) - 1)
        // 2)::utinyint as bucket,
    d.action,
    d.stand_in <> 'none' as stood_in,
    coalesce(d.explored, false) as explored,
    d.action <> 'decline'
        and coalesce(e.step_up, '') not in ('step_up_failed', 'step_up_abandoned')
        and not (d.action = 'review' and coalesce(e.kind, '') = 'analyst_fraud') as went_through,
    d.action = 'decline' and d.propensity < 1 as reached,
    coalesce(e.fraud, false) as fraud,
    e.step_up,
    e.liable,
    count(*)::double as n,
    sum(d.amount_minor)::double as amount_minor,
    sum(case when e.fraud then coalesce(e.fraud_amount_minor, d.amount_minor) end)::double
        as loss_minor,
    sum(d.probability) as p,
    sum(d.probability * d.amount_minor) as p_amount_minor,
    count_if(d.in_time)::double as in_time,
    count_if(not d.in_time)::double as late,
    0.0::double as contacted_in_time,
    sum(case when d.explored then 1 / d.propensity end) as w,
    sum(case when d.explored then 1 / (d.propensity * d.propensity) end) as w2,
    sum(case when d.explored then d.probability / d.propensity end) as w_p
from members d
anti join superseded s on s.decision_id = d.decision_id
left join evidence e on e.product = d.product and e.transaction_id = d.transaction_id
where d.member.value is not null
group by all;
