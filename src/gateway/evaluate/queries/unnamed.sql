-- Whether a label names its decision by its id alone.
select count(*) as n from labels where transaction_id is null;
