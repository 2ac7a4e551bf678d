"""From what a caller sent to a row of float32, by the product's declared rules. Pure.

A row travels as bytes, little-endian float32 in the declared order: what a caller sends as
`dense` is that already, and named features become it. Named values are encoded, then
`FeatureSchema.matrix` joins a batch and checks all of it at once; only rows that break a
rule are looked at again, one value at a time. No violation carries a value.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from operator import ge, le
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.product import Feature, schema_fingerprint

_FLOAT32 = np.dtype("<f4")
_UNKNOWN_NAMED = 10
"""Unknown names of one request that are answered by name: each costs a search."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class FieldViolation(NamedTuple):
    """One field of a request that breaks its rule. `description` never holds a value."""

    field: str
    description: str


class CheckedRow(NamedTuple):
    """What became of one row that is not clean: new values, or violations."""

    row: NDArray[np.float32]
    violations: tuple[FieldViolation, ...]
    defaulted: bool


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """A product's features, in order, and their rules."""

    features: tuple[Feature, ...]
    fingerprint: str
    row_bytes: int
    _index: dict[str, int]
    _codes: tuple[dict[str, int] | None, ...]
    _low: NDArray[np.float32]
    _high: NDArray[np.float32]
    _whole: NDArray[np.intp]
    _takes_nan: NDArray[np.intp]
    _pack: struct.Struct
    _lows: tuple[float, ...]
    _highs: tuple[float, ...]
    _wholes: tuple[int, ...]

    def encode(self, named: Mapping[str, float | str]) -> tuple[bytes, list[FieldViolation], bool]:
        """Encode named features as a row's bytes.

        Returns the bytes, every violation, and whether a declared default was used. A
        missing feature whose rule is to refuse stands as NaN in the bytes and as a
        violation in the list.
        """
        violations: list[FieldViolation] = []
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
                if code is None and feature.unknown != "refuse":
                    code, defaulted = codes[str(feature.unknown)], True
                if code is None:
                    violations.append(_violation(feature, "is none of its declared values"))
                    code = 0
                row[i] = code
            else:
                # Past float32's range there is only infinity, which the check refuses.
                row[i] = value if abs(value) <= _FLOAT32_MAX else math.copysign(math.inf, value)
                if math.isnan(value):
                    row[i] = math.nan
        if unknown > _UNKNOWN_NAMED:
            more = f"{unknown - _UNKNOWN_NAMED} more names are no features of this product"
            violations.append(FieldViolation("features", more))
        return self._pack.pack(*row), violations, defaulted

    def is_clean(self, row: bytes) -> bool:
        """Say whether one row keeps every rule: `matrix` without NumPy's fixed costs."""
        values = self._pack.unpack(row)
        # NaN fails both comparisons; `matrix` knows the columns that take it.
        if all(map(le, self._lows, values)) and all(map(ge, self._highs, values)):
            return not self._wholes or all(values[i].is_integer() for i in self._wholes)
        return False

    def matrix(self, rows: Sequence[bytes]) -> tuple[NDArray[np.float32], dict[int, CheckedRow]]:
        """Join n rows of `row_bytes` into float32 (n, features), and check them.

        Returns the matrix, and for each row that is not clean what became of it; rows with
        violations stay in the matrix as they were and must not reach a model.
        """
        joined = rows[0] if len(rows) == 1 else b"".join(rows)
        batch = np.frombuffer(joined, dtype=_FLOAT32).reshape(len(rows), len(self.features))
        # NaN and the infinities fail both comparisons' bounds.
        clean = batch >= self._low
        clean &= batch <= self._high
        if self._whole.size:
            whole = batch[:, self._whole]
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

    def _check(self, row: NDArray[np.float32], columns: Iterable[int]) -> CheckedRow:
        fixed = row.copy()
        violations: list[FieldViolation] = []
        defaulted = False
        for i in columns:
            feature, value = self.features[i], float(row[i])
            if math.isnan(value):
                default = self._missing(i)
                if default is None:
                    violations.append(_violation(feature, "is missing"))
                else:
                    fixed[i], defaulted = default, True
            elif math.isinf(value):
                violations.append(_violation(feature, "is not a finite number"))
            elif feature.type == "category":
                codes = self._codes[i] or {}
                if feature.unknown == "refuse":
                    violations.append(_violation(feature, "is no index of its declared values"))
                else:
                    fixed[i], defaulted = codes[str(feature.unknown)], True
            elif feature.type in ("int", "bool") and value != round(value):
                violations.append(_violation(feature, f"must be {_KIND[feature.type]}"))
            elif feature.out_of_range == "clip":
                fixed[i] = min(max(value, float(self._low[i])), float(self._high[i]))
            else:
                violations.append(_violation(feature, f"must be {_range(feature)}"))
        return CheckedRow(fixed, tuple(violations), defaulted)

    def _missing(self, i: int) -> float | None:
        """Return what stands for a missing value: NaN where the model takes NaN, or None."""
        feature, codes = self.features[i], self._codes[i]
        if feature.missing == "refuse":
            return None
        return float(codes[str(feature.missing)]) if codes else float(feature.missing)

    def _no_such_feature(self, name: str) -> FieldViolation:
        near = get_close_matches(name[:64], self._index, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        # The name comes from the caller: it is shown only if it looks like a name, and not
        # if it might hold a card number.
        digits = sum(map(str.isdigit, name))
        shown = name if name.isidentifier() and len(name) <= 64 and digits < 12 else "?"
        return FieldViolation(f"features[{shown}]", f"is no feature of this product{hint}")


def feature_schema(features: Sequence[Feature]) -> FeatureSchema:
    """Compile the rules of a product's features."""
    bounds = [_bounds(feature) for feature in features]
    takes_nan = [i for i, f in enumerate(features) if f.missing != f.missing]  # is NaN
    whole = [i for i, f in enumerate(features) if f.type in ("int", "bool", "category")]
    return FeatureSchema(
        features=tuple(features),
        fingerprint=schema_fingerprint(features),
        row_bytes=4 * len(features),
        _index={feature.name: i for i, feature in enumerate(features)},
        _codes=tuple(
            {value: code for code, value in enumerate(f.values)} if f.type == "category" else None
            for f in features
        ),
        _low=np.array([low for low, _ in bounds], dtype=np.float32),
        _high=np.array([high for _, high in bounds], dtype=np.float32),
        _whole=np.array(whole, dtype=np.intp),
        _takes_nan=np.array(takes_nan, dtype=np.intp),
        _pack=struct.Struct(f"<{len(features)}f"),
        _lows=tuple(float(np.float32(low)) for low, _ in bounds),
        _highs=tuple(float(np.float32(high)) for _, high in bounds),
        _wholes=tuple(whole),
    )


_KIND = {"int": "a whole number", "bool": "0 or 1"}


def _bounds(feature: Feature) -> tuple[float, float]:
    if feature.type == "category":
        return 0.0, float(len(feature.values) - 1)
    if feature.type == "bool":
        return 0.0, 1.0
    low = -_FLOAT32_MAX if feature.min is None else feature.min
    high = _FLOAT32_MAX if feature.max is None else feature.max
    return low, high


def _range(feature: Feature) -> str:
    if feature.type == "bool":
        return _KIND["bool"]
    if feature.min is not None and feature.max is not None:
        return f"{feature.min:g}..{feature.max:g}"
    return f"at least {feature.min:g}" if feature.min is not None else f"at most {feature.max:g}"


def _violation(feature: Feature, description: str) -> FieldViolation:
    return FieldViolation(f"features[{feature.name}]", description)
