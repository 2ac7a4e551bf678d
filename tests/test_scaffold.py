"""`gateway init`: what it reads of a table and of a graph, what it guesses, what it writes."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import catalogue
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from corpus import PRODUCTS, foreign
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from gateway.errors import GatewayError, ModelError, UsageError
from gateway.evaluate.fit import fit_logistic
from gateway.model import Generation, child, load_generation, trial
from gateway.model.inputs import Port
from gateway.model.reading import Width, reading
from gateway.product import UNSEEN, Output, parse
from gateway.scaffold import Asked, Written, checked, write_product
from gateway.scaffold import table as tables
from gateway.scaffold.columns import Plan, plan_with
from gateway.scaffold.features import nice, of_table
from gateway.scaffold.fit import auc, chance_error
from gateway.scaffold.label import find_label
from gateway.scaffold.names import unique
from gateway.scaffold.page import number, scalar
from gateway.scaffold.table import Table, read_table

FLOAT, INT64, TEXT = "tensor(float)", "tensor(int64)", "tensor(string)"


def tried_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try models in this process: these are tame, and a child takes half a second."""

    def ask(question: bytes, model: bytes, subject: str, limits: Any) -> dict[str, Any]:
        try:
            answer = child._answer(json.loads(question), model)
        except ModelError as error:
            answer = {"error": error.what, "hint": error.hint}
        return dict(json.loads(json.dumps(answer)))

    monkeypatch.setattr(trial, "_ask", ask)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    tried_here(monkeypatch)


def written_as(path: Path, rows: Mapping[str, Sequence[Any]], delimiter: str = ",") -> Path:
    """Write a table as a scientist would have it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
    return path


Make = Callable[..., Table]


@pytest.fixture
def table(tmp_path: Path) -> Make:
    """Return a table of these columns, by way of a CSV."""

    def make(**rows: Sequence[Any]) -> Table:
        return read_table(written_as(tmp_path / "made.csv", rows))

    return make


# Tables.

ROWS = {
    "amount": [1.5, None, -2e-7, 1e9 + 0.25],
    "mcc": ["0742", "5411", "0742", None],
    "says": ['a "b", c', "line\nend", "ß;|\t", "NA"],
    "present": [True, False, None, True],
}


def expect_rows(read: Table) -> None:
    assert list(read.columns) == list(ROWS)
    assert read.rows == read.rows_in_file == 4
    amount = read.columns["amount"].numbers
    assert amount is not None
    np.testing.assert_array_equal(amount, [1.5, math.nan, -2e-7, 1e9 + 0.25])
    assert read.columns["mcc"].texts.tolist() == ROWS["mcc"]
    assert read.columns["says"].texts.tolist() == ROWS["says"]
    assert read.columns["says"].numbers is None
    present = read.columns["present"]
    assert present.truths
    assert present.numbers is not None
    np.testing.assert_array_equal(present.numbers, [1, 0, math.nan, 1])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_is_read_whatever_separates_it(tmp_path: Path, delimiter: str) -> None:
    path = written_as(tmp_path / "t.csv", ROWS, delimiter)
    expect_rows(read_table(path))
    zipped = tmp_path / "t.csv.gz"
    zipped.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    expect_rows(read_table(zipped))


def test_parquet_is_read_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "table.bin"
    made = pa.table({**ROWS, "kind": pa.array(["a", "b", "a", None]).dictionary_encode()})
    made = made.append_column("when", pa.array([datetime(2026, 1, day) for day in range(1, 5)]))
    parquet.write_table(made.append_column("__index_level_0__", pa.array(range(4))), path)
    read = read_table(path)
    assert read.columns.pop("kind").distinct == (("a", 2), ("b", 1))  # type: ignore[attr-defined]
    when = read.columns.pop("when")  # type: ignore[attr-defined]
    assert when.is_time
    assert when.numbers is None
    expect_rows(read)


def test_what_pandas_calls_a_category_is_what_it_stands_for(tmp_path: Path) -> None:
    coded = pa.array([10, 9, 10], pa.int8()).dictionary_encode()
    parquet.write_table(pa.table({"x": coded}), tmp_path / "t.parquet")
    numbers = read_table(tmp_path / "t.parquet").columns["x"].numbers
    assert numbers is not None
    assert numbers.tolist() == [10, 9, 10]


def test_a_decimal_comma_is_one_where_semicolons_separate(tmp_path: Path) -> None:
    read = read_table(written_as(tmp_path / "t.csv", {"x": ["1,5", "-2"], "y": [1, 2]}, ";"))
    numbers = read.columns["x"].numbers
    assert numbers is not None
    assert numbers.tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n1,2\n", "its first line is empty"),
        (b"1,2\n3,4\n", "its first line holds numbers"),
        (b"a,b\n", "has a header, but no rows"),
        (b"a,b,a\n1,2,3\n", "more than one column 'a'"),
        (b"a,b\n1,2,3\n", "cannot be read as a table"),
        ("größe\n1\n".encode("latin-1"), "is not UTF-8"),
        (b"a\n\xff\n", "cannot be read as a table"),
        (b"\x08\x08\x00ONNX\x00", "is neither CSV nor Parquet"),
        (b"PAR1 and no more", "cannot be read as a table"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "cannot be read as a table"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(says)):
        read_table(path)


def test_an_error_shows_no_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"card,amount\n4111111111111111,3\n4111111111111111\n")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_table(path)
    assert "4111" not in str(caught.value)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.integers(10, 300))
def test_thinned_rows_are_evenly_spaced(sizes: list[int], most: int) -> None:
    batches, start = [], 0
    for size in sizes:
        batches.append(pa.table({"row": np.arange(start, start + size)}))
        start += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_ROWS_MIN", 1)
        kept, numbers, seen = tables._thinned(iter(batches), most)
    rows = kept["row"].to_numpy()
    assert numbers.tolist() == rows.tolist()
    assert seen == start
    assert len(rows) == min(start, most) or (most / 1 >= len(rows) > most / 2)
    steps = np.diff(rows)
    if len(steps):
        assert steps.min() >= 1
        assert steps.max() <= 2 * max(steps.min(), 1) + 1


# What labels say.


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({fraud for _, fraud in rows}) == 2
    )
)
def test_the_auc_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    from sklearn.metrics import roc_auc_score

    scores = np.array([score / 3 for score, _ in rows])
    fraud = np.array([fraud for _, fraud in rows])
    assert auc(scores, fraud) == pytest.approx(roc_auc_score(fraud, scores), abs=1e-12)
    assert auc(-scores, fraud) == pytest.approx(1 - auc(scores, fraud), abs=1e-12)


def test_an_auc_of_one_class_is_none() -> None:
    assert math.isnan(auc(np.arange(3.0), np.ones(3, dtype=bool)))


def test_an_auc_by_chance_spreads_as_it_is_said_to() -> None:
    draw = np.random.default_rng(1)
    fraud = np.arange(200) < 40
    drawn = [auc(draw.normal(size=200), fraud) for _ in range(1000)]
    assert np.std(drawn) == pytest.approx(chance_error(40, 160), rel=0.08)


@pytest.mark.parametrize(("centre", "spread"), [(0.0, 1.0), (1e6, 1e-2), (-3.0, 1e5)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_logistic_fit_is_scikit_learns(centre: float, spread: float, sign: float) -> None:
    """With Platt's targets as weights: each row stands once as fraud, and once as genuine."""
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(2)
    fraud = draw.random(500) < 0.2
    standard = draw.normal(0.8 * fraud, 1.0)
    scores = centre + sign * spread * standard
    a, b = fit_logistic(scores, fraud)
    frauds = int(fraud.sum())
    target = np.where(fraud, (frauds + 1) / (frauds + 2), 1 / (len(fraud) - frauds + 2))
    twice = np.concatenate([standard, standard])[:, None]
    fitted = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(
        twice, np.repeat([1, 0], len(fraud)), sample_weight=np.concatenate([target, 1 - target])
    )
    ours = 1 / (1 + np.exp(-(a * scores + b)))
    np.testing.assert_allclose(ours, fitted.predict_proba(standard[:, None])[:, 1], atol=1e-6)
    assert math.copysign(1, a) == sign


def test_classes_apart_have_a_finite_fit() -> None:
    scores = np.concatenate([np.linspace(0, 1, 50), np.linspace(5, 6, 50)])
    a, b = fit_logistic(scores, scores > 3)
    assert 0 < a < 1000
    assert math.isfinite(b)


# Names, numbers and texts as YAML.


@settings(max_examples=50)
@given(st.text(min_size=1, max_size=100))
@example("no")
@example("0742")
@example("1e6")
@example("~")
@example("# ASK: a, b]: {c}")
@example("\x85\u2028\U0001f600\x00")
@example(" a ")
def test_yaml_gives_every_text_back(text: str) -> None:
    if text in ("refuse", "nan", UNSEEN, "\ufffd") or any("\ud800" <= c <= "\udfff" for c in text):
        return
    assert feature(
        f"{{name: x, type: category, values: [{scalar(text)}, more-{len(text)}]}}"
    ).values[0] == (text)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e6)
@example(123456789.0)
@example(-1e-7)
def test_yaml_gives_every_number_back(value: float) -> None:
    assert feature(f"{{name: x, type: float, max: {number(value)}}}").max == value


def feature(entry: str) -> Any:
    text = json.dumps(catalogue.declared(features=None))
    return parse(f'{text[:-1]},\n"features": [{entry}]}}', "made").features[0]


@given(st.lists(st.text(max_size=120), min_size=1, max_size=20))
def test_every_column_has_a_name_of_its_own(names: list[str]) -> None:
    given_names = unique(names)
    assert len(set(given_names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name) for name in given_names)
    assert unique(["amount", "V1"]) == ["amount", "V1"]


@given(st.floats(1e-300, 1e300))
def test_a_nice_number_is_next_above(value: float) -> None:
    rounded = nice(value)
    assert value <= rounded <= 2.5 * value * (1 + 1e-9)
    assert f"{rounded:e}".rstrip("+-0123456789").startswith(("1.", "2.", "5."))


# Which columns.


def planned(made: Table, *ports: Port, label: str | None = "is_fraud", features: str = "") -> Plan:
    graph = reading(ModelProto())
    chosen = None if label is None else find_label(made, [], label, None)
    named = tuple(filter(None, features.split(",")))
    return plan_with(made, ports, graph, label=chosen, features=named, subject="m")


def sources(plan: Plan) -> list[str | None]:
    return [slot.source for slot in plan.slots]


MIXED = {
    "payment_id": [f"p{i}" for i in range(4)],
    "Amount": [1, 2, 3, 4],
    "country": ["a", "b", "a", "b"],
    "step": [1, 2, 3, 4],
    "V1": [0.1, 0.2, 0.3, 0.4],
    "V2": [0.1, 0.2, 0.3, 0.4],
    "customerId": [7, 8, 9, 9],
    "constant": [1, 1, 1, 1],
    "is_fraud": [0, 1, 0, 1],
    "is_fraud_type": [0, 2, 0, 1],
}


@pytest.mark.parametrize(
    ("width", "takes"),
    [
        (7, ["Amount", "step", "V1", "V2", "customerId", "constant", "is_fraud_type"]),
        (6, ["Amount", "step", "V1", "V2", "constant", "is_fraud_type"]),
        (5, ["Amount", "step", "V1", "V2", "constant"]),
        (4, ["Amount", "V1", "V2", "constant"]),
        (3, ["Amount", "V1", "V2"]),
        (2, ["V1", "V2"]),
        (8, ["Amount", "country", "step", "V1", "V2", "customerId", "constant", "is_fraud_type"]),
        (None, ["Amount", "V1", "V2", "constant"]),
    ],
)
def test_columns_by_their_count(table: Make, width: int | None, takes: list[str]) -> None:
    """Ids go first, then what tells of the label, times and constants; V1 and V2 are a family."""
    plan = planned(table(**MIXED), Port("X", FLOAT, ("N", width)))
    assert sources(plan) == takes
    assert {"is_fraud", *takes} | set(plan.left_out) == set(MIXED)


def test_columns_by_the_inputs_names(table: Make) -> None:
    made = table(**MIXED)
    ports = [
        Port("serving_default_amount:0", FLOAT, (None, 1)),
        Port("Country", TEXT, (None,)),
        Port("V", FLOAT, (None, 2)),
        Port("CUSTOMER_ID", INT64, (None, 1)),
    ]
    plan = planned(made, *ports)
    assert sources(plan) == ["Amount", "country", "V1", "V2", "customerId"]
    assert plan.tails == ((1,), (), (2,), (1,))
    assert plan.why == "by the inputs' names"


def test_an_input_whose_column_is_missing_takes_no_other(table: Make) -> None:
    made = table(amount=[1, 2], distance=[3, 4], is_fraud=[0, 1])
    ports = [Port(name, FLOAT, (None, 1)) for name in ("amount", "speed")]
    with pytest.raises(UsageError, match="there is none for 'speed'"):
        planned(made, *ports)


def test_columns_as_they_are_told(table: Make) -> None:
    made = table(**MIXED)
    port = Port("X", FLOAT, (None, 3))
    assert sources(planned(made, port, features="V2,Amount,step")) == ["V2", "Amount", "step"]
    assert sources(planned(made, port, features="V1..customerId")) == ["V1", "V2", "customerId"]
    with pytest.raises(UsageError, match="names 2 columns, but the model takes 3"):
        planned(made, port, features="V1,V2")
    with pytest.raises(UsageError, match="stands before"):
        planned(made, port, features="V2..V1,Amount")
    with pytest.raises(UsageError, match="no column 'v2'") as caught:
        planned(made, port, features="V1,v2,Amount")
    assert "Did you mean 'V2'?" in caught.value.hint


def test_columns_that_cannot_be_told_are_asked_for(table: Make) -> None:
    with pytest.raises(UsageError) as caught:
        planned(table(**MIXED), Port("X", FLOAT, ("N", 30)))
    said = str(caught.value)
    assert "30 columns: 'X' [?, 30] of float" in said
    assert "7 columns of numbers: Amount, step, V1" in said
    assert "2 of texts: payment_id, country" in said
    assert "--features" in caught.value.hint


def test_a_window_takes_its_columns_row_by_row(table: Make) -> None:
    made = table(**{f"t{i}": [i, i, i, i] for i in range(6)}, is_fraud=[0, 1, 0, 1])
    plan = planned(made, Port("window", FLOAT, (None, None, 3)))
    assert plan.tails == ((2, 3),)
    assert [(slot.index, slot.source) for slot in plan.slots] == [(i, f"t{i}") for i in range(6)]


@pytest.mark.parametrize(
    ("rows", "name", "value", "asks"),
    [
        ({"Class": [0, 1, 0], "isFraud": [1, 0, 0]}, "isFraud", "1", False),
        ({"class": [0, 1, 2], "V": [1, 2, 3]}, "class", "2", True),
        ({"Fraud?": ["Yes", "No", "No"]}, "Fraud?", "Yes", False),
        ({"fraud_reported": ["N", "Y", "N"], "flag": [0, 1, 1]}, "fraud_reported", "Y", False),
        ({"y": [True, False, True]}, "y", "True", False),
        ({"target": [-1, 1, 1]}, "target", "1", False),
        ({"outcome": ["A", "B", "A"]}, "outcome", "B", True),
        ({"label": [0.0, 1.0, 1.0]}, "label", "1.0", False),
    ],
)
def test_labels_are_known_by_name(
    table: Make, rows: dict[str, list[Any]], name: str, value: str, asks: bool
) -> None:
    label = find_label(table(**rows), [], None, None)
    assert label is not None
    assert (label.name, label.value, bool(label.ask)) == (name, value, asks)
    assert label.fraud.tolist() == [str(word) == value for word in rows[name]]


def test_an_input_of_the_model_is_no_label(table: Make) -> None:
    made = table(Class=["a", "b", "a"], amount=[1, 2, 3])
    assert find_label(made, ["class"], None, None) is None
    assert find_label(made, [], "Class", "a") is not None
    with pytest.raises(UsageError, match="has no value 'c'"):
        find_label(made, [], "Class", "c")
    with pytest.raises(UsageError, match="must have 2 to 10"):
        find_label(table(amount=range(20), y=[1] * 20), [], "y", None)


# What of a column is said.


def test_ranges_hold_the_data_and_refuse_nonsense(table: Make) -> None:
    made = table(
        amount=[0.5, 90.0, 12.0, 3.0],
        change=[-3.0, 12.0, 0.0, None],
        count=[0, 0, 0, 0],
        small=[1, 2, 3, 200],
        is_fraud=[0, 1, 0, 1],
    )
    ports = [Port(name, FLOAT, (None, 1)) for name in ("amount", "change", "count")]
    ports.append(Port("small", "tensor(uint8)", (None, 1)))
    plan = planned(made, *ports)
    drafts, values = of_table(made, plan, ports, reading(ModelProto()))
    assert [(draft.min, draft.max) for draft in drafts] == [
        (0, 1000),
        (-200, 200),
        (0, 1),
        (0, 255),
    ]
    assert [draft.type for draft in drafts] == ["float", "float", "float", "int"]
    assert [draft.missing for draft in drafts] == ["refuse", 0.0, "refuse", "refuse"]
    assert math.isnan(values[1][3])


def test_a_column_without_values_and_one_beyond_its_input(table: Make) -> None:
    made = table(empty=[None] * 4, huge=[1e300, 2e300, math.inf, -1.0], is_fraud=[0, 1, 0, 1])
    ports = [Port("empty", FLOAT, (None, 1)), Port("huge", FLOAT, (None, 1))]
    (empty, huge), _ = of_table(made, planned(made, *ports), ports, reading(ModelProto()))
    assert (empty.min, empty.missing, bool(empty.ask)) == (None, 0.0, True)
    assert huge.max == huge.reference == float(np.finfo(np.float32).max)


def test_texts_go_by_their_frequency_and_those_that_cannot_be_listed_are_left_out(
    table: Make,
) -> None:
    long = "x" * 101
    made = table(word=["b", "b", "a", long, "nan", "0742"], is_fraud=[0, 1, 0, 1, 0, 0])
    ports = [Port("word", TEXT, (None, 1))]
    (draft,), values = of_table(made, planned(made, *ports), ports, reading(ModelProto()))
    assert draft.values == ("b", "0742", "a")
    assert (draft.unknown, draft.reference) == (UNSEEN, "b")
    assert values[0].tolist() == ["b", "b", "a", long, "nan", "0742"]


# What a graph says.


def graph(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    weights: Mapping[str, Any] | None = None,
    output: str = "p",
    **more: str,
) -> ModelProto:
    tensors = [numpy_helper.from_array(np.array(v), k) for k, v in (weights or {}).items()]
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 1])
    made = helper.make_model(
        helper.make_graph(nodes, "g", inputs, [out], tensors),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    helper.set_model_props(made, more)
    return made


def port(name: str, *shape: int | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def test_widths_are_read_of_what_takes_the_columns() -> None:
    wide = np.zeros((7, 2), dtype=np.float32)
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("MatMul", ["y", "w"], ["p"]),
    ]
    assert reading(graph(nodes, [port("x", None, None)], {"w": wide})).widths == {
        "x": Width(7, exact=True)
    }
    gather = [helper.make_node("Gather", ["x", "i"], ["p"], axis=1)]
    assert reading(graph(gather, [port("x", None, None)], {"i": [4, 2]})).widths == {
        "x": Width(5, exact=False)
    }


def test_texts_are_traced_to_the_column_they_belong_to() -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["ab"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["ab", "one"], ["last"], domain="ai.onnx.ml"),
        helper.make_node(
            "OneHotEncoder", ["last"], ["p"], domain="ai.onnx.ml", cats_strings=["DE", "FR"]
        ),
        helper.make_node(
            *("LabelEncoder", ["a"], ["q"]),
            domain="ai.onnx.ml",
            keys_strings=["chip", "keyed"],
            values_floats=[0.0, 1.0],
        ),
    ]
    ports = [port(name, None, 1, kind=TensorProto.STRING) for name in ("a", "b")]
    read = reading(graph(nodes, ports, {"one": [1]}))
    assert read.categories == {("a", 0): ("chip", "keyed"), ("b", 0): ("DE", "FR")}


def test_names_and_lookup_tables_are_read() -> None:
    nodes = [helper.make_node("Gather", ["table", "merchant"], ["p"])]
    made = graph(
        nodes,
        [port("merchant", None, 1, kind=TensorProto.INT64)],
        {"table": np.zeros((50, 4), dtype=np.float32)},
        feature_names='["Merchant", "x"]',
    )
    read = reading(made)
    assert read.rows == {("merchant", 0): 50}
    assert read.names == ("Merchant", "x")


# From a file and a table to a product.


def initiated(
    folder: Path, model: bytes, rows: Mapping[str, Sequence[Any]] | None = None, **asked: Any
) -> tuple[Written, Generation]:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    data = None if rows is None else written_as(folder / "data.csv", rows)
    written = write_product(Asked(folder / "model.onnx", folder / "product", data, **asked))
    return written, checked(written)


def expect_example(written: Written, generation: Generation) -> None:
    """The example is one that the product takes, and has every feature that is not missing."""
    request = json.loads((written.folder / "request.json").read_text(encoding="utf-8"))
    assert request["product"] == generation.name
    encoded = generation.schema.encode(request["features"])
    assert not encoded.violations
    _, wrong = generation.schema.matrix([encoded.row])
    assert not any(row.violations for row in wrong.values())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_foreign_model_and_its_table_become_a_product(tmp_path: Path, name: str) -> None:
    """Without a word about either: columns, label, output and its direction are found."""
    one = foreign(name)
    written, generation = initiated(tmp_path, one.model, one.rows)
    sketch = written.sketch
    assert [slot.source for slot in sketch.plan.slots] == one.features
    assert sketch.label is not None
    assert (sketch.label.name, sketch.label.value) == (one.label, str(one.fraud))
    chosen = sketch.chosen
    bare = one.score()
    np.testing.assert_allclose(chosen.candidate.scores, bare, rtol=1e-6, atol=1e-6)
    assert (chosen.calibration is None) == (one.kind == "probability" or one.scale == (1.0, 0.0))
    if one.kind == "probability":
        assert chosen.scale is None
    probability = [generation.policy.calibration.one(score) for score in bare]
    assert auc(np.array(probability), one.is_fraud) > 0.55
    golden = generation.golden
    assert golden is not None
    assert golden.rows == len(sketch.scores) >= 16
    expect_example(written, generation)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_foreign_model_alone_becomes_a_product(tmp_path: Path, name: str) -> None:
    """Of the graph: as many columns as the model takes, and the texts of its encoders."""
    one = foreign(name)
    written, generation = initiated(tmp_path, one.model)
    assert len(generation.product.columns) == len(one.features)
    for column, source in zip(generation.product.columns, one.features, strict=True):
        if column.type == "category":
            assert set(column.values) == {value for value in one.rows[source] if value is not None}
    assert any("between which min and max" in question for question in written.questions) or all(
        column.type in ("category", "bool") for column in generation.product.columns
    )
    expect_example(written, generation)


def logistic(weights: Sequence[float], bias: float = 0.0, **more: Any) -> bytes:
    return catalogue.logistic_model(weights, bias, **more)


def payments(n: int = 200, fraud: float = 0.3) -> dict[str, list[Any]]:
    draw = np.random.default_rng(7)
    label = (draw.random(n) < fraud).astype(int)
    return {
        "amount": np.round(draw.gamma(2.0, 30.0, n) + 40 * label, 2).tolist(),
        "ratio": np.round(draw.normal(label, 1.0), 3).tolist(),
        "is_fraud": label.tolist(),
    }


@pytest.mark.usefixtures("here")
def test_what_is_asked_stands_at_its_key(tmp_path: Path) -> None:
    written, generation = initiated(tmp_path, logistic((0.01, 1.0), -2.0), payments())
    product = generation.product
    assert [question for _, question in product.source.questions] == list(written.questions)
    owners = {question.partition(":")[0] for question in written.questions}
    assert owners == {"science", "product", "engineering", "operations"}
    lines = (written.folder / "product.yaml").read_text(encoding="utf-8").splitlines()
    at = {question: line for line, question in product.source.questions}
    (fp,) = (
        line for question, line in at.items() if "turning away a genuine customer cost" in question
    )
    assert any("false_positive:" in line for line in lines[fp : fp + 3])


@pytest.mark.usefixtures("here")
def test_a_model_that_takes_nan_is_fed_nan_and_another_a_median(tmp_path: Path) -> None:
    tolerant = foreign("hist-gradient-boosting")
    _, generation = initiated(tmp_path / "trees", tolerant.model, tolerant.rows)
    missing = {column.name: column.missing for column in generation.product.columns}
    assert math.isnan(float(missing["ratio"]))
    assert missing["amount"] == "refuse"
    rows = payments()
    rows["ratio"][3:9] = [None] * 6
    _, generation = initiated(tmp_path / "linear", logistic((0.01, 1.0), -2.0), rows)
    ratio = generation.product.columns[1]
    there = sorted(value for value in rows["ratio"] if value is not None)
    assert ratio.missing == ratio.reference == there[96]


@pytest.mark.usefixtures("here")
def test_texts_that_the_model_has_not_seen(tmp_path: Path) -> None:
    """Where the encoder fails on one it is refused; where it ignores one the model is fed it."""
    strict, lenient = foreign("digit-texts"), foreign("one-hot-pipeline")
    _, generation = initiated(tmp_path / "strict", strict.model, strict.rows)
    assert generation.product.columns[0].unknown == "refuse"
    _, generation = initiated(tmp_path / "lenient", lenient.model, lenient.rows)
    assert generation.product.columns[0].unknown == UNSEEN


@pytest.mark.usefixtures("here")
def test_texts_encoded_before_the_model_are_asked_about(tmp_path: Path) -> None:
    rows = payments()
    rows = {"entry": ["swipe", "chip"] * 100, **rows}
    written, generation = initiated(tmp_path, logistic((0.5, 0.01, 1.0), -2.0), rows)
    entry = generation.product.columns[0]
    assert entry.values == ("chip", "swipe")
    assert any("which number did each text have" in question for question in written.questions)
    expect_example(written, generation)


@pytest.mark.usefixtures("here")
def test_scores_that_labels_do_not_speak_for_are_asked_about(tmp_path: Path) -> None:
    rows = payments()
    rows["is_fraud"] = [0, 1] * 100
    written, _ = initiated(tmp_path, logistic((0.0, 1e-3), -2.0), rows)
    assert written.sketch.chosen.candidate.spelling == "probabilities[1]"
    assert any("next to chance" in ask or "model's order" in ask for ask in written.questions)


@pytest.mark.usefixtures("here")
def test_an_output_that_is_named_is_taken(tmp_path: Path) -> None:
    model = logistic((0.01, 1.0), -2.0)
    written, _ = initiated(tmp_path, model, payments(), output=Output("probabilities", 0))
    assert written.sketch.chosen.candidate.spelling == "probabilities[0]"
    assert written.sketch.chosen.scale == (1.0, 0.0)
    with pytest.raises(UsageError, match="no output 'probability'") as caught:
        initiated(tmp_path / "other", model, payments(), output=Output("probability"))
    assert "probabilities[1]" in caught.value.hint


class Said(NamedTuple):
    """An output of a made model: its name, how many columns of x w, and what stands behind them."""

    name: str
    columns: int
    last: Sequence[str] = ()
    kind: int = TensorProto.FLOAT


def giving(*outputs: Said) -> bytes:
    """Return a model of x [batch, 4] that gives these, of columns that have nothing in common."""
    draw = np.random.default_rng(11)
    nodes, ports, weights = [], [], {}
    for said in outputs:
        at = f"{said.name}_0"
        weights[f"{said.name}_w"] = draw.normal(size=(4, said.columns)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["x", f"{said.name}_w"], [at]))
        for i, operator in enumerate(said.last, 1):
            more: dict[str, Any] = {"Cast": {"to": said.kind}, "Concat": {"axis": 1}}
            domain = "ai.onnx.ml" if operator == "ZipMap" else ""
            operands = [f"{said.name}_{i - 2}", at] if operator == "Concat" else [at]
            at = f"{said.name}_{i}"
            nodes.append(
                helper.make_node(operator, operands, [at], domain=domain, **more.get(operator, {}))
            )
        nodes.append(helper.make_node("Identity", [at], [said.name]))
        columns = said.columns * (1 + ("Concat" in said.last))
        ports.append(port(said.name, None, columns, kind=said.kind))
    made = graph(nodes, [port("x", None, 4)], weights)
    del made.graph.output[:]
    made.graph.output.extend(ports)
    return made.SerializeToString()


LOGIT, WIDE = Said("z", 1), Said("embedding", 6)
LABEL = Said("fraud_label", 1, ("Sigmoid", "Round", "Cast"), TensorProto.INT64)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("outputs", "taken"),
    [
        ([LOGIT], "z"),
        ([WIDE, LOGIT], "z"),
        ([LOGIT, WIDE], "z"),
        ([LOGIT, LABEL], "z"),
        ([WIDE, LABEL], "fraud_label[1]"),
        ([Said("risk", 1), Said("latent", 1)], "risk"),
        ([Said("y", 1, ("Neg", "Concat"))], "y[1]"),
        ([Said("logits", 2)], "logits[1]"),
        ([Said("decision_function", 2)], "decision_function[1]"),
        ([Said("y", 2, ("LogSoftmax",))], "y[1]"),
        ([Said("y", 2, ("Sigmoid",))], "y[1]"),
        ([Said("y", 2, ("HardSigmoid",))], "y[1]"),
        ([Said("y", 2, ("Softmax",))], "y[1]"),
        ([Said("y", 3, ("Softmax",))], "y[1]"),
        ([Said("y", 1, ("Exp",))], "y"),
    ],
)
def test_without_labels_a_score_is_known_by_what_the_file_says(
    tmp_path: Path, outputs: list[Said], taken: str
) -> None:
    written, generation = initiated(tmp_path, giving(*outputs))
    assert written.sketch.chosen.candidate.spelling == taken
    said = generation.product.models.champion.output
    assert (said.name, said.column) == tuple(written.sketch.chosen.candidate.output)


@pytest.mark.usefixtures("here")
def test_raw_scores_of_listed_classes_are_known(tmp_path: Path) -> None:
    classes = ["dispute", "fraud", "genuine"]
    draw = np.random.default_rng(12)
    nodes = [
        helper.make_node(
            *("LinearClassifier", ["x"], ["label", "p"]),
            domain="ai.onnx.ml",
            classlabels_strings=classes,
            coefficients=draw.normal(size=12).tolist(),
            intercepts=[0.0, 0.0, 0.0],
            multi_class=1,
            post_transform="NONE",
        )
    ]
    made = graph(nodes, [port("x", None, 4)])
    made.graph.output[0].CopyFrom(port("p", None, 3))
    written, _ = initiated(tmp_path, made.SerializeToString())
    assert written.sketch.chosen.candidate.spelling == "p[1]"
    assert not any("is p[1] P(fraud)?" in question for question in written.questions)


NOT_KNOWN = [
    [Said("y", 16)],
    [Said("y", 2)],
    [Said("logits", 3)],
    [Said("score", 100)],
    [Said("y", 16, ("Sigmoid",))],
    [Said("mean", 1), Said("variance", 1)],
    [WIDE, Said("reconstruction", 4)],
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("outputs", NOT_KNOWN, ids=str)
def test_without_labels_columns_that_nothing_names_are_no_score(
    tmp_path: Path, outputs: list[Said]
) -> None:
    """Says what it saw and what to try, and writes nothing."""
    model = giving(*outputs)
    with pytest.raises(ModelError, match="nothing says which of its outputs is a score") as caught:
        initiated(tmp_path, model)
    assert not (tmp_path / "product").exists()
    for said in outputs:
        columns = "one column" if said.columns == 1 else f"{min(said.columns, 64)} columns"
        assert f"'{said.name}' has {columns}" in str(caught.value)
    assert "--data TABLE" in caught.value.hint
    # What it offers to try, works.
    (first, *_) = re.findall(r"'([^']+)'", caught.value.hint)
    name, _, column = first.rstrip("]").partition("[")
    wanted = Output(name, int(column) if column else None)
    written, generation = initiated(tmp_path, model, output=wanted)
    assert generation.product.models.champion.output == wanted
    assert any("what makes a probability" in question for question in written.questions) == (
        not outputs[0].last
    )


@pytest.mark.usefixtures("here")
def test_labels_tell_which_of_many_columns_is_the_score(tmp_path: Path) -> None:
    """A table without labels, or with those of one class, does not."""
    draw = np.random.default_rng(13)
    model = giving(Said("y", 16))
    weights = numpy_helper.to_array(ModelProto.FromString(model).graph.initializer[0])
    x = draw.normal(size=(400, 4)).round(4)
    rows: dict[str, Any] = {f"f{i}": column.tolist() for i, column in enumerate(x.T)}
    fraud = (x @ weights[:, 5] + draw.normal(size=400) * 0.2 > 1.0).astype(int)
    for labels in ({}, {"is_fraud": [0] * 400}):
        with pytest.raises(ModelError, match="nothing says"):
            initiated(tmp_path, model, {**rows, **labels})
        assert not (tmp_path / "product").exists()
    written, _ = initiated(tmp_path, model, {**rows, "is_fraud": fraud.tolist()})
    chosen = written.sketch.chosen
    assert chosen.candidate.spelling == "y[5]"
    assert chosen.calibration is not None


@pytest.mark.usefixtures("here")
def test_of_two_heads_it_is_asked_which_is_meant(tmp_path: Path) -> None:
    heads = (Said("fraud", 1, ("Sigmoid",)), Said("chargeback", 1, ("Sigmoid",)))
    written, _ = initiated(tmp_path, giving(*heads))
    assert any("is fraud P(fraud)?" in question for question in written.questions)


@pytest.mark.usefixtures("here")
def test_a_score_inside_0_to_1_only_by_luck_is_no_probability(tmp_path: Path) -> None:
    """A linear model of two columns that go together leaves 0..1 where they do not."""
    node = helper.make_node("Gemm", ["x", "w"], ["p"])
    model = graph([node], [port("x", None, 2)], {"w": np.array([[1.0], [-1.0]], dtype=np.float32)})
    first = np.linspace(0.0, 5.0, 200)
    rows = {
        "a": (first + 0.1).tolist(),
        "b": (first - 0.2 * (np.arange(200) % 3 == 0)).tolist(),
        "is_fraud": (np.arange(200) % 3 == 0).astype(int).tolist(),
    }
    written, _ = initiated(tmp_path, model.SerializeToString(), rows)
    assert written.sketch.chosen.calibration is not None


@pytest.mark.usefixtures("here")
def test_three_thousand_columns_are_sent_densely(tmp_path: Path) -> None:
    written, generation = initiated(tmp_path, logistic([0.01] * 3000))
    (only,) = generation.product.features
    assert (only.name, only.repeat) == ("f", 3000)
    request = json.loads((written.folder / "request.json").read_text(encoding="utf-8"))
    assert request["schema_fingerprint"] == generation.schema.fingerprint
    assert "features" not in request
    assert len(base64.b64decode(request["dense"])) == generation.schema.dense_bytes
    draw = np.random.default_rng(3)
    rows = {f"c{i}": draw.normal(size=20).round(3).tolist() for i in range(2500)}
    _, generation = initiated(tmp_path / "named", logistic([0.01] * 2500), rows)
    assert [column.name for column in generation.product.columns] == list(rows)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["refused-free-text", "refused-no-inputs", "refused-two-free"])
def test_a_model_that_can_be_no_product_says_why(tmp_path: Path, name: str) -> None:
    one = foreign(name)
    with pytest.raises(GatewayError) as caught:
        initiated(tmp_path, one.model, one.rows or None)
    assert one.why in f"{caught.value} {caught.value.hint}"
    assert not (tmp_path / "product").exists()


def test_the_folder_is_the_same_each_time(tmp_path: Path) -> None:
    one = foreign("bool-pipeline")
    first, _ = initiated(tmp_path, one.model, one.rows)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    written, generation = initiated(tmp_path, one.model, one.rows, force=True)
    assert {path.name: path.read_bytes() for path in written.folder.iterdir()} == before
    assert load_generation(written.folder).digest == generation.digest


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["1,234.50", "12.5", "7"], [1234.5, 12.5, 7.0]),
        (["$12.50", "$1,000", "-$3"], [12.5, 1000.0, -3.0]),
        (["€ 5", "6.25", ""], [5.0, 6.25, float("nan")]),
    ],
)
def test_amounts_as_people_write_them_are_numbers(
    table: Make, words: list[str], numbers: list[float]
) -> None:
    read = table(amount=words, other=[1, 2, 3]).columns["amount"].numbers
    assert read is not None
    assert read.tolist() == pytest.approx(numbers, nan_ok=True)


def test_words_with_commas_are_no_amounts(table: Make) -> None:
    assert table(place=["Paris, FR", "1,2,3"], other=[1, 2]).columns["place"].numbers is None


def test_p_fraud_is_preferred_to_its_complement(here: None, tmp_path: Path) -> None:
    """Ties near 1 rank P(genuine) a little higher by chance; it is still not the score."""
    weights = (0.002, 9.0, 7.0)
    model = tmp_path / "model.onnx"
    model.write_bytes(catalogue.logistic_model(weights, -14.0))
    draw = np.random.default_rng(5)
    rows = {name: draw.normal(0, 1, 4000).round(3).tolist() for name in ("a", "b", "c")}
    z = np.array([rows[name] for name in rows]).T @ np.array(weights) - 14.0
    rows["fraud"] = (draw.random(4000) < 1 / (1 + np.exp(-z))).astype(int).tolist()
    written = write_product(
        Asked(model=model, folder=tmp_path / "p", data=written_as(tmp_path / "d.csv", rows))
    )
    champion = checked(written).product.models.champion
    assert champion.output == ("probabilities", 1)
    assert champion.scale is None
