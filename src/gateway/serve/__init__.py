"""The serving wing: one straight hall, on one thread, behind a gRPC front.

The supervisor's side, which knows no gRPC, no model and no NumPy:

    supervisor  keeps so many workers serving one address
    crew        how many workers, and what each has
    live        the processes of the workers
    backoff     when a worker that died is started again                              pure
    control     what supervisor and workers tell each other                           pure
    port        the address that they share
    address     where to listen, unless that would be open to others
    board       how each worker is doing, in a mapped file
    settings    what a worker serves, as a value and as JSON
    generations which generation of each product is served
    watch       has a folder changed, and has it come to rest?
    verification  what is asked of a process that verifies a change, and what it answers
    verifier    that process: read whole, number, try, gates, snapshot
    child       a worker as a process of its own
    beat        what a worker shows on the board between turns
    stop        how a worker is asked to end

A worker's side:

    worker      load, warm up, open the journal, listen, walk the hall until told to stop
    hall        admit ▶ lanes ▶ encode ▶ infer ▶ decide ▶ record ▶ reply, on one thread
    admit       a caller's bytes -> a payment that can be decided, or a refusal
    head        a request without its features: what a stand-in needs
    succession  new generations, opened beside the hall, served between two turns
    lane        what waits for one arm's model, and what that will cost               pure
    estimate    how long a step will take, before it is taken                         pure
    circuit     a model that fails again and again is left alone                      pure
    scoring     payments -> rows -> scores
    annex       heavy models, on threads beside the hall
    priority    how threads that must not be felt give way to the loop
    shadow      models that did not decide score afterwards
    inference   inference.GRPCInferenceService, on threads beside the hall
    offered     the models that it serves, by name
    tensors     its requests -> arrays, and outputs -> its responses                  pure
    answer      what one payment gets
    recorder    responses and records laid out, appended, then replied
    response    a decision -> DecideResponse bytes
    record      answers and refusals -> journal entries
    tally       what a worker has done, in plain counts
    health      grpc.health.v1, answered by the hall itself
    reflection  server reflection
    front       what a front is; `native` and `grpcio` are two of them
    logs        one line a second, whatever happens

It never imports the sidecar wing: they meet in the journal.

What is exported is what the command line needs to start a supervisor; it is loaded when it is asked
for, because the processes that the supervisor starts need none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.serve.front import Tls
    from gateway.serve.settings import Settings
    from gateway.serve.supervisor import Started, supervise

_PLACES = {
    "Settings": "settings",
    "Started": "supervisor",
    "Tls": "front",
    "supervise": "supervisor",
}

__all__ = ["Settings", "Started", "Tls", "supervise"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
