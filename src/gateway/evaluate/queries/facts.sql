-- What files that are new say, in the few columns that are counted: one row a decision.
--
-- key: of the payment. pack: what is told apart, in one number (`layout.sql`). A subject is hex digits,
-- two of which say one of 128 buckets: the same every day, so that a bucket holds whole customers and
-- days add up. Who has no subject is alone.
--
-- reached: it was declined, and exploration could have let it through. bin: halves of log-odds of the
-- probability, from 1 on; 0 where there is none.
-- `watch`: put in by the engine, the segments that decisions carry.
insert into facts
select
    $first + d.file_index as unit,
    payment(d.product, d.transaction_id) as key,
    case when d.subject is not null then hash(d.subject, '~' || d.subject) end as customer,
    (p.number << 56)
    + ((epoch_us(d.event_time) // 86400000000) << 40)
    + (coalesce(
        (((ascii(d.subject) & 15) + 9 * (ascii(d.subject) >> 6)) << 4)
        + (ascii(substr(d.subject, 2)) & 15) + 9 * (ascii(substr(d.subject, 2)) >> 6),
        d.sequence & 255
    )::bigint >> 1 << 33)
    + ((case
        when k.product is null then 0
        when k.up_to_minor is null or d.amount_minor <= k.up_to_minor then k.class
        else k.class_above
    end)::bigint << 25)
    + (((d.amount_minor >= 5 * p.unit)::bigint + (d.amount_minor >= 20 * p.unit)::bigint
        + (d.amount_minor >= 50 * p.unit)::bigint + (d.amount_minor >= 200 * p.unit)::bigint
        + (d.amount_minor >= 1000 * p.unit)::bigint) << 22)
    + ((case d.action
        when 'approve' then 0 when 'step_up' then 1 when 'review' then 2 when 'decline' then 3 else 4
    end)::bigint << 19)
    + ((d.stand_in <> 'none')::bigint << 18)
    + (coalesce(d.explored, false)::bigint << 17)
    + (coalesce(d.action = 'decline' and d.propensity < 1, false)::bigint << 16)
    + (coalesce(1 + d.in_time::bigint, 0) << 14)
    + (((epoch_us(d.event_time) // 3600000000) % 24) << 7)
    + case
        when d.probability is null then 0
        else floor(2 * ln(greatest(d.probability, 1e-9) / greatest(1 - d.probability, 1e-9)))
            ::bigint + 43
    end as pack,
    d.arm,
    {watch} as watch,
    d.amount_minor,
    d.probability as p,
    case when d.explored then d.propensity end as propensity,
    case when d.action = 'step_up' then epoch_us(d.event_time) end as event_us,
    epoch_us(d.received) as received_us
from arrived_decisions d
join products p on p.product = d.product
left join categories k on k.product = d.product and k.mcc = d.category;
