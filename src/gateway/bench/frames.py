"""HTTP/2 and gRPC bytes: what a client of one small method sends, and what it reads.

```
frame    u24 length | u8 type | u8 flags | u32 stream | payload          (RFC 9113, 4.1)
message  u8 compressed | u32 length | protobuf                           (gRPC over HTTP/2)
```

A request's header block never changes: its fields are literals that no table remembers, so
that the same bytes are right on every connection. HEADER_TABLE_SIZE 0 asks the server for
the same, which makes a block's bytes mean one thing for ever: a status is looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from struct import Struct, pack, unpack_from

from hpack import Decoder, HPACKError

DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0x0, 0x1, 0x3, 0x4, 0x6
GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x7, 0x8, 0x9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

HEAD_BYTES = 9
HEAD = Struct(">IBI")
"""(length << 8 | type, flags, stream)."""

MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
WINDOW_BYTES = 65_535
"""What either side may send before it is told more."""

OUR_WINDOW_BYTES = 2**30
STREAM_MAX = 2**31 - 1
REFUSED_STREAM, CANCEL, INADEQUATE_SECURITY = 0x7, 0x8, 0xC

OK, CANCELLED, UNKNOWN, RESOURCE_EXHAUSTED, INTERNAL = 0, 1, 2, 8, 13
"""gRPC statuses."""

NO_ANSWER, CONNECTION_LOST, REFUSED_TWICE = -1, -2, -3
"""What stands in a status' place where no server gave one. gRPC clients say UNAVAILABLE."""

UNAVAILABLE = 14
RETRIED = frozenset((CANCELLED, UNAVAILABLE, CONNECTION_LOST, REFUSED_TWICE))
"""What `examples/service-config.json` has a client try again, besides RESOURCE_EXHAUSTED."""

STATUS_NAMES = dict(
    enumerate(
        (
            *("no message", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"),
            *("NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"),
            *("FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL"),
            *("UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
        )
    )
) | {
    NO_ANSWER: "no answer",
    CONNECTION_LOST: "UNAVAILABLE (connection lost)",
    REFUSED_TWICE: "UNAVAILABLE (refused twice)",
}
"""What a call that failed got; OK alone is no failure, but for want of a message."""

DECIDE = "/gateway.v1.DecisionService/Decide"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Lay out one frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


PREFACE = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    # HEADER_TABLE_SIZE 0, ENABLE_PUSH 0, INITIAL_WINDOW_SIZE
    + frame(SETTINGS, 0, 0, pack(">HIHIHI", 1, 0, 2, 0, INITIAL_WINDOW_SIZE, OUR_WINDOW_BYTES))
    + frame(WINDOW_UPDATE, 0, 0, pack(">I", OUR_WINDOW_BYTES))
)
SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def settings_of(payload: bytes) -> dict[int, int]:
    """Read a SETTINGS frame. Raises struct.error if it is cut short."""
    return dict(unpack_from(">HI", payload, at) for at in range(0, len(payload), 6))


def request_block(authority: str, *, path: str = DECIDE, timeout_us: int | None = None) -> bytes:
    """Encode a request's header fields without Huffman and without the dynamic table."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"gateway-bench"),
    ]
    if timeout_us is not None:
        fields.insert(4, (b"grpc-timeout", b"%du" % timeout_us))
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(text: bytes) -> bytes:
    """A string literal (RFC 7541, 5.2): its length with a prefix of 7 bits, then itself."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, length = len(text) - 127, [127]
    while rest >= 128:
        length.append(rest % 128 | 128)
        rest //= 128
    return bytes([*length, rest]) + text


@dataclass(frozen=True, slots=True)
class Request:
    """HEADERS and DATA of one call, ready but for its stream and its transaction id.

    `frames` is patched in place: both streams at 5 and `data_at + 5`, the id at `id_at`.
    `data_bytes` is what the call takes from the windows.
    """

    frames: bytearray
    data_at: int
    id_at: int
    data_bytes: int


def request(block: bytes, message: bytes, transaction_id: bytes) -> Request:
    """Lay out a call. `transaction_id` is the placeholder that stands once in `message`.

    Raises:
        ValueError: the placeholder does not stand there once, or the call needs more than
            one frame.
    """
    if message.count(transaction_id) != 1:
        raise ValueError("the transaction id must stand in the message once")
    if len(message) + 5 > 16_384 or len(block) > 16_384:
        raise ValueError("a call must fit one frame")
    head = frame(HEADERS, END_HEADERS, 0, block)
    data = pack(">BI", 0, len(message)) + message
    frames = head + frame(DATA, END_STREAM, 0, data)
    id_at = len(frames) - len(message) + message.index(transaction_id)
    return Request(bytearray(frames), len(head), id_at, len(data))


@lru_cache(maxsize=4096)
def status_of(block: bytes) -> int:
    """Return the gRPC status that stands in a header block; UNKNOWN where none does.

    Exact although cached: nothing a block says depends on another one.

    Raises:
        ValueError: it is no header block, or refers to a table that we have forbidden.
    """
    decoder = Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    try:
        fields = dict(decoder.decode(block, raw=True))
        return int(fields.get(b"grpc-status", b"2"))
    except HPACKError as error:
        raise ValueError(f"a header block cannot be read: {error}") from None


def reset_status(code: int) -> int:
    """Return the gRPC status of a stream that was reset, as the gRPC specification maps it."""
    return {CANCEL: CANCELLED, INADEQUATE_SECURITY: 7}.get(code, INTERNAL)
