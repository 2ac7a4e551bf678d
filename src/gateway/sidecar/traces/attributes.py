"""Pieces of OTLP messages as bytes.

A message is the concatenation of its fields in any order, so that what is the same for many spans
is encoded once, by protobuf's own classes, and what changes is packed behind it.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | bool | int | float | Sequence[str]


def key_value(key: str, value: Value) -> KeyValue:
    """Return an attribute as OTLP's message."""
    match value:
        case bool():
            held = AnyValue(bool_value=value)
        case str():
            held = AnyValue(string_value=value)
        case int():
            held = AnyValue(int_value=value)
        case float():
            held = AnyValue(double_value=value)
        case _:
            held = AnyValue()
            for one in value:
                held.array_value.values.add(string_value=one)
    return KeyValue(key=key, value=held)


def attribute(key: str, value: Value) -> bytes:
    """Return one attribute of a span, as a field of it."""
    return Span(attributes=[key_value(key, value)]).SerializeToString()


def attributes(**values: Value) -> bytes:
    """Return attributes of a span, their keys without `gateway.`; `__` stands for a dot."""
    return b"".join(
        attribute(f"gateway.{key.replace('__', '.')}", value) for key, value in values.items()
    )


def failed(error_type: str) -> bytes:
    """Return the error status of a span, and the attribute that says of what kind."""
    status = Status(code=Status.STATUS_CODE_ERROR, message=error_type)
    return Span(status=status).SerializeToString() + attribute("error.type", error_type)


class Numbers:
    """Attributes that are doubles, packed with one call."""

    def __init__(self, *keys: str) -> None:
        # Eight bytes of value come last in a field of one double.
        self._heads = [attribute(key, 0.0)[:-8] for key in keys]
        self._layout = Struct("<" + "".join(f"{len(head)}sd" for head in self._heads))
        self._parts: list[bytes | float] = [part for head in self._heads for part in (head, 0.0)]

    def pack(self, *values: float) -> bytes:
        """Return the attributes, `values` in the order of the keys."""
        parts = self._parts[:]
        parts[1::2] = values
        return self._layout.pack(*parts)


_SHORT = tuple(bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80, n >> 7]) for n in range(0x4000))


def varint(number: int) -> bytes:
    """Encode a number that is not negative, as a length or an integer."""
    if number < 0x4000:
        return _SHORT[number]
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def held(tag: bytes, message: bytes) -> bytes:
    """Return an encoded message as a field of another; `tag`: the field's, of wire type 2."""
    return b"".join((tag, varint(len(message)), message))
