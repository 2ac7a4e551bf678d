-- What the lake says of those, from their files alone. No subject, no amount, no category: nothing that
-- a caller sent.
select
    s.place, s.kind, s.label, coalesce(s.fraud, false) as fraud, s.lost_minor,
    epoch_us(s.reported) as reported_us,
    d.decision_id, epoch_us(d.event_time) as event_us, d.currency, d.action, d.arm, d.stand_in,
    coalesce(d.explored, false) as explored, d.in_time, d.probability, d.threshold
from shown_files d
join shown s
    on s.key = payment(d.product, d.transaction_id) and s.received_us = epoch_us(d.received)
where d.received between make_timestamptz($first_us) and make_timestamptz($last_us)
order by s.place;
