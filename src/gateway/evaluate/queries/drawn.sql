-- Units that came to an arm for the first time since a day, by arm and day. `unit` is put in: what is
-- drawn, a customer or a payment. Who has no subject is no customer.
select arm, day, count(*) as n
from (
    select
        f.arm,
        min(day_of(f.pack)) as day
    from facts f
    join products p on p.number = product_of(f.pack)
    where p.product = $product
        and days_of(f.pack) between $first and $last
        and f.{unit} is not null
    group by f.arm, f.{unit}
)
group by all;
