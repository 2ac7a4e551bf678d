"""The demo's collector counts decisions: each once, of the boots that are asked for."""

from __future__ import annotations

from dataclasses import replace

import journalled
import pytest

from gateway.sidecar.traces.collector import collector_of, resource_of
from gateway.sidecar.traces.otlp import Exporter, Sent
from gateway.sidecar.traces.receiver import Receiver
from gateway.sidecar.traces.spans import Detail, SpanEncoder

BOOT = journalled.BOOT[:8].hex()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_it_counts_what_was_decided_once(compression: str) -> None:
    """Not a stage's span, nor a refused call's, nor what came twice or from another boot."""
    encoder = SpanEncoder(Detail(all_calls=True))
    decided = [journalled.call(sequence=n) for n in range(1, 8)]
    joined = journalled.call(journalled.decision(traceparent=journalled.TRACEPARENT), sequence=20)
    refused = journalled.call(journalled.refusal(), sequence=30)
    name = replace(decided[0].record.segment.name, boot_id=bytes(16))
    segment = replace(decided[0].record.segment, name=name)
    other = replace(decided[0], record=replace(decided[0].record, segment=segment))
    spans = [span for one in (*decided, joined, refused, other) for span in encoder.of_call(one)]
    with Receiver() as receiver:
        assert receiver.decisions({BOOT}) == 0
        environment = {"OTEL_EXPORTER_OTLP_COMPRESSION": compression}
        collector = collector_of(environment, receiver.address)
        assert collector is not None
        with Exporter(collector, resource_of({}, host="h", version="1")) as exporter:
            assert exporter.export(spans) == Sent(accepted=len(spans))
            assert receiver.decisions({BOOT}) == 8
            assert exporter.export(spans) == Sent(accepted=len(spans))
        assert receiver.decisions({BOOT}) == 8
        assert receiver.decisions({BOOT, "00" * 8}) == 9
        assert receiver.decisions(()) == 0
        receiver.forget()
        assert receiver.decisions({BOOT, "00" * 8}) == 0
    assert len(spans) > 9 + 8
