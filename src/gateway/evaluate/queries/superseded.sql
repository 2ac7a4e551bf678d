-- Answers that do not count: of several to one transaction only the last that was in time does,
-- or the last where none was. A retry has the same action from the same generation; a stand-in
-- may differ. Retries are rare, so the ids alone are looked at first.
create or replace temp table superseded as
with again as (
    select product, hash(transaction_id) as name
    from decisions
    where received <= $as_of
    group by all
    having count(*) > 1
),
ranked as (
    select
        d.decision_id,
        row_number() over (
            partition by d.product, d.transaction_id
            order by coalesce(d.in_time, false) desc, d.received desc, d.decision_id desc
        ) as place
    from decisions d
    semi join again a on a.product = d.product and a.name = hash(d.transaction_id)
    where d.received <= $as_of
)
select decision_id from ranked where place > 1;
