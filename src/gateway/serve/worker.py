"""One worker: load, warm up, open the journal, listen, walk the hall until told to stop."""

from __future__ import annotations

import gc
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from gateway.errors import UsageError
from gateway.journal import Published
from gateway.journal import Writer as Journal
from gateway.model import Generation
from gateway.serve.crew.beat import Beat
from gateway.serve.crew.board import Board
from gateway.serve.crew.control import Load
from gateway.serve.crew.settings import Settings
from gateway.serve.crew.stop import Stop
from gateway.serve.fronts.address import checked_address
from gateway.serve.fronts.grpcio import GrpcioFront
from gateway.serve.fronts.native import NativeFront
from gateway.serve.fronts.reflection import SERVICES
from gateway.serve.hall.admit import Serving
from gateway.serve.hall.annex import Annex
from gateway.serve.hall.hall import Hall
from gateway.serve.hall.health import Health
from gateway.serve.hall.shadow import Shadows
from gateway.serve.inference.inference import Inference
from gateway.serve.succession.succession import (
    Measured,
    Succession,
    journalled,
    load,
    move_in,
    warmed_up,
)

__all__ = ["Ready", "Settings", "Stop", "serve", "serve_loaded"]

_KINDS = ("product", "generation")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What is served, and where."""

    address: str
    generations: tuple[Generation, ...]


def serve(
    settings: Settings,
    loads: Sequence[Load],
    *,
    stop: Stop,
    announce: Callable[[Ready], None],
    board: Board | None = None,
    beat: Beat | None = None,
    succession: Succession | None = None,
) -> None:
    """Serve verified generations until `stop` is asked. `announce` is called once, when calls are
    answered.

    A worker among others answers for them on health from the `board`, and shows there with
    each `beat` how it is doing itself. New generations come by the `succession`.

    Raises:
        GatewayError: what keeps it from serving.
    """
    address = checked_address(
        settings.listen, tls=settings.tls is not None, insecure=settings.insecure
    )
    loaded = [load(one) for one in loads]
    if stop.asked:
        return
    warm = ((generation, warmed_up(generation, time.monotonic_ns)) for generation in loaded)
    del loaded  # `warm` has it, and nothing any more when it is exhausted
    serve_loaded(
        settings,
        address,
        warm,
        stop=stop,
        announce=announce,
        board=board,
        beat=beat,
        succession=succession,
    )


def serve_loaded(
    settings: Settings,
    address: str,
    warm: Iterable[tuple[Generation, Measured]],
    *,
    stop: Stop,
    announce: Callable[[Ready], None],
    board: Board | None = None,
    beat: Beat | None = None,
    succession: Succession | None = None,
) -> None:
    """Open the journal, listen, and walk the hall until `stop` is asked.

    `warm`: each generation, with what its models took to warm up. It is gone through once and let
    go of, as are they: where it is an iterator, only the hall holds what others may replace.
    """
    succession = succession or Succession(count())
    generations: list[Generation] = []
    measured_ns: dict[str, Mapping[int, int]] = {}
    for generation, its_measured_ns in warm:
        generations.append(generation)
        measured_ns |= its_measured_ns
    del warm, generation
    served = {g.name: Serving.of(g, succession.next_index()) for g in generations}
    with Journal.open(
        settings.journal,
        worker=settings.worker,
        boot_id=uuid.uuid4().bytes,
        products=tuple(map(journalled, served.values())),
        mode=settings.mode,
        max_bytes=settings.journal_max_bytes,
        shipped=Published(settings.journal),
    ) as journal:
        with (
            Shadows() as shadows,  # they end last: nobody may wait for them
            _front(settings, address) as front,
            Annex(time.monotonic_ns) as annex,
            Inference(front) as inference,
        ):
            for serving in served.values():
                move_in(annex, serving, measured_ns)
            names = (*SERVICES, *(f"{kind}/{name}" for name in served for kind in _KINDS))
            health = Health(front, names, board)
            hall = Hall(
                front=front,
                journal=journal,
                served=served,
                health=health,
                measured_ns=measured_ns,
                annex=annex,
                shadows=shadows,
                inference=inference,
            )
            _spare_the_collector()
            health.serving()
            announce(Ready(front.address, tuple(generations)))
            del generations, served, serving

            def stopping() -> bool:
                if stop.asked and health.is_serving:
                    health.stopping()
                if not stop.asked:  # it may have been told to end because it was late
                    succession(hall, annex)
                if beat is not None and beat(hall.tally):
                    health.follow_workers()
                return stop.asked

            front.run(hall, stopping)
        # The last replies' times; the front may have answered while it closed.
        hall.idle()
        if beat is not None:
            beat.last(hall.tally)


def _spare_the_collector() -> None:
    """Keep the collector off what is loaded, and off the hot path, whose values form no cycles.

    The hall looks for cycles when it is idle. Under a load without an end they are looked for
    when there are really many values.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


def _front(settings: Settings, address: str) -> NativeFront | GrpcioFront:
    if settings.front == "grpcio":
        return GrpcioFront(address, tls=settings.tls, reuse_port=settings.reuse_port)
    if settings.tls is not None:
        raise UsageError("the native front has no TLS", hint="Add --front grpcio.")
    return NativeFront(address, reuse_port=settings.reuse_port)
