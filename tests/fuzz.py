"""Random and mutated requests against a served gateway: an action or a status each time.

    python tests/fuzz.py --front native --requests 500000 --seed 1

starts `gateway serve` as a child, sends it the requests of one seed over real gRPC, prints a
summary as JSON, and exits with 1 if anything in it is a fault: an answer that is neither an
action nor a status, UNKNOWN, INTERNAL, a lost connection, no answer in time, a traceback in
the log, memory that grows, a worker that dies, a journal that does not verify.

One seed gives one sequence of requests. `--only INDEX` sends a single one of it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import catalogue
import grpc
import numpy as np
import uvloop
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.inference.open_inference_pb2 import ModelInferRequest
from gateway.journal import verify
from gateway.product import schema_fingerprint
from gateway.v1.decision_pb2 import Action, DecideRequest, DecideResponse, StandIn

DECIDE = "/gateway.v1.DecisionService/Decide"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
INFER = "/inference.GRPCInferenceService/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

MESSAGE_BYTES_MAX = 64 * 1024
HANG_S = 60.0
GROWTH_MB_MAX = 64.0
FAULTS_SHOWN = 3
"""Of each kind of request and outcome."""

ACTION_NAMES = {number: name for name, number in Action.items() if number}
ACTIONS = frozenset(ACTION_NAMES.values())
STATUSES = frozenset(code.name for code in grpc.StatusCode)
BROKEN = frozenset({"UNKNOWN", "INTERNAL", "CANCELLED", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses that no caller may see of a worker that lives, but CANCELLED who cancels."""
ANSWERED = ACTIONS | STATUSES - BROKEN

FEATURES: list[dict[str, Any]] = [
    {"name": "amount", "type": "float", "min": 0, "max": 1000000, "out_of_range": "clip"},
    {"name": "ratio", "type": "float", "missing": 1.0},
    {"name": "age_days", "type": "float", "min": -1000, "missing": "nan"},
    {"name": "tries", "type": "int", "min": 0, "max": 1000},
    {"name": "known", "type": "bool", "missing": False},
    {
        "name": "entry_mode",
        "type": "category",
        "values": ["chip", "swipe", "keyed"],
        "unknown": "keyed",
    },
    {"name": "country", "type": "category", "values": ["DE", "ÖS", "US"], "missing": "US"},
]
NAMES = [feature["name"] for feature in FEATURES]
PRODUCT: dict[str, Any] = {
    "actions": ["approve", "step_up", "review", "decline"],
    "costs__review": catalogue.REVIEW,
    "features": FEATURES,
    "models__champion__calibration": {"kind": "platt", "a": 1.5, "b": -0.5},
    "models__champion__base_rate": {"calibrated_at": 0.02, "serving": 0.01},
    "exploration": {"share": 0.5, "max_amount": 200, "loss_per_day": 10_000_000},
    "records": {"features": "sampled", "share": 0.5},
    "overrides": [
        {
            "action": "decline",
            "at_least": 0.9,
            "category": "fuel",
            "reason": "r",
            "approver": "a",
            "expires": "2099-12-31",
        }
    ],
    "calendar": [
        {"event": "sale", "from": "2023-11-01", "to": "2023-11-30", "log_odds_shift": 0.3}
    ],
}
FINGERPRINT = schema_fingerprint(catalogue.product(**PRODUCT).features)
EVENT_S = 1_700_000_000
"""Within the calendar's event."""

PRODUCTS: dict[str, dict[str, Any]] = {
    "test": PRODUCT,
    "masking": {
        **PRODUCT,
        "product": "masking",
        "pan_guard": "mask",
        "transaction_id": {"pattern": "t-[0-9]{1,9}"},
        "records": {"features": "none"},
    },
}


def write_product(folder: Path, name: str = "test") -> Path:
    """Write a product in which every rule of a request, and every way to decide, stands."""
    weights = (0.00001, 0.8, 0.001, 0.01, -1.0, 1.1, 0.3)
    return catalogue.write_folder(folder, catalogue.logistic_model(weights, -3.0), **PRODUCTS[name])


class Ask(NamedTuple):
    """One call. `expected`: the outcomes that are right.

    `cancel_s`: when its caller leaves, in seconds after sending; None: never.
    """

    kind: str
    payload: bytes
    path: str = DECIDE
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout_s: float | None = None
    cancel_s: float | None = None
    compressed: bool = False
    expected: frozenset[str] = ANSWERED


REFUSED = frozenset({"INVALID_ARGUMENT"})
TOO_LONG = frozenset({"RESOURCE_EXHAUSTED"})
NO_METHOD = frozenset({"UNIMPLEMENTED"})


# Values that some upstream has sent to somebody, some day.

NUMBERS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-3, 1e6, 1e6 + 0.5, 1000.0, 1001.0, 4111111111111111.0),
    *(5e-324, 1e-310, 1.1754943e-38, 3.4028234663852886e38, 3.4028235677973366e38, 1e39),
    *(1e300, -1e300, 1.7976931348623157e308, 2.0**53, 2.0**63, -(2.0**63)),
    *(float("nan"), float("inf"), float("-inf")),
)
WHOLE = (0, 1, -1, 99, 15_000, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), -(2**31) - 1)
TEXTS = (
    *("", " ", "\x00", "a\x00b", "\r\n", "\x7f\x1b[31m", "chip", "CHIP", "chip ", "USD", "usd"),
    *("5411", "54 1", "٥٤١١", "５４１１", "0000", "-541", "nan", "None", "{}", "%s%n", "../../etc"),
    *("\u202etxet", "مرحبا", "e\u0301" * 9, "\ufeff", "\ufffd", "\uffff", "\U0010ffff", "🧾" * 20),
    *("x" * 64, "x" * 65, "ß" * 128, "x" * 129, "4" * 300, "0a" * 128),
    *("4111 1111 1111 1111", "4111111111111111", "4１11-1111-1111-1１11", "5105.1051.0510.5100"),
    *("2024-01-02 4111 1111 1111 1111 12/27", "\u200b4111\u200b111111111111\u00ad", "4111 " * 50),
    *("x" * 257, "x" * 10_000, "é" * 10_000, "amont", "features[amount]", "'; DROP TABLE"),
)
LONG_TEXTS = ("x" * 60_000, "4111 " * 12_000, "４１１１-" * 4_000, "4" * 60_000, "e\u0301" * 20_000)
BAD_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"ab\xe2\x82", b"\x80" * 40)
STRINGS = (1, 2, 5, 6, 7, 8, 11)
"""Numbers of DecideRequest's string fields."""
NANOS = (0, 1, 999_999_999)
FIELDS = (
    *("product", "transaction_id", "event_time", "amount", "currency", "category", "channel"),
    *("subject", "schema_fingerprint"),
)
INFER_OTHERS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
UNKNOWN_METHODS = (
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/gateway.v1.DecisionService/Nothing",
    "/gateway.v1.DecisionService/decide",
    "/gateway.v1.DecisionService/Decide/",
    "/gateway.v1.DecisionService/",
    "/gateway.v1.DecisionService",
    "/no.Such/Service",
    "/grpc.health.v1.Health/List?a=b#c",
    "//",
    "/",
    "/" + "x" * 2_000,
    "/%00%ff/..%2f..",
)


# The wire format of protobuf, written by hand so that it can be written wrong.


def varint(value: int, *, padding: int = 0) -> bytes:
    """Encode a varint, `padding` bytes longer than needed."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    if not padding:
        return bytes([*encoded, value])
    return bytes([*encoded, value | 0x80, *b"\x80" * (padding - 1), 0])


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def sized(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    return tag(number, 2) + varint(len(content)) + content


def entry(key: bytes, value: bytes) -> bytes:
    """Encode an entry of `features`; `value` is an encoded FeatureValue."""
    return sized(9, sized(1, key) + sized(2, value))


def group(number: int, content: bytes) -> bytes:
    return tag(number, 3) + content + tag(number, 4)


class Requests:
    """The requests of one seed: an endless iterator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = count()
        self._kinds = [make for make, _ in self._table()]
        self._weights = [weight for _, weight in self._table()]

    def __iter__(self) -> Iterator[Ask]:
        while True:
            (make,) = self._random.choices(self._kinds, self._weights)
            yield make()

    def _table(self) -> tuple[tuple[Callable[[], Ask], float], ...]:
        bytes_of = partial(partial, self._mutated)
        return (
            (self._named, 10),
            (self._dense, 10),
            (self._wrong_fields, 10),
            (self._wrong_features, 10),
            (self._wrong_names, 2),
            (self._wrong_dense, 8),
            (bytes_of("flipped", self._flipped), 8),
            (bytes_of("truncated", self._truncated), 5),
            (bytes_of("inserted", self._inserted), 5),
            (bytes_of("spliced", self._spliced), 5),
            (bytes_of("repeated", self._repeated), 4),
            (bytes_of("unknown field", self._unknown_field), 5),
            (bytes_of("bad varint", self._bad_varint), 4),
            (bytes_of("nested", self._nested), 2),
            # Under load the features go unread, and what is wrong with them unseen.
            (bytes_of("bad utf-8", self._bad_utf8, REFUSED | ANSWERED), 4),
            (bytes_of("random", self._random_bytes), 4),
            (self._empty, 0.5),
            (self._of_size, 1),
            (self._odd_metadata, 3),
            (self._odd_deadline, 3),
            (self._cancelled, 3),
            (self._compressed, 1),
            (self._unknown_method, 1),
            (self._health, 2),
            (self._watch, 0.5),
            (self._infer, 6),
            (self._reflection, 1),
        )

    # requests that are right

    def _base(self) -> DecideRequest:
        pick = self._random
        return DecideRequest(
            product=pick.choice(tuple(PRODUCTS)),
            transaction_id=f"t-{next(self._number)}",
            event_time={
                "seconds": EVENT_S + pick.randrange(10_000_000),
                "nanos": pick.choice(NANOS),
            },
            amount=pick.choice((0, 1, 2_000, 14_999, 15_001, 10**9, pick.getrandbits(63))),
            currency="USD",
            category=pick.choice(("", "5411", "5912", "5541", "9999")),
            channel=pick.choice(("", "ecommerce", "pos")),
            subject=pick.choice(("", "customer-1", f"{pick.getrandbits(256):064x}")),
        )

    def _row(self) -> list[float]:
        pick = self._random
        return [
            pick.choice((0.0, 20.0, 1e6, pick.uniform(0, 1e6))),
            pick.uniform(-3, 3),
            pick.choice((-1000.0, 0.0, 5e4)),
            float(pick.randrange(1001)),
            float(pick.randrange(2)),
            float(pick.randrange(3)),
            float(pick.randrange(3)),
        ]

    def _right(self, *, dense: bool | None = None) -> DecideRequest:
        asked, row = self._base(), self._row()
        if self._random.random() < 0.5 if dense is None else dense:
            asked.dense = np.array(row, dtype="<f4").tobytes()
            asked.schema_fingerprint = FINGERPRINT
            return asked
        for feature, value in zip(FEATURES, row, strict=True):
            if "missing" in feature and self._random.random() < 0.2:
                continue
            if feature["type"] == "category":
                asked.features[feature["name"]].text = feature["values"][int(value)]
            else:
                asked.features[feature["name"]].number = value
        return asked

    def _named(self) -> Ask:
        return Ask("named", encoded(self._right(dense=False)), expected=ACTIONS)

    def _dense(self) -> Ask:
        return Ask("dense", encoded(self._right(dense=True)), expected=ACTIONS)

    # values that are wrong

    def _text(self) -> str:
        pick, lot = self._random, self._random.random()
        if lot < 0.7:
            return pick.choice(LONG_TEXTS if lot < 0.02 else TEXTS)
        low, high = pick.choice(((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0x10000, 0x10FFFF)))
        return "".join(chr(pick.randint(low, high)) for _ in range(pick.randint(1, 300)))

    def _wrong_fields(self) -> Ask:
        pick, asked = self._random, self._right()
        for name in pick.sample(FIELDS, pick.choice((1, 1, 1, 2, 4, len(FIELDS)))):
            if name == "amount":
                asked.amount = pick.choice(WHOLE)
            elif name == "event_time":
                asked.ClearField("event_time")
                if pick.random() < 0.8:
                    asked.event_time.seconds = pick.choice(WHOLE)
                    asked.event_time.nanos = pick.choice((0, -1, 10**9, 2**31 - 1, -(2**31)))
            else:
                setattr(asked, name, self._text())
        return Ask("wrong field", encoded(asked))

    def _wrong_features(self) -> Ask:
        pick, asked = self._random, self._right(dense=False)
        for name in pick.sample(NAMES, pick.choice((1, 1, 2, len(NAMES)))):
            match pick.randrange(5):
                case 0:
                    asked.features.pop(name, None)
                case 1:
                    asked.features[name].Clear()
                case 2:
                    asked.features[name].text = self._text()
                case _:
                    asked.features[name].number = pick.choice(NUMBERS)
        return Ask("wrong feature", encoded(asked))

    def _wrong_names(self) -> Ask:
        pick, asked = self._random, self._right(dense=False)
        for i in range(pick.choice((1, 1, 2, 10, 100, 3_000))):
            asked.features[pick.choice((f"x{i}", f"amount{i}", f"{i}" * 4))].number = 1.0
        if pick.random() < 0.5:
            asked.features[self._text()].text = self._text()
        return Ask("wrong name", encoded(asked))

    def _wrong_dense(self) -> Ask:
        pick, asked = self._random, self._right(dense=True)
        row = bytearray(asked.dense)
        match pick.randrange(6):
            case 0:
                row = bytearray(pick.randbytes(pick.choice((*range(40), 4096, 60_000))))
            case 1:  # any NaN has its payload bits, and any infinity its sign
                place = 4 * pick.randrange(len(FEATURES))
                bits = 0x7F800000 | pick.getrandbits(23) * pick.randrange(2)
                row[place : place + 4] = (bits | pick.getrandbits(1) << 31).to_bytes(4, "little")
            case 2:
                place = 4 * pick.randrange(len(FEATURES))
                with np.errstate(over="ignore"):
                    row[place : place + 4] = np.array([pick.choice(NUMBERS)], "<f4").tobytes()
            case 3:
                row = bytearray(pick.randbytes(len(row)))
            case 4:
                asked.schema_fingerprint = self._text()
            case _:
                asked.features["ratio"].number = pick.choice(NUMBERS)
        asked.dense = bytes(row)
        return Ask("wrong dense", encoded(asked))

    # bytes that are wrong

    def _mutated(
        self, kind: str, change: Callable[[bytes], bytes], expected: frozenset[str] = ANSWERED
    ) -> Ask:
        return Ask(kind, change(encoded(self._right())), expected=expected)

    def _flipped(self, payload: bytes) -> bytes:
        flipped = bytearray(payload)
        for _ in range(self._random.choice((1, 1, 2, 8, 64)) if payload else 0):
            flipped[self._random.randrange(len(flipped))] ^= 1 << self._random.randrange(8)
        return bytes(flipped)

    def _truncated(self, payload: bytes) -> bytes:
        return payload[: self._random.randrange(len(payload))]

    def _inserted(self, payload: bytes) -> bytes:
        pick = self._random
        place = pick.randrange(len(payload) + 1)
        piece = pick.randbytes(pick.choice((1, 1, 2, 8, 300)))
        return payload[:place] + piece + payload[place:]

    def _spliced(self, payload: bytes) -> bytes:
        other = encoded(self._right())
        end, start = self._random.randrange(len(payload)), self._random.randrange(len(other))
        return payload[:end] + other[start:]

    def _repeated(self, payload: bytes) -> bytes:
        """Append fields that are there already, or say the opposite: the last one wins."""
        pick = self._random
        name = pick.choice(NAMES).encode()
        number, text = tag(1, 1) + pick.randbytes(8), sized(2, b"chip")
        return payload + pick.choice(
            (
                payload * pick.choice((1, 2, 20)),
                sized(1, b"test") * pick.choice((1, 1000)),
                sized(3, tag(1, 0) + varint(EVENT_S)) + sized(3, tag(2, 0) + varint(5)),
                entry(name, number) + entry(name, text) + entry(name, number + text),
                entry(name, b"") * pick.choice((2, 1000)),
                sized(9, b"") * 3,
                sized(9, sized(1, name) * 2 + sized(2, number) + sized(2, text)),
                sized(10, b"") + sized(10, bytes(28)),
            )
        )

    def _unknown_field(self, payload: bytes) -> bytes:
        pick = self._random
        number = pick.choice((12, 15, 16, 100, 2047, 18_999, 19_000, 2**29 - 1, 0, 2**29, 2**31))
        content = pick.randbytes(pick.choice((0, 1, 8, 2_000)))
        piece = pick.choice(
            (
                tag(number, 0) + varint(pick.getrandbits(64)),
                tag(number, 1) + pick.randbytes(8),
                sized(number, content),
                group(number, sized(1, content)),
                tag(number, 5) + pick.randbytes(4),
                tag(number, pick.choice((3, 4, 6, 7))) + content,
                group(number, b"")[:-1] + b"\x7c",
                # a known field in another wire type
                tag(pick.randint(1, 11), pick.choice((0, 1, 5))) + pick.randbytes(8),
            )
        )
        wrapped = pick.choice((piece, piece, entry(b"ratio", piece), sized(3, piece)))
        return wrapped + payload if pick.random() < 0.5 else payload + wrapped

    def _bad_varint(self, payload: bytes) -> bytes:
        pick = self._random
        padding = pick.randint(1, 12)
        return payload + pick.choice(
            (
                tag(4, 0) + varint(5, padding=padding),
                tag(4, 0) + b"\xff" * pick.randint(9, 12) + b"\x01",
                varint(4 << 3, padding=padding) + b"\x05",
                tag(1, 2) + varint(4, padding=padding) + b"test",
                tag(1, 2) + varint(pick.choice((2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))),
                tag(9, 2) + varint(len(payload) * 2) + payload,
                b"\x80" * pick.choice((1, 10, 11, 10_000)),
            )
        )

    def _nested(self, payload: bytes) -> bytes:
        pick = self._random
        depth = pick.choice((1, 2, 50, 99, 100, 101, 1_000, 10_000))
        number = pick.choice((12, 15, 3, 9))
        groups = tag(number, 3) * depth + tag(number, 4) * (depth - pick.choice((0, 0, 0, 1)))
        messages = b""
        for _ in range(min(depth, 200)):
            messages = sized(number, messages)
        piece = pick.choice((groups, groups, messages, entry(b"ratio", groups), sized(3, groups)))
        return payload + piece

    def _bad_utf8(self, payload: bytes) -> bytes:
        pick, bad = self._random, self._random.choice(BAD_UTF8)
        return payload + pick.choice(
            (
                sized(pick.choice(STRINGS), bad),
                entry(bad, tag(1, 1) + bytes(8)),
                entry(b"entry_mode", sized(2, bad)),
            )
        )

    def _random_bytes(self, _: bytes) -> bytes:
        return self._random.randbytes(self._random.choice((1, 2, 7, 30, 300, 5_000, 65_000)))

    def _empty(self) -> Ask:
        return Ask("empty", b"", expected=REFUSED)

    # calls that are odd

    def _of_size(self) -> Ask:
        """Pad a right request with an unknown field, to a size around the limit."""
        payload = encoded(self._right())
        near = range(MESSAGE_BYTES_MAX - 3, MESSAGE_BYTES_MAX + 4)
        size = self._random.choice((*near, MESSAGE_BYTES_MAX // 2, 1 << 20))
        head = tag(15, 2) + varint(MESSAGE_BYTES_MAX)  # its length takes three bytes, up to 2 MiB
        content = size - len(payload) - len(head)
        padded = payload + head[:1] + varint(content) + bytes(content)
        assert len(padded) == size
        expected = ACTIONS if size <= MESSAGE_BYTES_MAX else TOO_LONG
        return Ask("size", padded, expected=expected)

    def _odd_metadata(self) -> Ask:
        pick = self._random
        letters = "".join(map(chr, range(0x21, 0x7F)))
        value = "".join(pick.choices(letters, k=pick.randint(1, 120)))
        size = pick.choice((7_000, 8_192, 9_000, 20_000, pick.randint(7_000, 8_000)))
        trace = f"00-{pick.getrandbits(128):032x}-{pick.getrandbits(64):016x}-01"
        metadata: tuple[tuple[str, str | bytes], ...] = pick.choice(
            (
                (("traceparent", trace),),
                (("traceparent", trace.upper()),),
                (("traceparent", trace[: pick.randrange(len(trace))]),),
                (("traceparent", trace + value),),
                (("traceparent", value), ("traceparent", trace), ("tracestate", value)),
                (("traceparent", trace.replace("0", " ")),),
                (("traceparent-bin", pick.randbytes(pick.randrange(200))),),
                (("x-bin", pick.randbytes(pick.randrange(2_000))), ("0-bin", b"\x00")),
                (("k", "v" * size),),
                tuple((f"k{i}", value[:30]) for i in range(pick.choice((100, 150, 500)))),
                (("a.b_c-d", value), ("0", ""), ("user-agent", value), ("te", "x")),
                (("grpc-status-details-bin", pick.randbytes(50)), ("grpc-message", value)),
            )
        )
        # Over 8 KiB the transport may refuse it; grpcio draws lots from there on.
        expected = ACTIONS if listed_bytes(metadata) < 7_000 else ACTIONS | TOO_LONG
        return Ask("metadata", encoded(self._right()), metadata=metadata, expected=expected)

    def _odd_deadline(self) -> Ask:
        timeout_s = self._random.choice((0.0, -1.0, 1e-9, 0.001, 0.002, 0.02, 3e5, 1e8, 1e9))
        expected = ACTIONS | {"DEADLINE_EXCEEDED"} if timeout_s < 1 else ACTIONS
        payload = encoded(self._right())
        return Ask("deadline", payload, timeout_s=timeout_s, expected=expected)

    def _cancelled(self) -> Ask:
        cancel_s = self._random.choice((0.0, 0.001, 0.01, 0.04, 0.07))
        payload = encoded(self._right())
        return Ask("cancelled", payload, cancel_s=cancel_s, expected=ACTIONS | {"CANCELLED"})

    def _compressed(self) -> Ask:
        pick = self._random
        if pick.random() < 0.2:  # a megabyte of nothing, in a kilobyte
            bomb = encoded(self._right()) + sized(15, bytes(1 << 20))
            return Ask("compressed", bomb, compressed=True, expected=TOO_LONG)
        payload = encoded(self._right()) + sized(15, bytes(pick.choice((0, 1_000, 50_000))))
        return Ask("compressed", payload, compressed=True, expected=ACTIONS)

    def _unknown_method(self) -> Ask:
        path = self._random.choice(UNKNOWN_METHODS)
        payload = self._random.choice((b"", encoded(self._right()), bytes(10_000)))
        return Ask("unknown method", payload, path, expected=NO_METHOD)

    def _garbage(self, *right: bytes) -> bytes:
        pick = self._random
        change = pick.choice((self._random_bytes, self._flipped, self._bad_utf8, lambda same: same))
        return change(pick.choice(right))

    def _health(self) -> Ask:
        asked = [health_pb2.HealthCheckRequest(service=self._text()).SerializeToString()]
        asked += [b"\x0a\x0cproduct/test", b"\x0a\x0cproduct/nope"]
        return Ask("health", self._garbage(*asked), CHECK)

    def _watch(self) -> Ask:
        asked = self._garbage(
            b"\x0a\x0cproduct/test",
            health_pb2.HealthCheckRequest(service=self._text() + "?").SerializeToString(),
        )
        expected = frozenset({"DEADLINE_EXCEEDED", "INVALID_ARGUMENT"})
        return Ask("watch", asked, WATCH, timeout_s=0.05, expected=expected)

    def _infer(self) -> Ask:
        """A call of a model itself, of any of the protocol's methods; most of them ModelInfer."""
        pick, rows = self._random, self._random.choice((1, 2, 31))
        asked = ModelInferRequest(model_name=pick.choice((*PRODUCTS, "test/v1", self._text())))
        shape = [rows, 7] if pick.random() < 0.8 else [pick.choice(WHOLE), pick.choice((7, 0, -1))]
        datatype = "FP32" if pick.random() < 0.9 else pick.choice(("FP64", "BYTES", self._text()))
        tensor = asked.inputs.add(name="features", datatype=datatype, shape=shape)
        numbers = [pick.choice((1.0, float("nan"), 3e38, -0.0)) for _ in range(7 * rows)]
        if pick.random() < 0.5:
            asked.raw_input_contents.append(np.array(numbers, dtype="<f4").tobytes())
        else:
            tensor.contents.fp32_contents.extend(numbers)
        if pick.random() < 0.3:
            asked.parameters["timeout"].int64_param = pick.choice(WHOLE)
            asked.parameters["priority"].uint64_param = pick.choice((0, 1, 2**64 - 1))
        if pick.random() < 0.2:
            asked.outputs.add(name=pick.choice(("probabilities", self._text())))
        method = "ModelInfer" if pick.random() < 0.9 else pick.choice(INFER_OTHERS)
        content = asked.SerializeToString(deterministic=True)
        return Ask("infer", self._garbage(content), INFER + method)

    def _reflection(self) -> Ask:
        request, text = reflection_pb2.ServerReflectionRequest, self._text()
        asked = [
            request(list_services=text),
            request(file_by_filename=text),
            request(file_containing_symbol=text, host=text),
            request(file_containing_symbol="gateway.v1.DecisionService"),
            request(
                file_containing_extension={
                    "containing_type": self._random.choice((text, "gateway.v1.DecideRequest")),
                    "extension_number": self._random.choice((0, 1, -1, 2**31 - 1)),
                }
            ),
            request(all_extension_numbers_of_type=text),
            request(),
        ]
        payload = self._garbage(*(one.SerializeToString() or b"\x3a\x00" for one in asked))
        return Ask("reflection", payload, REFLECTION)


def encoded(asked: DecideRequest) -> bytes:
    """Serialise in one order, whatever the process: a seed is to give the same bytes."""
    content: bytes = asked.SerializeToString(deterministic=True)
    return content


def listed_bytes(metadata: Sequence[tuple[str, str | bytes]]) -> int:
    """Return a header list's size as HTTP/2 counts it (RFC 9113, 6.5.2)."""
    return sum(len(key) + len(value) + 32 for key, value in metadata)


# Sending them


@dataclass(slots=True)
class Tally:
    """What came of the requests so far. `faults` holds the first few, to be sent again."""

    done: int = 0
    kinds: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    stand_ins: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    faulty: int = 0

    def count(self, index: int, ask: Ask, outcome: str, said: str) -> None:
        """Count one outcome, and hold it against what was expected."""
        self.done += 1
        self.kinds[ask.kind][outcome] += 1
        # On a busy machine a burst is shed unread, whatever it holds.
        is_shed = outcome == "RESOURCE_EXHAUSTED" and said.startswith("more calls have arrived")
        if (outcome in ask.expected or is_shed) and "Traceback" not in said:
            return
        self.faulty += 1
        alike = [x for x in self.faults if (x["kind"], x["outcome"]) == (ask.kind, outcome)]
        if len(alike) < FAULTS_SHOWN:
            shown = {"index": index, "kind": ask.kind, "outcome": outcome, "said": said[:300]}
            shown |= {"path": ask.path[:80], "bytes": len(ask.payload)}
            self.faults.append(shown | {"payload": ask.payload[:300].hex()})

    def outcomes(self) -> Counter[str]:
        return sum(self.kinds.values(), Counter())


async def sent(channel: grpc.aio.Channel, ask: Ask, stand_ins: Counter[str]) -> tuple[str, str]:
    """Send one request; return its outcome, an action's or a status' name, and what was said."""
    call = channel.unary_unary(ask.path)(
        ask.payload,
        timeout=ask.timeout_s,
        metadata=ask.metadata,
        compression=grpc.Compression.Gzip if ask.compressed else None,
    )
    if ask.cancel_s is not None:
        asyncio.get_running_loop().call_later(ask.cancel_s, call.cancel)
    try:
        async with asyncio.timeout(HANG_S):
            answer = await call
    except TimeoutError:
        return "HANG", f"no answer in {HANG_S:g} s"
    except asyncio.CancelledError:
        if not call.cancelled():
            raise
        return "CANCELLED", ""
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return decided(answer, stand_ins) if ask.path == DECIDE else ("OK", "")


def decided(answer: bytes, stand_ins: Counter[str]) -> tuple[str, str]:
    """Return the action of an answer, or what keeps it from being one."""
    try:
        response = DecideResponse.FromString(answer)
    except DecodeError:
        return "NO RESPONSE", "not a DecideResponse"
    if response.stand_in:
        stand_ins[StandIn.Name(response.stand_in)] += 1
    numbers = [response.probability, *(one.cost for one in response.expected_costs)]
    if not all(map(isfinite, numbers)) or not 0.0 <= response.probability <= 1.0:
        return "NO NUMBER", str(numbers)
    if not response.recorded:
        return "UNRECORDED", ""
    return ACTION_NAMES.get(response.action, "NO ACTION"), ""


async def send_all(
    address: str,
    asks: Iterator[tuple[int, Ask]],
    tally: Tally,
    *,
    channels: int = 4,
    in_flight: int = 32,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Send every numbered request, `in_flight` at once on each of several connections."""

    async def caller(channel: grpc.aio.Channel) -> None:
        for index, ask in asks:
            outcome, said = await sent(channel, ask, tally.stand_ins)
            tally.count(index, ask, outcome, said)
            after_each()

    opened = [
        grpc.aio.insecure_channel(
            address, options=(("grpc.use_local_subchannel_pool", 1), ("fuzz.channel", i))
        )
        for i in range(channels)
    ]
    try:
        await asyncio.gather(*(caller(one) for one in opened for _ in range(in_flight)))
    finally:
        for one in opened:
            await one.close()


# The worker


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    """Return what /proc says of a process: VmRSS now, VmHWM the most so far; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(what + ":"))


@contextmanager
def serving(
    folders: Sequence[Path], journal: Path, log: Path, front: str
) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Start `gateway serve` as a child; give it, the pid of its worker, and its address."""
    command = [sys.executable, "-m", "gateway", "serve", *map(str, folders), "--json"]
    command += ["--workers", "1"]
    command += ["--front", front, "--listen", "127.0.0.1:0", "--journal", str(journal)]
    with log.open("w") as stderr:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line:
            raise SystemExit(f"gateway serve did not start:\n{log.read_text()}")
        started = json.loads(line)
        yield child, started["workers"][0]["pid"], started["address"]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def stopped(child: subprocess.Popen[str]) -> str:
    """Ask the gateway to end; return what is wrong about how it does, or nothing."""
    if (code := child.poll()) is not None:
        return f"the supervisor died with {code}"
    child.send_signal(signal.SIGTERM)
    try:
        code = child.wait(30)
    except subprocess.TimeoutExpired:
        return "SIGTERM does not end the gateway"
    return f"the gateway ended with {code}" if code else ""


def fuzz(front: str, *, requests: int, seed: int, only: int | None = None) -> dict[str, Any]:
    """Send the requests of a seed to a worker of its own; return the summary.

    `wrong` in the summary says what is; it is empty where all went as it should.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-fuzz-") as name:
        journal, log = Path(name) / "journal", Path(name) / "log"
        folders = [write_product(Path(name) / product, product) for product in PRODUCTS]
        first, last = (0, requests) if only is None else (only, only + 1)
        tally = Tally()
        with serving(folders, journal, log, front) as (child, worker, address):
            progress = Progress(worker, tally, last - first)
            began_s = time.monotonic()
            chosen = islice(enumerate(Requests(seed)), first, last)
            uvloop.run(send_all(address, chosen, tally, after_each=progress.look))
            seconds = time.monotonic() - began_s
            rss = {**progress.rss, "end": memory_mb(worker)}
            rss["peak"] = memory_mb(worker, "VmHWM")
            end = stopped(child)
        report, said = verify(journal), log.read_text()
    entries = Counter({kind.name.lower(): n for kind, n in report.entries.items()})
    outcomes, tracebacks = tally.outcomes(), said.count("Traceback")
    grown = rss["end"] - rss["warm"]
    wrong = [
        f"outcomes that are none: {tally.faulty}" if tally.faulty else "",
        f"tracebacks in the log: {said[said.find('Traceback') :][:2000]}" if tracebacks else "",
        "the worker died" if ") died: " in said else "",
        f"{grown:.0f} MB more than when it was warm" if grown > GROWTH_MB_MAX else "",
        "" if report.ok else "the journal does not verify",
        ""
        if entries["decision"] >= sum(outcomes[action] for action in ACTIONS)
        else "the journal holds fewer decisions than were answered",
        end,
    ]
    return {
        "front": front,
        "seed": seed,
        "requests": tally.done,
        "seconds": round(seconds, 1),
        "per_second": round(tally.done / seconds),
        "outcomes": dict(outcomes.most_common()),
        "stand_ins": dict(tally.stand_ins.most_common()),
        "kinds": {kind: dict(n.most_common()) for kind, n in sorted(tally.kinds.items())},
        "rss_mb": {what: round(mb, 1) for what, mb in rss.items()},
        "journal": {"ok": report.ok, **entries},
        "wrong": [what for what in wrong if what],
        "faults": tally.faults,
        "log": said[-4_000:] if tracebacks else "",
    }


class Progress:
    """A line a second on stderr, and the worker's memory once it is warm."""

    def __init__(self, pid: int, tally: Tally, requests: int) -> None:
        self.rss = {"start": memory_mb(pid)}
        self._pid, self._tally, self._requests = pid, tally, requests
        self._began_s = self._next_s = time.monotonic()

    def look(self) -> None:
        done = self._tally.done
        if done == -(-self._requests // 10):
            self.rss["warm"] = memory_mb(self._pid)
        if (now_s := time.monotonic()) < self._next_s and done < self._requests:
            return
        self._next_s = now_s + 1
        rate = done / max(now_s - self._began_s, 1e-9)
        print(
            f"\r{done:,}/{self._requests:,}, {rate:,.0f}/s, {memory_mb(self._pid):.0f} MB, "
            f"{self._tally.faulty} faults ",
            end="\n" if done == self._requests else "",
            file=sys.stderr,
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--front", choices=("native", "grpcio"), default="native")
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="send only this one of the seed's requests")
    given = parser.parse_args(arguments)
    summary = fuzz(given.front, requests=given.requests, seed=given.seed, only=given.only)
    print(json.dumps(summary, indent=1))
    return 1 if summary["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
