"""Which generation of each product is served: the supervisor's part in a change of a folder.

A folder that has changed and come to rest is verified by a process of its own. What passes goes to
one worker, and when that serves it, to the others; what does not leaves everything as it is, and
`state.json` says why. Nothing is tried twice that has not changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError, ModelError, ProductError, UsageError
from gateway.journal import Rejected
from gateway.model.registry import (
    STORE,
    GateVerdict,
    Past,
    Refused,
    Registry,
    Served,
    ServedArm,
    State,
)
from gateway.serve.crew.control import Load
from gateway.serve.succession import verification
from gateway.serve.succession.verification import (
    Answer,
    Moving,
    Question,
    Unchanged,
    Verified,
    known_numbers,
    verify,
)
from gateway.serve.succession.watch import LOOK_S, Signature, Watch, signature

AT_ONCE = 2
TRIALS_MAX = 64
"""Of model files, what child processes learned of so many is kept: each verification is told."""

_MOVING_TRIES, _MOVING_S = 10, 0.3

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Product:
    """One folder, what is served of it, and what `state.json` says.

    Who holds `looking` looks at it.
    """

    load: Load
    state: State
    watch: Watch
    rejected: Rejected | None = None
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Generations:
    """The products of one gateway.

    `spread` lets the workers serve a generation, and returns why they do not; `tell` lets them say
    in the journal and on health that a change is refused.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        journal: Path,
        *,
        spread: Callable[[Load], Awaitable[GatewayError | None]],
        tell: Callable[[Rejected], None],
        verify: Callable[[Question], Awaitable[Answer]] = verify,
        wall_ns: Callable[[], int] = time.time_ns,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = folders
        self._registry = Registry(journal / STORE)
        self._spread = spread
        self._tell = tell
        self._verify = verify
        self._wall_ns = wall_ns
        self._clock_s = clock_s
        self._products: dict[str, _Product] = {}
        self._trials: dict[str, Any] = {}
        self._verifying = asyncio.Semaphore(AT_ONCE)

    @property
    def loads(self) -> tuple[Load, ...]:
        """What is served now, in the order of the folders."""
        return tuple(product.load for product in self._products.values())

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """The changes that are refused now."""
        return tuple(one.rejected for one in self._products.values() if one.rejected is not None)

    async def begin(self) -> None:
        """Verify every folder. One that is not to be served any more stays as it was last served.

        Raises:
            UsageError: two folders hold the same product.
            GatewayError: what is wrong with a folder that was never served.
        """
        found = await asyncio.gather(*map(self._begun, self._folders), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        for folder, product in zip(self._folders, found, strict=True):
            assert isinstance(product, _Product)
            name = product.load.product
            if name in self._products:
                raise UsageError(
                    f"product {name!r} stands in {self._products[name].watch.folder} already",
                    subject=str(folder),
                    hint="Each product is served from one folder.",
                )
            self._products[name] = product
        for product in self._products.values():
            self._write(product)

    async def keep(self, stopping: asyncio.Event) -> None:
        """Look at the folders until `stopping`, at each by itself: none waits for another."""
        kept = (self._keep(product, stopping) for product in self._products.values())
        await asyncio.gather(*kept)

    async def _keep(self, product: _Product, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self._glance(product)
            except Exception:
                # What is served goes on; the next look may fare better.
                log.exception("a look at the folders failed")
            try:
                await asyncio.wait_for(stopping.wait(), LOOK_S)
            except TimeoutError:
                continue

    async def reload(self) -> None:
        """Look at every folder now, changed or not."""
        asked_ns = self._wall_ns()

        async def looked(product: _Product) -> None:
            await self._look(product, await asyncio.to_thread(signature, product.watch.folder))
            product.state = product.state.looked(asked_ns)
            self._write(product)

        await asyncio.gather(*map(looked, self._products.values()))

    async def _glance(self, product: _Product) -> None:
        # In a thread: a network file system may take its time.
        settled = await asyncio.to_thread(product.watch.settled)
        if settled is not None:
            await self._look(product, settled)

    async def _begun(self, folder: Path) -> _Product:
        state = self._registry.by_folder(folder)
        watch = Watch(folder, clock_s=self._clock_s)
        looks = await asyncio.to_thread(signature, folder)
        answer = await self._asked(folder, state, is_new=True)
        watch.tried(looks)
        if isinstance(answer, Verified):
            return _Product(answer.load, self._served(answer, folder, state), watch)
        assert isinstance(answer, verification.Refused)
        if state is None:
            raise answer.error
        # It was served before: a restart is no reason to be down.
        try:
            before = self._registry.path(state.product, state.serving.snapshot)
        except GatewayError:
            raise answer.error from None  # what can be mended is the folder
        again = await self._asked(before, state, is_new=True, is_snapshot=True)
        if not isinstance(again, Verified):
            raise answer.error
        product = _Product(again.load, state, watch)
        if answer.digest == again.load.digest:
            # It is what is served: a gate measures time, and so much starts now.
            log.warning(
                "%s: it would not be taken today, and is served on:\n  %s",
                product.load.product,
                "\n  ".join(_lines(answer.error)),
            )
            product.state = state.refusing(None)
        else:
            self._refuse(product, answer)
        return product

    async def _look(self, product: _Product, looks: Signature) -> None:
        async with product.looking:
            product.watch.tried(looks)
            before = product.load
            answer = await self._asked(product.watch.folder, product.state, is_new=False)
            if isinstance(answer, Verified):
                answer = await self._taken(product, answer)
            if isinstance(answer, Moving):
                product.watch.tried(None)
            elif isinstance(answer, verification.Refused):
                self._refuse(product, answer)
            elif product.rejected is not None:
                # The folder holds again what is served, or something newer that is.
                if product.load is before:
                    log.info(
                        "%s: its folder holds again what is served, generation %d",
                        product.load.product,
                        product.load.number,
                    )
                self._tell(replace(product.rejected, why=()))
                product.rejected, product.state = None, product.state.refusing(None)
            self._write(product)

    async def _taken(self, product: _Product, answer: Verified) -> Unchanged | verification.Refused:
        """Let the workers serve it, and keep it as what is served."""
        load = answer.load
        # Before the first worker serves it: were all killed now, its number would be taken.
        spreading = Past(load.number, load.digest, self._wall_ns(), Path(load.snapshot).name)
        product.state = product.state.trying(spreading)
        self._write(product)
        error = await self._spread(load)
        if error is not None:
            if isinstance(error, ModelError):  # a worker could not open it: it served no call
                product.state = product.state.trying(None)
            return verification.Refused(error, load.number, load.digest, answer.gates)
        log.info(
            "%s: generation %d is served (it was %d)",
            load.product,
            load.number,
            product.load.number,
        )
        product.load = load
        product.state = self._served(answer, product.watch.folder, product.state)
        return Unchanged()

    async def _asked(
        self, folder: Path, state: State | None, *, is_new: bool, is_snapshot: bool = False
    ) -> Answer:
        """Have a folder verified, again while it moves."""
        numbers, forgotten = known_numbers(state)
        question = Question(
            folder=str(folder),
            store=str(self._registry.root),
            product="" if state is None else state.product,
            serving="" if is_new or state is None else state.serving.digest,
            number=0 if state is None else state.serving.generation,
            numbers=numbers,
            is_new=is_new,
            is_snapshot=is_snapshot,
            trials=self._trials,
            forgotten=forgotten,
        )
        answer: Answer = Moving()
        for _ in range(_MOVING_TRIES):
            try:
                async with self._verifying:
                    answer = await self._verify(question)
            except GatewayError as error:
                return verification.Refused(error, 0, "", [])
            if not isinstance(answer, Moving):
                break
            await asyncio.sleep(_MOVING_S)
        if isinstance(answer, Verified):
            learned = {**self._trials, **answer.trials}
            self._trials = dict(list(learned.items())[-TRIALS_MAX:])
        elif isinstance(answer, Moving) and is_new:
            restless = UsageError("its files change all the time", subject=str(folder))
            return verification.Refused(restless, 0, "", [])
        return answer

    def _served(self, answer: Verified, folder: Path, state: State | None) -> State:
        load, since_ns = answer.load, self._wall_ns()
        if state is None or state.product != load.product:
            # It may have been served from another folder.
            state = self._registry.state(load.product)
            if state is not None:
                state = replace(state, folder=os.path.abspath(folder))
        if state is not None and state.serving.digest == load.digest:
            since_ns = state.serving.since_ns
        served = Served(
            load.number,
            load.digest,
            since_ns,
            Path(load.snapshot).name,
            tuple(ServedArm(**arm) for arm in answer.arms),
            tuple(GateVerdict(**gate) for gate in answer.gates),
        )
        if state is None:
            return State(load.product, os.path.abspath(folder), served, None, (served.past,))
        if state.serving.digest == load.digest:
            return replace(state, serving=served, refused=None)
        return state.taking(served)

    def _refuse(self, product: _Product, answer: verification.Refused) -> None:
        lines = _lines(answer.error)
        log.error(
            "%s: what its folder holds now is refused, generation %d is served on:\n  %s",
            product.load.product,
            product.load.number,
            "\n  ".join(lines),
        )
        refused = Refused(
            answer.number or None,
            answer.digest or None,
            self._wall_ns(),
            lines,
            tuple(GateVerdict(**gate) for gate in answer.gates),
        )
        product.state = product.state.refusing(refused)
        product.rejected = Rejected(
            product.load.product,
            str(product.watch.folder),
            answer.number,
            answer.digest,
            lines,
        )
        self._tell(product.rejected)

    def _write(self, product: _Product) -> None:
        try:
            self._registry.write(product.state)
            self._registry.prune(product.load.product)
        except GatewayError as error:
            log.error("%s. %s", error, error.hint)


def _lines(error: GatewayError) -> tuple[str, ...]:
    """Say an error in lines, each violation and the hint on its own."""
    if isinstance(error, ProductError):
        return tuple(map(str, error.violations))
    return tuple(filter(None, (*str(error).splitlines(), error.hint)))
