"""Labelled payments as a product's model is fed them, or everything that is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import catalogue
import labelled_world as world
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UsageError
from gateway.model import Generation, feature_schema
from gateway.product import LabelledColumns, Product
from gateway.verify import Labelled, read_labelled

N = 400
ENTRY_MODES = ("chip", "swipe", "keyed")


def columns(**changes: Any) -> dict[str, Any]:
    """Return a table that the base product takes; None leaves a column out."""
    rng = np.random.default_rng(5)
    table: dict[str, Any] = {
        "amount": np.round(rng.lognormal(3.0, 1.0, N), 2),
        "ratio": rng.random(N),
        "entry_mode": rng.choice(ENTRY_MODES, N).tolist(),
        "is_fraud": (rng.random(N) < 0.2).astype(int),
    }
    table |= changes
    return {name: values for name, values in table.items() if values is not None}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(**changes: Any) -> Path:
        path = tmp_path / "labelled.parquet"
        pq.write_table(pa.table(columns(**changes)), path)
        return path

    return write


PRODUCT = catalogue.product()


def refused(path: Path, product: Product = PRODUCT, asked: LabelledColumns | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        read_labelled(path, product, asked)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return f"{caught.value} {caught.value.hint}"


def test_a_row_is_what_the_gateway_makes_of_the_payment(
    written: Any, generation: Generation
) -> None:
    """The same bytes as a call with the same named features has."""
    table = columns(ratio=[None, 0.25] * (N // 2), entry_mode=["chip", "tapped"] * (N // 2))
    read = read_labelled(written(**table), generation.product, schema=generation.schema)
    assert len(read) == N
    assert read.rows.dtype == generation.schema.dtype
    for i in range(N):
        named = {name: table[name][i] for name in ("amount", "ratio", "entry_mode")}
        encoded = generation.schema.encode({k: v for k, v in named.items() if v is not None})
        row, checked = generation.schema.matrix([encoded.row])
        expected = checked[0].row if 0 in checked else row[0]
        assert read.rows[i].tobytes() == expected.tobytes()


def test_amount_category_cluster_and_time_are_found_by_their_names(written: Any) -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC)
    read = read_labelled(
        written(
            amount=[19.99, 0.3, *[7.0] * (N - 2)],
            mcc=[742, 5912, *[5411] * (N - 2)],
            CUSTOMER_ID=["a", "b", "a", None, None, *["c"] * (N - 5)],
            booked_at=[day] * N,
        ),
        PRODUCT,
    )
    assert read.amount_minor[:3].tolist() == [1999, 30, 700]
    assert read.category[:3].tolist() == ["0742", "5912", "5411"]
    assert read.event_s[0] == day.timestamp()
    a, b, again, one, other, *rest = read.cluster.tolist()
    assert a == again
    assert len({a, b, one, other, rest[0]}) == 5
    assert read.columns == LabelledColumns(
        label="is_fraud",
        fraud="1",
        amount="amount",
        category="mcc",
        cluster="CUSTOMER_ID",
        time="booked_at",
    )


def test_a_currency_without_minor_units_keeps_its_amounts(written: Any) -> None:
    yen = catalogue.product(costs__currency="JPY")
    assert read_labelled(written(amount=[1200.0] * N), yen).amount_minor[0] == 1200


@pytest.mark.parametrize("unit", [1, 1000, 1_000_000])
def test_times_in_smaller_units_are_seconds(written: Any, unit: int) -> None:
    path = written(event_time=[1_760_000_000 * unit] * N)
    assert read_labelled(path, PRODUCT).event_s.tolist() == [1_760_000_000.0] * N


def test_a_counter_of_steps_is_no_time(written: Any) -> None:
    assert set(read_labelled(written(step=list(range(N))), PRODUCT).event_s.tolist()) == {0.0}


def test_the_command_line_goes_before_the_file_and_both_before_a_guess(written: Any) -> None:
    gate = {"path": "labelled.parquet", "amount": "sum", "label": "late"}
    product = catalogue.product(models__gates={"calibration": gate})
    path = written(
        sum=[5.0] * N,
        other=[6.0] * N,
        late=["yes", "no"] * (N // 2),
        early=["no", "yes"] * (N // 2),
    )
    read = read_labelled(path, product)
    assert (read.amount_minor[0], read.is_fraud[0]) == (500, True)
    read = read_labelled(path, product, LabelledColumns(amount="other", label="early"))
    assert (read.amount_minor[0], read.is_fraud[0]) == (600, False)
    read = read_labelled(path, product, LabelledColumns(fraud="no"))
    assert (read.columns.label, read.is_fraud[0]) == ("late", False)


def test_a_category_is_its_text_its_index_or_the_name_of_a_category(written: Any) -> None:
    codes = [0, 2, 1, *[0] * (N - 3)]
    names = ["pharmacy", "grocery", "5999", *["fuel"] * (N - 3)]
    read = read_labelled(written(entry_mode=codes, category=names), PRODUCT)
    assert read.rows[:3, 2].tolist() == [0.0, 2.0, 1.0]
    assert read.category[:4].tolist() == ["5912", "5411", "5999", "5541"]


def test_what_the_gateway_refuses_is_left_out_and_counted(written: Any) -> None:
    amount = columns()["amount"].tolist()
    amount[3], amount[7], amount[11] = -1.0, None, None
    label = [None, None, *columns()["is_fraud"].tolist()[2:]]
    read = read_labelled(written(amount=amount, is_fraud=label), PRODUCT)
    assert len(read) == N - 5
    assert not {1, 2, 4, 8, 12} & set(read.row_numbers.tolist())
    said = [str(one) for one in read.left_out]
    assert "is_fraud is missing in 2 rows, the first is row 1" in said
    assert "amount is missing in 2 rows, the first is row 8" in said
    assert "amount is no amount in 1 row, the first is row 4" in said


def test_a_table_of_other_units_is_refused_with_every_broken_rule(written: Any) -> None:
    said = refused(
        written(amount=[2e6] * N, ratio=[None] * N),
        catalogue.product(
            features=[
                {"name": "amount", "type": "float", "min": 0, "max": 1000000},
                {"name": "ratio", "type": "float"},
            ]
        ),
    )
    assert "features[amount] must be 0..1e+06 in 400 rows, the first is row 1" in said
    assert "features[ratio] is missing in 400 rows" in said


def test_all_that_is_missing_is_said_at_once(written: Any) -> None:
    path = written(ratio=None, entry_mode=None, amount=None, is_fraud=None, x=[1.0] * N)
    said = refused(path)
    assert "no column for these features: amount, ratio, entry_mode" in said
    assert "no column is a label" in said
    assert "no column is an amount" in said
    assert "There are: x" in said


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"label": "is_frau"}, "Did you mean 'is_fraud'?"),
        ({"fraud": "maybe"}, "has no value 'maybe'"),
        ({"amount": "entry_mode"}, "is the amount, but holds texts"),
        ({"time": "entry_mode"}, "is the time, but holds none"),
        ({"cluster": "nobody"}, "has no column 'nobody' for cluster"),
    ],
)
def test_a_column_that_cannot_be_is_refused(written: Any, asked: dict[str, str], says: str) -> None:
    assert says in refused(written(), asked=LabelledColumns(**asked))


def test_a_label_that_is_always_the_same_is_not_called_missing(written: Any) -> None:
    said = refused(written(is_fraud=[0] * N))
    assert "label 'is_fraud' is 0 in every row" in said
    assert "by its name" not in said


def test_texts_are_no_numbers(written: Any) -> None:
    said = refused(written(ratio=["high", "low"] * (N // 2)))
    assert "column 'ratio' holds texts, feature ratio is float" in said


def test_of_a_long_file_evenly_spaced_rows_are_kept(tmp_path: Path) -> None:
    path = world.write_labelled(tmp_path / "long.parquet", 5000)
    product = catalogue.product(features=[{"name": n, "type": "float"} for n in world.FEATURES])
    read = read_labelled(path, product, rows_max=1000)
    assert (len(read), read.rows_in_file) == (1000, 5000)
    steps = np.diff(read.row_numbers)
    assert steps.min() >= 4
    assert steps.max() <= 9
    whole = read_labelled(path, product)
    assert (read.rows == whole.rows[read.row_numbers - 1]).all()
    part = whole.of(np.arange(10))
    assert isinstance(part, Labelled)
    assert part.rows.tolist() == whole.rows[:10].tolist()


def test_the_order_of_the_file_is_known(written: Any) -> None:
    table = columns()
    turned = {name: table[name] for name in ("entry_mode", "is_fraud", "ratio", "amount")}
    path = written()
    pq.write_table(pa.table(turned), path)
    assert read_labelled(path, PRODUCT).file_order == (2, 1, 0)


values = st.one_of(
    st.none(), st.floats(), st.integers(-(2**40), 2**40).map(float), st.sampled_from([0.0, -0.0])
)


@given(rows=st.lists(st.tuples(values, values, st.booleans()), min_size=2, max_size=30))
def test_whatever_numbers_stand_there_no_refused_row_reaches_a_model(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float | None, float | None, bool]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    table = {
        "amount": pa.array([row[0] for row in rows], pa.float64()),
        "ratio": pa.array([row[1] for row in rows], pa.float64()),
        "entry_mode": ["chip"] * len(rows),
        "is_fraud": [row[2] for row in rows],
    }
    pq.write_table(pa.table(table), path)
    schema = feature_schema(PRODUCT.features)
    try:
        read = read_labelled(path, PRODUCT)
    except UsageError:
        return
    assert all(schema.is_clean(row.tobytes()) for row in read.rows)
    assert (read.amount_minor >= 0).all()
