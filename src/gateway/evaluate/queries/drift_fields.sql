-- The fields of a struct of decisions and their types, over all products. `struct`: its name.
select column_name as name, column_type as kind
from (describe select unnest({struct}) from decisions);
