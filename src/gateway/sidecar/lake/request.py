"""A recorded request and its response, read no further than the lake needs.

The contract's own messages with some fields left out, and some declared otherwise: the entries of
features and costs stay bytes. To read thirty features as messages takes as long as all the rest of
a row; most of them begin with bytes that were seen before, and end with the eight of a number.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP
from numpy.typing import NDArray

from gateway.v1.decision_pb2 import DESCRIPTOR, DecideRequest, ExpectedCost

_FEATURES: Any = DecideRequest.DESCRIPTOR.fields_by_name["features"].message_type
_ENTRY: Any = GetMessageClass(_FEATURES)
_NUMBER = struct.Struct("<d")

NUMBER_BYTES = _NUMBER.size
"""At the end of an entry that holds a number."""


def _flat(name: str, *, as_bytes: str, without: tuple[str, ...] = ()) -> Any:
    contract, flat = FileDescriptorProto(), FileDescriptorProto()
    DESCRIPTOR.CopyToProto(contract)
    flat.name, flat.package, flat.syntax = "flat.proto", contract.package, contract.syntax
    flat.dependency.append(TIMESTAMP.name)
    (message,) = (one for one in contract.message_type if one.name == name)
    kept = flat.message_type.add(name=name, oneof_decl=message.oneof_decl)
    for field in message.field:
        if field.name == as_bytes:
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
        if field.name not in without:
            kept.field.append(field)
    pool = DescriptorPool()
    pool.AddSerializedFile(TIMESTAMP.serialized_pb)
    pool.AddSerializedFile(flat.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{flat.package}.{name}"))


FlatRequest: Any = _flat("DecideRequest", as_bytes="features")
"""A DecideRequest whose `features` are a list of bytes, an entry each."""

FlatResponse: Any = _flat(
    "DecideResponse",
    as_bytes="expected_costs",
    without=("action", "stand_in", "reasons", "model", "decision_id", "contact_by"),
)
"""A DecideResponse whose `expected_costs` are a list of bytes; it lacks what is not numbers."""

COST = np.dtype([("tag", "u1"), ("action", "u1"), ("cost_tag", "u1"), ("cost", "<f8")])
"""The bytes of an ExpectedCost as the gateway writes it."""


def read_costs(entries: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the actions and costs of ExpectedCosts. Raises DecodeError."""
    joined = b"".join(entries)
    if len(joined) == COST.itemsize * len(entries):
        costs = np.frombuffer(joined, COST)
        if (costs["tag"] == 0x08).all() and (costs["cost_tag"] == 0x11).all():
            return costs["action"], costs["cost"]
    read = [ExpectedCost.FromString(entry) for entry in entries]
    return (
        np.array([one.action for one in read], dtype=np.uint8),
        np.array([one.cost for one in read], dtype=np.float64),
    )


def read_entry(entry: bytes) -> tuple[str, float | str | None]:
    """Return a feature's name and value. Raises google.protobuf.message.DecodeError."""
    pair = _ENTRY.FromString(entry)
    kind = pair.value.WhichOneof("kind")
    return pair.key, getattr(pair.value, kind) if kind else None


def number_head(entry: bytes, value: float) -> bytes | None:
    """Return the bytes before an entry's number, where they are all but the number."""
    return entry[:-NUMBER_BYTES] if entry[-NUMBER_BYTES:] == _NUMBER.pack(value) else None
