-- Of several answers to one transaction the last that was in time counts, or the last where none was.
-- A retry has the same action from the same generation; a stand-in may differ. `name`: what to call
-- them, `facts`: of which facts.
create or replace temp table {name} as
select * exclude (place)
from (
    select
        *,
        row_number() over (
            partition by key
            order by was_in_time(pack) desc, received_us desc, pack desc, p desc
        ) as place
    from {facts}
    where received_us <= epoch_us($as_of)
)
where place = 1;
