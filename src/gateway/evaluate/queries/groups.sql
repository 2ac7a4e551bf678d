-- The same cells by groups of customers or by watched segments of payments, as `kind` says. `of`: the
-- column that says all that is told apart of one, `told`: the groups that this means.
-- Without cost class, band, hour and bin, and without the kind of label.
create or replace temp table summed as
select
    f.pack & ~((2047::bigint << 22) | 16383) as pack,
    {of} as members,
    (coalesce(e.code, 0) & 248) + case when e.code & 7 = 4 then 4 else 0 end as code,
    count(*)::double as n,
    sum(f.amount_minor)::double as amount_minor,
    sum(case when is_fraud(e.code) then coalesce(e.fraud_amount_minor, f.amount_minor) end)
        ::double as loss_minor,
    sum(f.p) as p,
    sum(f.p * f.amount_minor) as p_amount_minor,
    sum(1 / f.propensity) as w,
    sum(1 / (f.propensity * f.propensity)) as w2,
    sum(f.p / f.propensity) as w_p
from {counted} f
left join evidence e on e.key = f.key
{joined}
group by all;
insert into groups
select
    p.product,
    '{kind}' as kind,
    m.name,
    m.value,
    day_of(c.pack) as day,
    bucket_of(c.pack) as bucket,
    action_of(c.pack) as action,
    stood_in(c.pack) as stood_in,
    is_explored(c.pack) as explored,
    went_through(c.pack, c.code) as went_through,
    is_reached(c.pack) as reached,
    is_fraud(c.code) as fraud,
    step_up_of(c.code) as step_up,
    pays(c.code) as liable,
    {sign} sum(c.n) as n,
    {sign} sum(c.amount_minor) as amount_minor,
    {sign} sum(c.loss_minor) as loss_minor,
    {sign} sum(c.p) as p,
    {sign} sum(c.p_amount_minor) as p_amount_minor,
    {sign} sum(case when was_in_time(c.pack) then c.n else 0 end) as in_time,
    {sign} sum(case when was_late(c.pack) then c.n else 0 end) as late,
    0.0 as contacted_in_time,
    {sign} sum(c.w) as w,
    {sign} sum(c.w2) as w2,
    {sign} sum(c.w_p) as w_p
from summed c
join products p on p.number = product_of(c.pack)
join {told} m on m.product = p.product and m.members is not distinct from c.members
group by all;
