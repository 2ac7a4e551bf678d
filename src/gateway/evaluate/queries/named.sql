-- The transactions of labels that name their decision by its id alone.
create or replace temp table named as
select d.product, d.decision_id, any_value(d.transaction_id) as transaction_id
from decisions d
semi join labels l
    on l.transaction_id is null and l.product = d.product and l.decision_id = d.decision_id
group by all;
