-- Files that were not counted yet, and those that were and are there no longer, or are others now.
create or replace temp table new_files as
select l.*
from listed l
anti join units u
    on u.name = l.name and u.path = l.path and u.stamp = l.stamp;
create or replace temp table gone_files as
select u.*
from units u
anti join listed l
    on u.name = l.name and u.path = l.path and u.stamp = l.stamp;
insert into units
select
    *,
    (select coalesce(max(unit), 0) from units)
        + row_number() over (order by name, path) as unit
from new_files;
