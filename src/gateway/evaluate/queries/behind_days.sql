-- Decisions of the days that a figure is of, by event time: what is left to read of their files.
create or replace temp view arrived_decisions as
select * from decisions where event_time >= timestamptz '{first}' and event_time < timestamptz '{end}';
