"""A call as OTLP spans, in microseconds of CPU: laid out by hand and by protobuf's classes.

PYTHONPATH=src:tests python benchmarks/spans.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import journalled
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from gateway.sidecar.tail.call import Call
from gateway.sidecar.traces.attributes import held
from gateway.sidecar.traces.spans import Detail, SpanEncoder

ROUNDS, CALLS = 9, 4_000


def main() -> None:
    calls = [
        journalled.call(journalled.decision(traceparent=journalled.TRACEPARENT if n % 2 else ""), n)
        for n in range(1, CALLS + 1)
    ]
    stages, children = SpanEncoder(), SpanEncoder(Detail(all_calls=True))

    def encoded_by(encoder: SpanEncoder) -> Callable[[Sequence[Call]], bytes]:
        return lambda batch: b"".join(
            held(b"\x12", span) for call in batch for span in encoder.of_call(call)
        )

    known = ScopeSpans.FromString(encoded_by(stages)(calls))

    def by_classes(_: Sequence[Call]) -> bytes:
        """Build the same server spans, every field and attribute by its class."""
        made = ScopeSpans()
        for one in known.spans:
            span = made.spans.add(
                trace_id=one.trace_id,
                span_id=one.span_id,
                parent_span_id=one.parent_span_id,
                name=one.name,
                kind=one.kind,
                start_time_unix_nano=one.start_time_unix_nano,
                end_time_unix_nano=one.end_time_unix_nano,
                flags=one.flags,
            )
            for attribute in one.attributes:
                value = span.attributes.add(key=attribute.key).value
                kind = attribute.value.WhichOneof("value")
                setattr(value, kind, getattr(attribute.value, kind))
        return made.SerializeToString()

    for name, encode in (
        ("one span, stages as attributes", encoded_by(stages)),
        ("with a child a stage", encoded_by(children)),
        ("one span, by protobuf's classes", by_classes),
    ):
        size = len(encode(calls)) / CALLS
        print(f"{name:34} {median_us(encode, calls):6.2f} µs a call, {size:5.0f} bytes")


def median_us(encode: Callable[[Sequence[Call]], bytes], calls: Sequence[Call]) -> float:
    took = []
    for _ in range(ROUNDS):
        begun_ns = time.process_time_ns()
        encode(calls)
        took.append((time.process_time_ns() - begun_ns) / len(calls) / 1000)
    return statistics.median(took)


if __name__ == "__main__":
    main()
