"""The journal: the only door between the serving wing and the sidecar wing.

    identity      a decision's id: where its record stands                        pure
    frame         length, checksum, sequence, payload; finding frames again       pure
    entry         what a payload says: decision, refusal, reply times, gap, …     pure
    segment       a segment file's header and its name                            pure
    disk          the calls that can fail, and what is said when they do
    directory     private, and locked by one writer a worker
    segment_file  all of a write or none of it
    recovery      where the good frames of an earlier segment end
    spans         first and last of some sequences                                pure
    shipped       what every consumer is past, as the sidecar says it
    retention     --journal-max-bytes
    losses        what could not be kept, until a GAP entry says so
    chain         one boot's segments, one after the other
    writer        appends; what the serving worker opens
    reader        yields every byte as record, damage or torn tail; at once, or on from a place
    verification  is anything missing that nobody counted?

Arrows point down the flow: frame, entry, segment ◀ segment_file, retention ◀ chain ◀ writer;
frame, entry, segment ◀ reader ◀ verification. The writer never imports the reader.

What never happens:

- no frame stands behind half a frame in what counts of a segment;
- a sequence is never used twice within a boot, and a segment is never appended to by a second boot;
- a sync that failed is never tried again on the same file;
- nothing that `append` took in mode `process` is lost by killing the process;
- nothing is lost or dropped without being counted: by a GAP entry, by a header's `recovered`, or by
  `verify`. The one exception: what `append` refused, when the process is killed before the next
  write succeeds. Its callers were told; the journal was not;
- nothing here knows gRPC, protobuf or a product: requests and responses are bytes;
- no log line, span or metric is made, and no error text holds a byte of a payload.
"""

from gateway.journal.directory import is_held, make_directory
from gateway.journal.entry import (
    DECISION_HEAD,
    FOUND_NOBODY,
    U32_MAX,
    UNKNOWN_PRODUCT,
    Decision,
    Entry,
    Flag,
    Gap,
    Generation,
    Kind,
    Loss,
    Pause,
    Refused,
    Rejected,
    Replied,
    Scored,
    ScoredCall,
    Sealed,
    Shed,
    kind_of,
    saturated,
)
from gateway.journal.identity import MAX_WORKER, Place, decision_id, parse_decision_id
from gateway.journal.reader import (
    Answered,
    Between,
    Damage,
    Fault,
    Part,
    Record,
    Reply,
    Segment,
    TornTail,
    join_replied,
    read,
    read_on,
    segment_at,
    segments,
)
from gateway.journal.shipped import (
    Bound,
    Published,
    Shipped,
    decode_shipped,
    load_shipped,
    save_shipped,
)
from gateway.journal.verification import Missing, Report, SegmentReport, verify
from gateway.journal.writer import MIN_JOURNAL_BYTES, Mode, Writer

__all__ = [
    "DECISION_HEAD",
    "FOUND_NOBODY",
    "MAX_WORKER",
    "MIN_JOURNAL_BYTES",
    "U32_MAX",
    "UNKNOWN_PRODUCT",
    "Answered",
    "Between",
    "Bound",
    "Damage",
    "Decision",
    "Entry",
    "Fault",
    "Flag",
    "Gap",
    "Generation",
    "Kind",
    "Loss",
    "Missing",
    "Mode",
    "Part",
    "Pause",
    "Place",
    "Published",
    "Record",
    "Refused",
    "Rejected",
    "Replied",
    "Reply",
    "Report",
    "Scored",
    "ScoredCall",
    "Sealed",
    "Segment",
    "SegmentReport",
    "Shed",
    "Shipped",
    "TornTail",
    "Writer",
    "decision_id",
    "decode_shipped",
    "is_held",
    "join_replied",
    "kind_of",
    "load_shipped",
    "make_directory",
    "parse_decision_id",
    "read",
    "read_on",
    "saturated",
    "save_shipped",
    "segment_at",
    "segments",
    "verify",
]
