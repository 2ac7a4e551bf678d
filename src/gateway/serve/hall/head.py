"""What a stand-in needs of a DecideRequest: everything but its features.

A message of the same name and fields as the contract's, made of the contract itself; protobuf
passes over the fields that it does not have. Reading one costs a tenth of reading thirty named
features, and an overloaded gateway reads many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP

from gateway.v1.decision_pb2 import DESCRIPTOR, DecideRequest

_LEFT_OUT = ("features", "dense", "schema_fingerprint")


def _without_features() -> type[DecideRequest]:
    contract, head = FileDescriptorProto(), FileDescriptorProto()
    DESCRIPTOR.CopyToProto(contract)
    head.name, head.package, head.syntax = "head.proto", contract.package, contract.syntax
    head.dependency.append(TIMESTAMP.name)
    (message,) = (one for one in contract.message_type if one.name == "DecideRequest")
    kept = [field for field in message.field if field.name not in _LEFT_OUT]
    head.message_type.add(name=message.name, field=kept)
    pool = DescriptorPool()
    pool.AddSerializedFile(TIMESTAMP.serialized_pb)
    pool.AddSerializedFile(head.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{head.package}.{message.name}"))  # type: ignore[return-value]


if TYPE_CHECKING:

    class DecideRequestHead(DecideRequest):
        """A DecideRequest without its features."""

else:
    DecideRequestHead = _without_features()
