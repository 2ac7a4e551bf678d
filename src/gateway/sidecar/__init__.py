"""The sidecar wing: what is made of the journal, in a process of its own.

    call        a call with its reply and its shadow scores; batches of them    pure
    listing     which segments there are, each header read once
    follower    one boot's segments, read on step by step
    join        calls wait there for their replies and scores
    tail        all workers' journals, as batches
    checkpoint  how far each consumer is, on disk
    lag         what a consumer has not had yet, and which segments none needs any more
    verdict     what is remarkable about a call, and when its stages ended      pure
    attributes  pieces of OTLP messages as bytes                                pure
    spans       calls as OTLP spans                                             pure
    collector   where spans go, from OpenTelemetry's environment variables      pure
    otlp        sends them there, as often as it takes
    traces      from the tail to the collector, then the checkpoint
    buckets     histograms by key                                               pure
    metrics     calls -> what Prometheus is shown
    measures    from the tail to the metrics
    alerts      promises -> Prometheus rules                                    pure
    wing        a thread a consumer, each at its own pace

    request     recorded requests and responses, read no further than needed    pure
    snapshots   products as they were served, by a record's generation
    features    features as columns, and watched segments                       pure
    schema      the columns of the lake's tables, and of older ones with newer  pure
    columns     what the tables have in common                                  pure
    decisions   decisions as a table                                            pure
    asides      shed calls, gaps and what came late as tables                   pure
    rows        batches as the rows of files                                    pure
    ranges      which files count, and which are to be one                      pure
    parquet     files that are there whole or not at all
    lake        ranges of the journal as files: shipped, joined, erased
    shipping    from the tail to the lake, then the checkpoint

What never happens in the lake: a row that `files` shows twice, whatever was killed or shipped
again; a file that is half written under its name; a subject, but by its keyed pseudonym.

Nothing here is imported by the serving wing, and nothing here imports it: they meet in `journal`.
"""
