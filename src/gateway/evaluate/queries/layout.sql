-- How numbers hold what is told apart, in one place; `facts.sql` alone packs decisions itself.
--
-- pack, of a decision: product 56-63, day 40-55, bucket 33-39, class 25-32, band 22-24, action 19-21,
-- stood_in 18, explored 17, reached 16, in_time 14-15 (2: yes, 1: no), hour 7-11, bin 0-6.
-- code, of what is known of a payment: kind 0-2, fraud 3, reversed 4, step_up 5-6, the customer pays 7.
create or replace temp macro product_of(pack) as pack >> 56;
create or replace temp macro days_of(pack) as (pack >> 40) & 65535;
create or replace temp macro day_of(pack) as date '1970-01-01' + days_of(pack)::integer;
create or replace temp macro hour_of(pack) as (pack >> 7) & 31;
create or replace temp macro bucket_of(pack) as ((pack >> 33) & 127)::utinyint;
create or replace temp macro class_of(pack) as ((pack >> 25) & 255)::utinyint;
create or replace temp macro band_of(pack) as ((pack >> 22) & 7)::utinyint;
create or replace temp macro action_of(pack) as
    ['approve', 'step_up', 'review', 'decline'][((pack >> 19) & 7) + 1];
create or replace temp macro stood_in(pack) as (pack >> 18) & 1 = 1;
create or replace temp macro is_explored(pack) as (pack >> 17) & 1 = 1;
create or replace temp macro is_reached(pack) as (pack >> 16) & 1 = 1;
create or replace temp macro was_in_time(pack) as (pack >> 14) & 3 = 2;
create or replace temp macro was_late(pack) as (pack >> 14) & 3 = 1;
create or replace temp macro bin_of(pack) as ((pack & 127) - 43)::smallint;
create or replace temp macro has_bin(pack) as pack & 127 > 0;

create or replace temp macro kinds() as [
    'chargeback', 'customer_denied', 'customer_confirmed', 'analyst_fraud', 'analyst_genuine',
    'early_fraud_warning'
];
create or replace temp macro step_ups() as
    ['step_up_passed', 'step_up_failed', 'step_up_abandoned'];
create or replace temp macro code_of(kind, fraud, reversed, step_up, customer_pays) as
    coalesce(list_position(kinds(), kind), 0)
    + 8 * coalesce(fraud, false)::integer
    + 16 * reversed::integer
    + 32 * coalesce(list_position(step_ups(), step_up), 0)
    + 128 * coalesce(customer_pays, false)::integer;
create or replace temp macro kind_of(code) as kinds()[code & 7];
create or replace temp macro is_fraud(code) as code & 8 > 0;
create or replace temp macro is_reversed(code) as code & 16 > 0;
create or replace temp macro step_up_of(code) as step_ups()[(code >> 5) & 3];
create or replace temp macro pays(code) as case when code & 128 > 0 then 'customer' end;

-- Labels tell of a payment that was not declined, whose step-up did not fail and was not left, and
-- that no analyst stopped.
create or replace temp macro went_through(pack, code) as
    (pack >> 19) & 7 <> 3
    and code & 96 not in (64, 96)
    and not ((pack >> 19) & 7 = 2 and code & 7 = 4);
