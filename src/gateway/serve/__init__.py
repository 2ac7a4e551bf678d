"""The serving wing: one straight hall, on one thread, behind a gRPC front.

    worker     load, warm up, open the journal, listen, walk the hall until told to stop
    hall       admit ▶ encode ▶ infer ▶ decide ▶ record ▶ reply, over whatever has arrived
    admit      a caller's bytes -> a payment that can be decided, or a refusal
    response   a decision -> DecideResponse bytes
    health     grpc.health.v1, answered by the hall itself
    front      what a front is; native and grpcio are two of them
    address    where to listen, unless that would be open to others

It never imports the sidecar wing: they meet in the journal.
"""

from gateway.serve.front import Tls
from gateway.serve.worker import Ready, Settings, Stop, serve, stop_on_signals

__all__ = ["Ready", "Settings", "Stop", "Tls", "serve", "stop_on_signals"]
