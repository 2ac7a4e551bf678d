"""What is in danger, who is worse off and by how much, what it costs: in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.report.claims import Claim
from gateway.report.entries import Line, texts
from gateway.report.sentence import Name, Number, Sentence, count, figure, interval, target
from gateway.report.verdicts import BAD, is_in_danger, is_judged, worst_first
from gateway.report.words import AS_OFTEN, BASES, COMPARED, TITLES, spoken


def title(line: Line) -> Sentence:
    """Return what a line is about, without its product."""
    if line.kind == "promise":
        return (Name(line.metric), ": ", Name(line.says))
    if line.section == "fairness" and line.metric in COMPARED:
        return (*group(line), " against ", Name(line.by.get("reference", "")), ": ", measure(line))
    if line.section == "drift":
        return (*drifted(line),)
    named = measure(line)
    part = group(line)
    return (*part, ": ", named) if part else (named[:1].upper() + named[1:],)


def measure(line: Line) -> str:
    """Return what a metric is called."""
    return COMPARED.get(line.metric) or TITLES.get(line.metric) or spoken(line.metric)


def group(line: Line) -> Sentence:
    """Return the part of the decisions, or the group, that a line is about; empty: all."""
    found: Sentence = ()
    for key, value in line.by.items():
        if key == "reference":
            continue
        found = (*found, " × " if found else "", Name(f"{key} {value}"))
    return found


def drifted(line: Line) -> Sentence:
    """Return the thing whose drift a line tells."""
    what, name = next(iter(line.by.items()), ("", ""))
    if what == "of":
        return (Name(name),)
    return (Name(name),) if what == name else (f"{spoken(what)} ", Name(name))


def budget(line: Line) -> Sentence:
    """Say what is used of a promise's error budget; empty: it has none."""
    used, allowed = line.number("budget", "used"), line.number("budget", "allowed")
    if used is None or allowed is None:
        return ()
    unit = line.unit if line.more.get("sli") == "customer_loss" else "n"
    at = f"{line.at}/budget"
    spent = (Number(f"{at}/used", used, unit), " used of ")
    return (*spent, Number(f"{at}/allowed", allowed, unit), " allowed")


def in_danger(lines: Sequence[Line]) -> Iterator[Sentence]:
    """Yield each promise or goal that is missed, seems missed, or has hardly any budget left."""
    for line in worst_first(lines):
        if line.section == "goals" and is_in_danger(line):
            spent = budget(line)
            yield (
                *_called(line),
                " is missed: " if line.verdict in BAD else " is not safe: ",
                *(*figure(line), ", asked is ", *target(line)),
                *(("; error budget: ", *spent) if spent else ()),
                ".",
            )


def _called(line: Line) -> Sentence:
    if line.kind == "promise":
        return ("The promise ", Name(line.metric), " (“", Name(line.says), "”)")
    return (f"The goal for “{measure(line)}”",)


def worse_off(lines: Sequence[Line]) -> Iterator[Sentence]:
    """Yield each group that is treated otherwise than the limits allow, and by how much."""
    for line in lines:
        if line.section != "fairness" or not is_judged(line) or line.verdict not in BAD:
            continue
        before, after = AS_OFTEN.get(line.metric, (f"{measure(line)}: ", " has it "))
        value, *rest = figure(line)
        if isinstance(value, Number):
            value = value._replace(how="times")
        yield (
            *(before, *group(line), after, value, *rest, " as often as those of "),
            *(Name(line.by.get("reference", "")), "; allowed is ", *target(line), "."),
        )


def undecided_groups(lines: Sequence[Line]) -> int:
    """Return of how many groups the gate cannot tell yet."""
    return sum(x.section == "fairness" and is_judged(x) and x.verdict == "undecided" for x in lines)


def costs(lines: Sequence[Line]) -> Iterator[Sentence]:
    """Yield what fraud cost, and what stopping it cost, over mature decisions of all parts."""
    whole = {
        (x.metric, x.basis): x for x in lines if x.section in ("money", "calibration") and not x.by
    }
    loss, share = whole.get(("fraud_loss", "mature")), whole.get(("fraud_loss_bps", "mature"))
    if loss is not None and loss.value is not None:
        of = (", ", *figure(share), " of turnover") if share and share.value is not None else ()
        yield ("Fraud that was let through cost ", *figure(loss), *of, ".")
    for basis in ("explored", "model_implied", "bounds"):
        wrong = whole.get(("false_positive_rate", basis))
        if wrong is not None and (wrong.value is not None or interval(wrong)):
            yield ("Of genuine payments, ", *figure(wrong), f" were declined, {BASES[basis]}.")
            break
    saved = whole.get(("savings", "model_implied"))
    if saved is not None and saved.value is not None:
        yield ("Deciding saved ", *figure(saved), " of the cheaper of approving or declining all.")
    flipped = whole.get(("miscalibration_cost", "mature"))
    if flipped is not None and (flipped.low or 0.0) > 0.0:
        yield (
            "That its probabilities do not hold cost ",
            *figure(flipped),
            " more than right ones would.",
        )


def began(line: Line) -> Sentence:
    """Say since when something drifts, and what explains it; empty: neither is known."""
    parts: list[Sentence] = []
    if isinstance(line.more.get("began"), str):
        parts.append(("since ", Name(line.more["began"])))
    if isinstance(line.more.get("explained_by"), str):
        parts.append(("explained by ", Name(line.more["explained_by"])))
    parts += [(Name(note),) for note in texts(line.more.get("notes"))]
    found: Sentence = ()
    for i, part in enumerate(parts):
        found = (*found, "; " if i else "", *part)
    return found


def left_over(judged: Sequence[Line | Claim]) -> Sentence:
    """Count the verdicts of lines that are not shown."""
    found: Sentence = ()
    for verdict in dict.fromkeys(line.verdict for line in judged):
        n = sum(line.verdict == verdict for line in judged)
        found = (*found, ", " if found else "", count(n), f" {verdict}")
    return found
