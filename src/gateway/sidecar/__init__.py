"""The sidecar wing: what is made of the journal, in a process of its own.

    tail/       all workers' journals as batches, from where each consumer was
    traces/     every call a span, at a collector
    metrics/    every call counted, for Prometheus; rules for the promises
    lake/       every call a row, in Parquet files
    page        the last evaluation, decisions and traces, for a browser
    guard       who may ask for it: by a token, or from this machine
    presence    that a sidecar runs, and where
    wing        a thread a consumer, each at its own pace

Nothing here is imported by the serving wing, and nothing here imports it: they meet in `journal`.
"""
