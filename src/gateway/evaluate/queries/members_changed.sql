-- Customers of whom something else is said than was counted.
create or replace temp table members_changed as
select coalesce(b.customer, n.customer) as customer
from members b
full join members_now n on n.customer = b.customer
where b.members is distinct from n.members;
