-- In which files those stand, by their place, and when they came.
select unit, min(received_us) as first_us, max(received_us) as last_us from shown group by unit;
