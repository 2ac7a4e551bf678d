-- What counts of what was said of one payment.
select
    kind, coalesce(fraud, false) as fraud, fraud_amount_minor as lost_minor, liable, step_up,
    reversed, epoch_us(fraud_reported) as reported_us
from evidence
where transaction_id = $transaction;
