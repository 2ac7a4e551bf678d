"""The sidecar wing: what is made of the journal, in a process of its own.

    call        a call with its reply and its shadow scores; batches of them    pure
    listing     which segments there are, each header read once
    follower    one boot's segments, read on step by step
    join        calls wait there for their replies and scores
    tail        all workers' journals, as batches
    checkpoint  how far each consumer is, on disk
    lag         what a consumer has not had yet, and which segments none needs any more

Nothing here is imported by the serving wing, and nothing here imports it: they meet in `journal`.
"""
