-- How many payments there are, by what is known of them, day by day.
select
    product,
    day,
    went_through,
    kind is not null as is_known,
    reversed,
    sum(n) as n
from cells
group by all
having sum(n) <> 0;
