"""One worker: load, warm up, open the journal, listen, walk the hall until told to stop."""

from __future__ import annotations

import gc
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import UsageError
from gateway.journal import Generation as JournalledGeneration
from gateway.journal import Writer as Journal
from gateway.model import HEAVY_ROW_NS, Classifier, Generation, load_generation
from gateway.serve.address import checked_address
from gateway.serve.admit import Serving
from gateway.serve.annex import Annex
from gateway.serve.beat import Beat
from gateway.serve.board import Board
from gateway.serve.grpcio import GrpcioFront
from gateway.serve.hall import Hall
from gateway.serve.health import Health
from gateway.serve.native import NativeFront
from gateway.serve.reflection import SERVICES
from gateway.serve.settings import Settings
from gateway.serve.stop import Stop

__all__ = ["Ready", "Settings", "Stop", "load_all", "serve", "serve_loaded"]

LOADED_AT_ONCE = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What is served, and where."""

    address: str
    generations: tuple[Generation, ...]


def serve(
    settings: Settings,
    *,
    stop: Stop,
    announce: Callable[[Ready], None],
    board: Board | None = None,
    beat: Beat | None = None,
) -> None:
    """Serve until `stop` is asked. `announce` is called once, when calls are answered.

    A worker among others answers for them on health from the `board`, and shows there with
    each `beat` how it is doing itself.

    Raises:
        GatewayError: what keeps it from serving.
    """
    address = checked_address(
        settings.listen, tls=settings.tls is not None, insecure=settings.insecure
    )
    generations = load_all(settings.folders)
    if stop.asked:
        return
    measured_ns = {g.name: g.champion.warm_up(time.monotonic_ns) for g in generations}
    serve_loaded(
        settings,
        address,
        generations,
        stop=stop,
        announce=announce,
        measured_ns=measured_ns,
        board=board,
        beat=beat,
    )


def serve_loaded(
    settings: Settings,
    address: str,
    generations: tuple[Generation, ...],
    *,
    stop: Stop,
    announce: Callable[[Ready], None],
    measured_ns: Mapping[str, Mapping[int, int]] | None = None,
    board: Board | None = None,
    beat: Beat | None = None,
) -> None:
    """Open the journal, listen, and walk the hall until `stop` is asked."""
    served = {g.name: Serving.of(g, index) for index, g in enumerate(generations)}
    heavy = heavy_among(served, measured_ns or {})
    with Journal.open(
        settings.journal,
        worker=settings.worker,
        boot_id=uuid.uuid4().bytes,
        products=tuple(_journalled(serving) for serving in served.values()),
        mode=settings.mode,
        max_bytes=settings.journal_max_bytes,
    ) as journal:
        with _front(settings, address) as front, Annex(heavy, time.monotonic_ns) as annex:
            names = (*SERVICES, *(f"product/{name}" for name in served))
            health = Health(front, names, board)
            hall = Hall(
                front=front,
                journal=journal,
                served=served,
                health=health,
                measured_ns=measured_ns,
                annex=annex,
            )
            _spare_the_collector()
            health.serving()
            announce(Ready(front.address, generations))

            def stopping() -> bool:
                if stop.asked and health.is_serving:
                    health.stopping()
                if beat is not None and beat(hall.tally):
                    health.follow_workers()
                return stop.asked

            front.run(hall, stopping)
        # The last replies' times; the front may have answered while it closed.
        hall.idle()
        if beat is not None:
            beat.last(hall.tally)


def heavy_among(
    served: Mapping[str, Serving], measured_ns: Mapping[str, Mapping[int, int]]
) -> dict[int, Classifier]:
    """Return the models that take too long for the loop, by their product's index; say which."""
    heavy: dict[int, Classifier] = {}
    for name, serving in served.items():
        one_ns = measured_ns.get(name, {}).get(1, 0)
        if one_ns > HEAVY_ROW_NS:
            heavy[serving.index] = serving.generation.champion
            log.info(
                "%s: its model takes %.1f ms a row, so it runs on a thread of its own",
                name,
                one_ns / 1e6,
            )
    return heavy


def _spare_the_collector() -> None:
    """Keep the collector off what is loaded, and off the hot path, whose values form no cycles.

    The hall looks for cycles when it is idle. Under a load without an end they are looked for
    when there are really many values.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


def load_all(folders: tuple[Path, ...]) -> tuple[Generation, ...]:
    """Load every product.

    Raises:
        UsageError: no folders, or two of them hold the same product.
        GatewayError: what is wrong with one of them.
    """
    if not folders:
        raise UsageError("no product folder is named", hint="For example: models/card-not-present")
    # Each waits for a child process, which opens its model first.
    with ThreadPoolExecutor(LOADED_AT_ONCE) as threads:
        generations = tuple(threads.map(load_generation, folders))
    by_name: dict[str, Path] = {}
    for folder, generation in zip(folders, generations, strict=True):
        if generation.name in by_name:
            raise UsageError(
                f"product {generation.name!r} stands in {by_name[generation.name]} already",
                subject=str(folder),
                hint="Each product is served from one folder.",
            )
        by_name[generation.name] = folder
    return generations


def _front(settings: Settings, address: str) -> NativeFront | GrpcioFront:
    if settings.front == "grpcio":
        return GrpcioFront(address, tls=settings.tls, reuse_port=settings.reuse_port)
    if settings.tls is not None:
        raise UsageError("the native front has no TLS", hint="Add --front grpcio.")
    return NativeFront(address, reuse_port=settings.reuse_port)


def _journalled(serving: Serving) -> JournalledGeneration:
    generation = serving.generation
    return JournalledGeneration(
        index=serving.index,
        product=generation.name,
        generation=generation.product.generation,
        digest=generation.digest,
        arms=(generation.champion.name,),
    )
