-- What is known of each payment by now: one row a transaction, whatever the order in which its
-- labels came. Of events of one (source, source_event_id) one counts, whichever store took it, and
-- what another event supersedes does not count, nor does what takes it back. Of two that
-- supersede the same the one that was reported later counts, then the one of the higher id.
--
-- Precedence of what says fraud or genuine, the strongest first: a chargeback; what the customer
-- said (denied, confirmed); an analyst; an early fraud warning. Of one strength the latest counts.
insert into evidence
with told as (
    select distinct on (source, source_event_id) *
    from heard
    order by source, source_event_id, received
),
newest as (
    select *
    from told
    qualify supersedes is null or row_number() over (
        partition by source, supersedes order by reported_time desc, source_event_id desc
    ) = 1
),
current as (
    select n.*
    from newest n
    anti join newest s on s.source = n.source and s.supersedes = n.source_event_id
    where n.kind <> 'withdrawn' and n.transaction_id is not null
),
weighed as (
    select
        *,
        case kind
            when 'chargeback' then 1
            when 'customer_denied' then 2
            when 'customer_confirmed' then 2
            when 'analyst_fraud' then 3
            when 'analyst_genuine' then 3
            when 'early_fraud_warning' then 4
        end as strength,
        kind in ('chargeback', 'customer_denied', 'analyst_fraud', 'early_fraud_warning')
            as says_fraud,
        kind in ('customer_confirmed', 'analyst_genuine') as says_genuine
    from current
),
said as (
    select
        product,
        transaction_id,
        min_by(
            struct_pack(kind := kind, fraud := says_fraud, amount_minor := amount_minor, liable := liable),
            struct_pack(
                a := strength, b := -epoch_us(reported_time), c := source, d := source_event_id
            )
        ) filter (where strength is not null) as verdict,
        min(reported_time) filter (where says_fraud) as fraud_reported,
        min(occurred_time) filter (where kind = 'customer_contacted') as contacted,
        max_by(kind, struct_pack(a := reported_time, b := source_event_id))
            filter (where kind in ('step_up_passed', 'step_up_failed', 'step_up_abandoned')) as step_up,
        bool_or(kind = 'refund') as refunded,
        count(*) filter (where kind <> 'stand_in_advice') as events
    from weighed
    group by all
),
taken_back as (
    select distinct t.product, t.transaction_id
    from told t
    semi join told w
        on w.kind = 'withdrawn' and w.source = t.source and w.supersedes = t.source_event_id
    where t.kind in ('chargeback', 'customer_denied', 'analyst_fraud', 'early_fraud_warning')
)
select
    s.product,
    s.transaction_id,
    s.verdict.kind as kind,
    s.verdict.fraud as fraud,
    case when s.verdict.fraud then s.verdict.amount_minor end as fraud_amount_minor,
    case when s.verdict.fraud then s.verdict.liable end as liable,
    s.fraud_reported,
    s.contacted,
    s.step_up,
    s.refunded,
    t.transaction_id is not null and not coalesce(s.verdict.fraud, false) as reversed,
    s.events,
    payment(s.product, s.transaction_id) as key,
    code_of(
        s.verdict.kind,
        s.verdict.fraud,
        t.transaction_id is not null and not coalesce(s.verdict.fraud, false),
        s.step_up,
        s.verdict.fraud and s.verdict.liable = 'customer'
    ) as code,
    epoch_us(s.fraud_reported) // 86400000000 as fraud_day,
    -- Payments from then on were contacted in time.
    epoch_us(s.contacted) - p.contact_within_us as contact_us
from (
    select * from said
    union all
    select t.product, t.transaction_id, null, null, null, null, null, 0
    from taken_back t
    anti join said s on s.product = t.product and s.transaction_id = t.transaction_id
) s
left join taken_back t on t.product = s.product and t.transaction_id = s.transaction_id
left join products p on p.product = s.product
{only};
