"""A journal's decisions of one product, as columns: what `whatif` asks again.

Segments are read one after the other, and given on in parts, so that a journal of any length
fits the memory. Nothing is left out without being counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, isnan, log10, nan
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from gateway.errors import JournalError
from gateway.evaluate.ledger import Answered
from gateway.evaluate.replay import Payments
from gateway.journal import (
    FOUND_NOBODY,
    Damage,
    Decision,
    Flag,
    Record,
    Replied,
    Segment,
    TornTail,
    decision_id,
    read,
    segments,
)
from gateway.product import Feature
from gateway.serve.hall.head import DecideRequestHead
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse

PART_ROWS = 20_000
"""Decisions that are given on together."""

OTHER = "other"
_NAMES_MAX = 1000
_LEFT_OUT, _EXPLORED = int(Flag.FEATURES_LEFT_OUT), int(Flag.EXPLORED)

_UNREADABLE = "the request cannot be read"


class Names:
    """Texts as codes, from 0, in the order in which they are met."""

    def __init__(self, most: int = _NAMES_MAX) -> None:
        self.texts: list[str] = []
        self._most = most
        self._codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        """Return the code of a text; of more texts than are told apart, that of OTHER."""
        code = self._codes.get(text)
        if code is None:
            if len(self.texts) >= self._most and text != OTHER:
                return self.code(OTHER)
            code = self._codes[text] = len(self.texts)
            self.texts.append(text)
        return code


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """n decisions. `score` (n,): as the model gave it, NaN where it stood in.

    `models`: digests of models; `model` (n,): which of them decided, -1 where none did.
    `requests`: DecideRequests as bytes, with their features where `has_features` (n,) says so.
    `infer_us` (n,): what the model took for the batch.
    """

    payments: Payments
    answered: Answered
    score: NDArray[np.float64]
    models: Sequence[str]
    model: NDArray[np.int64]
    requests: Sequence[bytes]
    has_features: NDArray[np.bool_]
    infer_us: NDArray[np.float64]
    where: Where


@dataclass(frozen=True, slots=True)
class Where:
    """Where a part's decisions stand: their boot, and their sequences."""

    boot: tuple[int, bytes]
    sequences: Sequence[int]


@dataclass(slots=True)
class Seen:
    """What reading a journal has met so far."""

    decisions: int = 0
    generations: Counter[int] = field(default_factory=Counter)
    workers: set[int] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    damaged_bytes: int = 0
    torn_bytes: int = 0


class Recording:
    """The decisions of `product` in a journal's folder.

    `watched`: segments to keep a column of, each with how it is read from a request, for which
    requests are read whole. `replied` is called with the boot and the sequences of decisions that
    were given on before it was known that their replies left in time.
    """

    def __init__(
        self,
        directory: Path,
        product: str,
        *,
        watched: Mapping[str, Callable[[DecideRequest], str]],
        replied: Callable[[tuple[int, bytes], Sequence[int]], None],
    ) -> None:
        self.seen = Seen()
        self.segments = _segments(directory)
        self.names = {"channel": Names(), **{name: Names() for name in watched}}
        self._product = product
        self._watched = tuple((name, of, self.names[name]) for name, of in watched.items())
        self._read = DecideRequest.FromString if watched else DecideRequestHead.FromString
        self._replied = replied
        self._mccs = Names(20_000)
        self._models = Names(60_000)
        self._model_of: dict[tuple[tuple[int, bytes], int, int], int] = {}

    def parts(self, progress: Callable[[float], None] = lambda _: None) -> Iterator[Part]:
        """Yield the decisions. `progress` is called with the share of the bytes that is read.

        Raises:
            JournalError: a segment cannot be read.
        """
        sizes = [_size(segment.path) for segment in self.segments]
        total, done = max(sum(sizes), 1), 0
        waiting: dict[tuple[int, bytes], dict[int, int]] = {}
        for segment, size in zip(self.segments, sizes, strict=True):
            self.seen.workers.add(segment.name.worker)
            for part, at in self._of(segment, waiting.setdefault(segment.boot, {})):
                progress((done + min(at, size)) / total)
                yield part
            done += size
            progress(done / total)

    def _of(self, segment: Segment, waiting: dict[int, int]) -> Iterator[tuple[Part, int]]:
        """Yield a segment's parts, and where each ends; `waiting`: sequences and deadlines."""
        rows = _Rows()
        known: dict[int, bool] = {}
        for item in read(segment):
            if not isinstance(item, Record):
                self._miss(item)
                continue
            entry = item.entry
            if isinstance(entry, Decision):
                index = entry.product
                ours = known.get(index)
                if ours is None:
                    generation = item.generation(index)
                    ours = known[index] = generation is None or generation.product == self._product
                if ours and self._take(rows, item, entry):
                    waiting[item.sequence] = entry.deadline_ns
                    if len(rows.sequence) >= PART_ROWS:
                        yield self._part(rows, segment), item.end
                        rows = _Rows()
            elif isinstance(entry, Replied):
                self._reply(rows, segment, entry, waiting)
        if rows.sequence:
            yield self._part(rows, segment), _size(segment.path)

    def _miss(self, item: Damage | TornTail) -> None:
        if isinstance(item, TornTail):
            self.seen.torn_bytes += item.length
        else:
            self.seen.damaged_bytes += item.length

    def _reply(
        self, rows: _Rows, segment: Segment, entry: Replied, waiting: dict[int, int]
    ) -> None:
        earlier: list[int] = []
        first = rows.sequence[0] if rows.sequence else 0
        for sequence, offset_ns in enumerate(entry.offsets_ns, entry.first_sequence):
            deadline_ns = waiting.pop(sequence, None)
            if deadline_ns is None or offset_ns == FOUND_NOBODY:
                continue
            if entry.base_ns + offset_ns <= deadline_ns:
                if first and sequence >= first:
                    rows.in_time.add(sequence)
                else:
                    earlier.append(sequence)
        if earlier:
            self._replied(segment.boot, earlier)

    def _take(self, rows: _Rows, item: Record, entry: Decision) -> bool:
        """Add a decision to the columns, if it is of the product and can be read."""
        try:
            request: Any = self._read(entry.request)
        except DecodeError:
            self.seen.left_out[_UNREADABLE] += 1
            return False
        if request.product != self._product:
            return False
        self.seen.decisions += 1
        self.seen.generations[entry.generation] += 1
        when = request.event_time
        wall_ns = item.wall_ns(entry.arrival_ns)
        rows.sequence.append(item.sequence)
        rows.transaction.append(request.transaction_id)
        # The same in every process, so that the bootstrap draws the same.
        rows.subject.append(crc32((request.subject or request.transaction_id).encode()))
        rows.amount.append(request.amount)
        rows.category.append(self._mccs.code(request.category))
        rows.channel.append(self.names["channel"].code(request.channel))
        event_s = when.seconds + when.nanos * 1e-9
        rows.event_s.append(event_s)
        rows.numbers.append(
            (
                event_s if wall_ns is None else wall_ns / 1e9,
                entry.action,
                entry.stand_in,
                int(entry.flags),
                entry.propensity,
                entry.score,
                entry.record_after_ns / 1000,
                (entry.deadline_ns - entry.arrival_ns) / 1000,
                -1 if entry.stand_in else self._model(item, entry),
                (entry.infer_after_ns - entry.encode_after_ns) / 1000,
            )
        )
        for name, of, names in self._watched:
            rows.watched.setdefault(name, []).append(names.code(of(request)))
        rows.requests.append(entry.request)
        return True

    def _model(self, item: Record, entry: Decision) -> int:
        """Return the code of the model that decided. It is the same for all of an arm's answers."""
        key = (item.segment.boot, entry.product, entry.arm)
        code = self._model_of.get(key)
        if code is None:
            try:
                digest = DecideResponse.FromString(entry.response).model.digest
            except DecodeError:
                digest = ""
            code = self._model_of[key] = self._models.code(digest)
        return code

    def _part(self, rows: _Rows, segment: Segment) -> Part:
        (arrived_s, action, stand_in, flags, propensity, score, *timed, model, infer_us) = np.array(
            rows.numbers, dtype=np.float64
        ).T
        worker, boot_id = segment.name.worker, segment.name.boot_id
        flag = flags.astype(np.int64)
        in_time = rows.in_time
        columns = {"channel": rows.channel, **rows.watched}
        return Part(
            payments=Payments(
                transaction_ids=rows.transaction,
                amount_minor=np.array(rows.amount, dtype=np.int64),
                categories=tuple(self._mccs.texts),
                category=np.array(rows.category, dtype=np.int64),
                event_s=np.array(rows.event_s, dtype=np.float64),
                stand_in=stand_in.astype(np.uint8),
            ),
            answered=Answered(
                transaction=np.array([hash(one) for one in rows.transaction], dtype=np.int64),
                subject=np.array(rows.subject, dtype=np.int64),
                arrived_s=arrived_s,
                action=action.astype(np.uint8),
                explored=flag & _EXPLORED > 0,
                propensity=propensity,
                in_time=np.array([one in in_time for one in rows.sequence], dtype=np.bool_),
                elapsed_us=timed[0],
                effective_us=timed[1],
                segments={name: np.array(codes, dtype=np.int64) for name, codes in columns.items()},
                identity=_Identities(boot_id, worker, rows.sequence),
            ),
            score=score,
            models=tuple(self._models.texts),
            model=model.astype(np.int64),
            requests=rows.requests,
            has_features=flag & _LEFT_OUT == 0,
            infer_us=infer_us,
            where=Where(segment.boot, rows.sequence),
        )


class _Rows:
    """The columns of a part while it is read."""

    __slots__ = (
        *("amount", "category", "channel", "event_s", "in_time", "numbers", "requests"),
        *("sequence", "subject", "transaction", "watched"),
    )

    def __init__(self) -> None:
        self.sequence: list[int] = []
        self.transaction: list[str] = []
        self.subject: list[int] = []
        self.amount: list[int] = []
        self.category: list[int] = []
        self.channel: list[int] = []
        self.event_s: list[float] = []
        self.numbers: list[tuple[float, ...]] = []
        self.watched: dict[str, list[int]] = {}
        self.requests: list[bytes] = []
        self.in_time: set[int] = set()


class _Identities(Sequence[str]):
    """Decision ids, made when one is asked for."""

    def __init__(self, boot_id: bytes, worker: int, sequences: Sequence[int]) -> None:
        self._place, self._sequences = (boot_id, worker), sequences

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, i: Any) -> Any:
        return decision_id(*self._place, self._sequences[i])


def segment_reader(feature: Feature, places: Mapping[str, int]) -> Callable[[DecideRequest], str]:
    """Return how a feature's segment is read from a request.

    `places`: its column in `dense`, by the fingerprint of the schema.
    """

    def of(request: DecideRequest) -> str:
        if request.dense:
            place = places.get(request.schema_fingerprint)
            if place is None or 4 * place + 4 > len(request.dense):
                return OTHER
            return segment_of(feature, float(np.frombuffer(request.dense, "<f4", 1, 4 * place)[0]))
        if feature.name not in request.features:
            return "not given"
        value = request.features[feature.name]
        kind = value.WhichOneof("kind")
        return segment_of(feature, getattr(value, kind) if kind else nan)

    return of


def segment_of(feature: Feature, value: float | str) -> str:
    """Return the segment of a feature's value: its text, or the power of ten that it is in."""
    if isinstance(value, str):
        return value if value in feature.values else OTHER
    if isnan(value):
        return "not given"
    if feature.type == "category":
        known = value.is_integer() and 0 <= value < len(feature.values)
        return feature.values[int(value)] if known else OTHER
    if feature.type == "bool":
        return "yes" if value else "no"
    if value <= 0.0:
        return "0" if value == 0.0 else "below 0"
    if value in (float("inf"),):
        return OTHER
    power = floor(log10(value))
    return f"{10.0**power:g} to {10.0 ** (power + 1):g}"


def _segments(directory: Path) -> tuple[Segment, ...]:
    hint = "Name the folder that serve was given, with --journal."
    if not directory.is_dir():
        raise JournalError("there is no such folder", subject=str(directory), hint=hint)
    found = segments(directory)
    if not found:
        raise JournalError("holds no segments of a journal", subject=str(directory), hint=hint)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
