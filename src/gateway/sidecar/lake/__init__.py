"""From batches to Parquet files that anyone may read while they grow.

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
    compaction  when small files are joined
    products    what each product said, by generation
    pseudonyms  which keys subjects go by
    several     lakes of several hosts as one
    hypotheses  what was started, and what came of it
    shipping    from the tail to the lake, then the checkpoint

What never happens: a row that `files` shows twice, whatever was killed or shipped again; a file
that is half written under its name; a subject, but by its keyed pseudonym.
"""

from gateway.sidecar.lake.lake import Lake

__all__ = ["Lake"]
