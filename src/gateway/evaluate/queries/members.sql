-- What is said of customers, as it is counted.
create or replace table members as select * from members_now;
