"""product.yaml as a person would write it: every key with its reason or its question. Pure.

What is guessed says so with its evidence; what nobody can know but an owner is asked for by
the owner's name, in a comment that begins with ASK.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from gateway.scaffold.draft import Sketch
from gateway.scaffold.features import NAMED_MAX, Draft, said

_RANGED_MAX = 3500
"""More features than these leave a product.yaml no room for ranges."""

_WIDTH = 100
_ALIGNED_MAX = 120
"""Comments stand in one column, but for those behind longer code."""

_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "nan", "inf"}
"""Words that are no text to YAML, or to its older readers."""

Line = tuple[str, str]
"""Code, and the comment behind it."""


def page(sketch: Sketch, *, name: str, champion: str, path: str, digest: str) -> str:
    """Return the text of product.yaml.

    `champion`: the model's name; `path`: its file in the folder; `digest`: its sha256.
    """
    blocks = (
        _head(sketch, name),
        _PROMISES,
        _models(sketch, champion, path, digest),
        _features(sketch),
        _COSTS,
    )
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def questions(text: str) -> tuple[str, ...]:
    """Return what a page asks, in its order."""
    return tuple(found.strip() for found in re.findall(r"# ASK (.+)", text))


def _head(sketch: Sketch, name: str) -> list[str]:
    table = sketch.table
    source = "without data"
    if table is not None:
        some = f"{table.rows:,} of " if table.rows < table.rows_in_file else ""
        source = f"and {some}{table.rows_in_file:,} rows of {printable(table.path)}"
    return [
        *_commented(f"Written by `gateway init` from an ONNX model {source}."),
        "# A comment that begins with ASK names who has to answer it: do, and remove the comment.",
        "# `gateway check` lists those that are left. Behind guess stands its evidence.",
        "# Money is in major units of costs.currency; shares are 0..1, or percent such as 5%.",
        *_aligned(
            [
                (f"product: {name}", ""),
                ("generation: 1", "raise it with every change that is to be served"),
                ("owners:", ""),
                ("  science: fraud-models@example.com", "ASK science: who answers for the model?"),
                ("  engineering: payments@example.com", "ASK engineering: who for the calls?"),
                ("  product: cards@example.com", "ASK product: who for costs and promises?"),
                ("  operations: on-call@example.com", "ASK operations: who is called at night?"),
            ]
        ),
    ]


_PROMISES = [
    "promises:                           # what customers are told, and how we know that it holds",
    '  - {id: in-time, says: "An answer before you have to wait.", sli: decided_within_budget, '
    "objective: 0.999, window: 28d}",
    "",
    "latency:",
    "  # ASK engineering: within how many milliseconds must an answer be there?",
    "  budget_ms: 25                     # from the call's arrival to its answer",
    "",
    "# The answer when the model cannot give one: the first band that fits the amount.",
    "# ASK product: which payments may pass unseen? Here: those up to 50.",
    "stand_in:",
    "  deadline:          [{up_to: 50, action: approve}, {action: step_up}]",
    "  overload:          [{up_to: 50, action: approve}, {action: step_up}]",
    "  model_unavailable: [{up_to: 50, action: approve}, {action: step_up}]",
    "  model_error:       [{up_to: 50, action: approve}, {action: step_up}]",
    "on_record_failure: continue         # a full disk stops the record, not the payments",
]

_COSTS = [
    "# What each outcome costs, against approving a genuine payment, which costs nothing.",
    "# The thresholds follow from it: `gateway check` prints them. The figures are placeholders.",
    "costs:",
    "  # ASK product: in which currency are the payments?",
    "  currency: USD",
    "  # ASK product: what does a fraud that you let through cost you?",
    "  # Here: all of the amount, and a fee for the chargeback.",
    "  false_negative: {loss_rate: 1.0, fee: 25}",
    "  # ASK product: what does turning away a genuine customer cost you?",
    "  # Here: 2% of the amount, and their goodwill.",
    "  false_positive: {margin: 0.02, retained: 0.0, goodwill: 5}",
    "  # ASK operations: can customers be asked for proof, and who passes?",
    "  # If they cannot be, take step_up out of costs, actions and stand_in.",
    "  step_up: {fee: 0.10, genuine_pass: 0.95, fraud_pass: 0.20, liability_shift: 0.50, "
    "friction: 0.50}",
    "  # ASK product: where does turning away a genuine customer harm more than elsewhere?",
    "  # Such as pharmacy: {mcc: [5912], harm: 4}",
    "  categories: {}",
    "actions: [approve, step_up, decline]",
    "",
    "# ASK product: what must be reached?",
    "# Such as {metric: fraud_loss_bps, at_most: 15}",
    "goals: []",
]


def _models(sketch: Sketch, champion: str, path: str, digest: str) -> list[str]:
    chosen = sketch.chosen
    comments = [f"guess: {chosen.why}", *chosen.notes, *(f"ASK {ask}" for ask in chosen.asks)]
    lines = [
        f"name: {scalar(champion)}",
        'version: "1"',
        f"path: {scalar(path)}",
        f"sha256: {digest}",
        *(line for comment in comments for line in _commented(comment)),
        f"output: {_quoted(chosen.candidate.spelling)}",
    ]
    if chosen.scale is not None:
        low, high = chosen.scale
        lines.append(f"scale: [{number(low)}, {number(high)}]   # what is genuine, what is fraud")
    if chosen.calibration is not None:
        lines.append(f"calibration: {_flow(dict(chosen.calibration))}")
    lines += _base_rate(sketch)
    lines.append(f"golden: golden.json   # {len(sketch.scores)} rows, by a bare session.run")
    models = ["models:", "  champion:", *(f"    {line}" for line in lines)]
    raised = sketch.limits.model_dump(exclude_unset=True)
    return [*models, f"  limits: {_flow(raised)}"] if raised else models


def _base_rate(sketch: Sketch) -> list[str]:
    chosen = sketch.chosen
    rate, rows = chosen.base_rate, len(chosen.candidate.scores)
    if rate is None:
        return []
    says = f"{rate:.3%} of {rows:,} labelled rows are fraud"
    if chosen.expected:
        ratio = rate / chosen.expected
        says += f", {ratio:.2f} times what the scores expect ({chosen.expected:.3%})"
        says += "" if 0.8 <= ratio <= 1.25 else ": calibrate it"
    return [
        *_commented(says),
        "# ASK science: what share of the payments to be served is fraud?",
        f"# Where it is another: base_rate: {{calibrated_at: {said(rate)}, serving: SHARE}}",
    ]


def _features(sketch: Sketch) -> list[str]:
    plan, table, label = sketch.plan, sketch.table, sketch.label
    comments = [
        "The model's inputs, in its order. What is missing without a default is refused.",
        f"guess: {len(plan.slots)} columns, {plan.why}",
    ]
    if plan.left_out:
        more = f" and {len(plan.left_out) - 20} more" if len(plan.left_out) > 20 else ""
        comments.append(f"left out of the data: {', '.join(plan.left_out[:20])}{more}")
    if label is not None:
        why = label.why or "as --label names it"
        comments.append(f"the label: '{label.name}', fraud is '{label.value}' ({why})")
        comments += [f"ASK {label.ask}"] * bool(label.ask)
    if table is not None and "by their count" in plan.why:
        comments.append(
            "ASK science: do the data's columns stand in the model's order? They were matched by "
            "their count; --features a,b,c names them."
        )
    if table is None and any(draft.type in ("float", "int") for draft in sketch.drafts):
        comments.append("ASK science: between which min and max does each feature lie?")
    elif any(draft.min is not None for draft in sketch.drafts[:_RANGED_MAX]):
        comments.append(
            "ASK science: which values are nonsense? min and max go ten times as far as the "
            "data, whose range stands behind."
        )
    if len(plan.slots) > NAMED_MAX:
        comments.append(
            f"More than {NAMED_MAX} features do not fit a message by name: they are sent as "
            "`dense`, little-endian float32 in this order."
        )
    entries: list[Line] = []
    for draft in sketch.drafts:
        entries += [("", f"  # ASK {draft.ask}")] * bool(draft.ask)
        entries += _feature(draft, len(sketch.drafts))
    return [
        *(line for comment in comments for line in _commented(comment)),
        "features:",
        *_aligned(entries),
    ]


def _feature(draft: Draft, count: int) -> list[Line]:
    """Return one of `count` entries: on a line, or, with a long list of texts, on several."""
    parts = [f"name: {scalar(draft.name)}"]
    if draft.columns > 1:
        parts.append(f"repeat: {draft.columns}")
    parts.append(f"type: {draft.type}")
    if draft.min is not None and draft.max is not None and count <= _RANGED_MAX:
        parts += [f"min: {number(draft.min)}", f"max: {number(draft.max)}"]
    texts = [scalar(text) for text in draft.values]
    listed = f"values: [{', '.join(texts)}]"
    if texts:
        parts.append(listed)
    if count <= NAMED_MAX:
        parts.append(f"missing: {_default(draft, draft.missing)}")
        if draft.type == "category":
            parts.append(f"unknown: {scalar(draft.unknown)}")
        if draft.reference is not None:
            parts.append(f"reference: {_default(draft, draft.reference)}")
    if len(listed) <= _WIDTH:
        return [(f"  - {{{', '.join(parts)}}}", printable(draft.note))]
    note = f"   # {printable(draft.note)}" if draft.note else ""
    lines: list[Line] = [(f"  - {parts[0]}{note}", "")]
    for part in parts[1:]:
        if part == listed:
            lines += [("    values:", ""), *((f"      {row}", "") for row in _folded(texts))]
        else:
            lines.append((f"    {part}", ""))
    return lines


def _folded(texts: Sequence[str]) -> list[str]:
    """Return a flow list on as many lines as it takes."""
    rows = [""]
    for text in texts:
        if rows[-1] and len(rows[-1]) + len(text) > _WIDTH - 10:
            rows.append("")
        rows[-1] += f"{text}, "
    rows[-1] = rows[-1].removesuffix(", ") + "]"
    return [f"{' ' if i else '['}{row.rstrip()}" for i, row in enumerate(rows)]


def _default(draft: Draft, value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return scalar(value)
    if math.isnan(value):
        return "nan"
    if draft.type == "int":
        return str(int(value))
    short = float(f"{value:.6g}")
    inside = draft.min is None or draft.max is None or draft.min <= short <= draft.max
    return number(short if inside else value)


# Writing YAML.


def scalar(text: str) -> str:
    """Return a text as YAML reads it back: plain where it can be."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_/+.-]*( [A-Za-z0-9_/+.-]+)*", text)
    return text if plain and text.lower() not in _WORDS else _quoted(text)


def number(value: float) -> str:
    """Return a number as text that reads back as the same float64."""
    short = said(value)
    return short if float(short) == value else repr(value)


def printable(text: str) -> str:
    """Return text on one line, without what a terminal or YAML would trip over."""
    line = " ".join(text.split())
    return line if line.isprintable() else ascii(line)


def _quoted(text: str) -> str:
    # JSON's escapes are YAML's, but for characters beyond the first plane.
    return "".join(
        one if one.isprintable() else _escaped(one) for one in json.dumps(text, ensure_ascii=False)
    )


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return scalar(value) if isinstance(value, str) else number(float(value))


def _commented(text: str) -> list[str]:
    """Return text as comment lines; a question has its first line to itself, up to its mark."""
    line = printable(text)
    question, mark, rest = line.partition("?")
    if mark and text.startswith("ASK "):
        return [f"# {question}?", *(f"# {part}" for part in wrap(rest.strip(), _WIDTH - 6))]
    return [f"# {part}" for part in wrap(line, _WIDTH - 6)]


def _aligned(lines: Iterable[Line]) -> list[str]:
    """Return lines with their comments in one column; a comment without code stands as it is."""
    lines = list(lines)
    widths = [len(code) for code, comment in lines if comment and len(code) <= _ALIGNED_MAX]
    column = max(widths, default=0)
    return [
        f"{code:<{column}}   # {comment}" if code and comment else code or comment
        for code, comment in lines
    ]
