-- No label names its decision by its id alone.
create or replace temp table named as
select null::varchar as product, null::varchar as decision_id, null::varchar as transaction_id
where false;
