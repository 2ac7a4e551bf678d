"""The features of recorded requests as columns, and the segments that a product watches in them.

A column is text for a category and a double for everything else, whatever the generation: so
that files of different generations read as one table. What was not given is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from gateway.product import Feature, Product, schema_fingerprint
from gateway.sidecar.lake.request import NUMBER_BYTES, number_head, read_entry

OTHER = "other"
NOT_GIVEN = "not given"
_TEXTS_MAX = 1000
"""Texts of one category that are told apart; the others are OTHER."""
_SEEN_MAX = 50_000
"""Entries that are known by their bytes."""
_LAYOUT_ROWS_MIN = 16
"""Fewer requests that are laid out alike are read entry by entry."""
_LAYOUTS_MAX = 16
"""Layouts of one length that are tried."""
_LENGTHS_MAX = 256
"""Lengths whose layouts are remembered."""
_LEAST_POWER = -307
_POWERS = np.array([float(f"1e{power}") for power in range(_LEAST_POWER, 309)])

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a product says how its requests are read. `watch`: names of segments to keep."""

    columns: tuple[Feature, ...]
    fingerprint: str
    watch: tuple[str, ...] = ()
    keeps_features: bool = True


def shape_of(product: Product) -> Shape:
    """Return a product's shape. `records.features: none` leaves the struct column out."""
    return Shape(
        product.columns,
        schema_fingerprint(product.features),
        product.watch,
        product.records.features != "none",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """The bytes of a request's features: `written` where `covered`, and numbers elsewhere.

    `values`: where the numbers' bytes are, and `places` the columns that they belong to. `fixed`:
    columns with one value in all requests of this layout, such as texts.
    """

    written: NDArray[np.uint8]
    covered: NDArray[np.uint8]
    values: NDArray[np.intp]
    places: NDArray[np.intp]
    fixed: tuple[tuple[int, float], ...]

    def is_of(self, sent: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Say of (rows, bytes) which rows are laid out so."""
        equal: NDArray[np.bool_] = ((sent & self.covered) == self.written).all(axis=1)
        return equal

    def read(self, matrix: Matrix, rows: NDArray[np.intp], sent: NDArray[np.uint8]) -> None:
        """Write the values of rows of this layout into the matrix."""
        if len(self.values):
            numbers = np.ascontiguousarray(sent[:, self.values]).view("<f8")
            matrix[rows[:, None], self.places] = numbers
        for place, value in self.fixed:
            matrix[rows, place] = value


class FeatureReader:
    """Reads the features of requests of one shape. It remembers entries, for speed alone."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._place = {column.name: i for i, column in enumerate(shape.columns)}
        self._heads: dict[bytes, int] = {}
        self._texts: dict[bytes, tuple[int, float]] = {}
        self._layouts: dict[tuple[int, int], list[_Layout]] = {}
        self._labels = [list(column.values) for column in shape.columns]
        self._codes = [{v: i for i, v in enumerate(column.values)} for column in shape.columns]

    def matrix(self, requests: Sequence[Any]) -> Matrix:
        """Return (requests, columns): numbers, and of categories the index of their text."""
        matrix = np.full((len(requests), len(self.shape.columns)), np.nan)
        dense_rows: list[int] = []
        dense: list[bytes] = []
        alike: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        size, fingerprint = 4 * len(self.shape.columns), self.shape.fingerprint
        for row, request in enumerate(requests):
            sent = request.dense
            if sent:
                if len(sent) == size and request.schema_fingerprint == fingerprint:
                    dense_rows.append(row)
                    dense.append(sent)
                continue
            entries = request.features
            joined = b"".join(entries)
            if joined:
                alike.setdefault((len(entries), len(joined)), []).append((row, joined))
        if dense:
            values = np.frombuffer(b"".join(dense), "<f4")
            matrix[dense_rows] = values.reshape(len(dense), -1)
        rest: list[int] = []
        for key, group in alike.items():
            rest += self._alike(matrix, requests, key, group)
        if rest:
            named = [list(requests[row].features) for row in rest]
            rows = np.repeat(np.array(rest), [len(entries) for entries in named])
            self._named(matrix, rows, [entry for entries in named for entry in entries])
        return matrix

    def _alike(
        self,
        matrix: Matrix,
        requests: Sequence[Any],
        key: tuple[int, int],
        group: Sequence[tuple[int, bytes]],
    ) -> Iterable[int]:
        """Read rows of as many entries and bytes by the layouts that they share.

        Returns the rows that share one with too few others for it to be worth its while.
        """
        rows = np.array([row for row, _ in group])
        if len(rows) < _LAYOUT_ROWS_MIN:
            return [row for row, _ in group]
        sent = np.frombuffer(b"".join([joined for _, joined in group]), np.uint8)
        sent = sent.reshape(len(rows), key[1])
        if len(self._layouts) > _LENGTHS_MAX:
            self._layouts.clear()
        layouts = self._layouts.setdefault(key, [])
        tried = 0
        while len(rows) >= _LAYOUT_ROWS_MIN and tried < _LAYOUTS_MAX:
            if tried == len(layouts):
                layouts.append(self._layout(list(requests[int(rows[0])].features)))
            layout = layouts[tried]
            tried += 1
            same = layout.is_of(sent)
            if same.any():
                layout.read(matrix, rows[same], sent[same])
                rows, sent = rows[~same], sent[~same]
        return map(int, rows)

    def _layout(self, entries: Sequence[bytes]) -> _Layout:
        """Return what a row says but for its numbers."""
        places: list[int] = []
        values: list[int] = []
        fixed: list[tuple[int, float]] = []
        end = 0
        for entry in entries:
            end += len(entry)
            head = entry[:-NUMBER_BYTES]
            if head not in self._heads:
                place, value = self._texts.get(entry) or self._learn(entry)
                if head not in self._heads:
                    fixed.append((place, value))
                    continue
            places.append(self._heads[head])
            values += range(end - NUMBER_BYTES, end)
        written = np.frombuffer(b"".join(entries), np.uint8)
        covered = np.full(len(written), 0xFF, dtype=np.uint8)
        covered[values] = 0
        known = [(place, value) for place, value in fixed if place >= 0]
        return _Layout(
            written & covered,
            covered,
            np.array(values, dtype=np.intp),
            np.array(places, dtype=np.intp),
            tuple(known),
        )

    def _named(self, matrix: Matrix, rows: NDArray[np.intp], entries: list[bytes]) -> None:
        heads = self._heads
        places: list[Any] = [heads.get(entry[:-NUMBER_BYTES]) for entry in entries]
        slow = [i for i, place in enumerate(places) if place is None]
        given: list[float] = []
        for i in slow:
            entry = entries[i]
            known = self._texts.get(entry) or self._learn(entry)
            places[i] = known[0]
            given.append(known[1])
            entries[i] = b"\0" * NUMBER_BYTES
        values = np.frombuffer(b"".join([e[-NUMBER_BYTES:] for e in entries]), "<f8").copy()
        values[slow] = given
        columns = np.array(places, dtype=np.intp)
        known_ones = columns >= 0
        matrix[rows[known_ones], columns[known_ones]] = values[known_ones]

    def _learn(self, entry: bytes) -> tuple[int, float]:
        """Read an entry whole: its column, -1 where it has none, and its value in the matrix."""
        try:
            name, value = read_entry(entry)
        except DecodeError:
            return -1, np.nan
        place = self._place.get(name, -1)
        if place < 0 or value is None:
            return place, np.nan
        if isinstance(value, str):
            known = place, self._code(place, value)
            if len(self._texts) < _SEEN_MAX:
                self._texts[entry] = known
            return known
        head = number_head(entry, value)
        if head and len(self._heads) < _SEEN_MAX:
            self._heads[head] = place
        return place, value

    def _code(self, place: int, text: str) -> float:
        if self.shape.columns[place].type != "category":
            return np.nan
        codes, labels = self._codes[place], self._labels[place]
        code = codes.get(text)
        if code is None:
            if len(labels) >= _TEXTS_MAX + len(self.shape.columns[place].values):
                text = OTHER
            code = codes.get(text, len(labels))
            if code == len(labels):
                codes[text] = code
                labels.append(text)
        return float(code)

    def struct(self, matrix: Matrix, kept: NDArray[np.bool_]) -> pa.StructArray | None:
        """Return all columns as one; null where a request was kept without them."""
        if not self.shape.keeps_features or not self.shape.columns:
            return None
        arrays = [self._column(matrix, i) for i in range(len(self.shape.columns))]
        names = [column.name for column in self.shape.columns]
        return pa.StructArray.from_arrays(arrays, names, mask=pa.array(~kept))

    def _column(self, matrix: Matrix, i: int) -> pa.Array:
        values = matrix[:, i]
        if self.shape.columns[i].type != "category":
            return pa.array(np.ascontiguousarray(values), mask=np.isnan(values))
        return self._labelled(values, self._labels[i])

    def _labelled(self, values: NDArray[np.float64], labels: Sequence[str]) -> pa.Array:
        valid = (values >= 0) & (values < len(labels)) & (values == np.rint(values))
        codes = np.where(valid, values, 0).astype(np.int32)
        indices = pa.array(codes, mask=~valid)
        return pa.DictionaryArray.from_arrays(indices, pa.array(labels, pa.string())).cast(
            pa.string()
        )

    def is_feature(self, name: str) -> bool:
        """Say whether a watched segment is a feature, and no other field of the request."""
        return name in self._place

    def segments(self, matrix: Matrix, kept: NDArray[np.bool_], name: str) -> pa.Array | None:
        """Return the segment of a feature, a text a request; None where it is no feature."""
        place = self._place.get(name)
        if place is None:
            return None
        return segments_of(self.shape.columns[place], matrix[:, place], kept)


def segments_of(feature: Feature, values: NDArray[np.float64], kept: NDArray[np.bool_]) -> pa.Array:
    """Return a category's text, or the power of ten that a number is in, a text a value."""
    missing = np.isnan(values)
    if feature.type == "category":
        labels = [*feature.values, OTHER, NOT_GIVEN]
        other = len(feature.values)
        known = (values >= 0) & (values < other) & (values == np.rint(values))
        codes = np.where(missing, other + 1, np.where(known, values, other))
    elif feature.type == "bool":
        labels = ["no", "yes", NOT_GIVEN]
        codes = np.where(missing, 2, values != 0)
    else:
        power = np.searchsorted(_POWERS, values, side="right").astype(np.float64) - 1
        power = np.where(values > 0, np.maximum(power, 0) + 4, np.where(values == 0, 2, 3))
        codes = np.where(missing, 1, np.where(np.isposinf(values), 0, power))
        met, codes = np.unique(codes, return_inverse=True)
        labels = [_number_label(int(code)) for code in met]
    indices = pa.array(codes.astype(np.int32), mask=~kept)
    return pa.DictionaryArray.from_arrays(indices, pa.array(labels, pa.string())).cast(pa.string())


def _number_label(code: int) -> str:
    if code < 4:
        return (OTHER, NOT_GIVEN, "0", "below 0")[code]
    power = code - 4 + _LEAST_POWER
    return f"{float(f'1e{power}'):g} to {float(f'1e{power + 1}'):g}"
