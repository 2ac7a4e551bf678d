"""Histograms of days that were counted before, so that they need not be counted again.

What is noted goes by all that it depends on: how many decisions the day has, by hour, and by which
bins they are told apart. A day to which decisions came, or from which some were erased, is another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

import numpy as np

from gateway.evaluate.engine import Engine
from gateway.evaluate.histograms import (
    Binning,
    Field,
    Histograms,
    Sums,
    binning_of,
    histograms_of,
    joined,
)
from gateway.evaluate.terms import Terms

_EPOCH = date(1970, 1, 1)
_DAY = timedelta(days=1)
_HOURS_A_DAY = 24


@dataclass(frozen=True, eq=False)
class Period:
    """Days from one to before another, of event time, UTC.

    `volume`: how many decisions there are, by hour since 1970.
    """

    begin: date
    end: date
    volume: Mapping[int, int]

    @cached_property
    def hours(self) -> dict[int, int]:
        """How many decisions each of its hours has."""
        first, last = ((day - _EPOCH).days * _HOURS_A_DAY for day in (self.begin, self.end))
        return {hour: self.volume[hour] for hour in range(first, last) if hour in self.volume}

    def days(self) -> Iterator[Period]:
        """Yield its days."""
        day = self.begin
        while day < self.end:
            yield Period(day, day + _DAY, self.volume)
            day += _DAY


class Notes:
    """What an engine noted of earlier evaluations."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._columns = engine.rows("drift_columns")
        self._used: set[str] = set()

    def binning(self, terms: Terms, period: Period, as_of: datetime) -> Binning:
        """Return what is told apart of a product, by what it had in a period. Raises LakeError."""
        declared = {feature.name: feature.type for feature in terms.product.columns}
        columns = {name: values.tolist() for name, values in self._columns.items()}
        key = self._key("binning", terms.name, period.begin, period.hours, declared, columns)
        found = self._engine.recall([key]).get(key)
        if found is not None:
            return _binning_in(found)
        rows = sum(period.hours.values())
        made = binning_of(
            self._engine, terms.name, period.begin, period.end, as_of, declared=declared, rows=rows
        )
        self._engine.note({key: json.dumps(asdict(made)).encode()})
        return made

    def histograms(self, by: Binning, period: Period, as_of: datetime, share: float) -> Histograms:
        """Return a period's histograms; days that are not noted are counted. Raises LakeError."""
        days = {
            self._key("histograms", by, share, day.begin, day.hours): day for day in period.days()
        }
        found = self._engine.recall(list(days))
        parts = [_histograms_in(value, by) for value in found.values()]
        for run in _runs({key: day for key, day in days.items() if key not in found}):
            first, last = min(run.values(), key=_begins), max(run.values(), key=_begins)
            counted = histograms_of(self._engine, by, first.begin, last.end, as_of, share=share)
            parts.append(counted)
            self._engine.note(
                {key: _written(_of_day(counted, day.begin)) for key, day in run.items()}
            )
        return joined(parts)

    def clear(self) -> None:
        """Forget what no product asked for."""
        self._engine.forget(self._used)

    def _key(self, *of: object) -> str:
        key = hashlib.sha256(repr(of).encode()).hexdigest()
        self._used.add(key)
        return key


def _begins(period: Period) -> date:
    return period.begin


def _runs(days: Mapping[str, Period]) -> Iterator[dict[str, Period]]:
    """Yield days that follow each other."""
    run: dict[str, Period] = {}
    for key, day in days.items():
        if run and max(run.values(), key=_begins).end != day.begin:
            yield run
            run = {}
        run[key] = day
    if run:
        yield run


def _of_day(of: Histograms, day: date) -> Histograms:
    number = (day - _EPOCH).days
    hours, days = of.hours, of.days
    here = hours.when // _HOURS_A_DAY == number
    return Histograms(
        of.binning,
        Sums(*(column[here] for column in hours)),
        Sums(*(column[days.when == number] for column in days)),
    )


def _written(of: Histograms) -> bytes:
    """Return the length of `hours`, then both tables by column, as 32-bit numbers."""
    columns = (column for sums in (of.hours, of.days) for column in sums)
    return np.concatenate([[len(of.hours.n)], *columns]).astype("<i4").tobytes()


def _histograms_in(value: bytes, binning: Binning) -> Histograms:
    numbers = np.frombuffer(value, "<i4").astype(np.int64)
    end = 1 + int(numbers[0]) * len(Sums._fields)
    hours, days = (
        Sums(*some.reshape(len(Sums._fields), -1)) for some in (numbers[1:end], numbers[end:])
    )
    return Histograms(binning, hours, days)


def _binning_in(value: bytes) -> Binning:
    found = json.loads(value)
    return Binning(
        found["product"],
        tuple(
            Field(**{**one, "edges": tuple(one["edges"]), "values": tuple(one["values"])})
            for one in found["fields"]
        ),
    )
