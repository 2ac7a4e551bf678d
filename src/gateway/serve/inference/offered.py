"""The models of the Open Inference Protocol, by name: PRODUCT is the champion, PRODUCT/ARM any arm.

A name's version is its product's generation: there is one of each at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gateway.inference.open_inference_pb2 import ModelMetadataResponse
from gateway.model import Classifier, Generation, Port

PLATFORM = "onnxruntime_onnx"

BYTES = "BYTES"
DATATYPES: Mapping[str, tuple[str, np.dtype[Any]]] = {
    "tensor(bool)": ("BOOL", np.dtype("?")),
    "tensor(int8)": ("INT8", np.dtype("i1")),
    "tensor(int16)": ("INT16", np.dtype("<i2")),
    "tensor(int32)": ("INT32", np.dtype("<i4")),
    "tensor(int64)": ("INT64", np.dtype("<i8")),
    "tensor(uint8)": ("UINT8", np.dtype("u1")),
    "tensor(uint16)": ("UINT16", np.dtype("<u2")),
    "tensor(uint32)": ("UINT32", np.dtype("<u4")),
    "tensor(uint64)": ("UINT64", np.dtype("<u8")),
    "tensor(float16)": ("FP16", np.dtype("<f2")),
    "tensor(float)": ("FP32", np.dtype("<f4")),
    "tensor(double)": ("FP64", np.dtype("<f8")),
    "tensor(string)": (BYTES, np.dtype(object)),
}
"""The protocol's name of an ONNX type, and its elements as they travel."""

_MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output. `shape` has -1 for a dimension of any size.

    `is_map`: the model gives a map of class to number for each row, which travels as a matrix.
    """

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_map: bool = False


@dataclass(slots=True)
class Pace:
    """What the shortest run of a model took, in nanoseconds; 0 before the first."""

    least_ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Offered:
    """A model under one of its names. `outputs` are those that the protocol can carry."""

    name: str
    version: str
    classifier: Classifier
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    pace: Pace = field(default_factory=Pace)

    def metadata(self) -> ModelMetadataResponse:
        """Return what the protocol says of a model."""
        said = ModelMetadataResponse(name=self.name, versions=[self.version], platform=PLATFORM)
        for tensors, place in ((self.inputs, said.inputs), (self.outputs, said.outputs)):
            for one in tensors.values():
                place.add(name=one.name, datatype=one.datatype, shape=one.shape)
        return said


class Offers:
    """The models of the generations that are served. Read when one is asked for, not in a swap."""

    def __init__(self, generations: Iterable[Generation]) -> None:
        self._generations = tuple(generations)

    @cached_property
    def by_name(self) -> Mapping[str, Offered]:
        """Every model by each of its names."""
        return offered(self._generations)


def offered(generations: Iterable[Generation]) -> dict[str, Offered]:
    """Return every model of these generations by each of its names."""
    models: dict[str, Offered] = {}
    for generation in generations:
        version = str(generation.product.generation)
        names = [(generation.name, generation.champion)]
        names += [(f"{generation.name}/{arm.name}", arm.classifier) for arm in generation.arms]
        for name, classifier in names:
            outputs = {
                port.name: _output(port, classifier)
                for port in classifier.session.outputs
                if port.type in DATATYPES or port.type in _MAPS
            }
            models[name] = Offered(name, version, classifier, _inputs(classifier), outputs)
    return models


def _inputs(classifier: Classifier) -> dict[str, Tensor]:
    """Return the inputs, with what the product's features say of widths that the model leaves open.

    Trees read beyond a row that is too short.
    """
    feeds = classifier.feeds
    types = {port.name: port.type for port in classifier.session.inputs}
    batch = (feeds.batch or -1,) if feeds.batched else ()
    return {
        feed.name: Tensor(feed.name, *DATATYPES[types[feed.name]], (*batch, *feed.tail))
        for feed in feeds.inputs
    }


def _output(port: Port, classifier: Classifier) -> Tensor:
    if port.type in _MAPS:
        return Tensor(port.name, *DATATYPES["tensor(float)"], (-1, -1), is_map=True)
    shape = [dim if isinstance(dim, int) and dim > 0 else -1 for dim in port.shape]
    if shape and classifier.feeds.batched and classifier.feeds.batch is None:
        shape[0] = -1  # LightGBM's exporter declares one label, and gives one a row
    return Tensor(port.name, *DATATYPES[port.type], tuple(shape))
