"""What an ONNX file says of itself, read without running it: the only door to `onnx`.

What cannot be served whatever the features are is refused here: files beside the file,
operators that need a library, tensors that claim more than there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from gateway.errors import ModelError

DOMAINS = {
    *("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"),
    *("com.microsoft", "com.microsoft.nchwc"),
}
"""Operators of these are in ONNX Runtime itself."""

_DEPTH_MAX = 64
_PACKED = {"INT2", "UINT2", "INT4", "UINT4", "FLOAT4E2M1"}
"""Types of which several share a byte."""


@dataclass(frozen=True, slots=True)
class Facts:
    """An ONNX file in figures. `weights_bytes` is what its tensors take in memory."""

    opset: int
    ir_version: int
    producer: str
    operators: tuple[str, ...]
    weights_bytes: int


def parsed(model: bytes, subject: str) -> ModelProto:
    """Parse an ONNX file.

    Raises:
        ModelError: it is none.
    """
    proto = ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError:
        raise _no_model(subject) from None
    if not proto.ir_version or not proto.graph.node:
        raise _no_model(subject)
    return proto


def inspected(proto: ModelProto, *, memory_bytes: int, subject: str) -> Facts:
    """Look at every operator and tensor of a model, also of its subgraphs and functions.

    Raises:
        ModelError: with all that keeps it from being served anywhere.
    """
    own = {function.domain for function in proto.functions}
    operators: set[str] = set()
    foreign: set[str] = set()
    for node in nodes(proto):
        operators.add(node.op_type)
        if node.domain not in DOMAINS and node.domain not in own:
            foreign.add(f"{node.domain}.{node.op_type}")
    if foreign:
        raise ModelError(
            f"it needs custom operators: {', '.join(sorted(foreign)[:10])}",
            subject=subject,
            hint="Export it with standard operators (the domains ai.onnx and ai.onnx.ml).",
        )
    weights = 0
    for tensor in tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(
                f"it keeps tensor {tensor.name[:100]!r} as external data, in another file",
                subject=subject,
                hint="Save it as one file: onnx.save(onnx.load(PATH), PATH, "
                "save_as_external_data=False).",
            )
        claimed = _bytes_of(tensor)
        if claimed > memory_bytes:
            raise ModelError(
                f"initializer {tensor.name[:100]!r} of {list(tensor.dims)} would take "
                f"{claimed / 2**20:,.0f} MiB of memory, {memory_bytes // 2**20:,} are allowed",
                subject=subject,
                hint="models.limits.memory_mib can be raised.",
            )
        if tensor.raw_data and len(tensor.raw_data) != claimed:
            raise ModelError(
                f"initializer {tensor.name[:100]!r} of {list(tensor.dims)} needs {claimed} bytes, "
                f"but has {len(tensor.raw_data)}",
                subject=subject,
                hint="The file is damaged: export it again.",
            )
        weights += claimed
    for name in _divisions(proto):
        raise ModelError(
            f"node {name[:100]!r} divides whole numbers by what may be 0 or -1",
            subject=subject,
            hint="Such a division ends the whole process on some rows: divide floats, or by a "
            "constant.",
        )
    opset = max(
        (one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=0
    )
    return Facts(
        opset, proto.ir_version, proto.producer_name[:100], tuple(sorted(operators)), weights
    )


_WHOLE = {
    TensorProto.DataType.Value(f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
}


def _divisions(proto: ModelProto) -> Iterator[str]:
    """Yield each Div and Mod of whole numbers whose divisor is not known to be above 0.

    The processor traps on x / 0, and on the least number divided by -1.
    """
    if not any(node.op_type in ("Div", "Mod") for node in nodes(proto)):
        return
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in nodes(proto):
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    types |= {name: tensor.data_type for name, tensor in constants.items()}
    for node in nodes(proto):
        if node.op_type not in ("Div", "Mod") or len(node.input) < 2:
            continue
        dividend, divisor = node.input[:2]
        if _WHOLE.isdisjoint((types.get(dividend), types.get(divisor))):
            continue
        known = constants.get(divisor)
        if known is None or (onnx.numpy_helper.to_array(known) <= 0).any():
            yield node.name or node.output[0]


def nodes(proto: ModelProto) -> Iterator[NodeProto]:
    """Yield every node of the graph, its subgraphs and the model's own functions."""
    yield from _nodes(proto.graph, 0)
    for function in proto.functions:
        for node in function.node:
            yield from _below(node, 0)


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that the file holds: initializers and attributes, at any depth."""
    yield from _initializers(proto.graph)
    for node in nodes(proto):
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def _nodes(graph: GraphProto, depth: int) -> Iterator[NodeProto]:
    for node in graph.node:
        yield from _below(node, depth)


def _below(node: NodeProto, depth: int) -> Iterator[NodeProto]:
    yield node
    if depth < _DEPTH_MAX:
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph, depth + 1)


def _initializers(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices


def _of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor.values
        yield attribute.sparse_tensor.indices
    for graph in (attribute.g, *attribute.graphs):
        yield from _initializers(graph)


def _bytes_of(tensor: TensorProto) -> int:
    """Return what a tensor takes in memory, by its claimed dimensions. Texts count 1 each."""
    count = prod(max(dim, 0) for dim in tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        return count
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        packed = TensorProto.DataType.Name(tensor.data_type) in _PACKED
    except (KeyError, ValueError):
        return len(tensor.raw_data)
    return len(tensor.raw_data) if packed else count * int(dtype.itemsize)


def _no_model(subject: str) -> ModelError:
    return ModelError(
        "is no ONNX file, or a damaged one",
        subject=subject,
        hint="Export it again; compare its size and sha256 with the original's.",
    )
