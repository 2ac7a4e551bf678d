"""The serving wing: one straight hall, on one thread, behind a gRPC front.

    supervisor keeps so many workers serving one address
    crew       how many workers, and what each has
    live       the processes of the workers
    port       the address that they share
    child      a worker as a process of its own
    board      how each worker is doing, in a mapped file
    worker     load, warm up, open the journal, listen, walk the hall until told to stop
    hall       admit ▶ encode ▶ infer ▶ decide ▶ record ▶ reply, over whatever has arrived
    admit      a caller's bytes -> a payment that can be decided, or a refusal
    response   a decision -> DecideResponse bytes
    health     grpc.health.v1, answered by the hall itself
    front      what a front is; native and grpcio are two of them
    address    where to listen, unless that would be open to others

It never imports the sidecar wing: they meet in the journal.

What is exported is what the supervisor needs: it knows no gRPC, no model and no NumPy.
"""

from gateway.serve.front import Tls
from gateway.serve.settings import Settings
from gateway.serve.supervisor import Started, supervise

__all__ = ["Settings", "Started", "Tls", "supervise"]
