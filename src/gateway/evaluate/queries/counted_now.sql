-- It is counted. cells: how many there were when they were joined last.
create or replace table counted_at as
select
    $digest::varchar as digest,
    epoch_us($as_of) as as_of_us,
    coalesce((select max(cells) from counted_at), (select count(*) from cells)) as cells;
