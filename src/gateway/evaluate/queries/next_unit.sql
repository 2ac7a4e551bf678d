-- The number of the next file that comes.
select coalesce(max(unit), 0) + 1 as unit from units;
