-- Payments that count and what is known of them by now, added up: by product, day of the payment,
-- bucket of the customer, what was decided and what labels say. `sign`: a minus takes away what was
-- added before, when more is known.
--
-- went_through: labels tell of it. delay: whole days from the payment to the first report of fraud.
insert into cells
select
    p.product,
    date '1970-01-01' + ((c.pack >> 26) & 65535)::integer as day,
    ((c.pack >> 19) & 127)::utinyint as bucket,
    c.arm,
    ((c.pack >> 11) & 255)::utinyint as class,
    ((c.pack >> 8) & 7)::utinyint as band,
    ['approve', 'step_up', 'review', 'decline'][((c.pack >> 5) & 7) + 1] as action,
    (c.pack >> 4) & 1 = 1 as stood_in,
    (c.pack >> 3) & 1 = 1 as explored,
    (c.pack >> 5) & 7 <> 3 and c.code & 96 not in (64, 96)
        and not ((c.pack >> 5) & 7 = 2 and c.code & 7 = 4) as went_through,
    (c.pack >> 2) & 1 = 1 as reached,
    [
        'chargeback', 'customer_denied', 'customer_confirmed', 'analyst_fraud', 'analyst_genuine',
        'early_fraud_warning'
    ][c.code & 7] as kind,
    c.code & 8 > 0 as fraud,
    c.code & 16 > 0 as reversed,
    ['step_up_passed', 'step_up_failed', 'step_up_abandoned'][(c.code >> 5) & 3] as step_up,
    case when c.code & 128 > 0 then 'customer' end as liable,
    c.delay,
    {sign} c.n as n,
    {sign} c.amount_minor as amount_minor,
    {sign} c.loss_minor as loss_minor,
    {sign} c.p as p,
    {sign} c.p_amount_minor as p_amount_minor,
    {sign} case when c.pack & 3 = 2 then c.n else 0 end as in_time,
    {sign} case when c.pack & 3 = 1 then c.n else 0 end as late,
    {sign} c.contacted_in_time as contacted_in_time,
    {sign} c.w as w,
    {sign} c.w2 as w2,
    {sign} c.w_p as w_p
from (
    select
        f.pack >> 14 as pack,
        f.arm,
        coalesce(e.code, 0) as code,
        (case when e.code & 8 > 0 then greatest(e.fraud_day - ((f.pack >> 40) & 65535), 0) end)
            ::smallint as delay,
        count(*)::double as n,
        sum(f.amount_minor)::double as amount_minor,
        sum(case when e.code & 8 > 0 then coalesce(e.fraud_amount_minor, f.amount_minor) end)
            ::double as loss_minor,
        sum(f.p) as p,
        sum(f.p * f.amount_minor) as p_amount_minor,
        count_if(f.event_us >= e.contact_us)::double as contacted_in_time,
        sum(1 / f.propensity) as w,
        sum(1 / (f.propensity * f.propensity)) as w2,
        sum(f.p / f.propensity) as w_p
    from {counted} f
    left join evidence e on e.key = f.key
    group by all
) c
join products p on p.number = c.pack >> 42;
