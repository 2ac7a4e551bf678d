"""What an ONNX graph says of the columns it is fed and of the classes it gives. Pure.

Columns are followed from the inputs through what only moves them (Concat, Gather, Cast, ...)
to the operators that tell something of them: an encoder lists a column's texts, weights and
trees say how many columns there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")

_CONSTANT_BYTES_MAX = 1 << 24
"""Larger tensors are no lists of indices or classes."""


Place = tuple[str, int]
"""An input and one of its columns."""


class Width(NamedTuple):
    """How many columns an input takes; where it is not `exact`, at least."""

    columns: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a graph.

    `widths`: of the inputs. `categories`: the texts of (input, column). `rows`: how many rows
    the table has in which (input, column) is looked up. `classes`: every list of classes in the
    graph. `maps`: the keys of an output of maps. `makers`: the operator that an output comes
    from. `names`: the features' names, where the exporter left them.
    """

    widths: Mapping[str, Width]
    categories: Mapping[Place, tuple[str, ...]]
    rows: Mapping[Place, int]
    classes: tuple[tuple[str | int, ...], ...]
    makers: Mapping[str, str]
    maps: Mapping[str, tuple[str | int, ...]]
    names: tuple[str, ...]

    def classes_of(self, count: int) -> tuple[str | int, ...]:
        """Return the classes of an output of `count` columns, or nothing where that is open."""
        found = {classes for classes in self.classes if len(classes) == count}
        return found.pop() if len(found) == 1 else ()


def reading(proto: ModelProto) -> Reading:
    """Read a graph."""
    tracer = _Tracer(proto)
    for node in proto.graph.node:
        tracer.visit(node)
    return Reading(
        widths=tracer.widths,
        categories=tracer.categories,
        rows=tracer.rows,
        classes=tuple(dict.fromkeys(tracer.classes)),
        maps=tracer.maps,
        makers={port.name: tracer.maker(port.name) for port in proto.graph.output},
        names=_names(proto),
    )


class _Origin(NamedTuple):
    """Columns of a tensor: the input and column each comes from, or all columns of one input."""

    columns: tuple[Place | None, ...] = ()
    whole: str | None = None


_UNMOVED = {
    *("Identity", "Cast", "CastLike", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout"),
    *("Clip", "StringNormalizer", "LabelEncoder", "CategoryMapper", "Imputer", "Scaler"),
    *("Binarizer", "Normalizer", "Abs", "Neg", "Log", "Sqrt", "Exp", "Not", "IsNaN", "Floor"),
}
"""Operators that leave every column in its place."""

_PAIRWISE = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Equal", "Greater", "Less", "Where"}


@dataclass(slots=True)
class _Tracer:
    proto: ModelProto
    widths: dict[str, Width] = field(default_factory=dict)
    categories: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[Place, int] = field(default_factory=dict)
    classes: list[tuple[str | int, ...]] = field(default_factory=list)
    maps: dict[str, tuple[str | int, ...]] = field(default_factory=dict)
    _made_by: dict[str, NodeProto] = field(default_factory=dict)
    _constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    _dims: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _origins: dict[str, _Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.proto.graph
        for tensor in graph.initializer:
            self._dims[tensor.name] = tuple(tensor.dims)
            kept = _array(tensor)
            if kept is not None:
                self._constants[tensor.name] = kept
        for port in graph.input:
            if port.name in self._dims:
                continue
            dims = port.type.tensor_type.shape.dim
            width = prod(dim.dim_value for dim in dims[1:]) if len(dims) > 1 else len(dims)
            if width > 0:
                self.widths[port.name] = Width(width, exact=True)
                columns = tuple((port.name, i) for i in range(width))
                self._origins[port.name] = _Origin(columns)
            else:
                self._origins[port.name] = _Origin(whole=port.name)

    def maker(self, name: str) -> str:
        """Return the operator a tensor comes from, behind what only moves it."""
        for _ in range(32):
            node = self._made_by.get(name)
            if node is None:
                return ""
            if node.op_type not in ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze"):
                return node.op_type
            name = node.input[0]
        return ""

    def visit(self, node: NodeProto) -> None:
        """Follow the columns through one node, and note what it tells of them."""
        self._made_by.update(dict.fromkeys(node.output, node))
        values = {one.name: _value(one) for one in node.attribute}
        if node.op_type == "Constant":
            kept = next((np.asarray(v) for v in values.values() if v is not None), None)
            if kept is not None and node.output:
                self._constants[node.output[0]] = kept
                self._dims[node.output[0]] = kept.shape
            return
        self._note_classes(node, values)
        sources = [self._origins.get(name) for name in node.input]
        first = sources[0] if sources else None
        if first is not None:
            self._note_texts(values, first)
            self._note_width(node, values, first)
        if node.op_type == "Gather" and len(sources) > 1 and not values.get("axis"):
            self._note_rows(node.input[0], sources[1])
        self._move(node, values, sources)

    def _note_classes(self, node: NodeProto, values: Mapping[str, Any]) -> None:
        for key in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
            if values.get(key):
                self.classes.append(tuple(values[key]))
                if node.op_type == "ZipMap":
                    self.maps[node.output[0]] = tuple(values[key])
        if node.op_type in ("ArrayFeatureExtractor", "Gather") and node.input:
            table = self._constants.get(node.input[0])
            if table is not None and 2 <= table.size <= 1000 and table.dtype.kind in "iuOSU":
                self.classes.append(tuple(map(_plain, table.ravel().tolist())))

    def _note_texts(self, values: Mapping[str, Any], origin: _Origin) -> None:
        for key in ("cats_strings", "keys_strings", "keys_tensor"):
            listed = values.get(key)
            texts = [] if listed is None else [_plain(text) for text in np.ravel(listed).tolist()]
            if texts and all(isinstance(text, str) for text in texts):
                columns = origin.columns or (((origin.whole, 0),) if origin.whole else ())
                for column in columns:
                    if column is not None:
                        known = self.categories.get(column, ())
                        self.categories[column] = tuple(dict.fromkeys((*known, *texts)))

    def _note_rows(self, table: str, origin: _Origin | None) -> None:
        if table not in self._dims or not self._dims[table] or origin is None:
            return
        for place in origin.columns:
            if place is not None:
                self.rows[place] = min(self._dims[table][0], self.rows.get(place, 2**53))

    def _note_width(self, node: NodeProto, values: Mapping[str, Any], origin: _Origin) -> None:
        if origin.whole is None:
            return
        found = self._width(node, values)
        known = self.widths.get(origin.whole)
        if found is None or found.columns < 1 or (known is not None and known.exact):
            return
        if known is None or found.exact or found.columns > known.columns:
            self.widths[origin.whole] = found

    def _width(self, node: NodeProto, values: Mapping[str, Any]) -> Width | None:
        op, weights = node.op_type, self._dims.get(node.input[1]) if len(node.input) > 1 else None
        if op in TREES and values.get("nodes_featureids"):
            return Width(int(max(values["nodes_featureids"])) + 1, exact=False)
        if op == "Gemm" and weights and len(weights) == 2 and not values.get("transA"):
            return Width(weights[1 if values.get("transB") else 0], exact=True)
        if op == "MatMul" and weights and len(weights) >= 2:
            return Width(weights[-2], exact=True)
        if op == "Scaler" and len(values.get("scale") or ()) > 1:
            return Width(len(values["scale"]), exact=True)
        if op == "Imputer":
            filled = values.get("imputed_value_floats") or values.get("imputed_value_int64s") or ()
            return Width(len(filled), exact=True) if len(filled) > 1 else None
        if op in ("LinearClassifier", "LinearRegressor") and values.get("coefficients"):
            per_row = len(values.get("intercepts") or ()) or values.get("targets") or 1
            return Width(len(values["coefficients"]) // int(per_row), exact=True)
        if op in ("SVMClassifier", "SVMRegressor") and values.get("support_vectors"):
            vectors = sum(values.get("vectors_per_class") or ()) or values.get("n_supports") or 0
            return Width(len(values["support_vectors"]) // vectors, exact=True) if vectors else None
        if op in ("ArrayFeatureExtractor", "Gather"):
            picked = self._picked(node, values)
            return Width(max(picked) + 1, exact=False) if picked else None
        if op in _PAIRWISE and weights and weights[-1] > 1 and prod(weights) == weights[-1]:
            return Width(weights[-1], exact=True)
        return None

    def _picked(self, node: NodeProto, values: Mapping[str, Any]) -> list[int]:
        """Return which columns a node picks, or none where that is not fixed."""
        index = self._constants.get(node.input[1]) if len(node.input) > 1 else None
        axis = values.get("axis", 0) if node.op_type == "Gather" else 1
        if index is None or axis not in (1, -1) or index.dtype.kind not in "iu":
            return []
        picked = [int(i) for i in index.ravel()]
        return picked if all(i >= 0 for i in picked) else []

    def _move(
        self, node: NodeProto, values: Mapping[str, Any], sources: Sequence[_Origin | None]
    ) -> None:
        if not node.output:
            return
        op = node.op_type
        first = sources[0] if sources else None
        moved: _Origin | None = None
        if op in _UNMOVED:
            moved = first
        elif op in _PAIRWISE:
            known = [source for source in sources if source is not None]
            moved = known[0] if len(known) == 1 else None
        elif (op == "Concat" and values.get("axis") in (1, -1)) or op == "FeatureVectorizer":
            moved = self._joined(sources)
        elif op in ("ArrayFeatureExtractor", "Gather") and first is not None:
            moved = _taken(first, self._picked(node, values))
        elif op == "Split" and first is not None and values.get("axis", 0) in (1, -1):
            self._split(node, values, first)
            return
        if moved is not None:
            self._origins[node.output[0]] = moved

    def _joined(self, sources: Iterable[_Origin | None]) -> _Origin | None:
        columns: list[Place | None] = []
        for source in sources:
            if source is None or source.whole is not None:
                return None
            columns += source.columns
        return _Origin(tuple(columns))

    def _split(self, node: NodeProto, values: Mapping[str, Any], origin: _Origin) -> None:
        lengths = values.get("split")
        if lengths is None and len(node.input) > 1 and node.input[1] in self._constants:
            lengths = self._constants[node.input[1]].ravel().tolist()
        if lengths is None and len(origin.columns) % len(node.output) == 0:
            lengths = [len(origin.columns) // len(node.output)] * len(node.output)
        start = 0
        for name, length in zip(node.output, lengths or (), strict=False):
            self._origins[name] = _Origin(origin.columns[start : start + int(length)])
            start += int(length)


def _taken(origin: _Origin, picked: Sequence[int]) -> _Origin | None:
    if origin.whole is not None:
        return _Origin(tuple((origin.whole, i) for i in picked)) if picked else None
    if not picked or max(picked) >= len(origin.columns):
        return None
    return _Origin(tuple(origin.columns[i] for i in picked))


def _value(attribute: AttributeProto) -> Any:
    """Return an attribute that is a number, a text, a list of them, or a tensor's values."""
    kinds = AttributeProto
    match attribute.type:
        case kinds.INT:
            return attribute.i
        case kinds.FLOAT:
            return attribute.f
        case kinds.STRING:
            return _plain(attribute.s)
        case kinds.INTS:
            return list(attribute.ints)
        case kinds.FLOATS:
            return list(attribute.floats)
        case kinds.STRINGS:
            return [_plain(text) for text in attribute.strings]
        case kinds.TENSOR:
            return _array(attribute.t)
    return None


def _array(tensor: TensorProto) -> NDArray[Any] | None:
    """Return a tensor's values, or None where it is too large to be a list of anything."""
    if tensor.ByteSize() > _CONSTANT_BYTES_MAX:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except Exception:  # a damaged tensor: ONNX Runtime says so, better
        return None


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_NAME_KEYS = ("feature_names", "features", "feature_name", "input_features", "columns")


def _names(proto: ModelProto) -> tuple[str, ...]:
    """Return the features' names of the file's metadata: a JSON list, or set apart by commas."""
    said = {prop.key.lower(): prop.value for prop in proto.metadata_props}
    for key in _NAME_KEYS:
        value = said.get(key, "").strip()
        if not value:
            continue
        try:
            names = json.loads(value)
        except (ValueError, RecursionError):
            names = value.split(",")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(name.strip() for name in names)
    return ()
