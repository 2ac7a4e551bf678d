"""What surrounds a product: money, fingerprint, immutability, reference, warnings."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import ProductError
from gateway.product import (
    EXPONENTS,
    Action,
    Feature,
    FrozenMapping,
    Output,
    StandIn,
    lint,
    minor_per_major,
    parse,
    reference,
    schema_fingerprint,
    unenforced,
)
from gateway.product.keys import entries
from gateway.v1 import decision_pb2

DESIGN = (Path(__file__).parent / "products" / "design.yaml").read_text()
ISO_CODES = Path("/usr/share/iso-codes/json/iso_4217.json")


def test_actions_and_stand_ins_have_the_numbers_of_the_contract() -> None:
    actions = {a.name: a.value for a in Action} | {"ACTION_UNSPECIFIED": 0}
    assert actions == dict(decision_pb2.Action.items())
    assert {s.name: s.value for s in StandIn} == dict(decision_pb2.StandIn.items())


def test_minor_units_are_those_of_iso_4217() -> None:
    """ISO 4217's exceptions, from its published table; everything else has cents."""
    assert [minor_per_major(code) for code in ("USD", "JPY", "KWD", "CLF")] == [100, 1, 1000, 10000]
    assert all(len(code) == 3 and code.isupper() for code in EXPONENTS)


@pytest.mark.skipif(not ISO_CODES.exists(), reason="Debian's iso-codes is not installed")
def test_every_currency_of_debians_table_is_there() -> None:
    listed = {entry["alpha_3"] for entry in json.loads(ISO_CODES.read_text())["4217"]}
    no_minor_unit = {code for code in listed if code.startswith("X")} - EXPONENTS.keys()
    withdrawn = {"ANG", "BGN", "CUC", "HRK", "SLL", "ZWL"}  # since that table was made
    assert listed - no_minor_unit - withdrawn <= EXPONENTS.keys()


def feature(**given: Any) -> Feature:
    return Feature.model_validate({"name": "x", "type": "float"} | given)


def test_the_fingerprint_moves_with_what_a_dense_row_means_and_with_nothing_else() -> None:
    number = feature(min=0, max=1)
    category = feature(name="c", type="category", values=["a", "b"])
    base = schema_fingerprint([number, category])

    assert len(base) == 16
    assert int(base, 16) >= 0
    assert base == schema_fingerprint([feature(max=9, missing=1), category])
    others = [
        [category, number],
        [number],
        [feature(type="int"), category],
        [feature(name="y"), category],
        [number, feature(name="c", type="category", values=["b", "a"])],
        [number, feature(name="c", type="category", values=["a,b"])],
    ]
    assert len({base, *map(schema_fingerprint, others)}) == 1 + len(others)


def test_a_product_is_immutable_hashable_and_picklable() -> None:
    product = parse(DESIGN, "p.yaml")

    with pytest.raises(ValidationError):
        product.generation = 8  # type: ignore[misc]
    with pytest.raises(TypeError):
        product.costs.categories["x"] = product.costs.categories["fuel"]  # type: ignore[index]
    assert pickle.loads(pickle.dumps(product)) == product
    assert hash(parse(DESIGN, "p.yaml")) == hash(product)


def test_where_a_product_is_written_is_no_part_of_it() -> None:
    assert parse("# moved\n" + DESIGN, "q.yaml") == parse(DESIGN, "p.yaml")


def test_a_frozen_mapping_is_equal_to_the_dict_it_was_made_from() -> None:
    given = {"a": 1}
    frozen = FrozenMapping(given)
    given["b"] = 2

    assert frozen == {"a": 1}
    assert hash(frozen) == hash(FrozenMapping({"a": 1}))


def test_every_key_is_documented_in_one_row_of_the_reference() -> None:
    rows = reference().splitlines()[2:]

    assert len(rows) == len(entries())
    for entry, row in zip(entries().values(), rows, strict=True):
        assert entry.field.description, f"{entry.pattern} has no description"
        assert entry.field.description.endswith("."), entry.pattern
        assert entry.pattern[-1] in row
        cells = row.replace("\\|", "").strip("|").split("|")
        assert len(cells) == 5
        assert all(cell.strip() for cell in cells), row


def test_every_key_of_the_design_is_in_the_reference() -> None:
    product = parse(DESIGN, "p.yaml")
    names = {part for pattern in entries() for part in pattern}
    free = {"pharmacy", "grocery", "fuel", "age_band", "chargeback", "customer_confirmed"}
    words = {part for key in product.source.lines for part in key if isinstance(part, str)}
    assert words - names == free


def test_what_has_no_effect_yet_is_told_and_only_if_the_file_has_it() -> None:
    told = {entry.key: entry.line for entry in unenforced(parse(DESIGN, "p.yaml"))}
    lines = DESIGN.splitlines()

    assert set(told) == {"costs.review.per_hour"}
    assert "per_hour: 200" in lines[told["costs.review.per_hour"] - 1]


def test_a_capacity_with_its_shadow_price_is_held_and_a_price_needs_a_capacity() -> None:
    for price in ("0", "1.25"):
        priced = DESIGN.replace("per_hour: 200,", f"per_hour: 200, shadow_price: {price},")
        assert priced != DESIGN
        product = parse(priced, "p.yaml")
        assert "costs.review.per_hour" not in {entry.key for entry in unenforced(product)}
        assert product.costs.review is not None
        assert product.costs.review.shadow_price == float(price)
    alone = DESIGN.replace("per_hour: 200,", "shadow_price: 1.25,")
    with pytest.raises(ProductError) as caught:
        parse(alone, "p.yaml")
    (violation,) = caught.value.violations
    assert violation.key == "costs.review.shadow_price"
    assert "not declared" in violation.problem


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("science: ada, ", "", "owners.science"),
        ("fraud_pass: 0.10", "fraud_pass: 0.99", "costs.step_up.fraud_pass"),
        ("fraud_pass: 0.10", "fraud_pass: 0", "costs.step_up.fraud_pass"),
        ("sensitivity: 0.80", "sensitivity: 0.01", "costs.review.sensitivity"),
        ("decline_of_fraud: 0 ", "decline_of_fraud: 30 ", "costs.decline_of_fraud"),
        ("actions: [approve, step_up, decline]", "actions: [approve, step_up]", "exploration"),
    ],
)
def test_what_is_hardly_meant_is_a_warning(old: str, new: str, key: str) -> None:
    before = {warning.key for warning in lint(parse(DESIGN, "p.yaml"))}
    text = DESIGN.replace(old, new, 1)

    (warning,) = (w for w in lint(parse(text, "p.yaml")) if w.key not in before)

    assert warning.key == key
    line = text.splitlines()[warning.line - 1]
    assert key.rpartition(".")[2] in line or key.partition(".")[0] in line


def test_what_init_could_not_know_is_asked_until_it_is_answered() -> None:
    asked = DESIGN.replace(
        "  currency: USD", "  currency: USD  # ASK product: which currency are the costs in?"
    )
    assert asked != DESIGN
    line = 1 + asked[: asked.index("# ASK")].count("\n")
    assert parse(DESIGN, "p.yaml").source.questions == ()
    assert parse(asked, "p.yaml").source.questions == (
        (line, "product: which currency are the costs in?"),
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"p[1]"', Output("p", 1)),
        ('"label[-1]"', Output("label", -1)),
        ('"proba[fraud]"', Output("proba", "fraud")),
        ('"dense_2/Sigmoid:0"', Output("dense_2/Sigmoid:0")),
        ('"P of fraud[1]"', Output("P of fraud", 1)),
    ],
)
def test_an_output_and_its_column(written: str, read: Output) -> None:
    text = DESIGN.replace('"probabilities[1]"', written)
    assert parse(text, "p.yaml").models.champion.output == read
