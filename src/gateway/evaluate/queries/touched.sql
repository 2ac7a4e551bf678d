-- Payments of which something else is known than was counted: decisions that came or are gone, labels
-- that came, labels that such a label supersedes or is superseded by or that supersede the same, and
-- payments of customers of whom something else is said. moved: their facts, old and new.
create or replace temp table touched as
with news as (
    select product, transaction_id, decision_id, source, source_event_id, supersedes
    from arrived_labels
    where received <= $as_of
    union all
    select product, transaction_id, decision_id, source, source_event_id, supersedes
    from labels
    where received > $before and received <= $as_of
),
links as (
    select source, source_event_id as event from news
    union
    select source, supersedes from news where supersedes is not null
),
told as (
    select product, transaction_id, decision_id from news
    union all
    select l.product, l.transaction_id, l.decision_id
    from labels l
    semi join links k on k.source = l.source and k.event = l.source_event_id
    union all
    select l.product, l.transaction_id, l.decision_id
    from labels l
    semi join links k on k.source = l.source and k.event = l.supersedes
)
select payment(t.product, coalesce(t.transaction_id, n.transaction_id)) as key
from told t
left join named n on n.product = t.product and n.decision_id = t.decision_id
union
select payment(d.product, d.transaction_id)
from arrived_decisions d
semi join named n on n.product = d.product and n.decision_id = d.decision_id
union
select key from facts where unit >= $first
union
select key from facts where unit in (select unit from gone_files where name = 'decisions')
union
select key from facts where received_us > epoch_us($before) and received_us <= epoch_us($as_of)
union
select f.key from facts f semi join members_changed m on m.customer = f.customer;
create or replace temp table moved as from facts semi join touched using (key);
