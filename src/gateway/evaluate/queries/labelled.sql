-- Payments of one product that went through by the model, of some days, with what came of them: where
-- probabilities are held to labels one by one. $share: of them, by what their key is, so that it is
-- the same ones each time.
select
    f.customer,
    f.p,
    f.amount_minor,
    f.arm,
    (f.pack >> 25) & 255 as class,
    coalesce(e.code, 0) & 8 > 0 as fraud
from facts f
join products p on p.number = f.pack >> 56
left join evidence e on e.key = f.key
where p.product = $product
    and (f.pack >> 40) & 65535 between epoch_us($first) // 86400000000 and epoch_us($last) // 86400000000
    and f.received_us <= epoch_us($as_of)
    and f.key < $share * 18446744073709551615.0
    and (f.pack >> 19) & 7 <> 3
    and (f.pack >> 18) & 1 = 0
    and f.p is not null
    and coalesce(e.code, 0) & 96 not in (64, 96)
    and not ((f.pack >> 19) & 7 = 2 and coalesce(e.code, 0) & 7 = 4);
