-- A sample of one product's decisions on some days, a row a value: which field it is of, and the
-- value, as a number or as a text; null where it was not given. A request that was kept without its
-- features says nothing of them, which is no null.
--
-- {struct_fields}: what is read of watch and features, a list of structs as below. $share: of
-- decisions, by a number that is made of their sequence, so that a day has the same sample each time.
-- group: a customer is in one of 16, the same every day. Days are of event time, UTC.
create or replace temp table drift_told as
select t.hour, t."group", t.told.field as field, t.told.number as number, t.told.text as text
from (
    select
        epoch_us(d.event_time) // 3600000000 as hour,
        greatest(
            instr('0123456789abcdef', left(coalesce(d.subject, right(d.decision_id, 1)), 1)) - 1, 0
        )::utinyint as "group",
        unnest(
            [
                {'field': 0::usmallint, 'number': null::double, 'text': d.action},
                -- A probability that is null has no log-odds: greatest() would look past it.
                {'field': 1::usmallint, 'number': case when d.probability is not null then floor(
                    2 * ln(greatest(d.probability, 1e-9) / greatest(1 - d.probability, 1e-9))
                )::double end, 'text': null::varchar},
                {'field': 2::usmallint, 'number': null::double, 'text': d.category},
                {'field': 3::usmallint, 'number': null::double, 'text': d.channel}
            ] || {struct_fields}
        ) as told
    from decisions d
    where
        d.product = $product
        and d.received <= $as_of
        and d.event_time >= $begin
        and d.event_time < $end
        and drawn_by(d.sequence) < $share * 2147483648.0
) t;
