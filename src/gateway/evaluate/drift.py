"""Whether what comes in, and what is decided of it, is what it was. Pure.

A window of time is compared with the weeks before it, the same hours of the week with each other,
by the population stability index, PSI = Σ(q - p)·ln(q/p) over bins. Two things make it differ from
0 where nothing has changed, and both are known before it alarms:

- chance: about (B - 1)(1/M + 1/N) in B bins (Yurdakul 2018), times what the decisions of a customer
  are alike (Rao and Scott 1981), which groups of whole customers show;
- weeks differ: each reference week is compared with the others in the same way, and what these
  distances have beyond chance, the window may have too. Where the references themselves moved
  towards what the window has, those after it are left out: else a drift would be the new usual
  after a week.

Both together are the noise of which PSI must be an improbable multiple, by F with few degrees of
freedom where few weeks say it; over all fields of a product by Holm's procedure, which holds
however they hang together. And it must be worth an alarm: PSI beyond chance of at least `effect`.
A field is steady where PSI beyond chance is below that, and noise alone exceeds it in less than one
window of twenty; what is neither is undecided.

Simulated, twelve fields of ten bins, eight reference weeks: a normal value that moves by 0.4 of its
standard deviation is found 70 % of the time at 500 decisions a week and 98 % at 1,000; by 0.8,
55 % at 200. A move by 0.2 is a PSI of 0.04: for it `effect` has to be 0.02, which finds 15 %
at 1,000 and all at 5,000. Of 600 families without a change, at 200 to 100,000 a week, none alarmed;
where the means of weeks differ by 0.2 by themselves, about 3 % do.

A declared event takes its days out of the references, and turns an alarm into "explained" where
the other days of the window do not alarm by themselves. Loss, false positives, calibration and
latency are measured elsewhere, and no event silences them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import ceil
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, fdtri, gammaincinv, stdtr

from gateway.evaluate.histograms import NOT_GIVEN, Field, Histograms, What
from gateway.evaluate.onset import Onset, onset
from gateway.product import CalendarEvent

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Flags = NDArray[np.bool_]

Verdict = Literal["steady", "drifted", "explained", "undecided"]

WEEK = 168
WINDOW_HOURS = WEEK
WEEKS = 8
EFFECT = 0.1
"""PSI: a normal value that moves by 0.32 of its standard deviation."""
ALPHA = 0.01
"""Of one false alarm over all fields of a product."""

ROWS_MIN = 200
"""With fewer decisions in the window or the references nothing is said."""

_REFERENCE_ROWS_MIN = 100
_SLOT_ROWS = 20
_BIN_ROWS = 5.0
_BIN_SHARE = 0.01
_WORTH_WITHOUT = 0.84
"""What is left of a variance's degrees of freedom without its greatest square: simulated."""
_SEEN = 0.95
_MOVED = 0.001
"""So improbable is it without a change that later references are left out, over all places."""
_EPOCH = date(1970, 1, 1)


class Bin(NamedTuple):
    """A bin's share of the window's decisions, and of the references' at the same hours."""

    label: str
    now: float
    then: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What is said of one field. None is not known.

    `value`: PSI. `js`: the Jensen-Shannon distance, 0..1. `ks`: the greatest difference of the
    cumulated shares of what was given; None where values have no order. `chance`: the PSI that is
    to be expected of chance alone; `noise_floor`: the PSI that one in a hundred windows would
    exceed without a change. `p`: of such a PSI without a change, corrected over all fields.
    `rank`: 1 where no reference week differs as much from the others, up to 1 + `weeks`; `weeks`:
    reference weeks that there are. `n`, `n_reference`: decisions that were read. `began`: the
    likeliest first day, None where it is not sure; `began_between`: first and last day that it
    may have been. `days`: of each day, how far its shares lie from the usual of its weekday, along
    what tells the window from the references: about 0 before a drift, PSI in the end.
    `explained_by`: the event that stands for an alarm. `notes`: what else to know.
    """

    product: str
    what: What
    name: str
    n: int
    n_reference: int
    weeks: int
    verdict: Verdict = "undecided"
    value: float | None = None
    js: float | None = None
    ks: float | None = None
    chance: float | None = None
    noise_floor: float | None = None
    p: float | None = None
    rank: int | None = None
    bins: tuple[Bin, ...] = ()
    began: date | None = None
    began_between: tuple[date, date] | None = None
    days: tuple[tuple[date, float], ...] = ()
    explained_by: str | None = None
    notes: tuple[str, ...] = ()


class Distances(NamedTuple):
    """How far two sets of shares are from each other, and what they were counted from.

    `now`, `then` (B,): shares; `m`, `n`: what each is worth, in decisions.
    """

    psi: float
    now: Floats
    then: Floats
    m: float
    n: float


def drift_of(
    histograms: Histograms,
    end: int,
    *,
    hours: int = WINDOW_HOURS,
    calendar: Sequence[CalendarEvent] = (),
    weeks: int = WEEKS,
    effect: float = EFFECT,
    alpha: float = ALPHA,
) -> tuple[Drift, ...]:
    """Return what is said of each field of a product, in the order of its binning.

    The window is the `hours` before `end`, an hour since 1970, UTC. `histograms` reach `weeks`
    times the window, in whole weeks, before it, as far as there is a past.
    """
    span = _Span(end - hours, end, ceil(hours / WEEK) * WEEK, weeks)
    met = [event for event in calendar if _hours_of(event, end - hours, end).any()]
    found = _assessed(histograms, span, calendar, (), effect, alpha)
    if not met or all(one.verdict != "drifted" for one in found):
        return found
    names = ", ".join(event.event for event in met)
    left = ~_during(met, end - hours, end)
    rest = (
        _assessed(histograms, span, calendar, met, effect, alpha)
        if left.sum() * 2 >= hours
        else _undecided(found)
    )
    return tuple(
        one
        if one.verdict != "drifted"
        else replace(one, notes=(*one.notes, f"drifted outside {names} as well"))
        if other.verdict == "drifted"
        else replace(one, verdict="explained", explained_by=names, began=None, began_between=None)
        for one, other in zip(found, rest, strict=True)
    )


def _undecided(found: Sequence[Drift]) -> tuple[Drift, ...]:
    """Return the same where too little is left of a window to say anything."""
    return tuple(replace(one, verdict="undecided") for one in found)


class _Span(NamedTuple):
    """A window from `begin` to before `end`, and `weeks` references, each `step` hours earlier."""

    begin: int
    end: int
    step: int
    weeks: int

    @property
    def earliest(self) -> int:
        return self.begin - self.weeks * self.step

    def windows(self, rows: Floats) -> Floats:
        """Return rows by hour from `earliest` on as (1 + weeks, hours, B): the window first."""
        places = (self.begin - self.earliest) - self.step * np.arange(1 + self.weeks)
        windows: Floats = rows[places[:, None] + np.arange(self.end - self.begin)]
        return windows


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a field before the others are: `rows` (hours, B) from the span's start, and
    `everything`: with the days that are left out.
    """

    drift: Drift
    p: float | None
    effect: float
    usual: float = 0.0
    rows: Floats | None = None
    seen: Distances | None = None
    everything: Floats | None = None


def _assessed(
    histograms: Histograms,
    span: _Span,
    calendar: Sequence[CalendarEvent],
    left_out: Sequence[CalendarEvent],
    effect: float,
    alpha: float,
) -> tuple[Drift, ...]:
    """Return what is said, with some events' days taken out of the window too."""
    apart = _during(calendar, span.earliest, span.end)
    apart[span.begin - span.earliest :] = _during(left_out, span.begin, span.end)
    found = [
        _compared(histograms, place, span, apart, effect)
        for place in range(len(histograms.binning.fields))
    ]
    adjusted = holm([one.p for one in found])
    return tuple(_judged(span, one, p, alpha) for one, p in zip(found, adjusted, strict=True))


def _compared(
    histograms: Histograms, place: int, span: _Span, apart: Flags, effect: float
) -> _Found:
    field = histograms.binning.fields[place]
    everything = histograms.of(place, span.earliest, span.end)
    rows = np.where(apart[:, None], 0.0, everything)
    windows = span.windows(rows)
    kept = _references(windows, span.windows(apart[:, None].astype(np.float64)))
    n = int(windows[0].sum())
    slot = _slot_of(span, n)
    now, then = _summed(windows[0], slot), [_summed(windows[k], slot) for k in kept]
    notes = () if len(kept) == span.weeks else (f"{len(kept)} of {span.weeks} reference weeks",)
    n_reference = int(sum(one.sum() for one in then))
    drift = Drift(
        *(histograms.binning.product, field.what, field.name),
        *(n, n_reference, len(kept)),
        notes=notes,
    )
    if min(n, n_reference) < ROWS_MIN:
        return _Found(drift, None, effect)
    layout = layout_of(field, now, np.sum(then, axis=0))
    rows, now, then = layout.join(rows), layout.join(now), [layout.join(one) for one in then]
    seen = distances(now, np.sum(then, axis=0))
    if seen.m < ROWS_MIN:
        note = "the references have hardly anything at these hours"
        return _Found(replace(drift, notes=(*notes, note)), None, effect)
    early, since = _before_it_changed(span, rows, seen, kept, then)
    if since is not None:
        kept, then = [kept[i] for i in early], [then[i] for i in early]
        seen = distances(now, np.sum(then, axis=0))
        note = f"compared with the {len(kept)} weeks before it changed, about {since}"
        n_reference = int(sum(one.sum() for one in then))
        drift = replace(drift, weeks=len(kept), n_reference=n_reference, notes=(*notes, note))
    pooled = np.sum(then, axis=0)
    drift = replace(
        drift,
        value=seen.psi,
        js=jensen_shannon(seen.now, seen.then),
        ks=kolmogorov(layout, seen.now, seen.then) if field.ordered else None,
        bins=tuple(map(Bin, layout.labels, seen.now.tolist(), seen.then.tolist())),
    )
    if layout.bins < 2:
        return _Found(replace(drift, chance=0.0, noise_floor=0.0, rank=1 + len(kept)), 1.0, effect)
    others = [distances(one, pooled - one) for one in then]
    noise = noise_of(
        layout.bins, seen, others, _alike(histograms, place, layout, span, apart, kept)
    )
    if noise is None:
        note = "one reference week does not say how much weeks differ"
        return _Found(replace(drift, notes=(*drift.notes, note)), None, effect)
    drift = replace(
        drift,
        chance=noise.chance,
        noise_floor=noise.quantile(0.99),
        rank=1 + sum(one.psi >= seen.psi for one in others),
    )
    everything = layout.join(everything)
    return _Found(drift, noise.p(seen.psi), effect, noise.quantile(_SEEN), rows, seen, everything)


def _before_it_changed(
    span: _Span, rows: Floats, seen: Distances, kept: Sequence[int], then: Sequence[Floats]
) -> tuple[Places, date | None]:
    """Return which references came before a change among them, and its day; all and None without.

    A change towards what the window has, seen day by day, and by how much whole weeks differ:
    those behind it from those before it, by Student's t with the latter's variance. Few weeks
    before it prove little, so a change that is older than about five weeks is the usual.
    """
    everything = np.arange(len(kept))
    changed = _changed(span, rows, seen, until=span.begin) if rows.shape[1] > 1 else None
    if changed is None:
        return everything, None
    is_early = np.array([span.end - k * span.step <= changed.earliest * 24 for k in kept])
    n, later = int(is_early.sum()), int((~is_early).sum())
    if n < 2 or not later:
        return everything, None
    figures = np.array([one.sum(axis=0) @ _along(seen) / one.sum() for one in then])
    error = float(figures[is_early].std(ddof=1)) * (1.0 / n + 1.0 / later) ** 0.5
    off = float(figures[~is_early].mean() - figures[is_early].mean())
    if off <= 0 or stdtr(n - 1, -off / max(error, 1e-12)) > _MOVED / len(kept):
        return everything, None
    return everything[is_early], _EPOCH + timedelta(days=changed.earliest)


def _along(seen: Distances) -> Floats:
    """Return what a decision in each bin says for the window's shares and against the references':
    the logarithm of their ratio."""
    along: Floats = np.log(_smooth(seen.now, seen.m) / _smooth(seen.then, seen.n))
    return along


def _judged(span: _Span, found: _Found, p: float | None, alpha: float) -> Drift:
    drift = replace(found.drift, p=p)
    if p is None or drift.value is None or drift.chance is None or drift.noise_floor is None:
        return drift
    if (
        found.rows is None or found.seen is None or found.everything is None
    ):  # one bin: nothing can move
        return replace(drift, verdict="steady")
    beyond, usual = drift.value - drift.chance, found.usual - drift.chance
    drift = replace(drift, days=_day_by_day(span, found.rows, found.everything, found.seen))
    if beyond < found.effect:
        return replace(drift, verdict="steady" if usual <= found.effect else "undecided")
    if p > alpha:
        return drift
    began = _changed(span, found.rows, found.seen, until=span.end)
    drift = replace(drift, verdict="drifted")
    if began is None:
        return drift
    day, *between = (_EPOCH + timedelta(days=at) for at in began[:3])
    return replace(drift, began=day, began_between=(between[0], between[1]))


# Distances.


def distances(now: Floats, then: Floats) -> Distances:
    """Compare counts (slots, B) with others, slot by slot: as if these came at the same hours.

    A slot that either has nothing of is left out of both. In PSI half a decision is added to each
    bin of both, so that an empty one has a logarithm.
    """
    m, n = now.sum(axis=1), then.sum(axis=1)
    both = (m > 0) & (n > 0)
    if not both.any():
        nothing = np.zeros(now.shape[1])
        return Distances(0.0, nothing, nothing, 0.0, 0.0)
    m, n = m[both], n[both]
    rows = m.sum()
    q = now[both].sum(axis=0) / rows
    p = (then[both] * (m / n)[:, None]).sum(axis=0) / rows
    worth = rows**2 / (m * m / n).sum()
    return Distances(psi(_smooth(q, rows), _smooth(p, worth)), q, p, float(rows), float(worth))


def _smooth(shares: Floats, n: float) -> Floats:
    smooth: Floats = (shares * n + 0.5) / (n + 0.5 * len(shares))
    return smooth


def psi(q: Floats, p: Floats) -> float:
    """Return the population stability index of shares, all above 0."""
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(q: Floats, p: Floats) -> float:
    """Return the Jensen-Shannon distance of shares: the root of the divergence, in bits; 0..1."""
    middle = (q + p) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(one > 0, one * np.log2(one / middle), 0.0).sum() for one in (q, p)]
    return float(np.sqrt(max(0.0, sum(parts) / 2)))


def kolmogorov(layout: Layout, q: Floats, p: Floats) -> float | None:
    """Return the greatest difference of cumulated shares of what was given."""
    given = ~layout.not_given
    q, p = q[given], p[given]
    if not q.sum() or not p.sum():
        return None
    return float(np.abs(np.cumsum(q) / q.sum() - np.cumsum(p) / p.sum()).max())


# Bins.


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Bins that are joined until each can be told from chance: `group` (bins,) says of each bin
    which one it belongs to."""

    group: Places
    labels: tuple[str, ...]
    not_given: Flags

    @property
    def bins(self) -> int:
        """How many there are then."""
        return len(self.labels)

    def join(self, counts: Floats) -> Floats:
        """Return counts (rows, bins) in those bins."""
        joined: Floats = counts @ (self.group[:, None] == np.arange(self.bins)).astype(np.float64)
        return joined


def layout_of(field: Field, now: Floats, then: Floats) -> Layout:
    """Return which bins are told apart, of counts (slots, 1 + bins).

    Each has at least a hundredth of the decisions, and five: by the mean of both shares, so that
    what is new or gone is not joined with what stays. What was not given stays by itself. Of
    ordered bins neighbours are joined, of others all that are too small.
    """
    q, p = (counts.sum(axis=0) / max(1.0, counts.sum()) for counts in (now, then))
    mean = (q + p) / 2
    least = max(_BIN_SHARE, _BIN_ROWS / max(1.0, min(now.sum(), then.sum())))
    group = np.zeros(len(mean), np.int64)
    labels: list[str] = []
    not_given = bool(mean[0] > 0)
    if not_given:
        labels.append(field.label(NOT_GIVEN))
    first = len(labels)
    if field.ordered:
        starts = [1]
        held = 0.0
        for place in range(1, len(mean)):
            held += mean[place]
            group[place] = first + len(starts) - 1
            if held >= least and place + 1 < len(mean):
                starts.append(place + 1)
                held = 0.0
        if held < least and len(starts) > 1:
            last = starts.pop()
            group[last:] = first + len(starts) - 1
        ends = [*(one - 1 for one in starts[1:]), len(mean) - 1]
        labels += (field.label(a - 1, b - 1) for a, b in zip(starts, ends, strict=True))
    else:
        large = [i for i in range(1, len(mean) - 1) if mean[i] >= least]
        small = [i for i in range(1, len(mean)) if i not in large]
        group[large] = first + np.arange(len(large))
        labels += (field.label(i - 1) for i in large)
        group[small] = first + len(large)
        if mean[small].sum() > 0:
            labels.append("other")
        else:
            group[small] = 0
    return Layout(group, tuple(labels), np.arange(len(labels)) < first)


def _slot_of(span: _Span, rows: float) -> Places:
    """Return a slot for each hour of a window: the hour of the week, or the day of the week, or one
    for all: as fine as leaves some decisions to each."""
    hour = np.arange(span.begin, span.end)
    for slot in (hour % WEEK, hour // 24 % 7):
        if rows >= _SLOT_ROWS * len(np.unique(slot)):
            return slot
    return np.zeros_like(hour)


def _summed(counts: Floats, slot: Places) -> Floats:
    """Return the sums of counts (hours, B) over each slot, (slots, B)."""
    sums = np.zeros((int(slot.max()) + 1, counts.shape[1]))
    np.add.at(sums, slot, counts)
    return sums


# Noise.


class Alike(NamedTuple):
    """By how much customers multiply the variance of a window's shares, and of the references'."""

    now: float
    then: float


@dataclass(frozen=True, slots=True)
class Noise:
    """PSI without a change: `mean` times F with these degrees of freedom."""

    chance: float
    mean: float
    dof: float
    dof_of_mean: float

    def p(self, value: float) -> float:
        """Return how probable such a value, or a greater one, is."""
        return float(fdtrc(self.dof, self.dof_of_mean, value / self.mean))

    def quantile(self, share: float) -> float:
        """Return the value that such a share lies below."""
        return self.mean * float(fdtri(self.dof, self.dof_of_mean, share))


def noise_of(bins: int, seen: Distances, others: Sequence[Distances], alike: Alike) -> Noise | None:
    """Return the noise of a window's PSI, by what reference weeks have against the others.

    None where fewer than two of them say it.
    """
    dof = bins - 1.0

    def chance(one: Distances) -> float:
        return dof * (alike.now / one.m + alike.then / one.n) if one.m and one.n else np.inf

    expected = chance(seen)
    known = sorted((one.psi, chance(one)) for one in others if one.m)
    if len(known) < 2:
        return None
    # One week may be a freak, and would hide what comes after it.
    kept = np.array(known[:-1] if len(known) > 2 else known)
    beyond = kept[:, 0].mean() - without_greatest(dof, len(known)) * kept[:, 1].mean()
    # Weeks that differ in one way only: no other noise has a longer tail.
    weekly = max(0.0, float(beyond) / without_greatest(1.0, len(known)))
    mean = expected + weekly
    # Few weeks may by chance have differed less than they do: of its degrees of freedom as many as
    # would be left if it were an error more.
    more = weekly + mean * (2.0 / (_WORTH_WITHOUT * (len(known) - 1))) ** 0.5
    worth = min(dof, (expected + more) ** 2 / (expected**2 / dof + more**2))
    return Noise(expected, mean, worth, worth * (len(known) - 1) * _WORTH_WITHOUT)


def without_greatest(dof: float, draws: int) -> float:
    """Return the mean of draws of χ² over its mean, where the greatest of them is left out.

    Of up to two draws none is.
    """
    if draws <= 2:
        return 1.0
    places = (np.arange(512) + 0.5) / 512
    greatest = float((2.0 * gammaincinv(dof / 2.0, places ** (1.0 / draws)) / dof).mean())
    return (draws - greatest) / (draws - 1)


def design_effect(counts: Floats) -> float:
    """Return by how much groups of customers (G, B) multiply the variance of shares, at least 1.

    The mean over bins, as a test of all of them wants it (Rao and Scott 1981).
    """
    n, total = counts.sum(axis=1), counts.sum()
    share = counts.sum(axis=0) / max(1.0, total)
    used = share > 0
    groups, bins = len(counts), int(used.sum())
    if total <= 0 or bins < 2:
        return 1.0
    off = counts[:, used] - n[:, None] * share[used]
    variance = (off**2).sum(axis=0) * groups / (groups - 1) / total**2
    return max(1.0, float((variance / share[used]).sum() * total / (bins - 1)))


def _alike(
    histograms: Histograms,
    place: int,
    layout: Layout,
    span: _Span,
    apart: Flags,
    kept: Sequence[int],
) -> Alike:
    first = span.earliest // 24
    days = layout.join(histograms.by_group(place, first, -(-span.end // 24)))
    windows = [
        days[_whole_days(span.begin - k * span.step, span, apart) - first].sum(axis=0)
        for k in (0, *kept)
    ]
    return Alike(
        float(np.mean([design_effect(one) for one in windows])),
        design_effect(np.sum(windows[1:], axis=0)),
    )


def _whole_days(begin: int, span: _Span, apart: Flags) -> Places:
    """Return the days that a window of the span's length touches."""
    hours = np.arange(begin, begin + span.end - span.begin)
    return np.unique(hours[~apart[hours - span.earliest]] // 24)


def holm(ps: Iterable[float | None]) -> list[float | None]:
    """Return p-values corrected by Holm's procedure, in their order; None is no test."""
    given = list(ps)
    order = sorted((p, i) for i, p in enumerate(given) if p is not None)
    adjusted: list[float | None] = [None] * len(given)
    worst = 0.0
    for rank, (p, i) in enumerate(order):
        worst = max(worst, min(1.0, p * (len(order) - rank)))
        adjusted[i] = worst
    return adjusted


# Time.


def _references(windows: Floats, apart: Floats) -> list[int]:
    """Return which weeks back can be compared with: half of their hours, and some decisions."""
    return [
        k
        for k in range(1, len(windows))
        if apart[k].mean() <= 0.5 and windows[k].sum() >= _REFERENCE_ROWS_MIN
    ]


def _hours_of(event: CalendarEvent, begin: int, end: int) -> Flags:
    day = np.arange(begin, end) // 24
    return (day >= (event.starts - _EPOCH).days) & (day <= (event.ends - _EPOCH).days)


def _during(events: Iterable[CalendarEvent], begin: int, end: int) -> Flags:
    flags = np.zeros(end - begin, np.bool_)
    for event in events:
        flags |= _hours_of(event, begin, end)
    return flags


def _changed(span: _Span, rows: Floats, seen: Distances, *, until: int) -> Onset | None:
    """Return when a field changed before an hour, by days."""
    day, figure, n = _figures(span, rows, rows, seen)
    weight = np.where((day + 1) * 24 <= until, np.minimum(n, np.median(n[n > 0])), 0.0)
    return onset(day, figure, weight)


def _day_by_day(
    span: _Span, rows: Floats, everything: Floats, seen: Distances
) -> tuple[tuple[date, float], ...]:
    found = (x.tolist() for x in _figures(span, rows, everything, seen))
    return tuple(
        (_EPOCH + timedelta(days=day), figure)
        for day, figure, n in zip(*found, strict=True)
        if n > 0
    )


def _figures(
    span: _Span, rows: Floats, told: Floats, seen: Distances
) -> tuple[Places, Floats, Floats]:
    """Return days since 1970, a figure of each by what it has in `told`, and its decisions.

    Of each day its shares count, less those of its weekday in the references, along what differs
    between window and references: a figure that is about 0 before, and PSI in the end.
    """
    hours = np.arange(span.earliest, span.end)
    first = int(hours[0]) // 24
    counts = _summed(told, hours // 24 - first)
    day = first + np.arange(len(counts))
    n = counts.sum(axis=1)
    before = day * 24 < span.begin
    weekday = day % 7
    usual = _summed(_summed(rows, hours // 24 - first)[before], weekday[before])
    usual = np.concatenate([usual, np.zeros((7 - len(usual), usual.shape[1]))])
    known = usual.sum(axis=1) > 0
    usual[known] /= usual[known].sum(axis=1, keepdims=True)
    usual[~known] = seen.then
    with np.errstate(divide="ignore", invalid="ignore"):
        figure = (counts / n[:, None] - usual[weekday]) @ _along(seen)
    return day, figure, n
