"""Drift of every product, from an engine to entries: the last week against the weeks before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from gateway.evaluate.drift import WEEKS, WINDOW_HOURS, Drift, drift_of
from gateway.evaluate.engine import Engine
from gateway.evaluate.entry import Entry
from gateway.evaluate.histograms import binning_of, histograms_of, share_of, volumes
from gateway.evaluate.intervals import Figure
from gateway.evaluate.terms import Terms

_EPOCH = date(1970, 1, 1)
_HOURS_A_DAY = 24

SAYS = {
    "drifted": "What comes in is not what it was, by more than chance and the weeks' own noise.",
    "explained": "It differs, on the days of an event that product.yaml declares.",
    "steady": "It is what it was.",
    "undecided": "Too little has come to say.",
}


def drifts(engine: Engine, terms: Sequence[Terms], as_of: datetime) -> Iterator[Entry]:
    """Yield what is said of each field of each product.

    Raises:
        LakeError: a file cannot be read.
    """
    by_hour = volumes(engine, as_of)
    for one in terms:
        volume = by_hour.get(one.name)
        if volume:
            yield from _of_product(engine, one, volume, as_of)


def _of_product(
    engine: Engine, terms: Terms, volume: Mapping[int, int], as_of: datetime
) -> Iterator[Entry]:
    now = int(as_of.astimezone(UTC).timestamp() // 3600)
    end = min(now, max(volume) + 1)
    first = max(min(volume), end - WINDOW_HOURS - WEEKS * WINDOW_HOURS)
    begin, window, last = (_day(hour) for hour in (first, end - WINDOW_HOURS, end - 1))
    rows = sum(n for hour, n in volume.items() if first <= hour < end - WINDOW_HOURS)
    if not rows:
        return
    until = last + timedelta(days=1)
    declared = {feature.name: feature.type for feature in terms.product.columns}
    by = binning_of(engine, terms.name, begin, window, as_of, declared=declared, rows=rows)
    if not by.fields:
        return
    share = share_of(volume, len(by.fields))
    seen = histograms_of(engine, by, begin, until, as_of, share=share)
    for drift in drift_of(seen, end, calendar=terms.product.calendar):
        yield _entry(drift, (window, last))


def _entry(one: Drift, days: tuple[date, date]) -> Entry:
    """Return a field's drift: its PSI, and the one that noise alone may reach as the interval."""
    floor = one.noise_floor
    figure = Figure(
        one.value,
        None if one.value is None else 0.0,
        floor,
        float(one.n),
        float(one.n),
        reason="no_observations" if one.value is None or floor is None else None,
    )
    return Entry(
        one.product,
        "psi",
        "all",
        figure,
        days,
        SAYS[one.verdict],
        by={one.what: one.name} if one.name else {"of": one.what},
        unit="psi",
        target="within noise, or below 0.1 beyond chance",
        verdict=one.verdict,
        more={
            "js": one.js,
            "ks": one.ks,
            "noise_floor": floor,
            "p": one.p,
            "rank": one.rank,
            "weeks": one.weeks,
            "n_reference": one.n_reference,
            "began": None if one.began is None else one.began.isoformat(),
            "began_between": None
            if one.began_between is None
            else [day.isoformat() for day in one.began_between],
            "explained_by": one.explained_by,
            "notes": list(one.notes),
            "bins": [{"label": x.label, "now": x.now, "then": x.then} for x in one.bins],
        },
    )


def _day(hour: int) -> date:
    return _EPOCH + timedelta(days=hour // _HOURS_A_DAY)
