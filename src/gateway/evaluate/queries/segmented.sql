-- How many segments of payments there are.
select count(*) as n from segments;
