-- How numbers hold what is told apart, in one place; `facts.sql` alone packs decisions itself. Each
-- engine knows this from its opening on.
--
-- pack, of a decision: product 56-63, day 40-55, bucket 33-39, class 25-32, band 22-24, action 19-21,
-- stood_in 18, explored 17, reached 16, in_time 14-15 (2: yes, 1: no), hour 7-11, bin 0-6.
-- code, of what is known of a payment: kind 0-2, fraud 3, reversed 4, step_up 5-6, the customer pays 7.
--
-- drawn_by: of a number, one below 2^31 that looks like chance, the same in every engine.
create or replace temp macro spread(x) as (((x & 2147483647) * 2654435769) >> 15) & 2147483647;
create or replace temp macro squared(x) as ((x * x) >> 16) & 2147483647;
create or replace temp macro drawn_by(number) as
    ((squared(spread(number)) * 2246822519) >> 15) & 2147483647;

-- payment: 64 bits that stand for a transaction. DuckDB's hash alone gives the same to ids that differ
-- in certain places, 4 % of one caller's: written with a character before, they differ.
create or replace temp macro payment(product, id) as hash(product, id, '~' || id);

create or replace temp macro product_of(pack) as pack >> 56;
create or replace temp macro days_of(pack) as (pack >> 40) & 65535;
create or replace temp macro day_of(pack) as date '1970-01-01' + days_of(pack)::integer;
create or replace temp macro hour_of(pack) as (pack >> 7) & 31;
create or replace temp macro bucket_of(pack) as ((pack >> 33) & 127)::utinyint;
create or replace temp macro class_of(pack) as ((pack >> 25) & 255)::utinyint;
create or replace temp macro band_of(pack) as ((pack >> 22) & 7)::utinyint;
create or replace temp macro action_of(pack) as case (pack >> 19) & 7
    when 0 then 'approve' when 1 then 'step_up' when 2 then 'review' when 3 then 'decline'
end;
create or replace temp macro stood_in(pack) as (pack >> 18) & 1 = 1;
create or replace temp macro is_explored(pack) as (pack >> 17) & 1 = 1;
create or replace temp macro is_reached(pack) as (pack >> 16) & 1 = 1;
create or replace temp macro was_in_time(pack) as (pack >> 14) & 3 = 2;
create or replace temp macro was_late(pack) as (pack >> 14) & 3 = 1;
create or replace temp macro bin_of(pack) as ((pack & 127) - 43)::smallint;
create or replace temp macro has_bin(pack) as pack & 127 > 0;

create or replace temp macro code_of(kind, fraud, reversed, step_up, customer_pays) as
    case kind
        when 'chargeback' then 1 when 'customer_denied' then 2 when 'customer_confirmed' then 3
        when 'analyst_fraud' then 4 when 'analyst_genuine' then 5 when 'early_fraud_warning' then 6
        else 0
    end
    + 8 * coalesce(fraud, false)::integer
    + 16 * reversed::integer
    + 32 * case step_up
        when 'step_up_passed' then 1 when 'step_up_failed' then 2 when 'step_up_abandoned' then 3
        else 0
    end
    + 128 * coalesce(customer_pays, false)::integer;
create or replace temp macro kind_of(code) as case code & 7
    when 1 then 'chargeback' when 2 then 'customer_denied' when 3 then 'customer_confirmed'
    when 4 then 'analyst_fraud' when 5 then 'analyst_genuine' when 6 then 'early_fraud_warning'
end;
create or replace temp macro is_fraud(code) as code & 8 > 0;
create or replace temp macro is_reversed(code) as code & 16 > 0;
create or replace temp macro step_up_of(code) as case (code >> 5) & 3
    when 1 then 'step_up_passed' when 2 then 'step_up_failed' when 3 then 'step_up_abandoned'
end;
create or replace temp macro pays(code) as case when code & 128 > 0 then 'customer' end;

-- Labels tell of a payment that was not declined, whose step-up did not fail and was not left, and
-- that no analyst stopped.
create or replace temp macro went_through(pack, code) as
    (pack >> 19) & 7 <> 3
    and code & 96 not in (64, 96)
    and not ((pack >> 19) & 7 = 2 and code & 7 = 4);
