"""The sections of a product on the page: each a figure that says in words what it shows, and the
exact numbers as a table. What a product has nothing of is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from math import inf
from typing import Protocol

from gateway.report.arms import arms
from gateway.report.charts import (
    Dot,
    Mark,
    Shade,
    Slice,
    against,
    axis_of,
    bar,
    day_by_day,
    over_time,
    rows,
)
from gateway.report.cohorts import cohort_map
from gateway.report.entries import Line
from gateway.report.fields import is_number
from gateway.report.figures import NUMBERS, days_between, figure_of, table
from gateway.report.hypotheses import hypotheses
from gateway.report.sentence import (
    Behind,
    Name,
    Number,
    Part,
    Sentence,
    band,
    clean,
    count,
    counted,
    exactly,
    figure,
    html,
    limit,
    target,
)
from gateway.report.story import began, budget, drifted, group, measure, title
from gateway.report.tables import COUNTED, Declared, Tables
from gateway.report.times import latency
from gateway.report.verdicts import BAD, rank, seems_missed, standing, worst_first
from gateway.report.words import BASES, STATES, WHY, spoken

Some = Sequence[Line]

_MOST_MARKS = 24


def promises(lines: Some, _: Tables, *, exact: bool) -> str:
    """Return promises and goals: how much of what is allowed is used."""
    held = [x for x in lines if x.section == "goals" and x.verdict]
    if not held:
        return ""
    held.sort(key=rank)
    drawn = {x.at: used for x in held if (used := _used(x)) is not None}
    axis = axis_of([end for some in drawn.values() for end in some], log=True, around=[0.5, 2.0])
    marks = [
        Mark(
            title(x),
            _with_budget(x),
            *drawn.get(x.at, (None, None, None)),
            standing(x.verdict),
            x.verdict,
        )
        for x in held
    ]
    over = sum(seems_missed(x) for x in held)
    sure = sum(x.verdict in BAD for x in held)
    caption: Sentence = (
        *("Of ", *counted(len(held), "promise or goal", "promises and goals"), ", "),
        *(count(over), f" {_is(over)} beyond what is allowed, ", count(sure), " for sure. "),
        "Across: how many times what is allowed goes wrong, the dashed line being all of it; "
        "further left is better. The bar is the 95 % interval.",
    )
    return figure_of(caption, rows(marks, axis, "ratio", [1.0])) + _table(
        [x for x in lines if x.section == "goals"], with_budget=True, exact=exact
    )


_Ends = tuple[float | None, float | None, float | None]


def _used(line: Line) -> _Ends | None:
    """Return value and interval as multiples of what is allowed; None: nothing is."""
    held = limit(line)
    if held is None or line.value is None:
        return None
    side, end = held
    if side == "most" and end > 0:
        value, low, high = (
            None if x is None else x / end for x in (line.value, line.low, line.high)
        )
        return value, low, high
    if side == "least" and line.unit == "share" and end < 1:
        value, low, high = (
            None if x is None else (1 - x) / (1 - end) for x in (line.value, line.high, line.low)
        )
        return value, low, high
    return None


def _with_budget(line: Line) -> Sentence:
    spent = budget(line)
    held = target(line)
    told = (*figure(line), *(("; asked: ", *held) if held else ()))
    return (*told, "; budget: ", *spent) if spent else told


def money(lines: Some, _: Tables, *, exact: bool) -> str:
    """Return money over time, and by part of the traffic."""
    held = next((x for x in lines if x.section == "goals" and x.metric == "fraud_loss_bps"), None)
    asked = limit(held) if held else None
    found = []
    for metric in ("fraud_loss_bps", "false_positive_rate"):
        months = [x for x in _money(lines, metric) if "month" in x.by]
        months.sort(key=lambda x: x.by["month"])
        if any(x.value is not None for x in months):
            line_at = asked[1] if asked and metric == "fraud_loss_bps" else None
            found.append(_months(months, line_at, held))
    parts = [x for x in _money(lines, "fraud_loss_bps") if x.by and "month" not in x.by]
    if parts:
        found.append(_parts(parts, asked[1] if asked else None))
    some = [x for x in lines if x.section == "money"]
    if not some:
        return ""
    whole = [x for x in some if not x.by and x.value is not None]
    if whole:
        found.insert(0, _whole(whole))
    return "".join(found) + _table(some, exact=exact)


def _money(lines: Some, metric: str) -> list[Line]:
    return [x for x in lines if x.section == "money" and x.metric == metric]


def _whole(lines: Some) -> str:
    caption = ("What deciding cost and saved, over mature decisions; of other days as it says.",)
    return figure_of(caption, _bare_table(lines))


def _months(months: Some, held: float | None, goal: Line | None) -> str:
    known = [x for x in months if x.value is not None]
    first, last = known[0], known[-1]
    caption: Sentence = (
        *(measure(first)[:1].upper() + measure(first)[1:], " by month: "),
        *(*figure(first), " in ", Name(first.by["month"])),
        *((", ", *figure(last), " in ", Name(last.by["month"])) if last is not first else ()),
        ".",
        *((" The dashed line is the goal, ", *target(goal), ".") if held and goal else ()),
        " Bars are 95 % intervals; the scale is logarithmic.",
    )
    dots = [Dot(i, x.value, x.low, x.high) for i, x in enumerate(months)]
    names = [clean(x.by["month"]) for x in months]
    return figure_of(caption, over_time(dots, names, months[0].unit, held))


def _parts(parts: Some, held: float | None) -> str:
    known = sorted((x for x in parts if x.value is not None), key=lambda x: -(x.value or 0.0))
    if not known:
        return ""
    worst = max(known, key=lambda x: x.low or 0.0)
    caption: Sentence = (
        "Fraud let through, by part of the traffic, the costliest first. Most surely high: ",
        *(*group(worst), ", ", *figure(worst), "."),
        " The dashed line is the goal." if held else "",
    )
    marks = [Mark(group(x), figure(x), x.value, x.low, x.high) for x in known[:_MOST_MARKS]]
    axis = axis_of(
        [end for x in known[:_MOST_MARKS] for end in (x.value, x.low, x.high)],
        log=True,
        around=[held] if held else [],
    )
    return figure_of(caption, rows(marks, axis, "bps", [held] if held else []))


def reliability(lines: Some, _: Tables, *, exact: bool) -> str:
    """Return whether probabilities hold."""
    every = {x.metric: x for x in lines if x.section == "calibration" and not x.by}
    whole = every.get("observed_over_expected")
    bins = [x for x in lines if x.metric == "fraud_rate_at_probability"]
    if not every and not bins:
        return ""
    held = band(whole) if whole else None
    caption: Sentence = ()
    if whole is not None:
        caption = (
            *("Over all, ", *figure(whole), " of the frauds that were expected came; "),
            *(*target(whole), " is asked: ", whole.verdict or "not judged", ". "),
        )
    for metric, before, after in (
        ("observed_over_expected_near_thresholds", "Near thresholds, ", " came. "),
        (
            "miscalibration_cost",
            "What acting on them cost more than probabilities put right: ",
            ". ",
        ),
    ):
        if metric in every:
            caption = (*caption, before, *figure(every[metric]), after)
    dots = [
        Dot(expected, x.value, x.low, x.high)
        for x in bins
        if (expected := x.number("expected")) is not None and x.value is not None
    ]
    drawing = ""
    if dots:
        beyond = sum(
            held is not None
            and (
                (dot.low is not None and dot.low > held[1] * dot.x)
                or (dot.high is not None and dot.high < held[0] * dot.x)
            )
            for dot in dots
        )
        caption = (
            *(*caption, "Of ", *counted(len(dots), "range"), " of probability, "),
            *(count(beyond), f" {_is(beyond)} off for sure. Across: the probability that was "),
            "given; up: the share that was fraud, with its 95 % interval. Probabilities hold where "
            "squares lie on the dashed line; above it there is more fraud than was said.",
        )
        drawing = against(dots, "share", held)
    parts = [x for x in lines if x.metric == "observed_over_expected" and x.verdict and x.by]
    found = figure_of(caption, drawing)
    if parts:
        marks = [
            Mark(group(x), figure(x), x.value, x.low, x.high, standing(x.verdict), x.verdict)
            for x in sorted(parts, key=rank)[:_MOST_MARKS]
        ]
        off = sum(x.verdict in BAD for x in parts)
        ends = [end for mark in marks for end in (mark.value, mark.low, mark.high)]
        says: Sentence = (
            *("Of ", *counted(len(parts), "part"), " of the traffic, in ", count(off)),
            " frauds differ from what was expected by more than is allowed, for sure. The band is "
            "what is allowed; to the right the model believes too little, to the left too much.",
        )
        axis = axis_of(ends, log=True, around=held or ())
        found += figure_of(says, rows(marks, axis, "ratio", held or ()))
    return found + _table(
        [x for x in lines if x.section == "calibration"], expected=True, exact=exact
    )


def fairness(lines: Some, _: Tables, *, exact: bool) -> str:
    """Return groups against their reference, the gate first."""
    some = [x for x in lines if x.section == "fairness" and "reference" in x.by]
    others = [x for x in lines if x.section == "fairness" and "reference" not in x.by]
    found = []
    gated = [x for x in some if x.verdict]
    if gated:
        worse = [x for x in gated if x.verdict in BAD]
        open_ = sum(x.verdict == "undecided" for x in gated)
        caption: Sentence = (
            *("Of ", *counted(len(gated), "group"), f", {measure(gated[0])}: "),
            *(count(len(worse)), f" {_is(len(worse))} outside what is allowed for sure, "),
            *(count(open_), " cannot be told yet. The band is what is allowed of the reference; "),
            "in its middle a group is treated as its reference is.",
        )
        found.append(_groups(gated, caption, with_verdict=True))
    rest = [x for x in some if not x.verdict and x.value is not None]
    for _metric, same in groupby(rest, key=lambda x: (x.metric, x.basis)):
        these = list(same)
        caption = (
            *("Told beside, without a verdict: ", measure(these[0]), ", "),
            *(BASES.get(these[0].basis, spoken(these[0].basis)), ". Furthest from its reference: "),
            *_furthest(these),
        )
        found.append(_groups(these, caption, with_verdict=False))
    known = "".join(
        f"<p>{html((Name(x.says), ' ', *figure(x), '.'))}</p>"
        for x in others
        if x.metric == "attribute_known"
    )
    if len(found) > 1:
        found[1:] = [
            "<details><summary>Other comparisons of the same groups</summary>"
            f"{''.join(found[1:])}</details>"
        ]
    return (
        "".join(found) + known + _table([*some, *others], says=True, exact=exact)
        if some or others
        else ""
    )


def _furthest(lines: Some) -> Sentence:
    """Name the group whose ratio is furthest from 1, in either direction."""
    one = max(lines, key=lambda x: max(x.value or 0.0, 1 / x.value if x.value else inf))
    return (*group(one), ", ", *figure(one), ".")


def _groups(lines: Some, caption: Sentence, *, with_verdict: bool) -> str:
    held = next((two for x in lines if (two := band(x))), ())
    marks = [
        Mark(
            (*group(x), " against ", Name(x.by["reference"])),
            (*figure(x), *_needed(x)),
            x.value,
            # Of an interval that is open above and has no value there is nothing to draw.
            x.low if x.value is not None else None,
            x.high if x.value is not None else None,
            standing(x.verdict),
            x.verdict if with_verdict else "",
        )
        for x in sorted(lines, key=rank)[:_MOST_MARKS]
    ]
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high)]
    axis = axis_of(ends, log=True, around=held or (0.8, 1.25))
    return figure_of(caption, rows(marks, axis, "ratio", held or (1.0,)))


def _needed(line: Line) -> Sentence:
    """Say how many more labels would decide a comparison; empty: that is not known."""
    more, of = line.number("more_labels_needed"), line.more.get("labels_needed_of")
    if more is None or not isinstance(of, str):
        return ()
    n = Number(f"{line.at}/more_labels_needed", more, "n")
    return ("; ", n, " more ", Name(of), " might tell")


def drift(lines: Some, tables: Tables, *, exact: bool) -> str:
    """Return what is not what it was."""
    some = worst_first(x for x in lines if x.section == "drift")
    if not some:
        return ""
    moved = [x for x in some if x.verdict == "drifted"]
    known = [x for x in some if x.verdict == "explained"]
    open_ = sum(x.verdict == "undecided" for x in some)
    days = some[0]
    caption: Sentence = (
        *("Of ", *counted(len(some), "thing"), " that came from ", Name(days.begin), " to "),
        *(Name(days.end), ", ", count(len(moved)), " drifted against the weeks before, "),
        *(
            count(len(known)),
            " as a declared event explains, and of ",
            count(open_),
            " too little ",
        ),
        "is known. The bar is what noise alone may reach; further right is further from what was.",
    )
    shown = [x for x in some if x.verdict != "steady"][:_MOST_MARKS] or some[:5]
    marks = [
        Mark(
            drifted(x),
            (*figure(x), *(("; ", *since) if (since := began(x)) else ())),
            *(x.value, x.low, x.high),
            standing(x.verdict),
            x.verdict,
        )
        for x in shown
    ]
    ends = [end for mark in marks for end in (mark.value, mark.low)]
    axis = axis_of(ends, log=False)
    drawn = figure_of(caption, rows(marks, axis, "psi"))
    followed = [x for x in shown if x.verdict != "steady"][:_MOST_FOLLOWED]
    lines_of_days = "".join(_followed(x, tables.declared) for x in followed)
    if lines_of_days:
        drawn += f"<details><summary>Day by day</summary>{lines_of_days}</details>"
    return drawn + _table(some, exact=exact)


_MOST_FOLLOWED = 6


def _followed(line: Line, declared: Sequence[Declared]) -> str:
    """Draw how a field came to where it is; empty where that is not known."""
    found = line.more.get("days")
    figures = {
        str(one.get("day")): one["psi"]
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, Mapping) and is_number(one.get("psi"))
    }
    names = days_between(min(figures, default=""), max(figures, default=""))
    if len(names) < 2:
        return ""
    shades: list[Shade] = []
    said: list[Part] = []
    day = line.more.get("began")
    for event in (x for one in declared for x in one.calendar):
        places = [i for i, name in enumerate(names) if event.begin <= name <= event.end]
        if places:
            shades.append(Shade(places[0], places[-1], clean(event.name)))
            said += [*([", "] if said else []), Name(event.name)]
    caption: Sentence = (
        *(*drifted(line), ": how far each day lies from what is usual on its weekday; "),
        *("near nothing there is no difference; of the last week it is ", *figure(line), "."),
        *((" Shaded: ", *said, ".") if said else ()),
        *((" It began about ", Name(day), ".") if isinstance(day, str) else ()),
    )
    return figure_of(
        caption,
        day_by_day([figures.get(x) for x in names], [x[5:] for x in names], "psi", shades=shades),
    )


def labels(_: Some, tables: Tables, *, exact: bool) -> str:  # noqa: ARG001
    """Return how much is known of what was decided."""
    found = []
    for one in tables.labels:
        if not one.decisions:
            continue
        caption: Sentence = (
            *("Of ", Number(f"{one.at}/decisions", one.decisions, "n"), " decisions from "),
            *(Name(one.first_day), " to ", Name(one.last_day), ", "),
            *(Number(f"{one.at}/mature", one.counts["mature"], "n"), " have labels that count: "),
            *("they are older than ", Number(f"{one.at}/maturity_days", one.maturity_days, "n")),
            *(" days (up to ", Name(one.last_mature_day), "). What was declined has no label, "),
            "for ever.",
        )
        slices = [
            Slice(
                one.counts[name] / one.decisions,
                STATES[name],
                (Number(f"{one.at}/{name}", one.counts[name], "n"),),
            )
            for name in COUNTED
        ]
        found.append(figure_of(caption, bar(slices)))
    return "".join([*found, *(cohort_map(one) for one in tables.maturity)])


class Make(Protocol):
    """Makes a section of a product's lines and tables; empty: it has none. `exact`: with tables of
    the numbers."""

    def __call__(self, lines: Some, tables: Tables, /, *, exact: bool) -> str:
        """Return HTML."""


SECTIONS: Mapping[str, Make] = {
    "Promises and goals": promises,
    "Reply times": latency,
    "Money": money,
    "Whom it fails": fairness,
    "Whether probabilities hold": reliability,
    "Drift": drift,
    "Models": arms,
    "Hypotheses": hypotheses,
    "Labels": labels,
}
"""By title, in the page's order."""


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _table(
    lines: Some,
    *,
    exact: bool,
    with_budget: bool = False,
    expected: bool = False,
    says: bool = False,
) -> str:
    if not lines or not exact:
        return ""
    table = _bare_table(lines, exact=True, with_budget=with_budget, expected=expected, says=says)
    return f"<details><summary>All numbers</summary>{table}</details>"


def _bare_table(
    lines: Some,
    *,
    exact: bool = False,
    with_budget: bool = False,
    expected: bool = False,
    says: bool = False,
) -> str:
    columns: dict[str, Callable[[Line], Sentence]] = {
        "figure": (lambda x: exactly(figure(x))) if exact else figure,
        "rests on": lambda x: (BASES.get(x.basis) or Name(x.basis),),
        "n": _size,
        "target": target,
        "verdict": _verdict,
        "days": lambda x: (Name(x.begin), " to ", Name(x.end)) if x.begin else (),
    }
    if with_budget:
        columns["error budget"] = budget
    if expected:
        columns["expected"] = _expected
    columns["decisions"] = lambda x: (Behind(x.at),) if x.begin else ()
    if says:
        columns["in words"] = lambda x: (Name(x.says),)
    filled = {head: [html(make(x)) for x in lines] for head, make in columns.items()}
    kept = {head: cells for head, cells in filled.items() if any(cells)}
    names = [html(_row_name(x)) for x in lines]
    return table(NUMBERS, ["what", *kept], list(zip(names, *kept.values(), strict=True)))


def _row_name(line: Line) -> Sentence:
    if line.kind == "promise":
        return (Name(line.metric),)
    return title(line)


def _size(line: Line) -> Sentence:
    # What is of turnover is of so much money, in minor units.
    n = Number(f"{line.at}/n", line.n, "n")
    return (n, " minor units") if line.unit == "bps" else (n,)


def _verdict(line: Line) -> Sentence:
    if not line.verdict:
        return ()
    why = WHY.get(line.because, "")
    return (line.verdict, f": {why}") if why and line.verdict == "undecided" else (line.verdict,)


def _expected(line: Line) -> Sentence:
    expected = line.number("expected")
    return (
        () if expected is None else (Number(f"{line.at}/expected", expected, line.unit, "exact"),)
    )
