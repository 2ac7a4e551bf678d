"""A ModelInferRequest -> arrays for its model, or every violation; outputs -> a ModelInferResponse.

No violation holds a value, or a name, that the caller sent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.inference.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from gateway.model import FieldViolation
from gateway.serve.inference.offered import BYTES, Offered, Tensor

ROWS_MAX = 512
"""Rows of one call: Python's share of a run holds the hall up no longer than this takes."""

_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Where the elements of a datatype stand, if they do not come raw."""

_PRIORITY, _TIMEOUT = "priority", "timeout"
_NOT_DONE = (
    ("sequence_", "asks for a sequence: each call stands alone here"),
    ("shared_memory_", "asks for shared memory: send and take the tensors in the messages"),
    ("classification", "asks for classes: they are not made here, read the output itself"),
)
_LENGTH = struct.Struct("<I")


class Asked(NamedTuple):
    """What a call asks of its model. `priority` 0 is none, `timeout_us` 0 is none."""

    arrays: dict[str, NDArray[Any]]
    outputs: tuple[str, ...]
    priority: int
    timeout_us: int


class _WrongError(ValueError):
    """What is wrong with one field. Its text holds no value that was sent."""


def read(request: ModelInferRequest, model: Offered) -> tuple[Asked, list[FieldViolation]]:
    """Read a call for a model: what it asks, if nothing is wrong, and all that is."""
    wrong: list[FieldViolation] = []
    priority, timeout_us = _schedule(request.parameters, wrong)
    arrays = _arrays(request, model, wrong)
    outputs = _outputs(request, model, wrong)
    return Asked(arrays, outputs, priority, timeout_us), wrong


def _schedule(
    parameters: Mapping[str, InferParameter], wrong: list[FieldViolation]
) -> tuple[int, int]:
    """Return the priority and the timeout, in microseconds, that a call declares."""
    _refuse_what_is_not_done(parameters, "parameters", wrong)
    declared = {_PRIORITY: 0, _TIMEOUT: 0}
    for name in declared:
        if name not in parameters:
            continue
        parameter = parameters[name]
        kind = parameter.WhichOneof("parameter_choice")
        number = getattr(parameter, kind) if kind in ("int64_param", "uint64_param") else -1
        if number < 0:
            wrong.append(
                FieldViolation(f"parameters[{name}]", "must be a whole number, not negative")
            )
        else:
            declared[name] = number
    return declared[_PRIORITY], declared[_TIMEOUT]


def _refuse_what_is_not_done(
    parameters: Iterable[str], where: str, wrong: list[FieldViolation]
) -> None:
    for beginning, why in _NOT_DONE:
        if any(name.startswith(beginning) for name in parameters):
            wrong.append(FieldViolation(where, why))


# Inputs.


def _arrays(
    request: ModelInferRequest, model: Offered, wrong: list[FieldViolation]
) -> dict[str, NDArray[Any]]:
    """Return an array for each input, or add what is wrong with them."""
    raw: Sequence[bytes] = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        wrong.append(
            FieldViolation("raw_input_contents", "must have one element for each of inputs")
        )
        raw = ()
    arrays: dict[str, NDArray[Any]] = {}
    named: set[str] = set()
    for i, sent in enumerate(request.inputs):
        where = f"inputs[{i}]"
        _refuse_what_is_not_done(sent.parameters, f"{where}.parameters", wrong)
        tensor = model.inputs.get(sent.name)
        if tensor is None:
            known = ", ".join(model.inputs)
            wrong.append(FieldViolation(f"{where}.name", f"is no input of the model: {known}"))
            continue
        if sent.name in named:
            wrong.append(FieldViolation(f"{where}.name", "stands there twice"))
            continue
        named.add(sent.name)
        before = len(wrong)
        if sent.datatype != tensor.datatype:
            wrong.append(FieldViolation(f"{where}.datatype", f"must be {tensor.datatype}"))
        if not _fits(sent.shape, tensor.shape):
            wrong.append(FieldViolation(f"{where}.shape", f"must be {_said(tensor.shape)}"))
        if request.raw_input_contents and sent.HasField("contents"):
            wrong.append(
                FieldViolation(f"{where}.contents", "must be empty beside raw_input_contents")
            )
        if len(wrong) > before or (request.raw_input_contents and not raw):
            continue
        try:
            count = prod(sent.shape)
            flat = _raw(raw[i], tensor, count) if raw else _typed(sent.contents, tensor, count)
            arrays[sent.name] = flat.reshape(tuple(sent.shape))
        except _WrongError as error:
            place = f"raw_input_contents[{i}]" if raw else f"{where}.contents"
            wrong.append(FieldViolation(place, str(error)))
    if missing := [name for name in model.inputs if name not in named]:
        wrong.append(FieldViolation("inputs", f"must have {', '.join(missing)}, too"))
    if not wrong and len({len(array) for array in arrays.values()}) > 1:
        wrong.append(FieldViolation("inputs", "must all have as many rows"))
    return arrays


def _fits(shape: Sequence[int], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        1 <= dim <= ROWS_MAX if want == -1 else dim == want
        for dim, want in zip(shape, wanted, strict=True)
    )


def _said(shape: tuple[int, ...]) -> str:
    shown = f"[{', '.join('rows' if dim == -1 else str(dim) for dim in shape)}]"
    return f"{shown} with 1 to {ROWS_MAX} rows" if -1 in shape else shown


def _raw(content: bytes, tensor: Tensor, count: int) -> NDArray[Any]:
    """Return `count` elements of raw contents. Raises _WrongError."""
    if tensor.datatype == BYTES:
        return _texts(_split(content, count))
    size = count * tensor.dtype.itemsize
    if len(content) != size:
        raise _WrongError(f"must have {size} bytes")
    if tensor.datatype == "BOOL":
        return np.frombuffer(content, dtype=np.uint8).astype(np.bool_)
    return np.frombuffer(content, dtype=tensor.dtype)


def _split(content: bytes, count: int) -> list[bytes]:
    parts: list[bytes] = []
    at, size = 0, len(content)
    while at + _LENGTH.size <= size and len(parts) < count:
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        if length > size - at:
            break
        parts.append(content[at : at + length])
        at += length
    if at != size or len(parts) != count:
        raise _WrongError(f"must have {count} elements, each behind its length as 4 bytes")
    return parts


def _typed(contents: InferTensorContents, tensor: Tensor, count: int) -> NDArray[Any]:
    """Return `count` elements of typed contents. Raises _WrongError."""
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise _WrongError(f"cannot hold {tensor.datatype}: send it in raw_input_contents")
    if {one.name for one, _ in contents.ListFields()} - {field}:
        raise _WrongError(f"must hold {tensor.datatype} in {field}, and nothing else")
    values = getattr(contents, field)
    if len(values) != count:
        raise _WrongError(f"must have {count} elements in {field}")
    if tensor.datatype == BYTES:
        return _texts(values)
    if tensor.dtype.kind in "iu":
        wide = np.fromiter(values, dtype=f"{tensor.dtype.kind}8", count=count)
        bounds = np.iinfo(tensor.dtype)
        if wide.min() < bounds.min or wide.max() > bounds.max:
            raise _WrongError(f"has a number that {tensor.datatype} cannot hold")
        return wide.astype(tensor.dtype)
    return np.fromiter(values, dtype=tensor.dtype, count=count)


def _texts(parts: Sequence[bytes]) -> NDArray[Any]:
    array = np.empty(len(parts), dtype=object)
    try:
        array[:] = [part.decode() for part in parts]
    except UnicodeDecodeError:
        raise _WrongError("must be UTF-8: the model takes texts") from None
    return array


# Outputs.


def _outputs(
    request: ModelInferRequest, model: Offered, wrong: list[FieldViolation]
) -> tuple[str, ...]:
    """Return the outputs that are asked for, all where none is named."""
    asked: list[str] = []
    for i, sent in enumerate(request.outputs):
        where = f"outputs[{i}]"
        _refuse_what_is_not_done(sent.parameters, f"{where}.parameters", wrong)
        if sent.name in asked:
            wrong.append(FieldViolation(f"{where}.name", "stands there twice"))
        elif sent.name in model.outputs:
            asked.append(sent.name)
        elif any(sent.name == port.name for port in model.classifier.session.outputs):
            wrong.append(FieldViolation(f"{where}.name", "is no tensor, and cannot be sent"))
        else:
            known = ", ".join(model.outputs)
            wrong.append(FieldViolation(f"{where}.name", f"is no output of the model: {known}"))
    return tuple(asked or model.outputs)


def response(
    request_id: str, model: Offered, names: Sequence[str], values: Sequence[Any]
) -> ModelInferResponse:
    """Return what a model gave for its outputs `names`, as it travels."""
    answer = ModelInferResponse(model_name=model.name, model_version=model.version, id=request_id)
    for name, value in zip(names, values, strict=True):
        tensor = model.outputs[name]
        said = answer.outputs.add(name=name, datatype=tensor.datatype)
        if tensor.is_map:
            classes = list(value[0])
            said.parameters["classes"].string_param = json.dumps(classes, ensure_ascii=False)
            value = [[row.get(key, np.nan) for key in classes] for row in value]
        array = np.asarray(value, dtype=tensor.dtype)
        said.shape.extend(array.shape)
        if tensor.datatype == BYTES:
            content = b"".join(_prefixed(str(text).encode()) for text in array.flat)
        else:
            content = array.tobytes()
        answer.raw_output_contents.append(content)
    return answer


def _prefixed(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text
