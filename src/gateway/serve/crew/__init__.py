"""The workers as processes: how many, how they are, what they are told and how they end.

The supervisor's side, which knows no gRPC, no model and no NumPy:

    crew        how many workers, and what each has
    live        the processes of the workers
    companion   a process that is kept beside them, such as the sidecar
    backoff     when a worker that died is started again                              pure
    port        the address that they share

What supervisor and worker share:

    settings    what a worker serves, as a value and as JSON
    control     what supervisor and workers tell each other                           pure
    board       how each worker is doing, in a mapped file
    tally       what a worker has done, in plain counts

A worker's side:

    beat        what a worker shows on the board between turns
    stop        how a worker is asked to end
    priority    how threads that must not be felt give way to the loop
    logs        one line a second, whatever happens
"""
