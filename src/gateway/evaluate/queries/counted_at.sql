-- When it was counted last, and by what.
select digest, as_of_us from counted_at;
