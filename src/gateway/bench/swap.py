"""The scenario of models that are swapped under load: what it costs those who call meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway.bench.capacity import capacity
from gateway.bench.editor import Editor
from gateway.bench.load import Deed
from gateway.bench.outcome import Outcome, level_of, sound
from gateway.bench.phase import Phase, Stretch, quantile, stretch_of
from gateway.bench.product import MEDIUM, File, edition, tree_ensemble
from gateway.bench.rig import Rig, Scope
from gateway.bench.schedule import poisson

LOAD = 0.5
"""Of capacity."""

LARGE_BYTES = 100 << 20
LARGE_PER_S = 1_000.0
LARGE_TAKES = 2.0
"""A large model has so many times what a small one has."""

SHADOW_TAKES = 2.5
"""And one with a shadow: two models are verified, on what the shadow leaves of the processor."""

FIRST_S = 6.0
"""So long has the first swap, from which the period of the others is taken."""

PERIOD = 1.15
"""A period is so many times what the first swap took, and a rest of calls to compare it with."""

AT_A_TIME = 25
"""Swaps in one load: the answers to all calls at once would fill the memory."""

LARGE_SHARE, SHADOW_SHARE, SHADOW_MOST = 10, 20, 12
"""One in so many swaps is one to a large model, or a round with a shadow."""

LARGE_TIME, SHADOW_TIME = 0.3, 0.6
"""Of the time that the other swaps have, where it is short."""

RATIO_MAX, RATIO_P95_MAX, RSS_MAX, SHADOW_RATIO_MAX = 1.25, 1.5, 1.1, 1.1

Do = Callable[[], None]


def swap(rig: Rig, scope: Scope) -> Outcome:
    """Half of capacity, and another model every few seconds; then a large one; then a shadow."""
    found = capacity(rig, Scope(min(scope.seconds, 4.0), 1), MEDIUM)
    most = found.figures["capacity"]
    rate = max(LOAD * most, 1.0)
    rest_s = min(max(scope.seconds / 10, 0.3), 1.5)
    editor = Editor(rig, MEDIUM)
    first = swapped(rig, editor, "the first swap", _news(editor, 1), rate, FIRST_S, rest_s)
    takes_s = PERIOD * (first.took_ms_max or FIRST_S * 1000) / 1000
    count = _fitting(scope.swaps, scope.swaps_s, takes_s + rest_s)
    news = _news(editor, count)
    medium = swapped(rig, editor, "another model", news, rate, takes_s + rest_s, rest_s)
    large_s = LARGE_TAKES * takes_s + rest_s
    larges = max(min(4, scope.swaps), scope.swaps // LARGE_SHARE)
    count = min(larges, max(2, _fitting(larges, LARGE_TIME * scope.swaps_s, large_s)))
    orders = _larges(editor, count)
    large = swapped(rig, editor, "a large model", orders, LARGE_PER_S, large_s, rest_s)
    calm_s = min(max(scope.seconds / 3, 0.3), 6.0)
    rounds = min(SHADOW_MOST, max(min(3, scope.swaps), scope.swaps // SHADOW_SHARE))
    beside_s = SHADOW_TAKES * takes_s + calm_s
    rounds = _fitting(rounds, SHADOW_TIME * scope.swaps_s, 2 * beside_s)
    orders = _shadows(editor, rounds)
    beside = swapped(rig, editor, "a shadow beside", orders, rate, beside_s, calm_s)
    return outcome_of_phases(most, first, medium, large, beside)


def swapped(
    rig: Rig,
    editor: Editor,
    what: str,
    deeds: Sequence[Do],
    rate_per_s: float,
    period_s: float,
    rest_s: float,
) -> Phase:
    """Send calls, and do an edit at the begin of each period; the first after a rest."""
    stretches = []
    for begin in range(0, len(deeds), AT_A_TIME):
        some = deeds[begin : begin + AT_A_TIME]
        before = editor.generation
        measured = rig.send(
            what,
            poisson(rig.rng, rate_per_s, rest_s + len(some) * period_s),
            MEDIUM,
            deeds=[Deed(rest_s + i * period_s, one) for i, one in enumerate(some)],
        )
        editor.look()
        stretches.append(stretch_of(measured, editor.since(before)))
    return Phase(what, tuple(stretches))


def shadow_ratios(stretches: Sequence[Stretch]) -> tuple[float, ...]:
    """Return p99 of each rest with a shadow over that of the two rests around it, without one."""
    return tuple(
        ratio
        for stretch in stretches
        for ratio in stretch.rest_ratios(range(2, len(stretch.rests) - 1, 2))
    )


def _fitting(count: int, seconds: float, period_s: float) -> int:
    """Return how many periods there are: fewer than `count` where the time is short, but one."""
    return int(max(1, min(count, seconds // period_s)))


def _news(editor: Editor, count: int) -> list[Do]:
    """Return edits, each of which brings a model that nobody has seen; two kinds by turns."""
    models = [path.read_bytes() for path in _files(editor)]
    return [partial(editor.serve_new, models[number % 2]) for number in range(1, count + 1)]


def _larges(editor: Editor, count: int) -> list[Do]:
    """Return edits that bring one and the other of two large models by turns."""
    model = tree_ensemble(table_bytes=LARGE_BYTES)
    files = []
    for number in range(2):
        path, content = editor.folder / f"large-{number}.onnx", edition(model, number)
        path.write_bytes(content)
        files.append(File.of(path.name, content))
    return [partial(editor.serve, files[number % 2]) for number in range(count)]


def _shadows(editor: Editor, rounds: int) -> list[Do]:
    """Return edits: none beside the champion, then for each round one, and none again."""
    champion, challenger = (File.of(path.name, path.read_bytes()) for path in _files(editor))
    with_and_without = [
        partial(editor.serve, champion, challenger),
        partial(editor.serve, champion),
    ]
    return [partial(editor.serve, champion), *(rounds * with_and_without)]


def _files(editor: Editor) -> Iterator[Path]:
    return (editor.folder / name for name in ("model.onnx", "model-1.onnx"))


def outcome_of_phases(
    most: float, first: Phase, medium: Phase, large: Phase, beside: Phase
) -> Outcome:
    """Return what the scenario found. `most`: the capacity, in calls a second."""
    phases = (first, medium, large, beside)
    stretches = [stretch for one in phases for stretch in one.stretches]
    ratios = shadow_ratios(beside.stretches)
    shadow_ratio = quantile(ratios, 0.5)
    figures: dict[str, Any] = {
        **medium.figures,
        "stood_in": sum(one.stood_in for one in phases),
        "stood_in_swapping": sum(one.stood_in_swapping for one in phases),
        "shadow_p99_ratio": shadow_ratio,
        "shadow_p99_ratios": [round(one, 3) for one in ratios],
        "large": large.figures,
        "capacity": most,
        "levels": [
            level_of(
                one.count,
                MEDIUM,
                None if one is large else most,
                ratio=None if one is large else LOAD,
                what=one.what,
            )
            for one in (medium, large, beside)
        ],
    }
    del figures["failed"]  # it is counted of all loads
    return Outcome(
        name="swap",
        figures=figures,
        counts=tuple(stretch.count for stretch in stretches),
        timed=True,
        broken=(
            *(line for one in phases for line in _broken(one)),
            *_over_ratios(medium),
            *_over_ratios(large),
            *_over("p99 with a shadow", shadow_ratio, SHADOW_RATIO_MAX, "without it", beside.what),
        ),
        real_time=all(stretch.real_time for stretch in stretches),
        doubts=tuple(_doubts(medium, large, ratios)),
    )


def _broken(one: Phase) -> list[str]:
    """Return what no swap may do, however long it takes."""
    said = []
    asked, made = len(one.swaps), len(one.served)
    if made < asked:
        said.append(f"{asked - made} of {asked} edits were not served in their time ({one.what})")
    if one.stood_in:
        said.append(
            f"{one.stood_in:,} calls were answered by a stand-in, {one.stood_in_swapping:,} of "
            f"them in swaps ({one.what})"
        )
    if one.count.shed:
        said.append(f"{one.count.shed:,} calls were shed ({one.what})")
    return said + sound(one.count, MEDIUM, one.what)


def _over_ratios(one: Phase) -> list[str]:
    figures, around = one.figures, "around it"
    return [
        *_over("p99 in a swap", figures["p99_ratio"], RATIO_MAX, around, one.what),
        *_over(
            "p99 in the worst of twenty swaps",
            figures["p99_ratio_p95"],
            RATIO_P95_MAX,
            around,
            one.what,
        ),
        *_over("memory", figures["rss_ratio"], RSS_MAX, "after the first swaps", one.what),
    ]


def _over(what: str, ratio: float | None, most: float, of: str, where: str) -> list[str]:
    if ratio is None or ratio <= most:
        return []
    return [f"{what} is {ratio:g} x {of}, more than {most:g} ({where})"]


def _doubts(medium: Phase, large: Phase, shadows: Sequence[float]) -> list[str]:
    """Return which figure is not there, or is no better than chance."""
    said = []
    for one in (medium, large):
        if one.figures["p99_ratio"] is None:
            said.append(
                f"no swap had calls enough in it and around it ({one.what}); "
                "give it longer (--seconds)"
            )
        if one.figures["rss_ratio"] is None:
            said.append(f"a worker has ended, and its memory is not known ({one.what})")
    if not shadows:
        said.append("no round with a shadow had calls enough; give it longer (--seconds)")
    return said
