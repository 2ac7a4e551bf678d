-- How many times as many cells there are as when they were joined last.
select (select count(*) from cells) / max(cells) as times from counted_at;
