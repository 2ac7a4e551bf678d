-- Payments that count and what is known of them by now, added up: by product, day of the payment,
-- bucket of the customer, what was decided and what labels say. `sign`: a minus takes away what was
-- added before, when more is known.
-- delay: whole days from the payment to the first report of fraud.
-- Without hour and bin.
create or replace temp table summed as
select
    f.pack & ~16383::bigint as pack,
    f.arm,
    coalesce(e.code, 0) as code,
    (case when is_fraud(e.code) then greatest(e.fraud_day - days_of(f.pack), 0) end)::smallint
        as delay,
    count(*)::double as n,
    sum(f.amount_minor)::double as amount_minor,
    sum(case when is_fraud(e.code) then coalesce(e.fraud_amount_minor, f.amount_minor) end)
        ::double as loss_minor,
    sum(f.p) as p,
    sum(f.p * f.amount_minor) as p_amount_minor,
    count_if(f.event_us >= e.contact_us)::double as contacted_in_time,
    sum(1 / f.propensity) as w,
    sum(1 / (f.propensity * f.propensity)) as w2,
    sum(f.p / f.propensity) as w_p
from {counted} f
left join evidence e on e.key = f.key
group by all;
insert into cells
select
    p.product,
    day_of(c.pack) as day,
    bucket_of(c.pack) as bucket,
    c.arm,
    class_of(c.pack) as class,
    band_of(c.pack) as band,
    action_of(c.pack) as action,
    stood_in(c.pack) as stood_in,
    is_explored(c.pack) as explored,
    went_through(c.pack, c.code) as went_through,
    is_reached(c.pack) as reached,
    kind_of(c.code) as kind,
    is_fraud(c.code) as fraud,
    is_reversed(c.code) as reversed,
    step_up_of(c.code) as step_up,
    pays(c.code) as liable,
    c.delay,
    {sign} c.n as n,
    {sign} c.amount_minor as amount_minor,
    {sign} c.loss_minor as loss_minor,
    {sign} c.p as p,
    {sign} c.p_amount_minor as p_amount_minor,
    {sign} case when was_in_time(c.pack) then c.n else 0 end as in_time,
    {sign} case when was_late(c.pack) then c.n else 0 end as late,
    {sign} c.contacted_in_time as contacted_in_time,
    {sign} c.w as w,
    {sign} c.w2 as w2,
    {sign} c.w_p as w_p
from summed c
join products p on p.number = product_of(c.pack);
