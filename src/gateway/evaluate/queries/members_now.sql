-- What attributes say of each subject: of each attribute that is compared the value that was reported
-- last, of all that had come by then. As one text, since subjects are many and texts are few.
create or replace temp table members_now as
with newest as (
    select
        subject,
        attribute,
        max_by(value, struct_pack(a := reported_time, b := source, c := value)) as value
    from attributes
    where received <= $as_of and attribute in (select attribute from compared)
    group by all
)
select
    hash(subject, '~' || subject) as customer,
    string_agg(attribute || '=' || value, chr(31) order by attribute) as members
from newest
group by subject;
