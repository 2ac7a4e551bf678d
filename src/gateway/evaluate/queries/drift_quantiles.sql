-- What a field's bins are made of: whether it has values at all, and nine quantiles of its numbers.
select
    field,
    count(*) as n,
    count(coalesce(number::varchar, text)) as given,
    quantile_disc(number, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
        filter (not isnan(number)) as quantiles
from drift_told
group by field
order by field;
