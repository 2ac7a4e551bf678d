"""Foreign models: what people export, each with a labelled table and its bare scores.

The scores come from a plain `session.run` with feeds built here by hand: no gateway code has
touched them, so they are the oracle of what the gateway serves. Where a library is not
installed (XGBoost, CatBoost, Keras, PyTorch), the `onnx` helper imitates what it exports.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import pickle
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.defs import onnx_opset_version
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC

onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(3)

Floats = NDArray[np.float64]
Feed = dict[str, NDArray[Any]]
Rows = dict[str, list[Any]]
Kind = Literal["probability", "score", "label", "refused"]
Bare = Literal["loads", "fails to load", "fails to run", "never loads", "never runs", "dies"]

N = 210
"""Rows of every table: no multiple of 8, which one model's fixed batch is."""


@dataclass(frozen=True)
class Foreign:
    """One model and what is known of it.

    `rows` is a labelled table as it would stand in a CSV: column name -> values, with None for
    a missing one; its features stand in the order of the model's inputs. `score()` is the bare
    output in the column `output` names, float64 (N,): P(fraud) for the kind "probability", 0 or
    1 for "label", else a number that rises, or falls if not `rising`, with the probability of
    fraud; `scale` is what of it means surely genuine and surely fraud, where it has such ends.

    A "refused" model has no score: check says why it is no product, in a text that holds
    `why`, whatever the case of its letters. `bare` is what becomes of a bare session with it in
    a child process with 2 GiB of memory and some seconds. `beside` are files that lie in its
    folder, by name.
    """

    model: bytes
    rows: Rows
    label: str
    score: Callable[[], Floats]
    kind: Kind
    why: str = ""
    output: str = ""
    fraud: int | str = 1
    rising: bool = True
    scale: tuple[float, float] | None = None
    extras: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = field(default_factory=dict)
    bare: Bare = "loads"
    name: str = ""

    @property
    def features(self) -> list[str]:
        """The columns of `rows` that the model is fed, in the order of its inputs."""
        return [name for name in self.rows if name != self.label and name not in self.extras]

    @property
    def is_fraud(self) -> NDArray[np.bool_]:
        """Which rows are fraud, (N,)."""
        return np.array([value == self.fraud for value in self.rows[self.label]])


_BUILDERS: dict[str, Callable[[], Foreign]] = {}


def _kind(build: Callable[[], Foreign]) -> Callable[[], Foreign]:
    _BUILDERS[build.__name__.replace("_", "-")] = build
    return build


@cache
def foreign(name: str) -> Foreign:
    """Build one model of the corpus."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return replace(_BUILDERS[name](), name=name)


def corpus() -> list[Foreign]:
    """Build every model."""
    return [foreign(name) for name in (*PRODUCTS, *REFUSED)]


def names(*kinds: Kind) -> list[str]:
    """Return the names of all models of these kinds."""
    return [one.name for one in corpus() if one.kind in kinds]


# The world: one table of payments, of which each model sees some columns.


@cache
def payments() -> Mapping[str, NDArray[Any]]:
    """Return N payments, about a third of them fraud, as columns."""
    rng = np.random.default_rng(20261)
    amount = np.round(np.exp(rng.normal(3.5, 1.2, N)), 2)
    ratio = np.round(rng.gamma(2.0, 0.6, N), 3)
    hour = rng.integers(0, 24, N)
    attempts = rng.poisson(1.2, N)
    distance = np.round(rng.exponential(40.0, N), 1)
    entry = rng.choice(["chip", "swipe", "keyed"], N, p=[0.5, 0.2, 0.3])
    country = rng.choice(["DE", "FR", "US", "NG"], N)
    mcc = rng.choice(["0742", "5411", "5912", "7995"], N)
    present = rng.random(N) < 0.6
    log_odds = (
        -3.0
        + 0.8 * (np.log(amount) - 3.5)
        + 1.2 * (ratio - 1.0)
        + 0.5 * attempts
        + 0.01 * distance
        + 1.0 * (entry == "keyed")
        + 1.5 * (country == "NG")
        + 1.5 * (mcc == "7995")
        - 0.8 * present
        + 0.6 * (hour < 6)
    )
    fraud = rng.random(N) < 1.0 / (1.0 + np.exp(-1.5 * log_odds))
    return {
        "amount": amount,
        "ratio": ratio,
        "hour": hour,
        "attempts": attempts,
        "distance_km": distance,
        "entry_mode": entry,
        "country": country,
        "mcc": mcc,
        "card_present": present,
        "is_fraud": fraud.astype(np.int64),
    }


NUMBERS = ("amount", "ratio", "hour", "attempts", "distance_km")


def _matrix(columns: Sequence[str] = NUMBERS, dtype: type = np.float32) -> NDArray[Any]:
    return np.column_stack([payments()[name] for name in columns]).astype(dtype)


def _labels() -> NDArray[np.int64]:
    return payments()["is_fraud"]


def _rows(columns: Sequence[str] = NUMBERS, label: str = "is_fraud", first: bool = False) -> Rows:
    """Return a table of payments: the label last, or first."""
    features = {name: payments()[name].tolist() for name in columns}
    labels = {label: _labels().tolist()}
    return {**labels, **features} if first else {**features, **labels}


# Running and building.


def run(model: bytes, output: str, feed: Feed) -> Any:
    """Return what a bare session gives for one output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run([output], feed)[0]


def _scores(model: bytes, output: str, feed: Feed, column: Any = None) -> Callable[[], Floats]:
    """Return what reads one column of an output, or one key of its maps."""

    def score() -> Floats:
        given = run(model, output, feed)
        if isinstance(given, list):
            return np.array([row[column] for row in given], dtype=np.float64)
        table = given.reshape(len(given), -1).astype(np.float64)
        return table[:, column or 0]

    return score


Shape = Sequence[int | str | None]


def _tensor(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: Sequence[Any],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 17,
    ir: int = 8,
    domains: Mapping[str, int] | None = None,
    **more: Any,
) -> bytes:
    tensors = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), tensors)
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=ir, **more)
    return made.SerializeToString()


node = helper.make_node

_HEAD = (node("Gemm", ["x", "w", "b"], ["z"]), node("Sigmoid", ["z"], ["p"]))
"""A logistic regression: sigmoid(x w + b)."""

_X = [_tensor("x", [None, len(NUMBERS)])]
_PAIR_X = [_tensor("x", [None, 2])]
_P = [_tensor("p", [None, 1])]

ML = {"ai.onnx.ml": 3}


def _linear(
    columns: Sequence[str] = NUMBERS, matrix: NDArray[Any] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights (F, 1) and bias (1,) of a logistic regression over raw columns."""
    table = _matrix(columns, np.float64) if matrix is None else matrix
    scaler = StandardScaler().fit(table)
    fitted = LogisticRegression().fit(scaler.transform(table), _labels())
    weights = fitted.coef_[0] / scaler.scale_
    bias = fitted.intercept_ - weights @ scaler.mean_
    return weights[:, None].astype(np.float32), bias.astype(np.float32)


def _sklearn(
    estimator: Any,
    table: NDArray[Any],
    labels: NDArray[Any] | None = None,
    *,
    initial: Any = None,
    **options: Any,
) -> ModelProto:
    """Fit and convert as a notebook would."""
    from skl2onnx import to_onnx

    estimator.fit(table, _labels() if labels is None else labels)
    return to_onnx(
        estimator,
        None if initial else table[:1],
        initial_types=initial,
        options={id(estimator): options} if options else None,
        target_opset={"": 17, "ai.onnx.ml": 3},
    )


def _of_matrix(
    made: ModelProto | bytes,
    output: str,
    column: Any = None,
    *,
    key: str = "X",
    columns: Sequence[str] = NUMBERS,
    dtype: type = np.float32,
    kind: Kind = "probability",
    first: bool = False,
    label: str = "is_fraud",
    rows: Rows | None = None,
    **more: Any,
) -> Foreign:
    """Return the case of one matrix input: its columns side by side."""
    model = made if isinstance(made, bytes) else made.SerializeToString()
    return Foreign(
        model=model,
        rows=_rows(columns, label, first) if rows is None else rows,
        label=label,
        score=_scores(model, output, {key: _matrix(columns, dtype)}, column),
        kind=kind,
        output=output if column is None else f"{output}[{column}]",
        **more,
    )


def _forest(trees: int = 8) -> RandomForestClassifier:
    return RandomForestClassifier(trees, max_depth=4, random_state=1)


# scikit-learn, by skl2onnx.


@_kind
def random_forest_zipmap() -> Foreign:
    made = _sklearn(_forest(), _matrix())
    return _of_matrix(made, "output_probability", 1)


def _words() -> NDArray[np.str_]:
    return np.where(_labels() == 1, "fraud", "genuine")


def _rows_in_words(label: str) -> Rows:
    return _rows(label=label, first=True) | {label: _words().tolist()}


@_kind
def random_forest_words() -> Foreign:
    """Classes are texts, and the maps' keys: sorted, fraud comes first."""
    made = _sklearn(_forest(), _matrix(), _words())
    return _of_matrix(
        made,
        "output_probability",
        "fraud",
        label="outcome",
        fraud="fraud",
        rows=_rows_in_words("outcome"),
    )


@_kind
def random_forest_words_matrix() -> Foreign:
    """As before without ZipMap: P(fraud) is the first of two columns."""
    made = _sklearn(_forest(), _matrix(), _words(), zipmap=False)
    return _of_matrix(
        made, "probabilities", 0, label="outcome", fraud="fraud", rows=_rows_in_words("outcome")
    )


@_kind
def gradient_boosting() -> Foreign:
    boosted = GradientBoostingClassifier(n_estimators=10, random_state=1)
    made = _sklearn(boosted, _matrix(), zipmap=False)
    return _of_matrix(made, "probabilities", 1, first=True)


def _tolerant(*names: Any, **attributes: Any) -> Any:
    """Make a node as `node`, of attributes that onnx 1.23 finds too much of NumPy."""
    for key, value in attributes.items():
        if isinstance(value, list) and isinstance(value[0], int | np.integer | np.bool_):
            attributes[key] = [int(one) for one in value]
    return node(*names, **attributes)


@_kind
def hist_gradient_boosting() -> Foreign:
    """Numbers are missing in its table, and NaN in its feed."""
    table = _matrix()
    table[::7, 1] = np.nan
    table[3::11, 4] = np.nan
    boosted = HistGradientBoostingClassifier(max_iter=10, random_state=1)
    with mock.patch("skl2onnx.common._container.make_node", _tolerant):
        made = _sklearn(boosted, table, zipmap=False)
    rows = _rows()
    for i, name in enumerate(NUMBERS):
        values = zip(rows[name], table[:, i], strict=True)
        rows[name] = [None if np.isnan(there) else value for value, there in values]
    model = made.SerializeToString()
    score = _scores(model, "probabilities", {"X": table}, 1)
    return Foreign(model, rows, "is_fraud", score, "probability", output="probabilities[1]")


@_kind
def logistic_regression() -> Foreign:
    fitted = make_pipeline(StandardScaler(), LogisticRegression())
    made = _sklearn(fitted, _matrix(), zipmap=False)
    return _of_matrix(made, "probabilities", 1)


@_kind
def linear_svc() -> Foreign:
    """No probability to be had: one decision score a row, above 0 for fraud."""
    made = _sklearn(LinearSVC(dual=False), _matrix())
    return _of_matrix(made, "probabilities", 0, kind="score")


@_kind
def sgd_raw_scores() -> Foreign:
    """Two columns of raw scores that call themselves probabilities."""
    estimator = make_pipeline(StandardScaler(), SGDClassifier(random_state=1))
    made = _sklearn(estimator, _matrix(), raw_scores=True, zipmap=False)
    return _of_matrix(made, "probabilities", 1, kind="score")


@_kind
def calibrated() -> Foreign:
    estimator = CalibratedClassifierCV(LinearSVC(dual=False), cv=3)
    made = _sklearn(estimator, _matrix(), zipmap=False)
    return _of_matrix(made, "probabilities", 1)


@_kind
def isolation_forest() -> Foreign:
    """Trained without labels: its scores fall with fraud, its label is -1 for an outlier."""
    made = _sklearn(IsolationForest(n_estimators=10, random_state=1), _matrix())
    return _of_matrix(made, "scores", 0, kind="score", rising=False)


# Pipelines of one named input a column.

_TYPES = {"float": np.float32, "int": np.int64, "text": np.object_, "bool": np.bool_}


def _by_column(
    estimator: Any,
    columns: Mapping[str, str],
    output: str = "probabilities",
    *,
    rows: Rows | None = None,
    extras: tuple[str, ...] = (),
    **options: Any,
) -> Foreign:
    """Return the case of a pipeline over a data frame: inputs [N, 1] of several types."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import (
        BooleanTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
    )

    types = {
        "float": FloatTensorType,
        "int": Int64TensorType,
        "text": StringTensorType,
        "bool": BooleanTensorType,
    }
    frame = np.empty((N, len(columns)), dtype=np.object_)
    for i, column in enumerate(columns):
        frame[:, i] = payments()[column].tolist()
    estimator.fit(frame, _labels())
    made = to_onnx(
        estimator,
        initial_types=[(column, types[kind]([None, 1])) for column, kind in columns.items()],
        options={id(estimator): {"zipmap": False, **options}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    model = made.SerializeToString()
    feed: Feed = {
        column: payments()[column].astype(_TYPES[kind]).reshape(N, 1)
        for column, kind in columns.items()
    }
    return Foreign(
        model,
        _rows(tuple(columns)) if rows is None else rows,
        "is_fraud",
        _scores(model, output, feed, 1),
        "probability",
        output=f"{output}[1]",
        extras=extras,
    )


@_kind
def one_hot_pipeline() -> Foreign:
    """Texts and numbers, each an input of its own, in a table that has more columns."""
    columns = {"entry_mode": "text", "amount": "float", "country": "text", "ratio": "float"}
    encode = ColumnTransformer(
        [("texts", OneHotEncoder(handle_unknown="ignore"), [0, 2]), ("n", StandardScaler(), [1, 3])]
    )
    features = _rows(tuple(columns))
    extras: Rows = {
        "payment_id": [f"p-{i:05d}" for i in range(N)],
        "booked_at": [f"2026-03-{1 + i % 28:02d}T{i % 24:02d}:15:00+01:00" for i in range(N)],
    }
    return _by_column(
        make_pipeline(encode, LogisticRegression()),
        columns,
        rows={**extras, **features},
        extras=tuple(extras),
    )


@_kind
def ordinal_pipeline() -> Foreign:
    """Texts by their order, and whole numbers as int64."""
    columns = {"hour": "int", "entry_mode": "text", "attempts": "int", "country": "text"}
    encode = ColumnTransformer([("texts", OrdinalEncoder(), [1, 3])], remainder="passthrough")
    return _by_column(make_pipeline(encode, _forest()), columns)


@_kind
def bool_pipeline() -> Foreign:
    """A truth value among the inputs."""
    columns = {"amount": "float", "card_present": "bool", "attempts": "int"}
    as_is = ColumnTransformer([("all", "passthrough", [0, 1, 2])])
    return _by_column(make_pipeline(as_is, _forest()), columns)


@_kind
def digit_texts() -> Foreign:
    """Merchant codes are texts to the model, leading zero and all, and look like numbers."""
    columns = {"mcc": "text", "ratio": "float"}
    encode = ColumnTransformer([("texts", OneHotEncoder(), [0]), ("numbers", "passthrough", [1])])
    return _by_column(make_pipeline(encode, _forest()), columns)


@_kind
def text_matrix() -> Foreign:
    """One input of texts [N, 3], as a frame of dtype object gives: the codes are texts too."""
    from skl2onnx.common.data_types import StringTensorType

    columns = ("entry_mode", "country", "mcc")
    table = _matrix(columns, np.object_)
    estimator = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    initial = [("words", StringTensorType([None, 3]))]
    made = _sklearn(estimator, table, initial=initial, zipmap=False)
    return _of_matrix(made, "probabilities", 1, key="words", columns=columns, dtype=np.object_)


# LightGBM, by onnxmltools.


def _lightgbm(zipmap: bool) -> bytes:
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = lightgbm.LGBMClassifier(
        n_estimators=10, num_leaves=8, verbose=-1, n_jobs=1, random_state=1
    ).fit(_matrix(), _labels())
    made = onnxmltools.convert_lightgbm(
        booster,
        initial_types=[("input", FloatTensorType([None, len(NUMBERS)]))],
        target_opset=15,
        zipmap=zipmap,
    )
    return made.SerializeToString()


@_kind
def lightgbm_zipmap() -> Foreign:
    return _of_matrix(_lightgbm(True), "probabilities", 1, key="input")


@_kind
def lightgbm_matrix() -> Foreign:
    return _of_matrix(_lightgbm(False), "probabilities", 1, key="input")


# What other tools export, made by hand.


class _Stump(NamedTuple):
    """A tree of one split: what a row adds to the log-odds at or below it, and above."""

    feature: int
    at: float
    below: float
    above: float


_STUMPS = (_Stump(0, 40.0, -0.9, 0.7), _Stump(1, 1.1, -0.3, 0.6), _Stump(3, 1.0, -0.5, 0.9))


def _trees(stumps: Sequence[_Stump], output: str, key: str, double: bool = False) -> Any:
    """Return a TreeEnsembleClassifier of boosted stumps: label, and P of 0 and 1."""
    count = len(stumps)
    numbers = {
        "nodes_values": [value for stump in stumps for value in (stump.at, 0.0, 0.0)],
        "class_weights": [value for stump in stumps for value in (stump.below, stump.above)],
    }
    if double:
        tensors = {
            f"{name}_as_tensor": numpy_helper.from_array(np.array(values), name)
            for name, values in numbers.items()
        }
    return node(
        "TreeEnsembleClassifier",
        [key],
        ["label", output],
        domain="ai.onnx.ml",
        nodes_treeids=[tree for tree in range(count) for _ in range(3)],
        nodes_nodeids=[0, 1, 2] * count,
        nodes_featureids=[value for stump in stumps for value in (stump.feature, 0, 0)],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        nodes_truenodeids=[1, 0, 0] * count,
        nodes_falsenodeids=[2, 0, 0] * count,
        class_treeids=[tree for tree in range(count) for _ in range(2)],
        class_nodeids=[1, 2] * count,
        class_ids=[0, 0] * count,
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
        **(tensors if double else numbers),
    )


def _label_and_probabilities() -> list[ValueInfoProto]:
    return [_tensor("label", [None], TensorProto.INT64), _tensor("probabilities", [None, 2])]


@_kind
def xgboost_like() -> Foreign:
    """Label and probabilities beside each other, no ZipMap, a batch of another name."""
    model = _model(
        [_trees(_STUMPS, "probabilities", "float_input")],
        [_tensor("float_input", ["None", len(NUMBERS)])],
        _label_and_probabilities(),
        domains=ML,
        producer_name="OnnxMLTools",
    )
    return _of_matrix(model, "probabilities", 1, key="float_input")


@_kind
def catboost_like() -> Foreign:
    """ZipMap behind an old ir_version, and metadata."""
    nodes = [
        _trees(_STUMPS, "probability_tensor", "features"),
        node(
            "ZipMap",
            ["probability_tensor"],
            ["probabilities"],
            domain="ai.onnx.ml",
            classlabels_int64s=[0, 1],
        ),
    ]
    maps = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    outputs = [
        _tensor("label", ["N"], TensorProto.INT64),
        helper.make_value_info("probabilities", helper.make_sequence_type_proto(maps)),
    ]
    model = _model(
        nodes,
        [_tensor("features", ["N", len(NUMBERS)])],
        outputs,
        opset=9,
        ir=3,
        domains={"ai.onnx.ml": 2},
        producer_name="CatBoost",
    )
    return _of_matrix(model, "probabilities", 1, key="features")


@_kind
def double_splits() -> Foreign:
    """Splits at 1e9 + 0.5: in float32, where 64 lie between neighbours, no row knows its side."""
    rng = np.random.default_rng(4)
    fraud = _labels() == 1
    account = 1e9 + np.where(rng.random(N) < 0.9, fraud, ~fraud) * 0.5 + 0.25
    device = 2e9 + 64.0 * rng.integers(0, 4, N) + np.where(fraud, 0.125, 0.0)
    table = np.column_stack([account, device])
    stumps = [_Stump(0, 1e9 + 0.5, -1.5, 1.5), _Stump(1, 2e9 + 64.0625, -0.3, 0.3)]
    model = _model(
        [_trees(stumps, "probabilities", "X", double=True)],
        [_tensor("X", [None, 2], TensorProto.DOUBLE)],
        _label_and_probabilities(),
        domains=ML,
    )
    rows = {"account": account.tolist(), "device": device.tolist(), "y": _labels().tolist()}
    score = _scores(model, "probabilities", {"X": table}, 1)
    return Foreign(model, rows, "y", score, "probability", output="probabilities[1]")


@_kind
def int64_matrix() -> Foreign:
    """Whole numbers [N, F]; among them cents and ids beyond what float32 counts."""
    rng = np.random.default_rng(5)
    cents = np.round(payments()["amount"] * 100).astype(np.int64)
    fraud = _labels()
    terminal = 2**24 + rng.integers(0, 50, N) * 2 + np.where(rng.random(N) < 0.8, fraud, 1 - fraud)
    rows = {
        "is_fraud": fraud.tolist(),
        "cents": cents.tolist(),
        "terminal": terminal.tolist(),
        "attempts": payments()["attempts"].tolist(),
    }
    weights: dict[str, NDArray[Any]] = {
        "parts": np.array([2**40, 2, 100], dtype=np.int64),
        "w": np.array([[0.0001], [2.0], [0.4]], dtype=np.float32),
        "b": np.array([-2.5], dtype=np.float32),
    }
    nodes = [
        node("Mod", ["x", "parts"], ["small"]),
        node("Cast", ["small"], ["f"], to=TensorProto.FLOAT),
        node("Gemm", ["f", "w", "b"], ["z"]),
        node("Sigmoid", ["z"], ["p"]),
    ]
    model = _model(nodes, [_tensor("x", [None, 3], TensorProto.INT64)], _P, weights)
    table = np.column_stack([cents, terminal, payments()["attempts"]]).astype(np.int64)
    score = _scores(model, "p", {"x": table})
    return Foreign(model, rows, "is_fraud", score, "probability", output="p")


def _by_batches(model: bytes, output: str, key: str, batch: int, column: int = 0) -> Floats:
    """Score all rows by a session that takes `batch` at once: the last is filled with zeros."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    table = np.vstack([_matrix(), np.zeros((-N % batch, len(NUMBERS)), dtype=np.float32)])
    parts = [
        session.run([output], {key: table[i : i + batch]})[0] for i in range(0, len(table), batch)
    ]
    return np.concatenate(parts)[:N, column].astype(np.float64)


def _fixed(batch: int) -> Foreign:
    weights, bias = _linear()
    nodes = _HEAD
    model = _model(
        nodes,
        [_tensor("x", [batch, len(NUMBERS)])],
        [_tensor("p", [batch, 1])],
        {"w": weights, "b": bias},
    )
    return Foreign(
        model,
        _rows(),
        "is_fraud",
        lambda: _by_batches(model, "p", "x", batch),
        "probability",
        output="p",
    )


@_kind
def fixed_one() -> Foreign:
    """Exported without dynamic axes: one row a run."""
    return _fixed(1)


@_kind
def fixed_eight() -> Foreign:
    """Eight rows a run, no fewer."""
    return _fixed(8)


def _logistic(
    *,
    inputs: Sequence[ValueInfoProto] | None = None,
    more: Sequence[Any] = (),
    output: ValueInfoProto | None = None,
    last: str = "Sigmoid",
    kind: Kind = "probability",
    weights: Mapping[str, NDArray[Any]] | None = None,
    column: int | None = None,
    key: str = "x",
    opset: int = 17,
    **case: Any,
) -> Foreign:
    """Return sigmoid(x w + b), with nodes behind it that lead from p to the output."""
    w, b = _linear()
    nodes = [node("Gemm", [key, "w", "b"], ["z"])]
    if last:
        nodes.append(node(last, ["z"], ["p"]))
    nodes += more
    shown = output or _tensor("p" if last else "z", [None, 1])
    ports = inputs or [_tensor(key, [None, len(NUMBERS)])]
    model = _model(nodes, ports, [shown], {"w": w, "b": b, **(weights or {})}, opset=opset)
    return _of_matrix(model, shown.name, column, key=key, kind=kind, **case)


@_kind
def free_width() -> Foreign:
    """The file does not say how many columns it takes."""
    return _logistic(inputs=[_tensor("x", [None, None])])


@_kind
def opset_seven() -> Foreign:
    return _logistic(opset=7)


@_kind
def opset_newest() -> Foreign:
    """The newest operators that this ONNX Runtime takes."""
    port = [_tensor("x", [1])]
    for opset in range(onnx_opset_version() + 1, 20, -1):
        model = _model([node("Sigmoid", ["x"], ["y"])], port, [_tensor("y", [1])], opset=opset)
        try:
            run(model, "y", {"x": np.zeros(1, dtype=np.float32)})
        except Exception:
            continue
        return _logistic(opset=opset)
    raise AssertionError("no opset above 20")


@_kind
def rank_one() -> Foreign:
    """The score is squeezed to [N]."""
    axis = np.array([1], dtype=np.int64)
    squeeze = [node("Squeeze", ["p", "axis"], ["score"])]
    return _logistic(more=squeeze, output=_tensor("score", [None]), weights={"axis": axis})


@_kind
def rank_three() -> Foreign:
    """The score keeps an axis too many: [N, 1, 1]."""
    axis = np.array([2], dtype=np.int64)
    stretch = [node("Unsqueeze", ["p", "axis"], ["score"])]
    return _logistic(more=stretch, output=_tensor("score", [None, 1, 1]), weights={"axis": axis})


@_kind
def genuine_sigmoid() -> Foreign:
    """The one class that it scores is the good one."""
    one = np.array(1.0, dtype=np.float32)
    return _logistic(
        more=[node("Sub", ["one", "p"], ["p_good"])],
        output=_tensor("p_good", [None, 1]),
        weights={"one": one},
        kind="score",
        rising=False,
        scale=(1.0, 0.0),
    )


@_kind
def score_of_100() -> Foreign:
    """A risk score from 0 to 100."""
    hundred = np.array(100.0, dtype=np.float32)
    return _logistic(
        more=[node("Mul", ["p", "hundred"], ["risk_score"])],
        output=_tensor("risk_score", [None, 1]),
        weights={"hundred": hundred},
        kind="score",
        scale=(0.0, 100.0),
    )


@_kind
def log_odds() -> Foreign:
    """The margin before the sigmoid, which was left out."""
    return _logistic(last="", kind="score")


@_kind
def label_int() -> Foreign:
    """Only 0 or 1, as int64 [N]."""
    half = np.array(0.4, dtype=np.float32)
    axis = np.array([1], dtype=np.int64)
    nodes = [
        node("Squeeze", ["p", "axis"], ["flat"]),
        node("Greater", ["flat", "half"], ["above"]),
        node("Cast", ["above"], ["label"], to=TensorProto.INT64),
    ]
    return _logistic(
        more=nodes,
        output=_tensor("label", [None], TensorProto.INT64),
        weights={"half": half, "axis": axis},
        kind="label",
    )


@_kind
def label_text() -> Foreign:
    """Only the class's name."""
    made = _sklearn(_forest(), _matrix(), _words(), zipmap=False)
    outputs = [port for port in made.graph.output if port.name == "label"]
    del made.graph.output[:]
    made.graph.output.extend(outputs)
    model = made.SerializeToString()

    def score() -> Floats:
        return (run(model, "label", {"X": _matrix()}) == "fraud").astype(np.float64)

    rows = _rows_in_words("outcome")
    return Foreign(model, rows, "outcome", score, "label", output="label[fraud]", fraud="fraud")


@_kind
def identity() -> Foreign:
    """The score was computed elsewhere: the model hands its input on."""
    rng = np.random.default_rng(6)
    upstream = np.round(1 / (1 + np.exp(-rng.normal(2.0 * _labels() - 1.0, 1.0))), 6)
    model = _model(
        [node("Identity", ["score"], ["probability"])],
        [_tensor("score", [None, 1])],
        [_tensor("probability", [None, 1])],
    )
    feed = {"score": upstream.astype(np.float32)[:, None]}
    rows = {"score": upstream.tolist(), "is_fraud": _labels().tolist()}
    score = _scores(model, "probability", feed)
    return Foreign(model, rows, "is_fraud", score, "probability", output="probability")


@_kind
def initializers_as_inputs() -> Foreign:
    """ir_version 3, as of 2018: every weight is listed among the inputs."""
    w, b = _linear()
    inputs = [_tensor("x", [None, len(NUMBERS)]), _tensor("w", w.shape), _tensor("b", b.shape)]
    model = _model(_HEAD, inputs, _P, {"w": w, "b": b}, opset=8, ir=3)
    return _of_matrix(model, "p", key="x")


@_kind
def half_precision() -> Foreign:
    """float16 in and out: rounded amounts, and probabilities of three digits."""
    w, b = _linear()
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("Add", ["y", "b"], ["z"])]
    nodes += [node("Sigmoid", ["z"], ["p"])]
    half = TensorProto.FLOAT16
    model = _model(
        nodes,
        [_tensor("x", [None, len(NUMBERS)], half)],
        [_tensor("p", [None, 1], half)],
        {"w": w.astype(np.float16), "b": b.astype(np.float16)},
    )
    return _of_matrix(model, "p", key="x", dtype=np.float16)


@_kind
def int32_inputs() -> Foreign:
    """Two named int32 inputs [N, 1], and one of uint8 [N]."""
    columns = ("attempts", "hour", "card_present")
    w, b = _linear(columns)
    axis = np.array([1], dtype=np.int64)
    float32 = TensorProto.FLOAT
    nodes = [
        node("Cast", ["attempts"], ["a"], to=float32),
        node("Cast", ["hour"], ["h"], to=float32),
        node("Cast", ["card_present"], ["c1"], to=float32),
        node("Unsqueeze", ["c1", "axis"], ["c"]),
        node("Concat", ["a", "h", "c"], ["x"], axis=1),
        *_HEAD,
    ]
    inputs = [
        _tensor("attempts", [None, 1], TensorProto.INT32),
        _tensor("hour", [None, 1], TensorProto.INT32),
        _tensor("card_present", [None], TensorProto.UINT8),
    ]
    model = _model(nodes, inputs, _P, {"w": w, "b": b, "axis": axis})
    feed: Feed = {
        "attempts": payments()["attempts"].astype(np.int32)[:, None],
        "hour": payments()["hour"].astype(np.int32)[:, None],
        "card_present": payments()["card_present"].astype(np.uint8),
    }
    rows = _rows(columns)
    rows["card_present"] = [int(value) for value in rows["card_present"]]
    score = _scores(model, "p", feed)
    return Foreign(model, rows, "is_fraud", score, "probability", output="p")


@cache
def _layers(classes: int = 2) -> tuple[NDArray[np.float32], ...]:
    """Return w1, b1, w2, b2 of a small network over scaled columns, the scaling folded in."""
    table = _matrix(dtype=np.float64)
    scaler = StandardScaler().fit(table)
    fitted = MLPClassifier((6,), max_iter=400, random_state=1)
    fitted.fit(scaler.transform(table), _labels() if classes == 2 else _three())
    (w1, w2), (b1, b2) = fitted.coefs_, fitted.intercepts_
    folded = w1 / scaler.scale_[:, None]
    parts = (folded, b1 - scaler.mean_ @ folded, w2, b2)
    return tuple(part.astype(np.float32) for part in parts)


def _three() -> NDArray[np.int64]:
    """0 genuine, 1 a friend's dispute, 2 fraud."""
    return np.where(_labels() == 1, 2, (payments()["hour"] % 5 == 0).astype(np.int64))


def _network(
    last: str = "Sigmoid",
    *,
    key: str = "dense_input",
    output: str = "dense_1",
    classes: int = 2,
    both: bool = False,
    column: int | None = None,
    **case: Any,
) -> Foreign:
    """Return Gemm, Relu, Gemm and sigmoid or softmax; `both`: two columns of logits, -z and z."""
    w1, b1, w2, b2 = _layers(classes)
    if both:
        w2, b2 = np.hstack([-w2, w2]) / 2, np.concatenate([-b2, b2]) / 2
    nodes = [
        node("Gemm", [key, "w1", "b1"], ["h1"]),
        node("Relu", ["h1"], ["h2"]),
        node("Gemm", ["h2", "w2", "b2"], ["logits"]),
        node(last, ["logits"], [output], **({"axis": 1} if last == "Softmax" else {})),
    ]
    model = _model(
        nodes,
        [_tensor(key, ["batch_size", len(NUMBERS)])],
        [_tensor(output, ["batch_size", w2.shape[1]])],
        {"w1": w1, "b1": b1, "w2": w2, "b2": b2},
        opset=13,
    )
    return _of_matrix(model, output, column, key=key, **case)


@_kind
def sigmoid_network() -> Foreign:
    """One sigmoid: [N, 1]."""
    return _network()


@_kind
def gemm_softmax() -> Foreign:
    """Two classes by softmax."""
    return _network("Softmax", both=True, column=1, first=True)


@_kind
def tensorflow_names() -> Foreign:
    """Names as tf2onnx keeps them."""
    return _network(key="serving_default_dense_input:0", output="dense_2/Sigmoid:0")


@_kind
def colon_zero() -> Foreign:
    """An output named output:0, of two columns."""
    return _network("Softmax", both=True, key="input:0", output="output:0", column=1)


@_kind
def three_classes() -> Foreign:
    """Genuine, dispute, fraud: the label column holds 0, 1, 2, and fraud is 2."""
    rows = _rows()
    rows["is_fraud"] = _three().tolist()
    return _network("Softmax", classes=3, column=2, rows=rows, fraud=2)


@_kind
def several_outputs() -> Foreign:
    """An embedding, logits, and, last, the probability."""
    w1, b1, w2, b2 = _layers()
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h1"]),
        node("Relu", ["h1"], ["embedding"]),
        node("Gemm", ["embedding", "w2", "b2"], ["logits"]),
        node("Sigmoid", ["logits"], ["fraud_probability"]),
    ]
    model = _model(
        nodes,
        [_tensor("x", ["batch", len(NUMBERS)])],
        [
            _tensor("embedding", ["batch", 6]),
            _tensor("logits", ["batch", 1]),
            _tensor("fraud_probability", ["batch", 1]),
        ],
        {"w1": w1, "b1": b1, "w2": w2, "b2": b2},
    )
    return _of_matrix(model, "fraud_probability", key="x")


@_kind
def spaced_names() -> Foreign:
    """Inputs named as the columns of a spreadsheet."""
    columns = {
        "Transaction Amount (USD)": "amount",
        "Ratio / 30d": "ratio",
        "# of attempts": "attempts",
    }
    w, b = _linear(tuple(columns.values()))
    nodes = [
        node("Concat", list(columns), ["x"], axis=1),
        node("Gemm", ["x", "w", "b"], ["z"]),
        node("Sigmoid", ["z"], ["P(fraud)"]),
    ]
    model = _model(
        nodes,
        [_tensor(name, [None, 1]) for name in columns],
        [_tensor("P(fraud)", [None, 1])],
        {"w": w, "b": b},
    )
    table = {name: payments()[column] for name, column in columns.items()}
    feed = {name: values.astype(np.float32)[:, None] for name, values in table.items()}
    rows: Rows = {name: values.tolist() for name, values in table.items()}
    rows["Is Fraud?"] = _labels().tolist()
    score = _scores(model, "P(fraud)", feed)
    return Foreign(model, rows, "Is Fraud?", score, "probability", output="P(fraud)")


@_kind
def mixed_widths() -> Foreign:
    """Three float inputs: [N, 3], [N, 1] and [N]."""
    w, b = _linear()
    axis = np.array([1], dtype=np.int64)
    nodes = [
        node("Unsqueeze", ["distance_km", "axis"], ["d"]),
        node("Concat", ["behaviour", "attempts", "d"], ["x"], axis=1),
        *_HEAD,
    ]
    inputs = [
        _tensor("behaviour", ["n", 3]),
        _tensor("attempts", ["n", 1]),
        _tensor("distance_km", ["n"]),
    ]
    model = _model(nodes, inputs, [_tensor("p", ["n", 1])], {"w": w, "b": b, "axis": axis})
    feed = {
        "behaviour": _matrix(NUMBERS[:3]),
        "attempts": _matrix(NUMBERS[3:4]),
        "distance_km": _matrix(NUMBERS[4:])[:, 0],
    }
    extras: Rows = {"id": list(range(9_000_000_000, 9_000_000_000 + N))}
    return Foreign(
        model,
        {**extras, **_rows()},
        "is_fraud",
        _scores(model, "p", feed),
        "probability",
        output="p",
        extras=tuple(extras),
    )


@_kind
def three_hundred() -> Foreign:
    """Three hundred named inputs, each a column."""
    rng = np.random.default_rng(8)
    table = np.round(rng.normal(size=(N, 300)), 4)
    table[:, :10] += 0.6 * _labels()[:, None]
    table = np.round(table, 4)
    columns = [f"v{i}" for i in range(300)]
    w = np.zeros((300, 1), dtype=np.float32)
    w[:10] = 0.7
    nodes = [node("Concat", columns, ["x"], axis=1), *_HEAD]
    model = _model(
        nodes,
        [_tensor(name, [None, 1]) for name in columns],
        _P,
        {"w": w, "b": np.array([-2.0], dtype=np.float32)},
    )
    rows: Rows = {name: table[:, i].tolist() for i, name in enumerate(columns)}
    rows["is_fraud"] = _labels().tolist()
    feed = {name: table[:, [i]].astype(np.float32) for i, name in enumerate(columns)}
    score = _scores(model, "p", feed)
    return Foreign(model, rows, "is_fraud", score, "probability", output="p")


# Sequence models: the last payments of a customer, [N, steps, values].

STEPS, VALUES, HIDDEN = 6, 3, 8


@cache
def _windows() -> NDArray[np.float64]:
    """Return N windows, the payment to be judged last: fraud grows towards the end of it."""
    rng = np.random.default_rng(9)
    rise = np.linspace(0.0, 1.2, STEPS)[None, :, None] * _labels()[:, None, None]
    return np.round(rng.normal(size=(N, STEPS, VALUES)) + rise, 4)


def _window_rows() -> Rows:
    names = [f"t{t - STEPS + 1}_{v}" for t in range(STEPS) for v in ("amount", "gap", "risk")]
    flat = _windows().reshape(N, -1)
    rows: Rows = {name: flat[:, i].tolist() for i, name in enumerate(names)}
    return {**rows, "is_fraud": _labels().tolist()}


def _window_model(body: Sequence[Any], weights: dict[str, NDArray[Any]], hidden: int) -> Foreign:
    """Return the body's `state` [N, hidden] under a logistic head fitted to it."""
    port = _tensor("window", ["batch", STEPS, VALUES])
    feed = {"window": _windows().astype(np.float32)}
    states = run(_model(body, [port], [_tensor("state", [None, hidden])], weights), "state", feed)
    w, b = _linear(matrix=states)
    head = [node("Gemm", ["state", "w", "b"], ["z"]), node("Sigmoid", ["z"], ["p"])]
    model = _model(
        [*body, *head], [port], [_tensor("p", ["batch", 1])], {**weights, "w": w, "b": b}
    )
    score = _scores(model, "p", feed)
    return Foreign(model, _window_rows(), "is_fraud", score, "probability", output="p")


@_kind
def lstm_window() -> Foreign:
    """A real LSTM over [N, steps, values]."""
    rng = np.random.default_rng(10)
    weights: dict[str, NDArray[Any]] = {
        "wx": rng.normal(0, 0.6, (1, 4 * HIDDEN, VALUES)).astype(np.float32),
        "wh": rng.normal(0, 0.3, (1, 4 * HIDDEN, HIDDEN)).astype(np.float32),
        "axis": np.array([0], dtype=np.int64),
    }
    body = [
        node("Transpose", ["window"], ["steps"], perm=[1, 0, 2]),
        node("LSTM", ["steps", "wx", "wh"], ["", "last"], hidden_size=HIDDEN),
        node("Squeeze", ["last", "axis"], ["state"]),
    ]
    return _window_model(body, weights, HIDDEN)


@_kind
def conv_window() -> Foreign:
    """A convolution over time, then flat."""
    rng = np.random.default_rng(11)
    weights: dict[str, NDArray[Any]] = {
        "k": rng.normal(0, 0.5, (4, VALUES, 3)).astype(np.float32),
        "shape": np.array([-1, 4 * (STEPS - 2)], dtype=np.int64),
    }
    body = [
        node("Transpose", ["window"], ["channels"], perm=[0, 2, 1]),
        node("Conv", ["channels", "k"], ["c"], kernel_shape=[3]),
        node("Relu", ["c"], ["r"]),
        node("Reshape", ["r", "shape"], ["state"]),
    ]
    return _window_model(body, weights, 4 * (STEPS - 2))


# More ways to say the same.


@_kind
def no_batch() -> Foreign:
    """One row and no batch dimension: [F] in, [1] out."""
    w, b = _linear()
    nodes = [
        node("MatMul", ["x", "w"], ["y"]),
        node("Add", ["y", "b"], ["z"]),
        node("Sigmoid", ["z"], ["p"]),
    ]
    model = _model(nodes, [_tensor("x", [len(NUMBERS)])], [_tensor("p", [1])], {"w": w, "b": b})

    def score() -> Floats:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        given = [session.run(["p"], {"x": row})[0][0] for row in _matrix()]
        return np.array(given, dtype=np.float64)

    return Foreign(model, _rows(), "is_fraud", score, "probability", output="p")


@_kind
def double_output() -> Foreign:
    """double in, double out."""
    w, b = _linear()
    model = _model(
        _HEAD,
        [_tensor("x", [None, len(NUMBERS)], TensorProto.DOUBLE)],
        [_tensor("p", [None, 1], TensorProto.DOUBLE)],
        {"w": w.astype(np.float64), "b": b.astype(np.float64)},
    )
    return _of_matrix(model, "p", key="x", dtype=np.float64)


@_kind
def label_bool() -> Foreign:
    """Only a truth value: bool [N, 1]."""
    half = np.array(0.4, dtype=np.float32)
    return _logistic(
        more=[node("Greater", ["p", "half"], ["suspicious"])],
        output=_tensor("suspicious", [None, 1], TensorProto.BOOL),
        weights={"half": half},
        kind="label",
    )


@_kind
def reconstruction_error() -> Foreign:
    """An autoencoder's squared error [N]: from 0 upwards, without an end."""
    table = _matrix(dtype=np.float64)
    normal = StandardScaler().fit(table[_labels() == 0])
    directions = np.linalg.svd(normal.transform(table), full_matrices=False)[2][:1]
    weights: dict[str, NDArray[Any]] = {
        "mean": normal.mean_.astype(np.float32),
        "scale": normal.scale_.astype(np.float32),
        "into": directions.T.astype(np.float32),
        "back": directions.astype(np.float32),
        "axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        node("Sub", ["x", "mean"], ["c"]),
        node("Div", ["c", "scale"], ["s"]),
        node("MatMul", ["s", "into"], ["code"]),
        node("MatMul", ["code", "back"], ["again"]),
        node("Sub", ["s", "again"], ["e"]),
        node("Mul", ["e", "e"], ["e2"]),
        node("ReduceMean", ["e2", "axis"], ["reconstruction_error"], keepdims=0),
    ]
    model = _model(nodes, _X, [_tensor("reconstruction_error", [None])], weights, opset=18)
    return _of_matrix(model, "reconstruction_error", key="x", kind="score")


@_kind
def tree_ensemble_five() -> Foreign:
    """The tree operator of ai.onnx.ml 5: margins, and a sigmoid behind them."""
    tree = node(
        "TreeEnsemble",
        ["x"],
        ["margin"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        tree_roots=[0, 1],
        nodes_featureids=[0, 3],
        nodes_splits=helper.make_tensor("splits", TensorProto.FLOAT, [2], [40.0, 1.0]),
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [2], [0, 0]),
        nodes_truenodeids=[0, 2],
        nodes_trueleafs=[1, 1],
        nodes_falsenodeids=[1, 3],
        nodes_falseleafs=[1, 1],
        leaf_targetids=[0, 0, 0, 0],
        leaf_weights=helper.make_tensor("leaves", TensorProto.FLOAT, [4], [-1, 0.7, -0.5, 0.9]),
    )
    model = _model(
        [tree, node("Sigmoid", ["margin"], ["p"])],
        [_tensor("x", ["batch", len(NUMBERS)])],
        [_tensor("p", ["batch", 1])],
        opset=21,
        ir=10,
        domains={"ai.onnx.ml": 5},
    )
    return _of_matrix(model, "p", key="x")


@_kind
def local_functions() -> Foreign:
    """A domain that no runtime knows, but the file brings its functions, as PyTorch's does."""
    w, b = _linear()
    opsets = [helper.make_opsetid("", 18)]
    linear = helper.make_function(
        "pkg.torch.2.4.0",
        "Linear",
        ["a", "w", "b"],
        ["c"],
        [node("Gemm", ["a", "w", "b"], ["c"])],
        opsets,
    )
    model = _model(
        [
            node("Linear", ["x", "w", "b"], ["z"], domain="pkg.torch.2.4.0"),
            node("Sigmoid", ["z"], ["sigmoid_1"]),
        ],
        [_tensor("x", ["s0", len(NUMBERS)])],
        [_tensor("sigmoid_1", ["s0", 1])],
        {"w": w, "b": b},
        opset=18,
        domains={"pkg.torch.2.4.0": 1},
        functions=[linear],
    )
    return _of_matrix(model, "sigmoid_1", key="x")


@_kind
def contrib_operator() -> Foreign:
    """An operator of ONNX Runtime's own domain, as its optimiser saves them."""
    w1, b1, w2, b2 = _layers()
    nodes = [
        node("FusedGemm", ["x", "w1", "b1"], ["h"], domain="com.microsoft", activation="Relu"),
        node("Gemm", ["h", "w2", "b2"], ["z"]),
        node("Sigmoid", ["z"], ["p"]),
    ]
    model = _model(
        nodes, _X, _P, {"w1": w1, "b1": b1, "w2": w2, "b2": b2}, domains={"com.microsoft": 1}
    )
    return _of_matrix(model, "p", key="x")


@_kind
def quantized() -> Foreign:
    """Weights of eight bits between QuantizeLinear and DequantizeLinear."""
    w, b = _linear()
    step = np.array(np.abs(w).max() / 127, dtype=np.float32)
    weights: dict[str, NDArray[Any]] = {
        "w8": np.round(w / step).astype(np.int8),
        "step": step,
        "zero": np.array(0, dtype=np.int8),
        "b": b,
    }
    nodes = [
        node("DequantizeLinear", ["w8", "step", "zero"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
        node("Add", ["y", "b"], ["z"]),
        node("Sigmoid", ["z"], ["p"]),
    ]
    model = _model(nodes, _X, _P, weights)
    return _of_matrix(model, "p", key="x")


@_kind
def flat_columns() -> Foreign:
    """One input a column without a second dimension, [N], texts and numbers."""
    texts = ["DE", "FR", "NG", "US"]
    risk = [float(np.mean(_labels()[payments()["country"] == text])) for text in texts]
    axis = np.array([1], dtype=np.int64)
    w, b = np.array([[0.01], [4.0]], dtype=np.float32), np.array([-2.5], dtype=np.float32)
    nodes = [
        node(
            "LabelEncoder",
            ["country"],
            ["risk"],
            domain="ai.onnx.ml",
            keys_strings=texts,
            values_floats=risk,
            default_float=0.5,
        ),
        node("Unsqueeze", ["amount", "axis"], ["a"]),
        node("Unsqueeze", ["risk", "axis"], ["r"]),
        node("Concat", ["a", "r"], ["x"], axis=1),
        *_HEAD,
        node("Squeeze", ["p", "axis"], ["probability"]),
    ]
    model = _model(
        nodes,
        [_tensor("amount", ["n"]), _tensor("country", ["n"], TensorProto.STRING)],
        [_tensor("probability", ["n"])],
        {"w": w, "b": b, "axis": axis},
        domains=ML,
    )
    feed: Feed = {
        "amount": payments()["amount"].astype(np.float32),
        "country": payments()["country"].astype(np.object_),
    }
    rows = _rows(("amount", "country"), first=True)
    score = _scores(model, "probability", feed)
    return Foreign(model, rows, "is_fraud", score, "probability", output="probability")


# What cannot be a product.

PAIR = ("amount", "ratio")


def _no_score() -> Floats:
    raise AssertionError("a refused model has no score")


def _refused(model: bytes, why: str, bare: Bare, rows: Rows | None = None, **case: Any) -> Foreign:
    table = _rows(PAIR) if rows is None else rows
    return Foreign(model, table, "is_fraud", _no_score, "refused", why, bare=bare, **case)


def _plus(
    nodes: Sequence[Any],
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    added: str,
    **more: Any,
) -> bytes:
    """Return a model of two columns: sigmoid of their sum and of the greatest of `added`."""
    tail = [
        node("ReduceMax", [added], ["most"], keepdims=0),
        node("ReduceMean", ["x"], ["mean"], axes=[1]),
        node("Add", ["mean", "most"], ["z"]),
        node("Sigmoid", ["z"], ["p"]),
    ]
    return _model([*nodes, *tail], _PAIR_X, _P, weights, **more)


def _outside(location: str, attribute: bool = False) -> bytes:
    """Return a model whose weight lies in another file."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [0.5, 0.5])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if attribute:
        return _plus([node("Constant", [], ["w"], value=tensor)], added="w")
    proto = ModelProto.FromString(_plus([], added="w"))
    proto.graph.initializer.append(tensor)
    return proto.SerializeToString()


@_kind
def refused_external_outside() -> Foreign:
    """A weight outside the folder."""
    model = _outside("../../../../../../../../etc/passwd")
    return _refused(model, "external data", "fails to load")


@_kind
def refused_external_absolute() -> Foreign:
    return _refused(_outside("/etc/passwd"), "external data", "fails to load")


_WEIGHTS = {"weights.bin": np.array([0.5, 0.5], dtype=np.float32).tobytes()}


@_kind
def refused_external_inside() -> Foreign:
    """A weight beside the model, where it lies."""
    return _refused(_outside("weights.bin"), "external data", "fails to load", beside=_WEIGHTS)


@_kind
def refused_external_attribute() -> Foreign:
    """The tensor of a Constant node lies in another file: no initializer says so."""
    return _refused(
        _outside("weights.bin", attribute=True), "external data", "fails to load", beside=_WEIGHTS
    )


def _of_operator(operator: str, domain: str, **more: Any) -> bytes:
    domains = {domain: 1} if domain else None
    made = node(operator, ["x"], ["y"], domain=domain)
    return _plus([made], added="y", domains=domains, **more)


@_kind
def refused_custom_domain() -> Foreign:
    """An operator that the bank registered in its own runtime."""
    model = _of_operator("VelocityScore", "com.bank.risk")
    return _refused(model, "com.bank.risk", "fails to load")


@_kind
def refused_unknown_operator() -> Foreign:
    return _refused(_of_operator("Velocity", ""), "Velocity", "fails to load")


@_kind
def refused_future_opset() -> Foreign:
    return _refused(_plus([], added="x", opset=99), "opset", "fails to load")


@_kind
def refused_future_ir() -> Foreign:
    return _refused(_plus([], added="x", ir=99), "IR version", "fails to load")


@_kind
def refused_free_text() -> Foreign:
    """Words of a free text, counted: its texts are no categories."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    rng = np.random.default_rng(12)
    words = np.array(["refund", "gift", "card", "rent", "urgent", "wallet", "lunch", "crypto"])
    memos = [
        " ".join([*rng.choice(words, 4), f"no{i}", *(["crypto"] if fraud else [])])
        for i, fraud in enumerate(_labels())
    ]
    # Lower case would need a locale that not every host has, and the session would not load.
    words_of = TfidfVectorizer(max_features=8, lowercase=False)
    estimator = make_pipeline(words_of, LogisticRegression())
    estimator.fit(memos, _labels())
    made = to_onnx(
        estimator,
        initial_types=[("memo", StringTensorType([None]))],
        options={id(estimator): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    rows = {"memo": memos, "is_fraud": _labels().tolist()}
    return _refused(made.SerializeToString(), "text", "loads", rows)


@_kind
def refused_steps_first() -> Foreign:
    """[steps, batch, values]: a row lies across the array."""
    nodes = [
        node("ReduceMean", ["window"], ["m"], axes=[0, 2], keepdims=0),
        node("Sigmoid", ["m"], ["p"]),
    ]
    port = _tensor("window", [STEPS, "batch", VALUES])
    model = _model(nodes, [port], [_tensor("p", ["batch"])])
    return _refused(model, "batch", "loads", _window_rows())


@_kind
def refused_two_free() -> Foreign:
    """Windows of any length: two dimensions are free besides the batch."""
    nodes = [
        node("ReduceMean", ["window"], ["m"], axes=[1, 2], keepdims=0),
        node("Sigmoid", ["m"], ["p"]),
    ]
    model = _model(
        nodes, [_tensor("window", ["batch", "steps", "values"])], [_tensor("p", ["batch"])]
    )
    return _refused(model, "free", "loads", _window_rows())


@_kind
def refused_sequence_input() -> Foreign:
    """A sequence of tensors."""
    port = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, [None, 1])
    nodes = [node("ConcatFromSequence", ["parts"], ["x"], axis=0), node("Sigmoid", ["x"], ["p"])]
    model = _model(nodes, [port], _P)
    return _refused(model, "seq(", "loads")


@_kind
def refused_map_input() -> Foreign:
    """A map of name to value, as DictVectorizer takes it."""
    maps = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    nodes = [
        node(
            "DictVectorizer", ["values"], ["x"], domain="ai.onnx.ml", string_vocabulary=list(PAIR)
        ),
        node("ReduceMean", ["x"], ["m"], axes=[1]),
        node("Sigmoid", ["m"], ["p"]),
    ]
    port = helper.make_value_info("values", maps)
    model = _model(nodes, [port], _P, domains=ML)
    return _refused(model, "map(", "loads")


@_kind
def refused_bfloat16_input() -> Foreign:
    """NumPy has no such number."""
    nodes = [
        node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        node("ReduceMean", ["f"], ["m"], axes=[1]),
        node("Sigmoid", ["m"], ["p"]),
    ]
    port = _tensor("x", [None, 2], TensorProto.BFLOAT16)
    model = _model(nodes, [port], _P)
    return _refused(model, "bfloat16", "loads")


@_kind
def refused_no_inputs() -> Foreign:
    """It always says the same."""
    one = np.full((1, 1), 0.5, dtype=np.float32)
    model = _model([node("Sigmoid", ["w"], ["p"])], [], [_tensor("p", [1, 1])], {"w": one})
    return _refused(model, "input", "loads")


@_kind
def refused_random() -> Foreign:
    """Noise that was left on: the same payment has another score each time."""
    model = _plus([node("RandomNormalLike", ["x"], ["noise"])], added="noise")
    return _refused(model, "same", "loads")


@_kind
def refused_softmax_over_batch() -> Foreign:
    """A softmax over the wrong axis: a row's score depends on the rows beside it."""
    nodes = [node("ReduceMean", ["x"], ["m"], axes=[1]), node("Softmax", ["m"], ["p"], axis=0)]
    model = _model(nodes, _PAIR_X, _P)
    return _refused(model, "row", "loads")


@_kind
def refused_one_for_all() -> Foreign:
    """One score for however many rows."""
    nodes = [node("ReduceMean", ["x"], ["m"]), node("Sigmoid", ["m"], ["p"])]
    model = _model(nodes, _PAIR_X, [_tensor("p", [1, 1])])
    return _refused(model, "rows", "loads")


@_kind
def refused_nan() -> Foreign:
    """It takes the logarithm of what is below zero."""
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[1]),
        node("Abs", ["m"], ["a"]),
        node("Neg", ["a"], ["n"]),
        node("Log", ["n"], ["l"]),
        node("Sigmoid", ["l"], ["p"]),
    ]
    model = _model(nodes, _PAIR_X, _P)
    return _refused(model, "NaN", "loads")


# Files that are no model.


def _no_model(content: bytes) -> Foreign:
    return _refused(content, "ONNX", "fails to load")


@_kind
def refused_truncated() -> Foreign:
    """A download that broke off."""
    return _no_model(foreign("random-forest-zipmap").model[:-200])


@_kind
def refused_empty() -> Foreign:
    return _no_model(b"")


@_kind
def refused_garbage() -> Foreign:
    return _no_model(np.random.default_rng(13).bytes(4096))


@_kind
def refused_lfs_pointer() -> Foreign:
    """What stands in a working tree where git-lfs is not installed."""
    digest = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 1000\n"
    return _no_model(text.encode())


@_kind
def refused_pickle() -> Foreign:
    """The estimator itself."""
    return _no_model(pickle.dumps(StandardScaler().fit(_matrix())))


@_kind
def refused_ort_format() -> Foreign:
    """ONNX Runtime's own format, which its session takes: nobody can look into it as ONNX."""
    options = onnxruntime.SessionOptions()
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/model.ort"
        options.add_session_config_entry("session.save_model_format", "ORT")
        model = foreign("sigmoid-network").model
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        saved = Path(options.optimized_model_filepath).read_bytes()
    return _refused(saved, "ONNX", "loads", _rows())


# Bombs: small files that take more time or memory than there is, or the process with them.


@_kind
def refused_huge_initializer() -> Foreign:
    """Two numbers that say they are 10^12."""
    proto = ModelProto.FromString(_plus([], {"w": np.ones(2, dtype=np.float32)}, added="w"))
    proto.graph.initializer[0].dims[:] = [10**12]
    return _refused(proto.SerializeToString(), "initializer", "fails to load")


@_kind
def refused_memory_at_load() -> Foreign:
    """Eight sparse initializers with one number each, which loading makes dense: 8 GiB."""
    names = [f"w{i}" for i in range(8)]
    sparse = [
        helper.make_sparse_tensor(
            numpy_helper.from_array(np.ones(1, dtype=np.float32), name),
            numpy_helper.from_array(np.array([5], dtype=np.int64), f"{name}_at"),
            [2**28],
        )
        for name in names
    ]
    proto = ModelProto.FromString(_plus([node("Max", names, ["w"])], added="w"))
    proto.graph.sparse_initializer.extend(sparse)
    return _refused(proto.SerializeToString(), "memory", "fails to load")


@_kind
def refused_memory_at_run() -> Foreign:
    """4 TiB of zeros: not folded when it loads, so they come with the first row."""
    shape = np.array([2**40], dtype=np.int64)
    model = _plus([node("ConstantOfShape", ["shape"], ["c"])], {"shape": shape}, added="c")
    return _refused(model, "memory", "fails to run")


@_kind
def refused_endless_folding() -> Foreign:
    """Matrix products of constants, which the optimiser works out: half an hour, 140 KB."""
    size, times = 2048, 5000
    weights: dict[str, NDArray[Any]] = {
        "shape": np.array([size, size], dtype=np.int64),
        "part": np.full((1, 1), 1 / size, dtype=np.float32),
    }
    nodes = [node("Expand", ["part", "shape"], ["c0"])]
    nodes += [node("MatMul", [f"c{i}", f"c{i}"], [f"c{i + 1}"]) for i in range(times)]
    model = _plus(nodes, weights, added=f"c{times}")
    return _refused(model, "time", "never loads")


@_kind
def refused_billion_laughs() -> Foreign:
    """Forty functions, each of which calls the one before it twice: 2^40 nodes in 2.5 KB."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("laughs", 1)]
    functions = []
    calls = [node("Sin", ["a"], ["b"])]
    for i in range(40):
        functions.append(helper.make_function("laughs", f"f{i}", ["a"], ["b"], calls, opsets))
        calls = [
            node(f"f{i}", ["a"], ["half"], domain="laughs"),
            node(f"f{i}", ["half"], ["b"], domain="laughs"),
        ]
    model = _plus(
        [node("f39", ["x"], ["y"], domain="laughs")],
        added="y",
        domains={"laughs": 1},
        functions=functions,
    )
    return _refused(model, "time", "never loads")


def _loop(trips: str, cond: str) -> Any:
    body = helper.make_graph(
        [node("Identity", ["going"], ["goes"]), node("Sin", ["v"], ["w"])],
        "body",
        [
            _tensor("i", [], TensorProto.INT64),
            _tensor("going", [], TensorProto.BOOL),
            _tensor("v", []),
        ],
        [_tensor("goes", [], TensorProto.BOOL), _tensor("w", [])],
    )
    return node("Loop", [trips, cond, "start"], ["end"], body=body)


_START: dict[str, NDArray[Any]] = {
    "true": np.array(True),
    "start": np.array(1, dtype=np.float32),
    "many": np.array(1e12, dtype=np.float32),
}


@_kind
def refused_endless_loop() -> Foreign:
    """A loop without a last turn. It is not folded: the first run never ends."""
    return _refused(_plus([_loop("", "true")], _START, added="end"), "time", "never runs")


@_kind
def refused_endless_dynamic_loop() -> Foreign:
    """As many turns as the row's amount says, and 10^12 more."""
    nodes = [
        node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Add", ["top", "many"], ["turns"]),
        node("Cast", ["turns"], ["trips"], to=TensorProto.INT64),
        _loop("trips", "true"),
    ]
    model = _plus(nodes, _START, added="end")
    return _refused(model, "time", "never runs")


@_kind
def refused_division() -> Foreign:
    """The least int32 by -1, folded when it loads: a signal that ends the process (SIGFPE)."""
    weights: dict[str, NDArray[Any]] = {
        "least": np.array([-(2**31)], dtype=np.int32),
        "minus": np.array([-1], dtype=np.int32),
    }
    nodes = [
        node("Div", ["least", "minus"], ["q"]),
        node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
    ]
    return _refused(_plus(nodes, weights, added="f"), "divides", "dies")


@_kind
def refused_deep_tree() -> Foreign:
    """A tree 50,000 deep: the reader's own stack ends first (SIGSEGV)."""
    depth = 50_000
    count = 2 * depth + 1
    below = np.zeros(count, dtype=np.int64)
    above = np.zeros(count, dtype=np.int64)
    below[:-1:2] = np.arange(1, count, 2)
    above[:-1:2] = np.arange(2, count + 1, 2)
    modes = ["BRANCH_LEQ", "LEAF"] * depth + ["LEAF"]
    tree = node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=[0] * count,
        nodes_modes=modes,
        nodes_values=[-1.0] * count,
        nodes_truenodeids=below.tolist(),
        nodes_falsenodeids=above.tolist(),
        class_treeids=[0],
        class_nodeids=[count - 1],
        class_ids=[0],
        class_weights=[1.0],
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
    )
    model = _model([tree], _PAIR_X, _label_and_probabilities(), domains=ML)
    return _refused(model, "SIGSEGV", "dies")


PRODUCTS = tuple(name for name in _BUILDERS if not name.startswith("refused-"))
"""The names of the models that can be products."""

REFUSED = tuple(name for name in _BUILDERS if name.startswith("refused-"))
"""The names of those that cannot, and for which check says why."""
