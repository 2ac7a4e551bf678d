"""Changes to a product.yaml's text: what is not named stays, byte for byte. Pure.

Each function takes a text that `parse` takes and returns another. What comes out is read again
and must say what was meant; where it does not (an anchor that is used elsewhere was changed, say),
nothing is returned and UsageError says so. Whether the product is in order is `parse`'s to say.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import PurePosixPath
from typing import Any

from gateway.errors import UsageError
from gateway.product.keys import dotted
from gateway.product.section import Key
from gateway.product.source import read
from gateway.product.spans import Entry, Span, spans
from gateway.product.suggest import suggest

CHAMPION = "champion"
_CHAMPION: Key = ("models", CHAMPION)
_CHALLENGERS: Key = ("models", "challengers")
_ARM_KEYS = (
    *("name", "version", "path", "sha256", "output", "scale", "calibration", "base_rate"),
    *("golden", "mode", "share"),
)
"""Where a new key goes: behind the nearest of those before it."""

_FILE_KEYS: tuple[Key, ...] = (("path",), ("calibration", "path"), ("golden",))

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_PLAIN = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./%-]*")


def content_of(text: str) -> dict[str, Any]:
    """Return what the text says, as plain values.

    Raises:
        UsageError: it cannot be read.
    """
    reading = read(text)
    if reading.problems or not isinstance(reading.content, dict):
        raise UsageError(
            "cannot be read", subject="product.yaml", hint="gateway check DIR says what is wrong."
        )
    return reading.content


def with_key(text: str, key: Key, value: object) -> str:
    """Set one key to a value of plain Python, and make the mappings that lead to it.

    Raises:
        UsageError: the key leads through a list's end or a scalar.
    """
    content = content_of(text)
    _put(content, key, deepcopy(value))
    return _meant(_set(text, key, flow(value)), content, dotted(key))


def with_generation(text: str, number: int) -> str:
    """Set the generation. Raises as `with_key`."""
    return with_key(text, ("generation",), number)


def with_calibration(text: str, arm: str, calibration: Mapping[str, object]) -> str:
    """Set the calibration of a model, by its name; `champion` is the champion's too.

    Raises:
        UsageError: there is no such model.
    """
    return with_key(text, (*arm_key(text, arm), "calibration"), dict(calibration))


def with_challenger(text: str, challenger: Mapping[str, object]) -> str:
    """Add a challenger behind those there are. Raises UsageError where its name is taken."""
    content = content_of(text)
    taken = [name for name, _ in _arms(content)]
    if challenger.get("name") in taken:
        raise UsageError(
            f"there is a model {challenger['name']!r} already",
            subject="models.challengers",
            hint=f"Choose another name than {', '.join(taken)}.",
        )
    there = _challengers(content)
    if there:
        text = _append(text, _CHALLENGERS, flow(dict(challenger)))
        there.append(dict(challenger))
    else:
        text = _set(text, _CHALLENGERS, flow([dict(challenger)]), after=CHAMPION)
        content["models"]["challengers"] = [dict(challenger)]
    return _meant(text, content, "models.challengers")


def with_files(text: str, renamed: Mapping[str, str]) -> str:
    """Let the models name other files: `renamed` gives the new name of an old one.

    A version that was taken from the file's name is written down, and stays.
    """
    content = content_of(text)
    for _, place in _arms(content):
        arm = _at(content, place)
        if len(place) > len(_CHAMPION):
            arm = {"path": f"{arm.get('name')}.onnx", **arm}
        for key in _FILE_KEYS:
            if (new := renamed.get(_at(arm, key) or "")) is not None:
                if key == ("path",) and "version" not in arm:
                    version = PurePosixPath(arm["path"]).stem
                    text = _set(text, (*place, "version"), flow(version))
                    _put(content, (*place, "version"), version)
                text = _set(text, (*place, *key), flow(new))
                _put(content, (*place, *key), new)
    return _meant(text, content, "models")


def promoted(text: str, challenger: str, *, sha256: str, keep_as_shadow: bool = False) -> str:
    """Let a challenger be the champion, and raise the generation by one.

    `sha256`: of the challenger's file, which is pinned so. The champion has its keys from then
    on and no others, but for `output`, which a challenger may leave to the champion. With
    `keep_as_shadow` the former champion stands in the challenger's place, scored only; else the
    place is gone.

    Raises:
        UsageError: there is no such challenger.
    """
    content = content_of(text)
    place = arm_key(text, challenger)
    if place == _CHAMPION:
        raise UsageError(
            "is the champion already", subject=challenger, hint=_known_challengers(content)
        )
    meant = deepcopy(content)
    former, rival = _at(meant, _CHAMPION), _at(meant, place)
    new = {key: value for key, value in rival.items() if key not in ("mode", "share")}
    new = {"path": f"{challenger}.onnx", "output": former["output"]} | new | {"sha256": sha256}
    index = int(place[-1])
    here = spans(text)
    written = {key: _flow_at(text, here, (*place, key), value) for key, value in new.items()}
    written["sha256"] = flow(sha256)

    # From the end to the begin: what stands before keeps its place in the lists.
    rivals = _challengers(meant)
    if keep_as_shadow:
        kept = _as_shadow(content, challenger)
        texts = {key: _flow_at(text, here, (*_CHAMPION, key), value) for key, value in kept.items()}
        text = _replace_item(text, _CHALLENGERS, index, texts)
        rivals[index] = kept
    else:
        text = _remove_item(text, _CHALLENGERS, index)
        del rivals[index]
    if new["output"] != former["output"]:
        # They took it from the champion, and are what they were.
        for i, other in enumerate(rivals):
            if "output" not in other:
                text = _set(text, (*_CHALLENGERS, i, "output"), flow(former["output"]))
                other["output"] = former["output"]
    for key in former:
        if key not in new:
            text = _remove(text, (*_CHAMPION, key))
    for key, value in new.items():
        if key not in former or former[key] != value:
            text = _set(text, (*_CHAMPION, key), written[key])
    meant["models"]["champion"] = new
    meant["generation"] = content["generation"] + 1
    text = _set(text, ("generation",), str(meant["generation"]))
    return _meant(text, meant, f"the promotion of {challenger}")


def arm_key(text: str, name: str) -> Key:
    """Return where a model stands, by its name; `champion` is the champion's too.

    Raises:
        UsageError: there is no such model; the hint says which there are.
    """
    content = content_of(text)
    arms = dict(_arms(content))
    if name in arms:
        return arms[name]
    if name == CHAMPION:
        return _CHAMPION
    raise UsageError(
        "is no model of this product", subject=repr(name)[:80], hint=suggest(name, arms)
    )


def flow(value: object) -> str:
    """Write a plain value as YAML on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
        case int() | float():
            return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)
        case str():
            plain = _PLAIN.fullmatch(value) and read(value).content == value
            return value if plain else _quoted(value)
        case Mapping():
            return "{" + ", ".join(f"{flow(k)}: {flow(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(flow, value)) + "]"
    raise TypeError(f"{type(value).__name__} is no plain value")


def _quoted(value: str) -> str:
    # JSON writes what lies beyond U+FFFF as two; YAML reads two.
    written = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in written)


def _as_shadow(content: dict[str, Any], challenger: str) -> dict[str, Any]:
    """Return the champion as a challenger: under its name, or its version, or a free one."""
    champion = dict(_at(content, _CHAMPION))
    taken = {name for name, _ in _arms(content)[1:]}
    stem = PurePosixPath(str(champion.get("path", ""))).stem
    wanted = (champion.get("name"), champion.get("version"), stem, "former-champion")
    free = [n for n in wanted if isinstance(n, str) and _NAME.fullmatch(n) and n not in taken]
    return (
        {"name": free[0] if free else f"former-{challenger}"[:100]}
        | {key: value for key, value in champion.items() if key != "name"}
        | {"mode": "shadow"}
    )


def _arms(content: dict[str, Any]) -> list[tuple[str, Key]]:
    """Return each model's name and place, the champion first."""
    champion = _at(content, _CHAMPION)
    named = [(champion.get("name", CHAMPION), _CHAMPION)] if isinstance(champion, dict) else []
    return named + [
        (str(one.get("name")), (*_CHALLENGERS, i)) for i, one in enumerate(_challengers(content))
    ]


def _challengers(content: dict[str, Any]) -> list[dict[str, Any]]:
    there: list[dict[str, Any]] = _at(content, _CHALLENGERS) or []
    return there


def _known_challengers(content: dict[str, Any]) -> str:
    names = [str(one.get("name")) for one in _challengers(content)]
    return f"Challengers: {', '.join(names)}." if names else "It has no challengers."


def _at(content: Any, key: Key) -> Any:
    for part in key:
        if isinstance(content, dict):
            content = content.get(str(part))
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
        else:
            return None
    return content


def _put(content: Any, key: Key, value: object) -> None:
    for i, part in enumerate(key):
        fits = isinstance(content, dict) if isinstance(part, str) else isinstance(content, list)
        if not fits or (isinstance(part, int) and part >= len(content)):
            raise UsageError("leads nowhere", subject=dotted(key), hint=f"{dotted(key[:i])} ends.")
        if i + 1 == len(key):
            content[part] = value
        elif isinstance(part, str) and content.get(part) is None:
            content[part] = {}
        content = content[part]


def _meant(text: str, content: object, what: str) -> str:
    """Return the text where it says what was meant. Raises UsageError."""
    reading = read(text)
    if reading.problems or _canonical(reading.content) != _canonical(content):
        raise UsageError(
            "this file is written in a way that cannot be changed here without changing more",
            subject=what,
            hint="Edit product.yaml by hand; anchors and `? keys` are what may be in the way.",
        )
    return text


def _canonical(content: object) -> str:
    """Write content so that only the same is equal: 1 is not 1.0, and NaN is NaN."""
    return json.dumps(content, sort_keys=True)


def _flow_at(text: str, here: Span, key: Key, value: object) -> str:
    """Write a value as it stands in the text where it does, else as plain."""
    span = here.at(key)
    if span is None:
        return flow(value)
    if span.literal:
        return text[span.start : span.end]
    if isinstance(value, dict) and span.kind == "mapping":
        inner = (f"{flow(k)}: {_flow_at(text, here, (*key, k), v)}" for k, v in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list) and span.kind == "list":
        return f"[{', '.join(_flow_at(text, here, (*key, i), v) for i, v in enumerate(value))}]"
    return flow(value)


def _set(text: str, key: Key, written: str, *, after: str | None = None) -> str:
    """Replace a value, or add its key."""
    root = spans(text)
    span, parent = root.at(key), root.at(key[:-1])
    if span is not None:
        entry = parent.entry(key[-1]) if parent else None
        return _replace(text, span, written, entry)
    name = str(key[-1])
    if parent is None or parent.kind != "mapping" or not parent.entries:
        return _set(text, key[:-1], f"{{{flow(name)}: {written}}}")
    return _insert(text, parent, name, f"{flow(name)}: {written}", after)


def _replace(text: str, span: Span, written: str, entry: Entry | None) -> str:
    if entry is None:
        return text[: span.start] + written + text[span.end :]
    # What stands between the colon and a value on lines below it are comments: they stay.
    between = text[entry.colon : span.start]
    if "\n" in between:
        head = between.rstrip()
        return f"{text[: entry.colon]} {written}{head}{text[span.end :]}"
    return text[: entry.colon] + (between or " ") + written + text[span.end :]


def _insert(text: str, parent: Span, name: str, line: str, after: str | None) -> str:
    entries = [entry for entry in parent.entries if entry.name == after]
    if not entries and name in _ARM_KEYS:
        before = _ARM_KEYS[: _ARM_KEYS.index(name)]
        entries = [entry for entry in parent.entries if entry.name in before]
        if not entries:
            first = parent.entries[0]
            gap = ", " if parent.flow else _newline(text) + " " * _column(text, first.start)
            return text[: first.start] + line + gap + text[first.start :]
        entries.sort(key=lambda entry: before.index(entry.name))
    entry = entries[-1] if entries else parent.entries[-1]
    if parent.flow:
        return f"{text[: entry.value.end]}, {line}{text[entry.value.end :]}"
    at = _line_end(text, entry.value.end)
    indent = " " * _column(text, parent.entries[0].start)
    return text[:at] + _newline(text) + indent + line + text[at:]


def _remove(text: str, key: Key) -> str:
    parent = spans(text).at(key[:-1])
    assert parent is not None
    bounds = [(entry.start, entry.value.end) for entry in parent.entries]
    i = next(i for i, entry in enumerate(parent.entries) if entry.name == key[-1])
    if parent.flow:
        return _remove_between(text, bounds, i)
    return _remove_lines(text, bounds, i)


def _remove_item(text: str, key: Key, index: int) -> str:
    parent, entry = _list_at(text, key)
    if not parent.flow and len(parent.items) == 1:
        begin = _line_start(text, _dash(text, parent, parent.items[0]))
        end = _line_end(text, parent.items[0].end)
        return f"{text[: entry.colon]} []{text[entry.colon : begin].rstrip()}{text[end:]}"
    starts = [i.start if parent.flow else _dash(text, parent, i) for i in parent.items]
    bounds = [(start, item.end) for start, item in zip(starts, parent.items, strict=True)]
    remove = _remove_between if parent.flow else _remove_lines
    return remove(text, bounds, index)


def _replace_item(text: str, key: Key, index: int, written: Mapping[str, str]) -> str:
    parent, _ = _list_at(text, key)
    item = parent.items[index]
    lines = [f"{flow(name)}: {value}" for name, value in written.items()]
    if item.kind == "mapping" and not item.flow:
        between = _newline(text) + " " * _column(text, item.entries[0].start)
        whole = between.join(lines)
    else:
        whole = "{" + ", ".join(lines) + "}"
    return text[: item.start] + whole + text[item.end :]


def _append(text: str, key: Key, written: str) -> str:
    parent, _ = _list_at(text, key)
    last = parent.items[-1]
    if parent.flow:
        return f"{text[: last.end]}, {written}{text[last.end :]}"
    at, indent = _line_end(text, last.end), " " * _column(text, _dash(text, parent, last))
    return f"{text[:at]}{_newline(text)}{indent}- {written}{text[at:]}"


def _list_at(text: str, key: Key) -> tuple[Span, Entry]:
    root = spans(text)
    parent, above = root.at(key), root.at(key[:-1])
    entry = above.entry(key[-1]) if above else None
    if parent is None or entry is None or parent.kind != "list":
        raise UsageError(
            "is not written as a list", subject=dotted(key), hint="Edit product.yaml by hand."
        )
    return parent, entry


def _remove_between(text: str, bounds: list[tuple[int, int]], i: int) -> str:
    """Remove one of what commas part."""
    start, end = bounds[i]
    if i + 1 < len(bounds) and "\n" not in text[end : bounds[i + 1][0]]:
        return text[:start] + text[bounds[i + 1][0] :]
    if i and "\n" not in text[bounds[i - 1][1] : start]:
        return text[: bounds[i - 1][1]] + text[end:]
    # It has lines of its own, up to its comma and the comment behind that.
    if i + 1 < len(bounds):
        end = text.index(",", end) + 1
    elif found := re.compile(r"\s*,").match(text, end):
        end = found.end()
    before, rest = text[_line_start(text, start) : start], text[end : _line_end(text, end)]
    if not before.strip() and re.fullmatch(r"\s*(#.*)?", rest):
        return text[: _line_start(text, start)] + text[_next_line(text, end) :]
    return text[:start] + text[end:]


def _remove_lines(text: str, bounds: list[tuple[int, int]], i: int) -> str:
    """Remove one of what lines part."""
    start, end = bounds[i]
    begin = _line_start(text, start)
    if text[begin:start].strip():  # It is the first behind a dash: the next one takes its place.
        return text[:start] + text[bounds[i + 1][0] :]
    return text[:begin] + text[_next_line(text, end) :]


def _dash(text: str, parent: Span, item: Span) -> int:
    """Return where the dash of an item stands: on its line or above it, below the first one."""
    column, line = _column(text, parent.start), _line_start(text, item.start)
    while line >= _line_start(text, parent.start):
        if text[line : line + column + 1] == " " * column + "-":
            return line + column
        line = _line_start(text, max(0, line - 1))
        if line == 0:
            break
    raise UsageError(
        "this list is written in a way that cannot be changed here",
        subject="product.yaml",
        hint="Edit product.yaml by hand.",
    )


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Return where the line ends, before its line break."""
    end = text.find("\n", at)
    if end < 0:
        return len(text)
    return end - 1 if end > at and text[end - 1] == "\r" else end


def _next_line(text: str, at: int) -> int:
    return text.find("\n", at) + 1 or len(text)


def _column(text: str, at: int) -> int:
    return at - _line_start(text, at)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
