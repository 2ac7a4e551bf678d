-- The columns of decisions in this lake: features and watch are there only where a product has them.
select column_name as name, column_type as kind from (describe decisions);
