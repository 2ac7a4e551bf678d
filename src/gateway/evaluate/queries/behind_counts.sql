-- How many payments count for a figure, by what they are to it. Put in: which do, and what they are.
select {kind} as kind, count(*) as n
from seen
where day between $first and $last and {part} and {counts}
group by all
order by kind;
