"""What is told of a decision, in words and numbers, for whoever has to answer for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import exp, isfinite

from gateway.cli.terms import money, out
from gateway.cli.told import Told, overrides_of
from gateway.decide import Edge, Explanation, OtherAmount, log_odds
from gateway.model import Attribution, Effect, FeatureValue, Generation
from gateway.product import Action, StandIn, minor_per_major
from gateway.v1.decision_pb2 import DecideResponse, ReasonCode

SHOWN = 8
"""Features whose effects are shown; --json has them all."""

BAR, SCALE = 12, 60
"""Characters of the strongest effect, and of the scale of probabilities."""

_FAR = 25.0
"""Log-odds at which the scale ends: 10^-11."""

_SHADE = {Action.APPROVE: "░", Action.STEP_UP: "▒", Action.REVIEW: "▓", Action.DECLINE: "█"}
_STOOD_IN = {
    StandIn.DEADLINE: "There was no time left inside the budget, or the caller's deadline.",
    StandIn.OVERLOAD: "More work had arrived than the product's share of capacity.",
    StandIn.MODEL_UNAVAILABLE: "No model was loaded, or the journal could not take its decision.",
    StandIn.MODEL_ERROR: "The model failed, or gave what is no probability.",
}


def say(told: Told) -> None:
    """Print it; headings stand flush left."""
    for warning in told.warnings:
        out.print(f"Warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    for line in _lines(told):
        style = None if line.startswith(" ") else "bold"
        out.print(line, style=style, markup=False, soft_wrap=True)
    for note in told.notes:
        out.print(f"Note: {note}", style="dim", markup=False, soft_wrap=True)


def _lines(told: Told) -> Iterator[str]:
    response, generation, why = told.case.response, told.source.generation, told.why
    if response.stand_in:
        yield from _stand_in(told)
    if why is None or generation is None:
        reasons = list(_reasons_of(response))
        if reasons:
            yield "Why"
            yield from reasons
        return
    if response.stand_in:
        yield f"What the model would have decided: {_spoken(why.decision.action)}"
    else:
        yield "Why"
    yield from _reasons(told, why, generation)
    yield "Where P(fraud) comes from"
    yield from _path(told, why, generation)
    yield "Where it stands"
    yield from _scale(why)
    yield "What would have changed the action, all else as it was"
    yield from _changes(why, generation)
    if told.attribution is not None:
        yield from _effects(told.attribution)


def _stand_in(told: Told) -> Iterator[str]:
    yield "Why the model did not decide"
    if told.case.expired:
        yield "  The caller's own deadline was over when the call arrived."
    else:
        yield f"  {_STOOD_IN[StandIn(told.case.response.stand_in)]}"
    band = told.band
    if band is not None:
        held = "what no band before it holds"
        if band.up_to_minor is not None:
            currency = told.case.request.currency
            up_to = money(band.up_to_minor, currency, minor_per_major(currency))
            held = f"amounts up to {up_to}"
        if band.categories:
            held += f" in {_listed(band.categories)}"
        yield (
            f"  {band.place} (product.yaml, line {band.line}) answers {held}: "
            f"{_spoken(band.action)}."
        )


def _reasons(told: Told, why: Explanation, generation: Generation) -> Iterator[str]:
    currency = generation.product.costs.currency
    unit = minor_per_major(currency)
    if told.case.response.stand_in or told.warnings:
        for option in why.options:
            chosen = " ◀" if option.action == why.chosen else ""
            cost = money(option.cost_minor, currency, unit)
            yield f"    {_spoken(option.action):<8} is expected to cost {cost:>16}{chosen}"
    others = [option for option in why.options if option.action != why.chosen]
    left = [option for option in others if not option.ruled_out]
    overridden = [_spoken(option.action) for option in others if option.ruled_out]
    if left:
        second = min(left, key=lambda option: option.cost_minor)
        dearer = money(second.dearer_minor, currency, unit)
        least = f"{_spoken(why.chosen)} is expected to cost the least"
        least = f"Of what overrides leave, {least}" if overridden else least.capitalize()
        yield f"  {least}; {_spoken(second.action)}, the next best, {dearer} more."
    else:
        yield f"  Only {_spoken(why.chosen)} is left to choose."
    for override in overrides_of(generation.product, why):
        yield (
            f"  An override is in force: {_spoken(override.action)} or more exactly from "
            f"{_percent(override.at_least)} on ({override.reason}; {override.approver}, "
            f"until {override.expires})."
        )
    if why.overridden:
        yield f"  It rules out what is cheaper by cost alone: {_listed(overridden)}."
    cost_class = why.cost_class
    if cost_class.harm > 1.0:
        yield (
            f"  {cost_class.name.capitalize()}: what a genuine customer suffers counts "
            f"{cost_class.harm:g} times."
        )
    elif cost_class.name and generation.product.costs.categories[cost_class.name].harm > 1.0:
        yield f"  {cost_class.name.capitalize()}: the amount is beyond its harm_up_to."
    if why.explored:
        yield (
            f"  It was let through to learn its label, as {why.decision.propensity:.3%} of "
            f"such payments are; by cost it is a {_spoken(why.chosen)}."
        )
    if why.near_tie:
        yield "  It is a near tie: the last bits of the model's arithmetic may have decided."
    if told.replaced:
        yield f"  Declared defaults or limits stood in for: {_listed(told.replaced)}."


def _reasons_of(response: DecideResponse) -> Iterator[str]:
    """Say an answer's reasons where there is nothing more to go by."""
    for reason in response.reasons:
        told = reason.contribution
        match reason.code:
            case ReasonCode.CATEGORY_HARM:
                yield f"  In this category a genuine customer's harm counts {told:g} times."
            case ReasonCode.THRESHOLD_OVERRIDE:
                yield "  An override took the choice from the cheapest action."
            case ReasonCode.CALENDAR_EVENT:
                yield f"  The calendar multiplied the odds of fraud by {exp(told):.3g}."
            case ReasonCode.EXPLORATION:
                yield f"  It was let through to learn its label, as {told:.3%} of such are."
            case ReasonCode.NEAR_TIE:
                yield "  It is a near tie: the last bits of arithmetic may have decided."
            case ReasonCode.FEATURE_DEFAULTED:
                yield "  A feature was missing or unknown: its declared default was used."


def _path(told: Told, why: Explanation, generation: Generation) -> Iterator[str]:
    champion, arm = generation.champion, generation.product.models.champion
    rows = [(f"the model's score ({champion.name} {champion.version})", f"{why.score:.6g}")]
    if arm.calibration.kind != "identity" or why.calibrated != why.score:
        rows.append((f"calibrated ({arm.calibration.kind})", _percent(why.calibrated)))
    if why.base_rate_shift and arm.base_rate is not None:
        rates = [_percent(rate) for rate in (arm.base_rate.calibrated_at, arm.base_rate.serving)]
        rows.append(
            (f"base rate of fraud, from {rates[0]} to {rates[1]}", _odds(why.base_rate_shift))
        )
    if why.calendar_shift:
        day = datetime.fromtimestamp(told.case.request.event_time.seconds, UTC).date()
        events = [e.event for e in generation.product.calendar if e.starts <= day <= e.ends]
        rows.append((f"calendar: {_listed(events)}", _odds(why.calendar_shift)))
    rows.append(("P(fraud)", _percent(why.decision.probability)))
    width = max(len(label) for label, _ in rows)
    for label, number in rows:
        yield f"  {label:<{width}}  {number}"


def _scale(why: Explanation) -> Iterator[str]:
    """Draw the actions over P(fraud), evenly in log-odds, and where the payment is."""
    p = why.decision.probability
    thresholds = [one.low for one in why.intervals[1:]]
    between = [log_odds(x) for x in (*thresholds, p) if 0.0 < x < 1.0] or [0.0]
    seen = [min(max(x, -_FAR), _FAR) for x in between]
    low, high = min(seen) - 1.5, max(seen) + 1.5

    def column(x: float) -> int:
        share = (min(max(log_odds(x), low), high) - low) / (high - low)
        return round(share * (SCALE - 1))

    cells: list[str] = []
    for one in why.intervals:
        cells += [_SHADE[one.action]] * (column(one.high) - len(cells))
    cells += [cells[-1]] * (SCALE - len(cells))
    at = column(p)
    ends = [_percent(1.0 / (1.0 + exp(-x))) for x in (low, high)]
    yield f"  {ends[0]:<{SCALE // 2}}{ends[1]:>{SCALE // 2}}"
    yield "  " + "".join(cells)
    said = _percent(p)
    left, right = f"{said} ▲", f"▲ {said}"
    yield f"  {left:>{at + 1}}" if at > len(said) else f"  {' ' * at}{right}"
    legend = [
        f"{_SHADE[one.action]} {_spoken(one.action)}"
        + (f" from {_percent(one.low)}" if one.low > 0.0 else "")
        for one in why.intervals
    ]
    yield "  " + "  ".join(legend)


def _changes(why: Explanation, generation: Generation) -> Iterator[str]:
    currency = generation.product.costs.currency
    unit = minor_per_major(currency)
    edges = [
        _edge(why, edge, side)
        for edge, side in ((why.below, "below"), (why.above, "above"))
        if edge is not None
    ]
    yield from _under("P(fraud)", edges or ["no other probability"])

    def amount(other: OtherAmount | None, side: str) -> list[str]:
        if other is None:
            return []
        said = money(other.amount_minor, currency, unit)
        return [f"from {said} {side}: {_spoken(other.action)}"]

    amounts = amount(why.smaller, "down") + amount(why.larger, "up")
    yield from _under("amount", amounts or ["no other amount"])
    if generation.product.costs.categories:
        by_action: dict[Action, list[str]] = {}
        for name, action in why.categories:
            by_action.setdefault(action, []).append(name or "any other")
        kinds = [f"{_listed(names)}: {_spoken(action)}" for action, names in by_action.items()]
        yield from _under("category", kinds or ["no other category"])
    yield "  (The score is taken as it was; a model that is fed the amount may give another.)"


def _edge(why: Explanation, edge: Edge, side: str) -> str:
    away = f" (its odds × {_times(edge.log_odds_away)})" if isfinite(edge.log_odds_away) else ""
    said = f"{side} {_percent(edge.probability)}{away}: {_spoken(edge.action)}"
    if why.score == why.decision.probability:
        return said
    if edge.score is None:
        return f"{said}; no score of the model is turned into that"
    bound = "at most" if edge.score < why.score else "at least"
    return f"{said}; a score of {bound} {edge.score:.6g}, not {why.score:.6g}"


def _effects(attribution: Attribution) -> Iterator[str]:
    effects, left_out = attribution.effects, attribution.left_out
    yield "What moved it: each feature by itself, against its reference"
    shown = [effect for effect in effects[:SHOWN] if abs(effect.log_odds) >= 0.005]
    if shown:
        table = [_cells(effect) for effect in shown]
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        heading = ("feature", "value", "reference")
        widths = [max(width, len(word)) for width, word in zip(widths, heading, strict=True)]
        columns = [f"{word:<{width}}" for word, width in zip(heading, widths, strict=True)]
        yield f"  {'  '.join(columns)}  {'lowers':>{BAR}} │ {'raises the odds of fraud'}"
        strongest = abs(shown[0].log_odds)
        for effect, row in zip(shown, table, strict=True):
            columns = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
            bar = "█" * max(1, round(abs(effect.log_odds) / strongest * BAR))
            left, right = ("", bar) if effect.log_odds > 0.0 else (bar, "")
            odds = f"× {_times(effect.log_odds)}"
            yield f"  {'  '.join(columns)}  {left:>{BAR}} │ {right:<{BAR}}  {odds}"
    rest = effects[len(shown) :]
    if rest:
        most = exp(abs(rest[0].log_odds))
        said = f"between × {1 / most:.3g} and × {most:.3g}" if most > 1.0 else "no effect"
        yield f"  {len(rest)} more: {said}"
    for reason in dict.fromkeys(one.why for one in left_out):
        names = _listed([one.feature for one in left_out if one.why == reason])
        yield f"  Not told: {names} ({reason})."


def _cells(effect: Effect) -> tuple[str, str, str]:
    return _cut(effect.feature, 24), _shown(effect.value), _shown(effect.reference)


def _shown(value: FeatureValue) -> str:
    match value:
        case None:
            return "missing"
        case bool():
            return "yes" if value else "no"
        case str():
            return _cut(value, 14)
    return f"{value:.6g}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _under(label: str, lines: Sequence[str]) -> Iterator[str]:
    for i, line in enumerate(lines):
        yield f"  {'' if i else label:<9} {line}"


def _odds(shift: float) -> str:
    return f"odds × {_times(shift)}"


def _times(shift: float) -> str:
    """Say by how much a shift of the log-odds multiplies the odds."""
    times = exp(min(shift, 700.0))
    return f"{times:,.0f}" if 100.0 <= times < 1e9 else f"{times:.3g}"


def _percent(p: float) -> str:
    """Say a probability with three decimals, or as many as tell it from 0 and 1."""
    if p < 0.001:
        return f"{100 * p:.3g}%"
    return f"{p:.3%}" if p <= 0.999 else f"{100 * p:.6g}%"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _spoken(action: int) -> str:
    return Action(action).spelling.replace("_", " ")
