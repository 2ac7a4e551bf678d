"""What is judged, and what is worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gateway.report.entries import Line
from gateway.report.sentence import Sentence, counted, limit

BAD = ("missed", "breach")
GOOD = ("met", "pass", "steady", "explained")
STANDING = {
    **dict.fromkeys(BAD, "bad"),
    **dict.fromkeys(GOOD, "good"),
    "drifted": "moved",
    "undecided": "open",
    "": "none",
    # Of hypotheses.
    **dict.fromkeys(("stop", "invalid"), "bad"),
    "ship": "good",
    "continue": "open",
}
"""How a verdict looks: four shapes, four colours."""

_LITTLE_LEFT = 0.25


def standing(verdict: str) -> str:
    """Return how a verdict looks; one that is not known as none."""
    return STANDING.get(verdict, "none")


def is_judged(line: Line) -> bool:
    """Return whether a line counts as a verdict: not parts, and no groups that are told beside the
    gate, unless they are in breach.
    """
    if line.section == "fairness":
        return bool(line.verdict) and (bool(line.more.get("gates")) or line.verdict in BAD)
    if line.section == "calibration":
        return bool(line.verdict) and not line.by
    return bool(line.verdict)


def is_in_danger(line: Line) -> bool:
    """Return whether a promise or goal is missed, seems missed, or has hardly any budget left."""
    if line.verdict in BAD:
        return True
    left = line.number("budget", "share_left")
    used_up = left is not None and left < _LITTLE_LEFT
    return line.section == "goals" and (used_up or seems_missed(line))


def seems_missed(line: Line) -> bool:
    """Return whether the value lies beyond the target, whatever its interval says."""
    held = limit(line)
    if line.value is None or held is None:
        return False
    side, end = held
    return line.value < end if side == "least" else line.value > end


def rank(line: Line) -> tuple[int, int, str, float]:
    """Return a key that sorts the worst first."""
    order = {"goals": 0, "fairness": 1, "calibration": 2, "drift": 3, "money": 4}
    if line.verdict in BAD:
        first = 0
    elif is_in_danger(line):
        first = 1
    elif line.verdict == "drifted":
        first = 2
    elif line.verdict in GOOD:
        first = 4
    else:
        first = 3
    # Of drifts the greatest first.
    size = -(line.value or 0.0) if line.section == "drift" else 0.0
    return first, order[line.section], line.product if line.section != "drift" else "", size


def worst_first(lines: Iterable[Line]) -> list[Line]:
    """Return what is judged, the worst first."""
    return sorted((line for line in lines if is_judged(line)), key=rank)


def headline(lines: Iterable[Line]) -> Sentence:
    """Say in one line how it stands."""
    judged = [line for line in lines if is_judged(line)]
    held = Counter(x.verdict for x in judged if x.section == "goals")
    groups = [x for x in judged if x.section == "fairness"]
    worse = sum(x.verdict in BAD for x in groups)
    beliefs = sum(x.verdict in BAD for x in judged if x.section == "calibration")
    moved = sum(x.verdict == "drifted" for x in judged)
    said: list[Sentence] = []
    if held["missed"]:
        said.append((*counted(held["missed"], "promise or goal", "promises or goals"), " missed"))
    if worse:
        said.append((*counted(worse, "group"), " worse off than allowed"))
    if beliefs:
        said.append((*counted(beliefs, "model"), " whose probabilities do not hold"))
    if moved:
        said.append((*counted(moved, "thing"), " drifted"))
    bad = bool(said)
    open_ = sum(x.verdict == "undecided" for x in judged if x.section in ("goals", "fairness"))
    if open_:
        said.append((*counted(open_, "verdict"), " undecided"))
    good = sum(x.verdict in GOOD for x in judged if x.section in ("goals", "fairness"))
    if good:
        said.append((*counted(good, "verdict"), " good"))
    if not said:
        return ("Nothing is judged.",)
    whole: Sentence = () if bad else ("Nothing is missed: ",)
    for i, part in enumerate(said):
        whole = (*whole, ", " if i else "", *part)
    return (*whole, ".")
