-- The 30 most frequent texts of each field, the most frequent first.
select field, text as value
from (select field, text, count(*) as n from drift_told where text is not null group by all)
qualify row_number() over (partition by field order by n desc, text) <= 30
order by field, n desc, text;
