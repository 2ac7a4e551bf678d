-- The same cells by groups of customers or by watched segments of payments, as `kind` says. `of`: the
-- column that says all that is told apart of one, `told`: the groups that this means.
insert into groups
select
    p.product,
    '{kind}' as kind,
    m.name,
    m.value,
    date '1970-01-01' + ((c.pack >> 26) & 65535)::integer as day,
    ((c.pack >> 19) & 127)::utinyint as bucket,
    ['approve', 'step_up', 'review', 'decline'][((c.pack >> 5) & 7) + 1] as action,
    (c.pack >> 4) & 1 = 1 as stood_in,
    (c.pack >> 3) & 1 = 1 as explored,
    (c.pack >> 5) & 7 <> 3 and c.code & 96 not in (64, 96)
        and not ((c.pack >> 5) & 7 = 2 and c.code & 7 = 4) as went_through,
    (c.pack >> 2) & 1 = 1 as reached,
    c.code & 8 > 0 as fraud,
    ['step_up_passed', 'step_up_failed', 'step_up_abandoned'][(c.code >> 5) & 3] as step_up,
    case when c.code & 128 > 0 then 'customer' end as liable,
    {sign} sum(c.n) as n,
    {sign} sum(c.amount_minor) as amount_minor,
    {sign} sum(c.loss_minor) as loss_minor,
    {sign} sum(c.p) as p,
    {sign} sum(c.p_amount_minor) as p_amount_minor,
    {sign} sum(case when c.pack & 3 = 2 then c.n else 0 end) as in_time,
    {sign} sum(case when c.pack & 3 = 1 then c.n else 0 end) as late,
    0.0 as contacted_in_time,
    {sign} sum(c.w) as w,
    {sign} sum(c.w2) as w2,
    {sign} sum(c.w_p) as w_p
from (
    -- Without cost class and band, and without the kind of label.
    select
        (f.pack >> 14) & ~(2047::bigint << 8) as pack,
        {of} as members,
        (coalesce(e.code, 0) & 248) + case when e.code & 7 = 4 then 4 else 0 end as code,
        count(*)::double as n,
        sum(f.amount_minor)::double as amount_minor,
        sum(case when e.code & 8 > 0 then coalesce(e.fraud_amount_minor, f.amount_minor) end)
            ::double as loss_minor,
        sum(f.p) as p,
        sum(f.p * f.amount_minor) as p_amount_minor,
        sum(1 / f.propensity) as w,
        sum(1 / (f.propensity * f.propensity)) as w2,
        sum(f.p / f.propensity) as w_p
    from {counted} f
    left join evidence e on e.key = f.key
    {joined}
    group by all
) c
join products p on p.number = c.pack >> 42
join {told} m on m.product = p.product and m.members is not distinct from c.members
group by all;
