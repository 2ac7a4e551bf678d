-- Cells that were added and taken away, added up: once in a while.
create or replace table {cells} as
select
    * exclude (
        n, amount_minor, loss_minor, p, p_amount_minor, in_time, late, contacted_in_time, w, w2, w_p
    ),
    sum(n) as n, sum(amount_minor) as amount_minor, sum(loss_minor) as loss_minor, sum(p) as p,
    sum(p_amount_minor) as p_amount_minor, sum(in_time) as in_time, sum(late) as late,
    sum(contacted_in_time) as contacted_in_time, sum(w) as w, sum(w2) as w2, sum(w_p) as w_p
from {cells}
group by all
having sum(n) > 0;
update counted_at set cells = null;
