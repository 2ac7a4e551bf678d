"""One HTTP/2 connection of the load generator, over a non-blocking socket.

grpcio's Python client manages about 3,000 calls a second on one core, `h2` fewer: too few to
go three times past saturation. This does what a gRPC client of one small unary method must,
and no more: about 20 µs a call, in and out.

Never blocks, never reads a clock, and never touches a byte of a message.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from errno import EINPROGRESS
from struct import pack_into, unpack_from

from gateway.bench.frames import (
    ACK,
    CONNECTION_LOST,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEAD_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    NO_ANSWER,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    REFUSED_STREAM,
    REFUSED_TWICE,
    RETRIED,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    STREAM_MAX,
    UNKNOWN,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    Request,
    frame,
    reset_status,
    settings_of,
    status_of,
)

READ_BYTES = 8192
"""Some thirty answers: what is read at once must not keep the next call waiting."""

STREAMS_MAX = 1024
"""Our own limit, where the server sets none."""

TELL_BYTES = 2**20
"""The server is told of read bytes a megabyte at a time."""

_FRAME_BYTES_MAX = 2**14
_ID_BYTES = 24


class Ledger:
    """What became of each call: lists by call number, and the calls to be sent once more.

    `status` is a gRPC status, or what stands in its place (`frames`). `answer` holds the
    gRPC-framed message. `again` are calls that no server has looked at, `resent` those for which
    that has happened once.
    """

    __slots__ = (
        *("_retries", "again", "answer", "done", "received_ns", "resent", "scheduled_ns"),
        *("sent_ns", "status", "tries"),
    )

    def __init__(self, *, retries: int = 0) -> None:
        """`retries`: how often a call is sent again that ended as UNAVAILABLE."""
        self._retries = retries
        self.tries: dict[int, int] = {}
        self.scheduled_ns: list[int] = []
        self.sent_ns: list[int] = []
        self.received_ns: list[int] = []
        self.status: list[int] = []
        self.answer: list[bytes | None] = []
        self.again: list[int] = []
        self.resent: set[int] = set()
        self.done = 0

    def open(self, scheduled_ns: int) -> int:
        """Begin a call. Returns its number."""
        self.scheduled_ns.append(scheduled_ns)
        self.sent_ns.append(0)
        self.received_ns.append(0)
        self.status.append(NO_ANSWER)
        self.answer.append(None)
        return len(self.status) - 1

    def close(self, call: int, status: int, received_ns: int) -> None:
        """End a call, or send it again, as a client does by its retry policy."""
        if self._retries and status in RETRIED and self.tries.get(call, 0) < self._retries:
            self.tries[call] = self.tries.get(call, 0) + 1
            self.resent.add(call)
            self.answer[call] = None
            self.again.append(call)
            return
        self.status[call] = status
        self.received_ns[call] = received_ns
        self.done += 1

    def refuse(self, call: int, now_ns: int) -> None:
        """Send a call once more that no server has looked at; the second time it fails."""
        if call in self.resent:
            self.close(call, REFUSED_TWICE, now_ns)
            return
        self.resent.add(call)
        self.answer[call] = None
        self.again.append(call)


class Lost(Exception):  # noqa: N818, no caller's error: the pool makes another one
    """The connection is over: the peer closed it, or broke the protocol."""


class Connection:
    """One connection to `address`: a (host, port), or the path of a Unix socket."""

    __slots__ = (
        *("_block", "_block_ends", "_block_stream", "_ledger", "_next", "_out", "_read_bytes"),
        *("_rest", "_room", "_stream_window", "_streams", "_window", "opened", "socket"),
        "going_away",
    )

    def __init__(self, address: tuple[str, int] | str, ledger: Ledger) -> None:
        """Begin to connect. Raises OSError where that fails at once."""
        unix = isinstance(address, str)
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self.socket.setblocking(False)
        if not unix:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.socket.connect_ex(address)
        if code not in (0, EINPROGRESS):
            self.socket.close()
            raise OSError(code, "cannot connect")
        self._ledger = ledger
        self._streams: dict[int, int] = {}
        self._next = 1
        self._room = 0
        self._window = self._stream_window = WINDOW_BYTES
        self._read_bytes = 0
        self._out = bytearray(PREFACE)
        self._rest = b""
        self._block, self._block_stream, self._block_ends = b"", 0, False
        self.opened = self.going_away = False

    @property
    def in_flight(self) -> int:
        """Return how many calls wait for an answer."""
        return len(self._streams)

    def start(self, call: int, request: Request, transaction_id: bytes) -> bool:
        """Lay a call out to be flushed. False if the server takes none now."""
        streams = self._streams
        size = request.data_bytes
        if len(streams) >= self._room or size > self._window or size > self._stream_window:
            return False
        stream = self._next
        frames = request.frames
        pack_into(">I", frames, 5, stream)
        pack_into(">I", frames, request.data_at + 5, stream)
        frames[request.id_at : request.id_at + _ID_BYTES] = transaction_id
        self._out += frames
        self._window -= size
        streams[stream] = call
        self._next = stream + 2
        if stream + 2 > STREAM_MAX:
            self._leave()
        return True

    def flush(self) -> bool:
        """Write what is laid out. False if something is left. Raises Lost."""
        out = self._out
        if not out:
            return True
        try:
            written = self.socket.send(out)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise Lost(error.strerror) from None
        if written == len(out):
            out.clear()
            return True
        del out[:written]
        return False

    def read(self, clock_ns: Callable[[], int]) -> bool:
        """Take in what has come, up to READ_BYTES. False if nothing has. Raises Lost."""
        try:
            chunk = self.socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise Lost(error.strerror) from None
        if not chunk:
            raise Lost("the server closed the connection")
        now_ns = clock_ns()
        try:
            self._take(self._rest + chunk if self._rest else chunk, now_ns)
        except (ValueError, struct.error, IndexError) as error:
            raise Lost(f"the server broke the protocol: {error}") from None
        if self.going_away and not self._streams:
            raise Lost("the server has gone away")
        return True

    def lose(self, now_ns: int) -> None:
        """Close the socket; what was in flight is lost with it."""
        self.socket.close()
        for call in self._streams.values():
            self._ledger.close(call, CONNECTION_LOST, now_ns)
        self._streams.clear()
        self._room = 0

    def _take(self, bytes_: bytes, now_ns: int) -> None:
        at, end = 0, len(bytes_)
        ledger, streams = self._ledger, self._streams
        unpack_head = HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            head, flags, stream = unpack_head(bytes_, at)
            length, kind = head >> 8, head & 0xFF
            if length > _FRAME_BYTES_MAX:
                raise ValueError("a frame is longer than was allowed")
            begin = at + HEAD_BYTES
            at = begin + length
            if at > end:
                at = begin - HEAD_BYTES
                break
            # The two frames of every answer first, as they come nearly always.
            if kind == DATA:
                self._read_bytes += length
                call = streams.get(stream)
                if call is not None:
                    piece = bytes_[begin:at]
                    if flags & PADDED:
                        piece = piece[1 : len(piece) - piece[0]]
                    before = ledger.answer[call]
                    ledger.answer[call] = piece if before is None else before + piece
                    if flags & END_STREAM:
                        del streams[stream]
                        ledger.close(call, UNKNOWN, now_ns)
            elif kind == HEADERS and flags & END_HEADERS and not flags & (PADDED | PRIORITY):
                if flags & END_STREAM:
                    call = streams.pop(stream, None)
                    if call is not None:
                        ledger.close(call, status_of(bytes_[begin:at]), now_ns)
            else:
                self._take_other(kind, flags, stream, bytes_[begin:at], now_ns)
        self._rest = bytes_[at:]
        if self._read_bytes > TELL_BYTES:
            self._out += frame(WINDOW_UPDATE, 0, 0, self._read_bytes.to_bytes(4, "big"))
            self._read_bytes = 0

    def _take_other(self, kind: int, flags: int, stream: int, payload: bytes, now_ns: int) -> None:
        if kind == HEADERS:
            pad = payload[0] if flags & PADDED else 0
            skipped = (1 if flags & PADDED else 0) + (5 if flags & PRIORITY else 0)
            self._block = payload[skipped : len(payload) - pad]
            self._block_stream, self._block_ends = stream, bool(flags & END_STREAM)
            self._end_block(flags, now_ns)
        elif kind == CONTINUATION:
            if stream != self._block_stream:
                raise ValueError("a CONTINUATION of another stream")
            self._block += payload
            self._end_block(flags, now_ns)
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == RST_STREAM:
            call = self._streams.pop(stream, None)
            (code,) = unpack_from(">I", payload)
            if call is not None and code == REFUSED_STREAM:
                self._ledger.refuse(call, now_ns)
            elif call is not None:
                self._ledger.close(call, reset_status(code), now_ns)
        elif kind == GOAWAY:
            (last,) = unpack_from(">I", payload)
            for unseen in [one for one in self._streams if one > last]:
                self._ledger.refuse(self._streams.pop(unseen), now_ns)
            self._leave()

    def _end_block(self, flags: int, now_ns: int) -> None:
        if flags & END_HEADERS and self._block_ends:
            call = self._streams.pop(self._block_stream, None)
            if call is not None:
                self._ledger.close(call, status_of(self._block), now_ns)

    def _take_settings(self, payload: bytes) -> None:
        settings = settings_of(payload)
        self._stream_window = settings.get(INITIAL_WINDOW_SIZE, self._stream_window)
        if not self.opened or MAX_CONCURRENT_STREAMS in settings:
            most = settings.get(MAX_CONCURRENT_STREAMS, STREAMS_MAX)
            self._room = 0 if self.going_away else min(most, STREAMS_MAX)
        self.opened = True
        self._out += SETTINGS_ACK

    def _leave(self) -> None:
        """Take no further call; what is in flight may still be answered."""
        self.going_away = True
        self._room = 0
