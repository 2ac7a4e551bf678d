"""The demo's months: sent to the gateway as fast as it decides, then what is reported about them.

All goes through the doors that everybody's payments and labels go through. No latency is measured
here: so that no answer is a stand-in for our own hurry, few calls are open at a time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gateway.bench.frames import OK, STATUS_NAMES, request_block
from gateway.bench.generator import Plan
from gateway.bench.load import apply
from gateway.bench.traffic import PLACEHOLDER
from gateway.cli.demo_labels import Answered, report, report_attributes, timestamp
from gateway.cli.demo_server import Server
from gateway.cli.evaluate import engine_over, store_of
from gateway.cli.hypothesis_start import start_at
from gateway.cli.hypothesis_told import told_in
from gateway.cli.lake_terms import TABLES, terms_in
from gateway.cli.replay import request_of
from gateway.demo.months import Months, holiday_of
from gateway.demo.payment import CARD_NOT_PRESENT, Payment
from gateway.demo.products import for_months
from gateway.demo.rivals import RIVALS, with_rival
from gateway.demo.seasons import DAY_S
from gateway.demo.truth import Turned, false_positives
from gateway.errors import UsageError
from gateway.evaluate.counts import count
from gateway.evaluate.terms import terms_of
from gateway.model import read_product
from gateway.product import Action
from gateway.product.edit import content_of
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import records
from gateway.v1.decision_pb2 import DecideResponse, ReasonCode, StandIn
from gateway.v1.feedback_pb2 import SubjectAttribute

CHUNK = 20_000
"""Payments that are laid out at a time; a progress bar moves so far at once."""

IN_FLIGHT = 16
CONNECTIONS = 4
PATIENCE_S = 60.0

EVENING_S = 6 * 3_600
"""So long before the months' first day their hypotheses are written down."""

ATTRIBUTE = "age_band"
_SOURCE = "accounts"


@dataclass(slots=True)
class Told:
    """What the months' caller was told, by the payments' numbers.

    `run`: the ids' beginning. `actions` and `decision_ids`: empty where no answer came. `declined`:
    numbers of declines, and of what exploration let through. `labels` and `attributes`: how many
    were taken.
    """

    run: str
    months: Months
    actions: list[str] = field(default_factory=list)
    decision_ids: list[str] = field(default_factory=list)
    declined: set[int] = field(default_factory=set)
    explored: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    stand_ins: Counter[str] = field(default_factory=Counter)
    labels: int = 0
    attributes: int = 0

    def summary(self, recorded: Mapping[str, int]) -> dict[str, Any]:
        """Return it as JSON values; `recorded`: each decision's action in the journal."""
        answered = [pair for pair in zip(self.decision_ids, self.actions, strict=True) if pair[0]]
        names = {action.value: action.name.lower() for action in Action}
        lost = [one for one, action in answered if names.get(recorded.get(one, 0)) != action]
        return {
            "run": self.run,
            "decisions": len(answered),
            "errors": dict(self.errors),
            "lost": len(lost),
            "stand_ins": dict(self.stand_ins),
            "by_action": dict(sorted(Counter(action for _, action in answered).items())),
            "explored": self.explored,
            "labels": self.labels,
            "attributes": self.attributes,
            "from": _said(self.months.payments[0].event_time_s),
            "to": _said(self.months.ends_s),
        }

    @property
    def turned(self) -> dict[str, Turned]:
        """Count, by age band, the genuine payments online that were to be declined."""
        online = (
            (number, payment)
            for number, payment in enumerate(self.months.payments)
            if payment.product == CARD_NOT_PRESENT
        )
        return false_positives(online, self.declined, self.months.age_band)


def run_of(wall_ns: int) -> str:
    """Return what sets the ids of a run apart from those of others: 6 hex digits."""
    return f"{wall_ns // 1_000_000 & 0xFFFFFF:06x}"


def transaction_id(run: str, number: int) -> str:
    """Return the id that a payment of the months is sent under. `run`: 6 hex digits.

    As the load generator makes them: 8 hex digits of the load, 16 of the call in it.
    """
    load, call = divmod(number, CHUNK)
    return f"{run}{load:02x}{call:016x}"


def copied_for_months(folders: Sequence[Path], into: Path, ends_s: int) -> list[Path]:
    """Copy the demo's products, and change the copies to what the months are decided by.

    Its number is the day's: what it says depends on the day, and a number means one content.
    """
    day = datetime.fromtimestamp(ends_s, UTC).date()
    copies: list[Path] = []
    for folder in folders:
        copy = into / folder.name
        # Without its modes: an installed package may not be writable.
        shutil.copytree(folder, copy, copy_function=shutil.copyfile)
        file = copy / "product.yaml"
        text = for_months(
            file.read_text(encoding="utf-8"),
            holiday=holiday_of(ends_s),
            generation=day.year * 10_000 + day.month * 100 + day.day,
        )
        text = _with_rival(text, copy)
        file.write_text(text, encoding="utf-8")
        copies.append(copy)
    return copies


def _with_rival(text: str, folder: Path) -> str:
    """Let the rival of a folder's product decide its share, where there is one."""
    rival = RIVALS.get(content_of(text).get("product", ""))
    if rival is None:
        return text
    digest = hashlib.sha256((folder / rival.file).read_bytes()).hexdigest()
    return with_rival(text, rival, sha256=digest)


def start_hypotheses(lake: str, folders: Sequence[Path], months: Months) -> list[str]:
    """Write down what folders' products declare as if it were the evening before the months.

    What a lake holds from an earlier run stays as it was started then. Return their ids.

    Raises:
        LakeError: the file system refuses.
    """
    place = Lake.at(lake)
    first_s = months.payments[0].event_time_s // DAY_S * DAY_S
    evening = datetime.fromtimestamp(first_s - EVENING_S, UTC)
    started = []
    for folder in folders:
        terms = terms_of(read_product(folder))
        for one in terms.product.hypotheses:
            with suppress(UsageError):
                start_at(place, one, terms, evening)
            started.append(one.id)
    return started


def verdicts(lake: str) -> list[Mapping[str, Any]]:
    """Return what came of the months' hypotheses by now, as JSON. Raises LakeError."""
    place, now = Lake.at(lake), datetime.now(UTC)
    ours = {(product, one.believed["id"]) for product, one in RIVALS.items()}
    if ours.isdisjoint((one.product, one.id) for one in records(place.filesystem, place.root)):
        return []
    terms = terms_in(place, None)
    files = {table: place.files(table) for table in TABLES}
    with engine_over(place, files, store_of(place, None, lasting=True), None) as engine:
        count(engine, terms, now)
        told = told_in(place, engine, terms, now, None)
    return [one for one in told if (one["product"], one["id"]) in ours]


def send_months(
    server: Server,
    months: Months,
    fingerprints: Mapping[str, str],
    *,
    run: str,
    seed: int,
    progress: Callable[[int], None],
) -> Told:
    """Ask about every payment, then report what became of them until the months' end.

    `progress` is told how many payments are answered.

    Raises:
        UnreachableError: the gateway or its sidecar does not answer.
        GatewayError: a label or an attribute is refused.
    """
    told = Told(run, months)
    for begin in range(0, len(months.payments), CHUNK):
        chunk = months.payments[begin : begin + CHUNK]
        _ask(server.address, chunk, fingerprints, told, transaction_id(run, begin)[:8])
        progress(len(told.actions))
    told.attributes = report_attributes(server.feedback, _attributes(months))
    rng = np.random.default_rng((seed, 1))
    told.labels = report(server.feedback, list(_answered(told)), rng, until_s=months.ends_s)
    return told


def _ask(
    address: str,
    payments: Sequence[Payment],
    fingerprints: Mapping[str, str],
    told: Told,
    load: str,
) -> None:
    """Ask about payments, and note the answers behind those that are there."""
    named = PLACEHOLDER.decode()
    requests = (request_of(one, fingerprints[one.product], 0.0) for one in payments)
    messages: list[bytes] = []
    for request in requests:
        request.transaction_id = named
        messages.append(request.SerializeToString())
    plan = Plan(
        address=address,
        block=request_block(address),
        messages=tuple(messages),
        placeholder=PLACEHOLDER,
        run=load,
        schedule_ns=np.zeros(len(payments), np.int64),
        which=np.arange(len(payments), dtype=np.uint16),
        connections=CONNECTIONS,
        in_flight_max=IN_FLIGHT,
        patience_s=PATIENCE_S,
        at_once=IN_FLIGHT,
    )
    calls = apply(plan, ()).calls
    for status, framed in zip(calls.status.tolist(), calls.answers, strict=True):
        if status == OK and framed:
            _note(DecideResponse.FromString(framed[5:]), told)
        else:
            _note_failed(STATUS_NAMES[status], told)
    for _ in range(len(payments) - len(calls.status)):
        _note_failed("not sent", told)


def _note_failed(why: str, told: Told) -> None:
    told.errors[why] += 1
    told.actions.append("")
    told.decision_ids.append("")


def _note(response: DecideResponse, told: Told) -> None:
    explored = any(one.code == ReasonCode.EXPLORATION for one in response.reasons)
    if explored or response.action == Action.DECLINE.value:
        told.declined.add(len(told.actions))
    told.explored += explored
    if response.stand_in:
        told.stand_ins[StandIn.Name(response.stand_in)] += 1
    told.actions.append(Action(response.action).name.lower())
    told.decision_ids.append(response.decision_id)


def _answered(told: Told) -> Iterator[Answered]:
    for number, payment in enumerate(told.months.payments):
        yield Answered(
            payment,
            transaction_id(told.run, number),
            told.decision_ids[number],
            told.actions[number],
            # A letter between the digits.
            f"{told.run}n{number}",
        )


def _attributes(months: Months) -> Iterator[SubjectAttribute]:
    known = timestamp(months.payments[0].event_time_s)
    for subject, group in months.told.items():
        yield SubjectAttribute(
            subject=subject, attribute=ATTRIBUTE, value=group, reported_time=known, source=_SOURCE
        )


def _said(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")
