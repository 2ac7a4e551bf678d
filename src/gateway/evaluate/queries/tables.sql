-- What is counted, and kept between two evaluations where there is a place to keep it.
--
-- units: the files that were counted. facts: what they say of decisions. evidence: what is known of
-- payments. notes: histograms of days. members: what is said of customers. cells, groups, bins: all of it added up.
create table if not exists counted_at (digest varchar, as_of_us bigint, cells bigint);
create table if not exists units (
    name varchar, path varchar, stamp varchar, unit bigint
);
create table if not exists facts (
    unit bigint, key ubigint, customer ubigint, pack bigint, arm varchar, watch varchar,
    amount_minor bigint, p double, propensity double, event_us bigint, received_us bigint
);
create table if not exists evidence (
    product varchar, transaction_id varchar, kind varchar, fraud boolean,
    fraud_amount_minor bigint, liable varchar, fraud_reported timestamptz, contacted timestamptz,
    step_up varchar, refunded boolean, reversed boolean, events bigint, key ubigint, code integer,
    fraud_day integer, contact_us bigint
);
create table if not exists members (customer ubigint, members varchar);
create table if not exists cells (
    product varchar, day date, bucket utinyint, arm varchar, class utinyint, band utinyint,
    action varchar, stood_in boolean, explored boolean, went_through boolean, reached boolean,
    kind varchar, fraud boolean, reversed boolean, step_up varchar, liable varchar,
    delay smallint, n double, amount_minor double, loss_minor double, p double,
    p_amount_minor double, in_time double, late double, contacted_in_time double, w double,
    w2 double, w_p double
);
create table if not exists groups (
    product varchar, kind varchar, name varchar, value varchar, day date, bucket utinyint,
    action varchar, stood_in boolean, explored boolean, went_through boolean, reached boolean,
    fraud boolean, step_up varchar, liable varchar, n double, amount_minor double,
    loss_minor double, p double, p_amount_minor double, in_time double, late double,
    contacted_in_time double, w double, w2 double, w_p double
);
create table if not exists notes (key varchar, value blob);
create table if not exists bins (
    product varchar, day date, bucket utinyint, bin smallint, n double, fraud double, p double
);
