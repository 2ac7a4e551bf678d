"""The way in for what became of payments, and for the groups that subjects belong to.

    label       a label and a group attribute, as they are kept          pure
    admit       from a message to either, or every violation             pure
    store       on disk before it is acknowledged: SQLite, once by key
    intake      admit ▸ store ▸ answer, and counts for Prometheus
    together    requests that wait at the same time: one commit for all
    service     gateway.v1.FeedbackService over bytes; health, reflection
    server      where it listens, on a thread of its own
    tables      what is kept, as tables of the lake                      pure
    shipping    the consumer that fills `labels` and `attributes`
    decided     where a label's decision has its span
    spans       a label as a span with a link to its decision's          pure
    traces      the consumer that sends them
    sheet       a file's rows as events                                  pure
    file        the rows of a CSV or Parquet file, with their numbers

A group's value is in the store and the lake alone: no span, metric, log line or error has it.
"""
