-- How long answers took, from arrival to reply, on some days of event time: by product and day, in
-- fortieths of a power of ten of microseconds. Each answer counts, that to a retry as well; what
-- never left has no time.
select
    d.product,
    d.event_time::date as day,
    floor(40 * log10(greatest(d.replied_us, 1)))::smallint as bin,
    d.stand_in <> 'none' as stood_in,
    d.replied_us > d.deadline_us as late,
    count(*) as n
from decisions d
where
    d.event_time >= $first
    and d.event_time < $last + interval 1 day
    and d.received <= $as_of
    and d.replied_us is not null
group by all;
