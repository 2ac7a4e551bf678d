"""`gateway thresholds`."""

from __future__ import annotations

import json as json_codec
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from gateway.cli.edited import Write, change_of, print_change, write_keys
from gateway.cli.labelled import (
    SEED,
    ArmName,
    Columns,
    Data,
    FileColumns,
    Scored,
    described,
    progress,
    scored,
    told,
)
from gateway.cli.terms import Folder, Json, money, notes, out, save
from gateway.cli.threshold_picture import threshold_picture
from gateway.errors import ExitCode, UsageError
from gateway.evaluate.bootstrap import Interval
from gateway.evaluate.thresholds import (
    FRAUDS_MIN,
    STEP,
    Payments,
    Price,
    Threshold,
    bands_of,
    review_price,
    round_bands,
)
from gateway.evaluate.thresholds import (
    thresholds as thresholds_of,
)
from gateway.model import Generation
from gateway.product import Action, Product, minor_per_major, minor_units
from gateway.product.section import Key

Flags = NDArray[np.bool_]

_HOUR_S = 3600.0
_DIGITS = 4
"""Of a shadow price in major units."""

_REVIEW = ("costs", "review")


class Cell(NamedTuple):
    """The payments of a category and an amount band; of all, where these are empty."""

    category: str
    band: str
    members: Flags


def thresholds(
    folder: Folder,
    /,
    *,
    data: Data,
    columns: FileColumns = Columns(),  # noqa: B008 - frozen
    arm: ArmName = None,
    bands: Annotated[
        str | None,
        Parameter(help="Edges of amount bands in major units, such as 20,100,500."),
    ] = None,
    per_hour: Annotated[
        float | None,
        Parameter(
            validator=Number(gt=0),
            help="Payments an hour that are served; from the data's time span, if left out.",
        ),
    ] = None,
    picture: Annotated[Path | None, Parameter(help="Draw cost over threshold as an SVG.")] = None,
    write: Write = False,
    json: Json = False,
) -> int:
    """Hold the thresholds that follow from the costs against those that labels would have chosen.

    The plug-in threshold is right where P(fraud) is; the empirical one is where the labels say
    that the realised cost is least. A gap between them is miscalibration, and is priced. Where
    review has a capacity, its shadow price is found; --write puts it into product.yaml.
    """
    one = scored(folder, data, columns, arm)
    product = one.generation.product
    unit = minor_per_major(product.costs.currency)
    price = _price(one, per_hour, unit)
    edges = _edges(bands) or round_bands(one.labelled.amount_minor, unit)
    cells = tuple(_cells(one, edges, unit))
    members = {str(i): cell.members for i, cell in enumerate(cells)}
    payments = Payments(one.served, one.labelled.is_fraud, one.labelled.cluster, one.weight)
    found: list[tuple[Cell, Threshold]] = []
    with progress() as bar:
        task = bar.add_task("drawing", total=len(cells))
        chance = np.random.default_rng(SEED)
        for name, threshold in thresholds_of(one.stakes, payments, members, chance):
            found.append((cells[int(name)], threshold))
            bar.update(task, completed=int(name) + 1)
    if picture is not None:
        whole = [threshold for cell, threshold in found if not cell.category and not cell.band]
        save(picture, threshold_picture(one, whole))
    values = _values(product, price, unit)
    after = None
    if write and values is not None:
        keys: dict[Key, object] = {(*_REVIEW, key): value for key, value in values.items()}
        after = write_keys(one.base, keys)
    if json:
        print(json_codec.dumps(_summary(one, found, price, values, after), indent=2))
        return ExitCode.OK
    for line in told(one):
        out.print(escape(line), soft_wrap=True)
    out.print()
    if product.overrides:
        out.print(
            "Overrides are left out: thresholds follow from the costs, and from the labels.\n",
            soft_wrap=True,
        )
    _print(found, product, unit)
    if price is not None:
        _print_price(price, product, unit)
        if values is not None:
            print_change(one.generation, ".".join(_REVIEW), values, after)
        else:
            out.print("  product.yaml has that price.")
        out.print()
    if _of_all([one for one in found if one[1].verdict == "miscalibrated"]) is not None:
        notes.print(f"Next: gateway calibrate {folder} --data {data}", markup=False)
    else:
        notes.print(f"Next: gateway check {folder}", markup=False)
    return ExitCode.OK


def _edges(bands: str | None) -> tuple[float, ...]:
    """Read edges of amount bands, set apart by commas."""
    try:
        edges = tuple(sorted({float(edge) for edge in (bands or "").split(",") if edge.strip()}))
    except ValueError:
        edges = (math.nan,)
    if not all(0.0 < edge < math.inf for edge in edges):
        raise UsageError(f"--bands {bands!r} are no amounts", hint="Such as --bands 20,100,500.")
    return edges


def _cells(one: Scored, edges: tuple[float, ...], unit: int) -> Iterator[Cell]:
    """Yield all payments, each amount band, and each category with each band."""
    product, amount = one.generation.product, one.labelled.amount_minor
    names = [f"up to {edges[0]:,g}"]
    names += [f"{low:,g} to {high:,g}" for low, high in pairwise(edges)]
    names += [f"above {edges[-1]:,g}"]
    band = bands_of(amount, [minor_units(edge, unit) for edge in edges])
    everything = np.ones(len(amount), dtype=np.bool_)
    yield Cell("", "", everything)
    for i, name in enumerate(names):
        yield Cell("", name, band == i)
    mcc = one.labelled.category
    for category, declared in product.costs.categories.items():
        inside = np.isin(mcc, declared.mcc)
        yield Cell(category, "", inside)
        for i, name in enumerate(names):
            yield Cell(category, name, inside & (band == i))


def _price(one: Scored, per_hour: float | None, unit: int) -> tuple[Price, float] | None:
    """Return review's price and the payments an hour behind it; None where it has no capacity.

    Raises:
        UsageError: nothing says how many payments an hour there are.
    """
    product = one.generation.product
    review = product.costs.review
    if review is None or review.per_hour is None or Action.REVIEW not in one.stakes.actions:
        return None
    if per_hour is None:
        times = one.labelled.event_s
        hours = float(times.max() - times.min()) / _HOUR_S
        if hours < 1.0 or one.is_sampled:
            why = "was sampled" if one.is_sampled else "has no times"
            raise UsageError(
                f"{why}: nothing says how many payments an hour compete for "
                f"{review.per_hour:g} reviews",
                subject=one.labelled.path,
                hint="Say it: --per-hour 1200. Or name the column: --time.",
            )
        per_hour = one.labelled.rows_in_file / hours
    price = review_price(
        one.stakes,
        one.served,
        one.weight,
        priced_at=(review.shadow_price or 0.0) * unit,
        payments_per_hour=per_hour,
        capacity_per_hour=review.per_hour,
        resolution=10.0**-_DIGITS * unit,
    )
    return price, per_hour


def _print(found: list[tuple[Cell, Threshold]], product: Product, unit: int) -> None:
    currency = product.costs.currency
    table = Table(
        *("category", f"amount, {currency}", "from", "frauds", "by the costs", "by the labels"),
        *("95% interval", f"gap, {currency} per 1,000", "verdict"),
        title="From which P(fraud) on the dearer action is the cheaper one",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    skipped = 0
    for cell, one in found:
        if one.verdict == "too few labels" and (cell.category or cell.band):
            skipped += 1
            continue
        style = "yellow" if one.verdict == "miscalibrated" else None
        table.add_row(
            cell.category or ("any" if cell.band else "all"),
            cell.band or "any",
            f"{_word(one.lower)} to {_word(one.upper)}",
            f"{one.frauds:,}",
            f"{one.plug_in:.2%}",
            f"{one.empirical.value:.2%}",
            "-"
            if math.isnan(one.shift.error)
            else f"{one.empirical.low:.2%} to {one.empirical.high:.2%}",
            _gap(one.saving, unit),
            one.verdict,
            style=style,
        )
    out.print(table)
    if skipped:
        out.print(
            f"  {skipped} rows are left out: fewer than {FRAUDS_MIN} frauds, or genuine payments, "
            "near the threshold",
            soft_wrap=True,
        )
    out.print(
        f"  Thresholds are of the row's median payment. By the labels: the shift of the log-odds, "
        f"in steps of {STEP:g}, whose realised cost is least; the gap is what it would save in "
        "1,000 decisions of all, cross-fitted.",
        style="dim",
        soft_wrap=True,
    )
    gaps = [(cell, one) for cell, one in found if one.verdict == "miscalibrated"]
    whole = _of_all(gaps)
    if whole is not None:
        word = "likelier" if whole.shift.value > 0 else "rarer"
        factor = float(np.exp(abs(whole.shift.value)))
        out.print(
            f"  [yellow]Miscalibrated[/yellow]: near thresholds fraud is {word} than P(fraud) "
            f"says, its odds by about {factor:.2g} times. Derived thresholds are right when "
            "P(fraud) is: calibrate, do not override them.",
            soft_wrap=True,
        )
    elif gaps:
        out.print(
            "  [yellow]Miscalibrated in part[/yellow]: overall P(fraud) holds near thresholds, in "
            "some categories or amounts it does not. No map of the score alone mends that: the "
            "model misses what amount and category tell.",
            soft_wrap=True,
        )
    out.print()


def _of_all(gaps: list[tuple[Cell, Threshold]]) -> Threshold | None:
    """Return the gap over all payments, if there is one."""
    return next((one for cell, one in gaps if not (cell.category or cell.band)), None)


def _gap(saving: Interval, unit: int) -> str:
    if not np.isfinite(saving.value):
        return "-"
    low, high = saving.low / unit, saving.high / unit
    return f"{saving.value / unit:,.2f} ({low:,.2f} to {high:,.2f})"


def _values(
    product: Product, priced: tuple[Price, float] | None, unit: int
) -> dict[str, float] | None:
    """Return what product.yaml is to say under costs.review; None where it says so."""
    review = product.costs.review
    if priced is None or review is None:
        return None
    shadow = round(priced[0].shadow_price / unit, _DIGITS)
    return None if review.shadow_price == shadow else {"shadow_price": shadow}


def _print_price(priced: tuple[Price, float], product: Product, unit: int) -> None:
    price, per_hour = priced
    currency = product.costs.currency
    out.print(
        f"Review: of {per_hour:,.0f} payments an hour {price.wanted:,.1f} are cheapest reviewed, "
        f"the analysts can take {price.capacity:,g}.",
        soft_wrap=True,
    )
    if not price.shadow_price:
        out.print("  They have time left: a review costs no more than its fee.")
        return
    out.print(
        f"  At a shadow price of {price.shadow_price / unit:.{_DIGITS}f} {currency} a review, "
        f"{price.taken:,.1f} are. The capacity costs "
        f"{money(price.cost_per_1000, currency, unit)} in 1,000 decisions: what more analysts "
        "would be worth.",
        soft_wrap=True,
    )


def _word(action: Action) -> str:
    return action.name.lower()


def _summary(
    one: Scored,
    found: list[tuple[Cell, Threshold]],
    priced: tuple[Price, float] | None,
    values: Mapping[str, float] | None,
    after: Generation | None,
) -> Mapping[str, Any]:
    product = one.generation.product
    review: dict[str, Any] | None = None
    if priced is not None:
        price, per_hour = priced
        review = {
            "payments_per_hour": per_hour,
            "capacity_per_hour": price.capacity,
            "wanted_per_hour": price.wanted,
            "taken_per_hour": price.taken,
            "capacity_cost_per_1000_minor": price.cost_per_1000,
            "shadow_price_minor": price.shadow_price,
            "product_yaml": None if values is None else change_of(".".join(_REVIEW), values, after),
        }
    return {
        "product": one.generation.name,
        "generation": product.generation,
        "arm": one.arm.name,
        "currency": product.costs.currency,
        "data": described(one),
        "thresholds": [
            {
                "category": cell.category or None,
                "band": cell.band or None,
                "from": _word(threshold.lower),
                "to": _word(threshold.upper),
                "payments": threshold.payments,
                "frauds": threshold.frauds,
                "plug_in": threshold.plug_in,
                "empirical": _interval(threshold.empirical),
                "log_odds_shift": _interval(threshold.shift),
                "gap_per_1000_minor": _interval(threshold.saving),
                "verdict": threshold.verdict,
            }
            for cell, threshold in found
        ],
        "review": review,
    }


def _interval(one: Interval) -> dict[str, float | None]:
    figures = {"value": one.value, "low": one.low, "high": one.high}
    return {name: figure if np.isfinite(figure) else None for name, figure in figures.items()}
