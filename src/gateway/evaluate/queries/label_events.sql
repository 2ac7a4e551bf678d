-- All that was said of one payment, in its order; what was corrected or taken back too.
select distinct
    kind, epoch_us(reported_time) as reported_us, amount_minor, currency, liable,
    supersedes is not null as corrects
from heard
where transaction_id = $transaction
order by reported_us, kind;
