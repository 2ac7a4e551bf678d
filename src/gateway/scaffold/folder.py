"""The product's folder: what is written, and where."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import UsageError
from gateway.model import FeatureSchema, Generation, load_generation
from gateway.product import minor_per_major, minor_units
from gateway.scaffold.draft import Asked, Say, Sketch, sketch
from gateway.scaffold.features import NAMED_MAX, Draft, columns_of
from gateway.scaffold.page import page, questions

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_AMOUNT = 19.99


@dataclass(frozen=True, slots=True)
class Written:
    """A folder as it was written: what was guessed, and what it asks."""

    folder: Path
    name: str
    sketch: Sketch
    questions: tuple[str, ...]


def write_product(asked: Asked, say: Say = lambda _: None) -> Written:
    """Write a product's folder.

    Raises:
        UsageError: the folder is not empty, a file cannot be read, or a choice cannot be made.
        ModelError: a model that can be no product.
    """
    name = _product_name(asked)
    path = _model_path(asked.model)
    _expect_room(asked, path)
    sketched = sketch(asked, say)
    digest = hashlib.sha256(sketched.model).hexdigest()
    champion = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-.") or "champion"
    text = page(sketched, name=name, champion=champion[:100], path=path, digest=digest)
    golden = {
        "features": [
            [None if math.isnan(value) else _number(value) for value in row]
            for row in sketched.rows.tolist()
        ],
        "scores": sketched.scores.tolist(),
    }
    say(f"writing {asked.folder}")
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
        copy = asked.folder / path
        if not copy.exists() or not copy.samefile(asked.model):
            copy.write_bytes(sketched.model)
        (asked.folder / "product.yaml").write_text(text, encoding="utf-8")
        (asked.folder / "golden.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}",
            subject=str(asked.folder),
            hint="Name a folder that can be written.",
        ) from None
    return Written(asked.folder, name, sketched, questions(text))


def checked(written: Written) -> Generation:
    """Load the folder as `check` does, and write an example request for it.

    Raises:
        ProductError, ModelError: what keeps it from being served; it is left for repair.
    """
    generation = load_generation(written.folder)
    text = json.dumps(example(written, generation), indent=2, ensure_ascii=False)
    (written.folder / "request.json").write_text(f"{text}\n", encoding="utf-8")
    return generation


def example(written: Written, generation: Generation) -> dict[str, Any]:
    """Return a request of the first golden row that the product takes, as JSON values."""
    sketched, schema = written.sketch, generation.schema
    named = [_named(columns_of(sketched.drafts), schema, row) for row in sketched.rows.tolist()]
    taken = (i for i, features in enumerate(named) if not schema.encode(features).violations)
    i = next(taken, 0)
    amount = _AMOUNT if sketched.amounts is None else float(sketched.amounts[i])
    currency = generation.product.costs.currency
    request: dict[str, Any] = {
        "product": written.name,
        "transaction_id": "example-1",
        "amount": min(round(minor_units(amount, minor_per_major(currency))), 10**12),
        "currency": currency,
    }
    if len(schema.features) <= NAMED_MAX:
        return {**request, "features": named[i]}
    dense = base64.b64encode(sketched.rows[i].astype("<f4").tobytes()).decode()
    return {**request, "dense": dense, "schema_fingerprint": schema.fingerprint}


def _named(
    drafts: Sequence[Draft], schema: FeatureSchema, row: Sequence[float]
) -> dict[str, float | str]:
    """Return a row's features by name, without those that are missing."""
    return {
        column.name: draft.values[int(value)] if draft.type == "category" else _number(value)
        for column, draft, value in zip(schema.features, drafts, row, strict=True)
        if not math.isnan(value)
    }


def _number(value: float) -> float:
    """Return a number as JSON should have it: whole where it is."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _product_name(asked: Asked) -> str:
    if asked.name is not None:
        if not _NAME.fullmatch(asked.name):
            raise UsageError(
                f"--name {asked.name!r} must be lower-case letters, digits, '_' and '-', up to 63",
                hint="Such as card-not-present.",
            )
        return asked.name
    for word in (asked.folder.resolve().name, asked.model.stem):
        plain = re.sub(r"[^a-z0-9_-]+", "-", word.lower()).strip("-_")[:63]
        if plain:
            return plain
    return "product"


def _model_path(model: Path) -> str:
    name = model.name
    safe = name.isprintable() and "\\" not in name and 0 < len(name) <= 200 and name.strip() == name
    return name if safe and name not in ("golden.json", "request.json") else "model.onnx"


def _expect_room(asked: Asked, path: str) -> None:
    folder = asked.folder
    if folder.exists() and not folder.is_dir():
        raise UsageError("is no folder", subject=str(folder), hint="Name a folder to write.")
    if asked.force or not folder.is_dir():
        return
    there = sorted(one.name for one in folder.iterdir())
    if there:
        more = ", ..." if len(there) > 5 else ""
        raise UsageError(
            f"is not empty: {', '.join(there[:5])}{more}",
            subject=str(folder),
            hint="Name a new folder; or --force, which overwrites product.yaml, golden.json, "
            f"request.json and {path} there, and nothing else.",
        )
