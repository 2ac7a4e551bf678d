-- Payments of one product and of some days, with what is known of them, in the words that `cells.sql`
-- has: what a figure is made of, one by one. group_of: what is said of the customer.
create or replace temp view seen as
select
    f.*,
    day_of(f.pack) as day,
    class_of(f.pack) as class,
    band_of(f.pack) as band,
    action_of(f.pack) as action,
    stood_in(f.pack) as stood_in,
    is_explored(f.pack) as explored,
    is_reached(f.pack) as reached,
    was_in_time(f.pack) as in_time,
    was_late(f.pack) as late,
    went_through(f.pack, coalesce(e.code, 0)) as went_through,
    is_fraud(coalesce(e.code, 0)) as fraud,
    step_up_of(coalesce(e.code, 0)) as step_up,
    pays(coalesce(e.code, 0)) as liable,
    e.contact_us,
    case
        when is_fraud(coalesce(e.code, 0)) then coalesce(e.fraud_amount_minor, f.amount_minor)
    end as lost_minor,
    case when is_fraud(coalesce(e.code, 0)) then e.fraud_amount_minor end as reported_minor,
    e.kind as label,
    e.fraud_reported as reported,
    m.members
from everything f
left join evidence e on e.key = f.key
left join members m on m.customer = f.customer;
