-- Payments of one product that went through by the model, of some days, with what came of them: where
-- probabilities are held to labels one by one. $share: of them, by when they came and their amount, so
-- that it is the same ones each time, whatever engine is asked.
select
    f.received_us,
    f.pack,
    f.customer,
    f.p,
    f.amount_minor,
    class_of(f.pack) as class,
    is_fraud(coalesce(e.code, 0)) as fraud
from facts f
join products p on p.number = product_of(f.pack)
left join evidence e on e.key = f.key
where p.product = $product
    and day_of(f.pack) between $first and $last
    and f.received_us <= epoch_us($as_of)
    and drawn_by(f.received_us + 7919 * f.amount_minor) < $share * 2147483648.0
    and f.p is not null
    and not stood_in(f.pack)
    and went_through(f.pack, coalesce(e.code, 0));
