-- Units that came to an arm for the first time since a day, by arm and day. `unit` is put in: what is
-- drawn, a customer or a payment. Who has no subject is no customer.
select arm, day, count(*) as n
from (
    select
        f.arm,
        min(date '1970-01-01' + ((f.pack >> 40) & 65535)::integer) as day
    from facts f
    join products p on p.number = f.pack >> 56
    where p.product = $product
        and (f.pack >> 40) & 65535 between $first and $last
        and f.customer <> case when '{unit}' = 'customer'
            then hash(null::varchar, null::varchar) else 0 end
    group by f.arm, f.{unit}
)
group by all;
