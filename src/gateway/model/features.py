"""From what a caller sent to a row of float32, by the product's declared rules. Pure.

A row travels as bytes, little-endian float32 in the declared order (float64 where the model
needs it): what a caller sends as `dense` is that already, and named features become it.
Named values are encoded, then
`FeatureSchema.matrix` joins a batch and checks all of it at once; only rows that break a
rule are looked at again, one value at a time. No violation carries a value.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from operator import ge, le
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelError
from gateway.model.inputs import Feeds, Rows
from gateway.pan import holds_pan, number_is_pan
from gateway.product import UNSEEN, Feature, columns_of, schema_fingerprint

_DENSE = np.dtype("<f4")
_DENSE_MAX = float(np.finfo(np.float32).max)
TEXT_MAX = 256
"""Characters of a text feature."""

_UNKNOWN_NAMED = 10
"""Unknown names of one request that are answered by name: each costs a search."""

_PAN_MIN = 1e11
"""The least card number has twelve digits."""

LOOKS_LIKE_A_PAN = "looks like a payment card number"

_EXACT_MAX = 2.0**53
"""Whole numbers beyond it are not exact in float64, as which they are sent."""


class FieldViolation(NamedTuple):
    """One field of a request that breaks its rule. `description` never holds a value."""

    field: str
    description: str


class CheckedRow(NamedTuple):
    """What became of one row that is not clean: new values, or violations."""

    row: NDArray[np.floating[Any]]
    violations: tuple[FieldViolation, ...]
    defaulted: bool


class Encoded(NamedTuple):
    """Named features as a row's bytes.

    `violations` has every broken rule but those that `FeatureSchema.matrix` finds; a missing
    feature whose rule is to refuse stands as NaN in the bytes and as a violation there.
    `pans` names the text features that hold a card number.
    """

    row: bytes
    violations: list[FieldViolation]
    defaulted: bool
    pans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """A product's features, a column each, in order, and their rules.

    `dtype` is that of a row, `dense_bytes` what `dense` has to have.
    """

    features: tuple[Feature, ...]
    fingerprint: str
    dtype: np.dtype[Any]
    dense_bytes: int
    _index: dict[str, int]
    _codes: tuple[dict[str, int] | None, ...]
    _low: NDArray[np.floating[Any]]
    _high: NDArray[np.floating[Any]]
    _largest: float
    _whole: NDArray[np.intp]
    _takes_nan: NDArray[np.intp]
    _pack: struct.Struct
    _lows: tuple[float, ...]
    _highs: tuple[float, ...]
    _wholes: tuple[int, ...]

    def from_dense(self, dense: bytes) -> bytes:
        """Return the row of a caller's `dense_bytes` of float32."""
        if self.dtype == _DENSE:
            return dense
        return np.frombuffer(dense, dtype=_DENSE).astype(self.dtype).tobytes()

    def encode(self, named: Mapping[str, float | str]) -> Encoded:
        """Encode named features."""
        violations: list[FieldViolation] = []
        pans: list[str] = []
        defaulted, unknown = False, 0
        row = [math.nan] * len(self.features)
        for name, value in named.items():
            i = self._index.get(name)
            if i is None:
                unknown += 1
                if unknown <= _UNKNOWN_NAMED:
                    violations.append(self._no_such_feature(name))
                continue
            feature, codes = self.features[i], self._codes[i]
            if isinstance(value, str):
                if codes is None:
                    violations.append(_violation(feature, "is text, must be a number"))
                    row[i] = 0.0
                    continue
                code = codes.get(value)
                if code is None:
                    if len(value) > TEXT_MAX:
                        too_long = f"must have at most {TEXT_MAX} characters"
                        violations.append(_violation(feature, too_long))
                    elif holds_pan(value):
                        pans.append(name)
                    code = codes.get(str(feature.unknown))
                    if code is not None:
                        defaulted = True
                    elif len(value) <= TEXT_MAX:
                        violations.append(_violation(feature, "is none of its declared values"))
                row[i] = code or 0
            else:
                if abs(value) >= _PAN_MIN and number_is_pan(abs(value)):
                    violations.append(_violation(feature, LOOKS_LIKE_A_PAN))
                # Past the dtype's range there is only infinity, which the check looks at.
                row[i] = value if abs(value) <= self._largest else math.copysign(math.inf, value)
                if math.isnan(value):
                    row[i] = math.nan
        if unknown > _UNKNOWN_NAMED:
            more = f"{unknown - _UNKNOWN_NAMED} more names are no features of this product"
            violations.append(FieldViolation("features", more))
        return Encoded(self._pack.pack(*row), violations, defaulted, tuple(pans))

    def is_clean(self, row: bytes) -> bool:
        """Say whether one row keeps every rule: `matrix` without NumPy's fixed costs."""
        values = self._pack.unpack(row)
        # NaN fails both comparisons; `matrix` knows the columns that take it.
        if all(map(le, self._lows, values)) and all(map(ge, self._highs, values)):
            return not self._wholes or all(values[i].is_integer() for i in self._wholes)
        return False

    def matrix(self, rows: Sequence[bytes]) -> tuple[Rows, dict[int, CheckedRow]]:
        """Join n rows into (n, features) of `dtype`, and check them.

        Returns the matrix, and for each row that is not clean what became of it; rows with
        violations stay in the matrix as they were and must not reach a model.
        """
        joined = rows[0] if len(rows) == 1 else b"".join(rows)
        return self.checked(
            np.frombuffer(joined, dtype=self.dtype).reshape(len(rows), len(self.features))
        )

    def checked(self, batch: Rows) -> tuple[Rows, dict[int, CheckedRow]]:
        """Check (n, features) of `dtype`: `matrix` of rows that are joined already."""
        # NaN and the infinities fail both comparisons' bounds.
        clean = batch >= self._low
        clean &= batch <= self._high
        if self._whole.size:
            whole = batch[:, self._whole]
            with np.errstate(invalid="ignore"):  # a signalling NaN, from a caller's bytes
                clean[:, self._whole] &= whole == np.rint(whole)
        if self._takes_nan.size:
            clean[:, self._takes_nan] |= np.isnan(batch[:, self._takes_nan])
        # A search of the bytes: `clean.all()` costs ten times as much on one row.
        if 0 not in clean.tobytes():
            return batch, {}
        batch = batch.copy()
        checked: dict[int, CheckedRow] = {}
        for i in np.flatnonzero(~clean.all(axis=1)).tolist():
            checked[i] = self._check(batch[i], np.flatnonzero(~clean[i]).tolist())
            if not checked[i].violations:
                batch[i] = checked[i].row
        return batch, checked

    def _check(self, row: NDArray[np.floating[Any]], columns: Iterable[int]) -> CheckedRow:
        fixed = row.copy()
        violations: list[FieldViolation] = []
        defaulted = False
        for i in columns:
            feature, value = self.features[i], float(row[i])
            if math.isnan(value):
                default = self.missing(i)
                if default is None:
                    violations.append(_violation(feature, "is missing"))
                else:
                    fixed[i], defaulted = default, True
            elif math.isinf(value) and not self._clips(feature, value):
                violations.append(_violation(feature, "is not a finite number"))
            elif feature.type == "category":
                codes = self._codes[i] or {}
                if feature.unknown == "refuse":
                    violations.append(_violation(feature, "is no index of its declared values"))
                else:
                    fixed[i], defaulted = codes[str(feature.unknown)], True
            elif feature.type in ("int", "bool") and math.isfinite(value) and value % 1:
                violations.append(_violation(feature, f"must be {_KIND[feature.type]}"))
            elif feature.out_of_range == "clip":
                fixed[i] = min(max(value, float(self._low[i])), float(self._high[i]))
            else:
                said = _range(feature, float(self._low[i]), float(self._high[i]))
                violations.append(_violation(feature, f"must be {said}"))
        return CheckedRow(fixed, tuple(violations), defaulted)

    def _clips(self, feature: Feature, value: float) -> bool:
        bound = feature.max if value > 0 else feature.min
        return feature.out_of_range == "clip" and bound is not None

    def missing(self, i: int) -> float | None:
        """Return what stands for a missing value of column i: NaN where the model takes NaN, or
        None where it is refused."""
        feature, codes = self.features[i], self._codes[i]
        if feature.missing == "refuse":
            return None
        return float(codes[str(feature.missing)]) if codes else float(feature.missing)

    def codes(self, i: int) -> Mapping[str, int] | None:
        """Return the index of each text of column i; None where it is no category."""
        return self._codes[i]

    def _no_such_feature(self, name: str) -> FieldViolation:
        near = get_close_matches(name[:64], self._index, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        # The name comes from the caller: it is shown only if it looks like a name, and not
        # if it might hold a card number.
        digits = sum(map(str.isdigit, name))
        shown = name if name.isidentifier() and len(name) <= 64 and digits < 12 else "?"
        return FieldViolation(f"features[{shown}]", f"is no feature of this product{hint}")


def feature_schema(features: Sequence[Feature], feeds: Feeds | None = None) -> FeatureSchema:
    """Compile the rules of a product's features for a model that is fed by `feeds`.

    Without `feeds`, for one that is fed float32.

    Raises:
        ModelError: with every feature that its input cannot take.
    """
    columns = columns_of(features)
    kinds: list[Any] = [np.float32] * len(columns)
    dtype = _DENSE
    if feeds is not None:
        dtype = feeds.dtype
        kinds = [feed.dtype for feed in feeds.inputs for _ in range(feed.start, feed.stop)]
        _expect_fit(columns, kinds)
    bounds = [_bounds(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    takes_nan = [i for i, f in enumerate(columns) if f.missing != f.missing]  # is NaN
    whole = [i for i, f in enumerate(columns) if f.type in ("int", "bool", "category")]
    lows = tuple(_rounded(low, dtype, min) for low, _ in bounds)
    highs = tuple(_rounded(high, dtype, max) for _, high in bounds)
    return FeatureSchema(
        features=columns,
        fingerprint=schema_fingerprint(features),
        dtype=dtype,
        dense_bytes=_DENSE.itemsize * len(columns),
        _index={column.name: i for i, column in enumerate(columns)},
        _codes=tuple(_codes(column) for column in columns),
        _low=np.array(lows, dtype=dtype),
        _high=np.array(highs, dtype=dtype),
        _largest=float(np.finfo(dtype).max),
        _whole=np.array(whole, dtype=np.intp),
        _takes_nan=np.array(takes_nan, dtype=np.intp),
        _pack=struct.Struct(f"<{len(columns)}{dtype.char}"),
        _lows=lows,
        _highs=highs,
        _wholes=tuple(whole),
    )


_KIND = {"int": "a whole number", "bool": "0 or 1"}


def _codes(feature: Feature) -> dict[str, int] | None:
    if feature.type != "category":
        return None
    values = (*feature.values, UNSEEN) if feature.unknown == UNSEEN else feature.values
    return {value: code for code, value in enumerate(values)}


def _expect_fit(columns: Sequence[Feature], kinds: Sequence[Any]) -> None:
    wrong: list[str] = []
    for column, kind in zip(columns, kinds, strict=True):
        named, takes = f"features[{column.name}]", np.dtype(kind).name
        if kind is np.object_:
            continue  # its texts were looked up when the feeds were planned
        if column.unknown == UNSEEN:
            wrong.append(f"{named}.unknown is unseen, but its input takes {takes}, not texts")
        if not np.issubdtype(kind, np.floating):
            if column.missing != column.missing:
                wrong.append(f"{named}.missing is nan, but its input takes {takes}")
            if column.type == "float":
                wrong.append(f"{named}.type is float, but its input takes {takes}")
    if wrong:
        raise ModelError("\n".join(wrong), hint="Whole numbers are `type: int`.")


def _bounds(feature: Feature, kind: Any) -> tuple[float, float]:
    """Return what a column may hold: as declared, inside what its input can hold."""
    if feature.type == "category":
        return 0.0, float(len(feature.values) - (feature.unknown != UNSEEN))
    if feature.type == "bool" or kind is np.bool_:
        return 0.0, 1.0
    if np.issubdtype(kind, np.floating):
        largest = float(np.finfo(kind).max)
        least = -largest
    else:
        least = max(float(np.iinfo(kind).min), -_EXACT_MAX)
        largest = min(float(np.iinfo(kind).max), _EXACT_MAX)
    low = least if feature.min is None else max(feature.min, least)
    return low, largest if feature.max is None else min(feature.max, largest)


def _rounded(bound: float, dtype: np.dtype[Any], outwards: Callable[..., float]) -> float:
    """Return a bound that a `dense` row's float32 of it meets, too."""
    if abs(bound) > _DENSE_MAX:
        return bound
    rounded = float(np.float32(bound))
    return rounded if dtype == _DENSE else outwards(bound, rounded)


def _range(feature: Feature, low: float, high: float) -> str:
    if feature.type == "bool":
        return _KIND["bool"]
    if feature.min is None and feature.max is not None:
        return f"at most {feature.max:g}"
    if feature.max is None and feature.min is not None:
        return f"at least {feature.min:g}"
    return f"{low:g}..{high:g}"


def _violation(feature: Feature, description: str) -> FieldViolation:
    return FieldViolation(f"features[{feature.name}]", description)
