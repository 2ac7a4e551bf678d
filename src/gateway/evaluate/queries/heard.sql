-- Labels that had come by then, with the transaction that they are of. Put in: nothing, or which labels
-- tell of the payments that were touched.
create or replace temp table heard as
select
    l.product,
    coalesce(l.transaction_id, n.transaction_id) as transaction_id,
    l.* exclude (product, transaction_id)
from labels l
left join named n
    on l.transaction_id is null and n.product = l.product and n.decision_id = l.decision_id
where l.received <= $as_of {only};
