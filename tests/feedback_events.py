"""Events as a source sends them, and a service that takes them on a port of the system's choice."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from gateway.model.registry import Registry
from gateway.sidecar.feedback.intake import Counts, Intake, Products
from gateway.sidecar.feedback.server import FeedbackServer
from gateway.sidecar.feedback.store import FILE, Store
from gateway.sidecar.lake.decisions import pseudonym
from gateway.v1.feedback_pb2 import FeedbackEvent, FeedbackKind, SubjectAttribute
from gateway.v1.feedback_pb2_grpc import FeedbackServiceStub

KEY = b"a key of the tests"
NOW_US = 1_795_000_000_000_000  # 2026-11-18T11:06:40Z
SERVICE = "/gateway.v1.FeedbackService"


def event(i: int, **changes: Any) -> FeedbackEvent:
    """A good event; times in seconds before NOW_US."""
    one = FeedbackEvent(
        product="test",
        transaction_id=f"t-{i}",
        kind=FeedbackKind.CHARGEBACK,
        amount=1999,
        currency="USD",
        source="disputes",
        source_event_id=f"cb-{i}",
    )
    times = {"occurred_time": 3600, "reported_time": 60}
    for name, value in changes.items():
        if name in times:
            times[name] = value
        elif value is None:
            one.ClearField(name)  # type: ignore[arg-type]
        else:
            setattr(one, name, value)
    for name, before_s in times.items():
        if before_s is not None:
            getattr(one, name).FromMicroseconds(NOW_US - before_s * 1_000_000)
    return one


def attribute(i: int, **changes: Any) -> SubjectAttribute:
    one = SubjectAttribute(
        subject=f"customer-{i}", attribute="age_band", value="35-54", source="core-banking"
    )
    one.reported_time.FromMicroseconds(NOW_US - 3_600_000_000)
    for name, value in changes.items():
        if name == "reported_time":
            one.reported_time.FromMicroseconds(NOW_US - value * 1_000_000)
        else:
            setattr(one, name, value)
    return one


def stands_for(subject: str) -> str:
    return pseudonym(subject, KEY)


def journal_of(directory: Path, *products: str) -> Path:
    """A journal's folder in which products have been served, as far as the intake looks."""
    for name in products:
        (directory / "generations" / name).mkdir(parents=True, exist_ok=True)
    return directory


@dataclass
class Service:
    """A service in the test's process."""

    address: str
    stub: Any
    channel: grpc.Channel
    store: Store
    counts: Counts
    journal: Path

    def call(self, method: str, *payloads: bytes) -> bytes:
        """Send bytes as they are; raises grpc.RpcError."""
        if method == "StreamFeedback":
            return bytes(
                self.channel.stream_unary(f"{SERVICE}/{method}")(iter(payloads), timeout=10)
            )
        return bytes(self.channel.unary_unary(f"{SERVICE}/{method}")(payloads[0], timeout=10))

    def counted(self) -> dict[tuple[str, ...], float]:
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.counts.collect()
            for sample in family.samples
        }


@contextmanager
def served(
    directory: Path,
    *products: str,
    wall_us: Callable[[], int] = lambda: NOW_US,
    listen: str = "127.0.0.1:0",
) -> Iterator[Service]:
    journal = journal_of(directory, *(products or ("test",)))
    # The channel outlives the server: what a server says as it stops is heard.
    with ExitStack() as heard, Store(journal / "sidecar" / FILE) as store:
        counts = Counts()
        products_known = Products(Registry(journal / "generations"))
        intake = Intake(store, products_known, stands_for, counts, wall_us)
        with FeedbackServer(listen, intake) as server:
            address = f"127.0.0.1:{server.port}"
            channel = heard.enter_context(grpc.insecure_channel(address))
            stub = FeedbackServiceStub(channel)  # type: ignore[no-untyped-call]
            yield Service(address, stub, channel, store, counts, journal)


def canary() -> str:
    """A text that stands nowhere else."""
    return f"canary{uuid.uuid4().hex[:8]}"
