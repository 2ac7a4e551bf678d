-- Those to show: first what counts against the figure, in its own order, then the latest. A fraud whose
-- label says no amount is ordered by the payment's, which is not shown.
create or replace temp table shown as
select
    row_number() over () as place, unit, key, received_us, kind, label, fraud, reported_minor as lost_minor,
    reported
from (
    select *, {kind} as kind, {weight} as weight
    from seen
    where day between $first and $last and {part} and {counts}
    order by kind, weight desc nulls last, received_us desc, key
    limit $limit
);
