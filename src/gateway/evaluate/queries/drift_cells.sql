-- Histograms, as sums: of each field by hour of event time, and by day and group of customers. Hours
-- because any window is made of whole ones, and what is compared is the same hour of the week; days
-- suffice to learn how much alike the decisions of one customer are.
--
-- place: the bin from 0, -1 where the value was not given. Of numbers: how many of the field's edges
-- lie below (edges that it does not have are infinite). Of log-odds: themselves, in halves, from
-- -42 on. Of texts: their place among the frequent ones, then 30.
select hour, hour // 24 as day, "group", field, place, count(*) as n
from (
    select
        t.hour,
        t."group",
        t.field,
        case
            when coalesce(t.number::varchar, t.text) is null or isnan(t.number) then -1
            when f.kind = 'log_odds' then greatest(t.number, -42) + 42
            when f.kind = 'number'
                then (t.number > f.e0)::utinyint + (t.number > f.e1)::utinyint
                    + (t.number > f.e2)::utinyint + (t.number > f.e3)::utinyint
                    + (t.number > f.e4)::utinyint + (t.number > f.e5)::utinyint
                    + (t.number > f.e6)::utinyint + (t.number > f.e7)::utinyint
                    + (t.number > f.e8)::utinyint
            else coalesce(v.place, 30)
        end::smallint as place
    from drift_told t
    join drift_binning f on f.field = t.field
    left join drift_frequent v on v.field = t.field and v.value = t.text
)
group by grouping sets ((hour, field, place), (hour // 24, "group", field, place));
