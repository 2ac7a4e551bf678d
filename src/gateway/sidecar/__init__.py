"""The sidecar wing: what is made of the journal, in a process of its own.

    call    a call with its reply and its shadow scores; batches of them    pure

Nothing here is imported by the serving wing, and nothing here imports it: they meet in `journal`.
"""
