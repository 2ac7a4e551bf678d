-- What a text of members or of watched segments means, by product: a group of each attribute, and one
-- of each two. Who has no value of an attribute is in its group 'unknown'.
create or replace temp table memberships as
with single as (
    select
        c.product,
        t.members,
        c.attribute as name,
        coalesce(
            substr(
                list_filter(
                    string_split(t.members, chr(31)), lambda x: starts_with(x, c.attribute || '=')
                )[1],
                length(c.attribute) + 2
            ),
            'unknown'
        ) as value
    from compared c
    cross join (select members from members_now union select members from members union select null) t
)
select * from single
union all
select
    a.product,
    a.members,
    a.name || ' × ' || b.name as name,
    a.value || ' × ' || b.value as value
from single a
join single b
    on b.product = a.product and b.members is not distinct from a.members and b.name > a.name;
create or replace temp table segments as
select
    p.product,
    w.watch as members,
    split_part(w.segment, '=', 1) as name,
    substr(w.segment, length(split_part(w.segment, '=', 1)) + 2) as value
from (
    select distinct watch, unnest(string_split(watch, chr(31))) as segment
    from (select distinct watch from facts where watch is not null)
) w
cross join products p;
