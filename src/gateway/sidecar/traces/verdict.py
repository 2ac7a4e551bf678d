"""What is remarkable about a call, and when its stages ended.

Pure: no clock; times are the boot's monotonic nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gateway.journal import Decision, Refused, Reply
from gateway.sidecar.tail.call import Call

SLOW_SHARE = 0.5
"""A call is slow when it used more than this share of its budget."""

STATUS = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
"""gRPC's status codes by number."""


class Stage(NamedTuple):
    """A stretch of a call, in nanoseconds after its arrival."""

    name: str
    start_ns: int
    end_ns: int


class Verdict(NamedTuple):
    """What a call was. `error`: the kind of failure, empty where it was none."""

    slow: bool
    stood_in: bool
    late: bool
    error: str


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which calls: any of the three kinds, all where none is asked for; of one trace, by its id; of
    one product, by its name."""

    slow: bool = False
    stood_in: bool = False
    errors: bool = False
    trace_id: str = ""
    product: str = ""

    @property
    def is_every(self) -> bool:
        """Say whether no kind is asked for."""
        return not (self.slow or self.stood_in or self.errors)

    def holds(self, call: Call) -> bool:
        """Say whether a call is asked for."""
        if self.trace_id and trace_id_of_caller(call) != self.trace_id:
            return False
        if self.product and (call.generation is None or call.generation.product != self.product):
            return False
        if self.is_every:
            return True
        seen = verdict(call)
        return (
            (self.slow and seen.slow)
            or (self.stood_in and seen.stood_in)
            or (self.errors and seen.error != "")
        )


def trace_id_of_caller(call: Call) -> str:
    """Return the id of the trace that a call came with; nothing where it came with none."""
    entry = call.record.entry
    assert isinstance(entry, Decision | Refused)
    return entry.traceparent[3:35]


def end_ns(call: Call) -> int:
    """Return when the reply left, or the last that is known of the call."""
    if call.replied_ns is not None:
        return call.replied_ns
    entry = call.record.entry
    if isinstance(entry, Decision):
        return entry.arrival_ns + entry.record_after_ns
    assert isinstance(entry, Refused)
    return entry.arrival_ns + entry.refused_after_ns


def verdict(call: Call, slow_share: float = SLOW_SHARE) -> Verdict:
    """Say what is remarkable about a call.

    A reply that nobody knows the fate of is a failure: its process died with it.
    """
    entry = call.record.entry
    if isinstance(entry, Refused):
        return Verdict(False, False, False, status(entry.code))
    assert isinstance(entry, Decision)
    used_ns = end_ns(call) - entry.arrival_ns
    budget_ns = entry.deadline_ns - entry.arrival_ns
    late = used_ns > budget_ns
    error = "late" if late else "reply_unknown" if call.reply is Reply.UNKNOWN else ""
    return Verdict(used_ns > slow_share * budget_ns, entry.stand_in != 0, late, error)


def stages(call: Call) -> tuple[Stage, ...]:
    """Return the stages that took time, in their order; `encode` begins with the wait before it.

    What did not come to its model has the wait until it was stood in for, and no `infer`.
    `reply` is the write to the journal and the way out.
    """
    entry = call.record.entry
    if isinstance(entry, Decision):
        ends = [
            ("admit", entry.admit_after_ns),
            ("encode" if entry.batch_size else "wait", entry.encode_after_ns),
            ("infer", entry.infer_after_ns),
            ("decide", entry.decide_after_ns),
            ("record", entry.record_after_ns),
        ]
    else:
        assert isinstance(entry, Refused)
        ends = [("admit", entry.refused_after_ns)]
    if call.replied_ns is not None:
        ends.append(("reply", call.replied_ns - entry.arrival_ns))
    found, start_ns = [], 0
    for name, stage_end_ns in ends:
        if stage_end_ns > start_ns:
            found.append(Stage(name, start_ns, stage_end_ns))
            start_ns = stage_end_ns
    return tuple(found)


def status(code: int) -> str:
    """Return a gRPC status code's name."""
    return STATUS[code] if code < len(STATUS) else "UNKNOWN"
