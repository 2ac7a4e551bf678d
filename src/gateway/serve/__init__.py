"""The serving wing: one straight hall, on one thread, behind a gRPC front.

Its processes, one file each, and the only ones here that put the rooms together:

    supervisor  keeps so many workers serving one address; knows no gRPC, no model and no NumPy
    child       a worker as a process of its own: started, ordered, ended
    worker      load, warm up, open the journal, listen, walk the hall until told to stop

(A fourth, `succession.verifier`, reads a changed folder and ends.) Its rooms:

    fronts      the gRPC transport: `native`, `grpcio`, reflection
    hall        from a caller's bytes to the reply: admit, wait, score, decide, record
    inference   the Open Inference Protocol, beside the hall
    succession  a changed folder is verified, and takes over without a restart
    crew        workers as processes: count, start, port, board, orders, end

Each room's `__init__` is its map; which room may know which stands in `tests/test_arrows.py`.

The wing never imports the sidecar wing: they meet in the journal.

What is exported is what the command line needs to start a supervisor; it is loaded when it is asked
for, because the processes that the supervisor starts need none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.serve.crew.companion import Companion
    from gateway.serve.crew.settings import Settings
    from gateway.serve.fronts.front import Tls
    from gateway.serve.supervisor import Started, supervise

_PLACES = {
    "Companion": "crew.companion",
    "Settings": "crew.settings",
    "Started": "supervisor",
    "Tls": "fronts.front",
    "supervise": "supervisor",
}

__all__ = ["Companion", "Settings", "Started", "Tls", "supervise"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
