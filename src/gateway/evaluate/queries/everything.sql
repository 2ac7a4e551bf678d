-- All that counts, where nothing was counted before.
create or replace temp view everything as
select * from facts f anti join again a on a.key = f.key where received_us <= {as_of_us}
union all
select * from retried;
