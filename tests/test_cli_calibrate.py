"""`gateway calibrate` and `gateway thresholds` as their users meet them: wrong input first."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catalogue
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_scaffold

from gateway.cli.edited import write_keys
from gateway.cli.main import run
from gateway.decide import from_mapping
from gateway.demo import CARD_NOT_PRESENT, batch, build_world
from gateway.demo.payment import CardNotPresentFeatures
from gateway.errors import ExitCode, ModelError, ProductError
from gateway.model import load_generation, read_product

MODELS = Path(__file__).parents[1] / "models"
Command = Callable[..., tuple[int, str, str]]

UNCALIBRATED = "    calibration: {kind: identity}\n"
CALIBRATION = re.compile(r"^    calibration: .*\n", re.MULTILINE)
BASE_RATE = re.compile(r"^    # Trained.*\n^    base_rate: .*\n", re.MULTILINE)
ACTIONS = "actions: [approve, step_up, decline]"
REVIEW = (
    "  review: {fee: 1, sensitivity: 0.9, specificity: 0.99, per_hour: 0.25, "
    "hold: {per_hour: 0.2, hours: 1}}\n"
)


@pytest.fixture(scope="module")
def payments() -> pa.Table:
    """A month of the demo's payments, as a file of them would have them."""
    world = build_world(np.random.default_rng(7), customers=700)
    lived = world.payments(np.random.default_rng(8), first_day=200, days=40)
    rows = batch(lived, CARD_NOT_PRESENT)
    columns: dict[str, Any] = {
        name: rows.features[:, i] for i, name in enumerate(CardNotPresentFeatures._fields)
    }
    for feature in read_product(MODELS / CARD_NOT_PRESENT).features:
        if feature.type == "category":
            columns[feature.name] = [feature.values[int(v)] for v in columns[feature.name]]
    columns["mcc"] = [payment.mcc for payment in rows.payments]
    columns["subject"] = [payment.subject for payment in rows.payments]
    micros = (rows.event_time_s * 1e6).astype(np.int64)
    columns["event_time"] = pa.array(micros, pa.timestamp("us", "UTC"))
    columns["is_fraud"] = rows.fraud
    return pa.table(columns)


@pytest.fixture
def place(tmp_path: Path, payments: pa.Table, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a product whose scores are taken for P(fraud), and a labelled file."""
    test_scaffold.tried_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODELS / CARD_NOT_PRESENT, tmp_path / "cards")
    rewrite(tmp_path, lambda text: CALIBRATION.sub(UNCALIBRATED, BASE_RATE.sub("", text)))
    pq.write_table(payments, tmp_path / "labelled.parquet")
    return tmp_path


@pytest.fixture
def gateway(place: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def ran(verb: str, *arguments: str) -> tuple[int, str, str]:
        code = run([verb, *arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return ran


def rewrite(place: Path, change: Callable[[str], str]) -> None:
    path = place / "cards" / "product.yaml"
    text = path.read_text()
    changed = change(text)
    assert changed != text
    path.write_text(changed)


WITH = ("cards", "--data", "labelled.parquet")


@pytest.mark.parametrize("verb", ["calibrate", "thresholds"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cards"], "requires an argument"),
        (["absent", "--data", "labelled.parquet"], "there is no product.yaml here"),
        (["cards", "--data", "absent.parquet"], "No such file"),
        ([*WITH, "--label", "fraude"], "fraude"),
        ([*WITH, "--amount", "sum"], "sum"),
        ([*WITH, "--arm", "v9"], "Its models are lightgbm-100x31."),
    ],
)
def test_wrong_input_says_what_is_wrong_and_what_to_try(
    gateway: Command, verb: str, arguments: list[str], says: str
) -> None:
    code, out, err = gateway(verb, *arguments)
    assert code == ExitCode.USAGE
    assert says in err
    assert "Try:" in err
    assert out == ""


@pytest.mark.parametrize("verb", ["calibrate", "thresholds"])
def test_a_picture_that_cannot_be_written_is_said_and_nothing_is_changed(
    gateway: Command, place: Path, verb: str
) -> None:
    before = (place / "cards" / "product.yaml").read_bytes()
    code, _, err = gateway(verb, *WITH, "--write", "--picture", "absent/picture.svg")
    assert code == ExitCode.USAGE
    assert "absent/picture.svg: cannot be written: No such file or directory" in err
    assert "Name a file in a folder that is there." in err
    assert (place / "cards" / "product.yaml").read_bytes() == before


def test_labels_that_are_all_alike_are_refused(
    gateway: Command, payments: pa.Table, place: Path
) -> None:
    genuine = payments.filter(pa.compute.invert(payments["is_fraud"])).slice(0, 300)
    pq.write_table(genuine, place / "labelled.parquet")
    code, _, err = gateway("calibrate", *WITH)
    assert code == ExitCode.USAGE
    assert "fraud" in err
    few = pa.concat_tables([genuine, payments.filter(payments["is_fraud"]).slice(0, 5)])
    pq.write_table(few, place / "labelled.parquet")
    code, _, err = gateway("calibrate", *WITH)
    assert code == ExitCode.USAGE
    assert "has 5 frauds with a score; 20 are the least" in err
    one_customer = pa.array(["c"] * len(payments))
    at = payments.schema.get_field_index("subject")
    pq.write_table(payments.set_column(at, "subject", one_customer), place / "labelled.parquet")
    code, _, err = gateway("calibrate", *WITH)
    assert code == ExitCode.USAGE
    assert "cannot be cross-validated: 1 cluster with frauds" in err
    assert not list((place / "cards").glob("*.calibration-*"))


def test_a_kind_that_the_scores_cannot_have_is_refused(gateway: Command) -> None:
    code, _, err = gateway("calibrate", *WITH, "--kind", "spline")
    assert code == ExitCode.USAGE
    assert "'spline' is no map for these scores" in err
    assert "platt" in err


def test_an_uncalibrated_model_is_calibrated_and_then_is_served_calibrated(
    gateway: Command, place: Path
) -> None:
    """The whole way: figures, file, lines for product.yaml, check; then nothing more to do."""
    folder = place / "cards"
    shutil.copy(place / "labelled.parquet", folder)
    gates = "  gates: {calibration: {path: labelled.parquet}}\n\n# The model's inputs"
    rewrite(place, lambda text: text.replace("\n# The model's inputs", gates, 1))
    code, _, err = gateway("check", "cards")
    assert code == ExitCode.INVALID_MODEL
    assert "observed/expected" in err
    assert "gateway calibrate" in err
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, _ = gateway("calibrate", *WITH, "--json", "--picture", "reliability.svg")
    assert code == 0
    told = json.loads(out)
    assert told["chosen"] in ("platt", "beta", "isotonic")
    maps = {one["map"]: one for one in told["maps"]}
    today, chosen = maps["as it is"], maps[told["chosen"]]
    assert today["observed_over_expected"]["high"] < 0.5, "trained on one genuine in ten"
    assert chosen["observed_over_expected"]["value"] == pytest.approx(1, abs=0.1)
    assert chosen["near_thresholds"]["low"] < 1 < chosen["near_thresholds"]["high"]
    assert chosen["log_loss_change"]["high"] < 0
    assert chosen["cost_change_per_1000_minor"]["high"] < 0
    assert set(maps) == {"as it is", "platt", "beta", "isotonic"}

    written = folder / told["product_yaml"]["set"]["calibration"]["path"]
    content = written.read_text()
    assert hashlib.sha256(content.encode()).hexdigest().startswith(written.stem[-8:])
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: text for name, text in after.items() if name in before} == before
    assert set(after) - set(before) == {written.name}
    assert json.loads(content)["fitted"]["frauds"] == told["data"]["frauds"]
    ET.fromstring((place / "reliability.svg").read_text())

    told_again = json.loads(gateway("calibrate", *WITH, "--json")[1])
    assert told_again == told, "the same file gives the same figures and the same map"

    assert told["product_yaml"]["written"] is None
    yaml = (folder / "product.yaml").read_text()
    out = gateway("calibrate", "cards", "--data", "cards/labelled.parquet", "--write")[1]
    assert "these are the payments that the gates look at, too" in out
    line = f"{{kind: {told['chosen']}, path: {written.name}}}"
    assert line in out
    expected = yaml.replace("{kind: identity}", line).replace("generation: 1 ", "generation: 2 ")
    assert (folder / "product.yaml").read_text() == expected, "and nothing else"
    before_and_after = re.findall(r"generation (\d) \((\w{12})…\) became (\d) \((\w{12})…\)", out)
    assert before_and_after[0][::2] == ("1", "2")
    assert load_generation(folder).digest.startswith(before_and_after[0][3])
    code, out, _ = gateway("check", "cards")
    assert code == 0
    assert f"calibrated ({told['chosen']})" in out
    served = load_generation(folder).policy.calibration
    assert served.one(0.9) == pytest.approx(
        from_mapping(told["chosen"], json.loads(content)).one(0.9), abs=0
    )

    code, out, err = gateway("calibrate", *WITH)
    assert code == 0
    assert f"Keep the map as it is ({told['chosen']})." in out
    assert "Next: gateway check cards" in err


def test_the_table_names_the_map_to_take_and_the_lines_for_product_yaml(gateway: Command) -> None:
    code, out, err = gateway("calibrate", *WITH, "--kind", "isotonic")
    assert code == 0
    assert re.search(r"^isotonic ◀", out, re.MULTILINE)
    (name,) = re.findall(
        r"calibration: \{kind: isotonic, path: (v1\.calibration-\w{8}\.json)\}", out
    )
    assert Path("cards", name).exists()
    assert "and raise generation to 2." in out
    assert "columns: label is_fraud, fraud True, amount amount" in out
    assert "Next: gateway check cards" in err


def test_a_file_that_was_sampled_is_weighted_to_what_is_served(
    gateway: Command, place: Path, payments: pa.Table
) -> None:
    fraud = payments["is_fraud"].to_numpy()
    serving = float(fraud.mean())
    kept = fraud | (np.random.default_rng(1).random(len(fraud)) < 0.1)
    pq.write_table(payments.filter(pa.array(kept)), place / "labelled.parquet")
    rate = f"    base_rate: {{calibrated_at: 0.07, serving: {serving:.6f}}}\n"
    rewrite(place, lambda text: text.replace(UNCALIBRATED, UNCALIBRATED + rate))
    told = json.loads(gateway("calibrate", *WITH, "--kind", "platt", "--json")[1])
    share = float(fraud.sum() / kept.sum())
    assert told["data"]["weighted"] is True
    assert told["data"]["share_served"] == pytest.approx(serving, abs=1e-6)
    assert told["product_yaml"]["set"]["base_rate"] == {
        "calibrated_at": pytest.approx(share, rel=1e-5),
        "serving": pytest.approx(serving, abs=1e-6),
    }
    platt = next(one for one in told["maps"] if one["map"] == "platt")
    assert platt["observed_over_expected"]["low"] < 1 < platt["observed_over_expected"]["high"]


def test_a_file_as_it_is_served_has_one_base_rate(gateway: Command, place: Path) -> None:
    rate = "    base_rate: {calibrated_at: 0.07, serving: 0.0075}\n"
    rewrite(place, lambda text: text.replace(UNCALIBRATED, UNCALIBRATED + rate))
    code, out, _ = gateway("calibrate", *WITH, "--kind", "platt")
    assert code == 0
    (at, serving) = re.findall(r"base_rate: \{calibrated_at: ([\d.]+), serving: ([\d.]+)\}", out)[0]
    assert at == serving
    assert float(at) == pytest.approx(0.0058, abs=0.001)


def test_what_cannot_be_served_is_not_written(gateway: Command, place: Path) -> None:
    folder = place / "cards"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    falling = {"kind": "platt", "path": "new.json"}
    with pytest.raises(ModelError, match=r"new\.json: a is -1"):
        write_keys(
            folder,
            {("models", "champion", "calibration"): falling},
            {"new.json": b'{"kind": "platt", "a": -1, "b": 0}'},
        )
    with pytest.raises(ProductError):
        write_keys(folder, {("costs", "review", "shadow_price"): -1})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_was_written_can_be_rolled_back(gateway: Command, place: Path) -> None:
    was = (place / "cards" / "product.yaml").read_text()
    assert gateway("calibrate", *WITH, "--write")[0] == 0
    assert (place / "cards" / "product.yaml").read_text() != was
    code = run(["models", "rollback", "cards"])
    assert code == 0
    expected = was.replace("generation: 1 ", "generation: 3 ")
    assert (place / "cards" / "product.yaml").read_text() == expected


def test_a_challenger_is_calibrated_under_its_own_key(gateway: Command, place: Path) -> None:
    challenger = (
        "\n  challengers: [{name: v2, path: v1.onnx, mode: shadow, "
        "calibration: {kind: platt, a: 1, b: 0}}]\n\nfeatures:"
    )
    rewrite(place, lambda text: text.replace("\nfeatures:", challenger, 1))
    code, out, err = gateway("calibrate", *WITH, "--arm", "v2", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["arm"] == "v2"
    assert told["as_it_is"] == "platt"
    assert told["product_yaml"]["under"] == "models.challengers[0]"


def test_thresholds_call_an_uncalibrated_model_miscalibrated_and_price_the_gap(
    gateway: Command, place: Path
) -> None:
    code, out, err = gateway("thresholds", *WITH, "--picture", "costs.svg")
    assert code == 0
    assert "Miscalibrated: near thresholds fraud is rarer than P(fraud) says" in out
    assert "Next: gateway calibrate cards --data labelled.parquet" in err
    ET.fromstring((place / "costs.svg").read_text())
    told = json.loads(gateway("thresholds", *WITH, "--json", "--bands", "50,200")[1])
    rows = told["thresholds"]
    whole = [row for row in rows if row["category"] is None and row["band"] is None]
    told_of = [row for row in whole if row["verdict"] != "too few labels"]
    assert {row["verdict"] for row in told_of} == {"miscalibrated"}
    for row in told_of:
        assert row["log_odds_shift"]["high"] < 0
        assert row["empirical"]["value"] > row["plug_in"]
        assert row["gap_per_1000_minor"]["low"] > 0
    assert {row["band"] for row in rows} == {None, "up to 50", "50 to 200", "above 200"}
    assert {row["category"] for row in rows} == {None, "pharmacy", "grocery"}, "no fuel online"
    assert told["review"] is None


def test_review_gets_the_price_at_which_its_capacity_holds(gateway: Command, place: Path) -> None:
    """Calibrated, priced, priced again with the price in the file: it stands."""
    rewrite(place, lambda text: text.replace(ACTIONS, "actions: [approve, review, decline]"))
    rewrite(place, lambda text: re.sub(r"action: step_up", "action: decline", text))
    rewrite(place, lambda text: text.replace("  categories:  ", REVIEW + "  categories:  ", 1))
    out = gateway("check", "cards")[1]
    assert "costs.review.per_hour (it has no shadow_price" in out
    told = json.loads(gateway("thresholds", *WITH, "--json")[1])
    review = told["review"]
    assert review["wanted_per_hour"] > 0.25
    assert review["taken_per_hour"] <= 0.25
    assert review["capacity_cost_per_1000_minor"] > 0
    price = review["product_yaml"]["set"]["shadow_price"]
    assert price > 0
    rewrite(
        place,
        lambda text: text.replace("per_hour: 0.25,", f"per_hour: 0.25, shadow_price: {price},"),
    )
    assert "costs.review.per_hour" not in gateway("check", "cards")[1]
    out = gateway("thresholds", *WITH)[1]
    assert "product.yaml has that price." in out
    busier = json.loads(gateway("thresholds", *WITH, "--json", "--per-hour", "1000")[1])["review"]
    assert busier["payments_per_hour"] == 1000
    assert busier["product_yaml"]["set"]["shadow_price"] > price
    rewrite(place, lambda text: text.replace("per_hour: 0.25,", "per_hour: 500,"))
    assert "They have time left" in gateway("thresholds", *WITH)[1]


def test_without_times_nothing_says_how_scarce_review_is(
    gateway: Command, place: Path, payments: pa.Table
) -> None:
    rewrite(place, lambda text: text.replace(ACTIONS, "actions: [approve, review, decline]"))
    rewrite(place, lambda text: re.sub(r"action: step_up", "action: decline", text))
    rewrite(place, lambda text: text.replace("  categories:  ", REVIEW + "  categories:  ", 1))
    pq.write_table(payments.drop_columns(["event_time"]), place / "labelled.parquet")
    code, _, err = gateway("thresholds", *WITH)
    assert code == ExitCode.USAGE
    assert "--per-hour" in err


# Scores of other forms than P(fraud).


def model_of(form: str) -> bytes:
    """Return the base product's logistic model with its score in another form."""
    model = onnx.load_from_string(catalogue.logistic_model())
    if form == "P(genuine)":
        return bytes(model.SerializeToString())
    graph = model.graph
    del graph.output[:]
    if form == "percent":
        hundred = onnx.numpy_helper.from_array(np.array([100.0], dtype=np.float32), "hundred")
        graph.initializer.append(hundred)
        graph.node.append(onnx.helper.make_node("Mul", ["p", "hundred"], ["score"]))
    else:
        graph.node.append(onnx.helper.make_node("Identity", ["z"], ["score"]))
    score = onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, [None, 1])
    graph.output.append(score)
    return bytes(model.SerializeToString())


FORMS = {
    "P(genuine)": {"output": "probabilities[0]", "scale": [1, 0]},
    "percent": {"output": "score", "scale": [0, 100]},
    "margin": {"output": "score", "calibration": {"kind": "logistic", "a": 1, "b": 0}},
}


@pytest.mark.parametrize("form", FORMS)
def test_scores_of_any_form_are_calibrated(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The odds of fraud are a third of what the model says: its map says so afterwards."""
    test_scaffold.tried_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    changes = {f"models__champion__{key}": value for key, value in FORMS[form].items()}
    catalogue.write_folder(tmp_path / "test", model_of(form), **changes)
    chance = np.random.default_rng(1)
    amount = np.round(np.minimum(chance.lognormal(4, 1, 6000), 2000), 2)
    ratio, mode = chance.exponential(1.0, 6000), chance.integers(0, 3, 6000)
    z = catalogue.BIAS + np.stack((amount, ratio, mode), axis=1) @ catalogue.WEIGHTS
    fraud = chance.random(6000) < 1 / (1 + np.exp(-(z - np.log(3))))
    words = np.array(["chip", "swipe", "keyed"])[mode]
    table = {"amount": amount, "ratio": ratio, "entry_mode": words, "is_fraud": fraud}
    pq.write_table(pa.table(table), tmp_path / "labelled.parquet")
    command = ["calibrate", "test", "--data", "labelled.parquet", "--json"]
    assert run([*command, "--write"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["chosen"] == ("logistic" if form == "margin" else "platt")
    assert told["product_yaml"]["written"]["generation"] == 4
    path = told["product_yaml"]["set"]["calibration"]["path"]
    fitted = json.loads((tmp_path / "test" / path).read_text())
    assert fitted["a"] == pytest.approx(1, abs=0.15)
    assert fitted["b"] == pytest.approx(-np.log(3), abs=0.35)
    assert run(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["product_yaml"] is None, "nothing is left to mend"
    assert again["maps"][0]["observed_over_expected"]["value"] == pytest.approx(1, abs=0.01)
