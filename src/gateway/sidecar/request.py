"""A recorded DecideRequest, read no further than the lake needs.

The contract's own message with one field declared otherwise: the features' entries stay bytes.
To read thirty of them as messages takes as long as all the rest of a row; most of them begin with
bytes that were seen before, and end with the eight of a number.
"""

from __future__ import annotations

import struct
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP

from gateway.v1.decision_pb2 import DESCRIPTOR, DecideRequest

_FEATURES: Any = DecideRequest.DESCRIPTOR.fields_by_name["features"].message_type
_ENTRY: Any = GetMessageClass(_FEATURES)
_NUMBER = struct.Struct("<d")

NUMBER_BYTES = _NUMBER.size
"""At the end of an entry that holds a number."""


def _with_features_as_bytes() -> Any:
    contract, flat = FileDescriptorProto(), FileDescriptorProto()
    DESCRIPTOR.CopyToProto(contract)
    flat.name, flat.package, flat.syntax = "flat.proto", contract.package, contract.syntax
    flat.dependency.append(TIMESTAMP.name)
    (message,) = (one for one in contract.message_type if one.name == "DecideRequest")
    kept = flat.message_type.add(name=message.name)
    for field in message.field:
        if field.name == "features":
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
        kept.field.append(field)
    pool = DescriptorPool()
    pool.AddSerializedFile(TIMESTAMP.serialized_pb)
    pool.AddSerializedFile(flat.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{flat.package}.{message.name}"))


FlatRequest: Any = _with_features_as_bytes()
"""A DecideRequest whose `features` are a list of bytes, an entry each."""


def read_entry(entry: bytes) -> tuple[str, float | str | None]:
    """Return a feature's name and value. Raises google.protobuf.message.DecodeError."""
    pair = _ENTRY.FromString(entry)
    kind = pair.value.WhichOneof("kind")
    return pair.key, getattr(pair.value, kind) if kind else None


def number_head(entry: bytes, value: float) -> bytes | None:
    """Return the bytes before an entry's number, where they are all but the number."""
    return entry[:-NUMBER_BYTES] if entry[-NUMBER_BYTES:] == _NUMBER.pack(value) else None
