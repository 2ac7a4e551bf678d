"""The sidecar wing: what is made of the journal, in a process of its own.

    call      a call with its reply and its shadow scores; batches of them    pure
    buckets   histograms by key                                               pure
    metrics   calls -> what Prometheus is shown
    alerts    promises -> Prometheus rules                                    pure

Nothing here is imported by the serving wing, and nothing here imports it: they meet in `journal`.
"""
