"""Drift of every product, from an engine to entries: the last week against the weeks before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from gateway.evaluate.drift import WEEKS, WINDOW_HOURS, Drift, drift_of
from gateway.evaluate.engine import Engine
from gateway.evaluate.entry import Entry
from gateway.evaluate.histograms import share_of, volumes
from gateway.evaluate.intervals import Figure
from gateway.evaluate.noted import Notes, Period
from gateway.evaluate.terms import Terms

_EPOCH = date(1970, 1, 1)
_HOURS_A_DAY = 24
_HOUR_S = 3600
_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)

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
    notes = Notes(engine)
    for one in terms:
        volume = by_hour.get(one.name)
        if volume:
            yield from _of_product(notes, one, volume, as_of)
    notes.clear()


def _of_product(
    notes: Notes, terms: Terms, volume: Mapping[int, int], as_of: datetime
) -> Iterator[Entry]:
    now = int(as_of.astimezone(UTC).timestamp() // _HOUR_S)
    end = min(now, max(volume) + 1)
    first = max(min(volume), end - WINDOW_HOURS - WEEKS * WINDOW_HOURS)
    begin, window, last = (_day(hour) for hour in (first, end - WINDOW_HOURS, end - 1))
    if not any(first <= hour < end - WINDOW_HOURS for hour in volume):
        return
    settled = Period(*_settled(_day(min(volume)), window), volume)
    by = notes.binning(terms, settled, as_of)
    if not by.fields:
        return
    share = share_of(settled.hours, len(by.fields))
    seen = notes.histograms(by, Period(begin, last + _DAY, volume), as_of, share)
    for drift in drift_of(seen, end, calendar=terms.product.calendar):
        yield _entry(drift, (window, last))


def _settled(earliest: date, window: date) -> tuple[date, date]:
    """Return the days that bins are made of: whole weeks before the window, so that bins are the
    same for a week and its days need not be counted again; all before it, where that is less.
    """
    monday = window - window.weekday() * _DAY
    if monday <= earliest:
        return earliest, window
    return max(earliest, monday - WEEKS * _WEEK), monday


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
            "days": [
                {"day": day.isoformat(), "psi": float(f"{figure:.4g}")} for day, figure in one.days
            ],
            "explained_by": one.explained_by,
            "notes": list(one.notes),
            "bins": [{"label": x.label, "now": x.now, "then": x.then} for x in one.bins],
        },
    )


def _day(hour: int) -> date:
    return _EPOCH + timedelta(days=hour // _HOURS_A_DAY)
