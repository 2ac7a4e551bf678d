"""A label as a span of its own, with a link to its decision's.

Its ids come from the store's id and the label's sequence alone, so that one that is sent again is
the same span. It has the label's product, kind and source: no subject, amount or payment. A group
attribute has none. Pure.
"""

from __future__ import annotations

from hashlib import blake2b

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.sidecar.feedback.label import KINDS, KeptLabel
from gateway.sidecar.traces.attributes import key_value
from gateway.sidecar.traces.spans import SpanId

NAME = "gateway.v1.FeedbackService/ReportFeedback"


def label_span(kept: KeptLabel, store_id: bytes, decided: SpanId | None) -> bytes:
    """Return an encoded span. It stands at the moment at which the label was received."""
    ids, label = label_span_id(store_id, kept.sequence), kept.label
    said = {
        "gateway.product": label.product,
        "gateway.label.kind": KINDS[label.kind],
        "gateway.label.source": label.source,
    }
    if label.decision_id:
        said["gateway.decision_id"] = label.decision_id
    span = Span(
        trace_id=ids.trace_id,
        span_id=ids.span_id,
        name=NAME,
        # Several come with one call, and each belongs to a call of long ago.
        kind=Span.SPAN_KIND_CONSUMER,
        start_time_unix_nano=kept.received_us * 1000,
        end_time_unix_nano=kept.received_us * 1000,
        attributes=[key_value(key, value) for key, value in said.items()],
    )
    if decided is not None:
        span.links.add(trace_id=decided.trace_id, span_id=decided.span_id)
    return span.SerializeToString()


def label_span_id(store_id: bytes, sequence: int) -> SpanId:
    """Return the ids of a label's span."""
    digest = blake2b(b"%b label/%d" % (store_id, sequence), digest_size=24).digest()
    return SpanId(digest[:16], digest[16:])
