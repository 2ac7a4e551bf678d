-- What labels of the payments that were touched are called, and what they supersede.
create or replace temp table links as
with ours as (
    select l.source, l.source_event_id, l.supersedes
    from labels l
    left join named n
        on l.transaction_id is null and n.product = l.product and n.decision_id = l.decision_id
    semi join touched t
        on t.key = payment(l.product, coalesce(l.transaction_id, n.transaction_id))
)
select source, source_event_id as event from ours
union
select source, supersedes from ours where supersedes is not null;
