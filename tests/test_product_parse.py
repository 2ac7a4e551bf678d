"""A product.yaml becomes one frozen product, or every violation with its line and a hint."""

from __future__ import annotations

import math
from datetime import date, timedelta
from pathlib import Path

import pytest

from gateway.errors import ProductError, Violation
from gateway.product import Action, Output, StandIn, parse

DESIGN = (Path(__file__).parent / "products" / "design.yaml").read_text()
PATH = "models/card/product.yaml"


def violations(text: str) -> tuple[Violation, ...]:
    with pytest.raises(ProductError) as caught:
        parse(text, PATH)
    return caught.value.violations


def changed(old: str, new: str) -> str:
    assert DESIGN.count(old) >= 1, f"the example has no {old!r}"
    return DESIGN.replace(old, new, 1)


def line_of(text: str, part: str) -> int:
    """The line of the first occurrence of `part`: the oracle for violations' lines."""
    return 1 + text[: text.index(part)].count("\n")


def test_the_example_of_the_design_parses_to_what_it_says() -> None:
    product = parse(DESIGN, PATH)

    assert (product.name, product.generation) == ("card-not-present", 7)
    assert product.latency.budget_us == 25_000
    assert product.actions == (Action.APPROVE, Action.STEP_UP, Action.DECLINE)
    assert product.promises[3].window == timedelta(days=90)
    assert product.models.champion.name == "champion"
    assert product.models.champion.version == "v7"
    assert product.models.champion.output == Output("probabilities", 1)
    assert product.models.challengers[1].share == 0.05
    assert product.models.challengers[1].path == "v9.onnx"
    assert product.features[0].max == 1e6
    assert product.features[1].unknown == "keyed"
    assert product.costs.categories["fuel"].mcc == ("5541", "5542")
    assert product.calendar[0].starts == date(2026, 11, 27)
    assert product.calendar[0].ends == date(2026, 11, 30)
    assert set(product.stand_in.by_reason()) == set(StandIn) - {StandIn.NONE}


BROKEN = {
    "a rate in percent": (
        ("loss_rate: 1.0", "loss_rate: 10"),
        "false_negative:",
        "costs.false_negative.loss_rate is 10, must be 0..1. Did you mean 0.10?",
    ),
    "a percentage out of range": (
        ("share: 5%", "share: 500%"),
        "challengers:",
        "models.challengers[1].share is '500%', must be 0..1.",
    ),
    "an unknown key": (
        ("budget_ms: 25", "budget_ms: 25\n  contact_witin_s: 60"),
        "contact_witin_s",
        "latency.contact_witin_s is no known key. Did you mean contact_within_s?",
    ),
    "an unknown key at the top": (
        ("on_record_failure: continue", "on_record_failur: continue"),
        "on_record_failur:",
        "on_record_failur is no known key. Did you mean on_record_failure?",
    ),
    "a name of the program, not of the file": (
        ("from: 2026-11-27", "starts: 2026-11-27"),
        "black-friday",
        "calendar[0].from is missing. Add it: The first day.",
    ),
    "a missing key points at its parent": (
        ("    budget_ms: 25\n".removeprefix("  "), ""),
        "latency:",
        "latency.budget_ms is missing. Add it: "
        "Milliseconds from a call's arrival to its answer, whoever gives it.",
    ),
    "a missing reason": (
        ("  model_error:       [{action: step_up}]\n", ""),
        "stand_in:",
        "stand_in.model_error is missing. Add it: "
        "The model failed, or gave what is no probability.",
    ),
    "a missing section": (
        ("actions: [approve, step_up, decline]", "#"),
        "# The example",
        "actions is missing. Add it: "
        "What can be answered; stand-ins choose from these too.",
    ),
    "text for a number": (
        ("budget_ms: 25", "budget_ms: 25ms"),
        "budget_ms",
        "latency.budget_ms is '25ms', must be 0.1..60000. Write 25, without quotes or a unit.",
    ),
    "a boolean for a number": (
        ("goodwill: 5", "goodwill: true"),
        "goodwill",
        "costs.false_positive.goodwill is true, must be 0..1e+12.",
    ),
    "infinity": (
        ("goodwill: 5", "goodwill: .inf"),
        "goodwill",
        "costs.false_positive.goodwill is inf, must be 0..1e+12.",
    ),
    "a number for text": (
        ("values: [chip, swipe, keyed]", "values: [chip, swipe, keyed, 5]"),
        "values",
        "features[1].values[3] is 5, must be text of up to 100 characters. Put it in quotes.",
    ),
    "an unknown action": (
        ("model_error:       [{action: step_up}]", "model_error:       [{action: stepup}]"),
        "model_error:",
        "stand_in.model_error[0].action is 'stepup', must be one of approve, step_up, review, "
        "decline. Did you mean step_up?",
    ),
    "an action that is not available": (
        ("model_error:       [{action: step_up}]", "model_error:       [{action: review}]"),
        "model_error:",
        "stand_in.model_error[0].action is review, must be one of the product's actions: "
        "approve, step_up, decline.",
    ),
    "bands that do not rise": (
        ("deadline:          [{up_to: 50, action: approve},",
         "deadline:          [{up_to: 50, action: approve}, {up_to: 50, action: decline},"),
        "deadline:",
        "stand_in.deadline[1].up_to is 50, must be above 50: bands rise.",
    ),
    "bands without an end": (
        ("deadline:          [{up_to: 50, action: approve}, {action: step_up}]",
         "deadline:          [{up_to: 50, action: approve}]"),
        "deadline:",
        "stand_in.deadline[0].up_to leaves larger amounts without an answer. "
        "End with a band without it.",
    ),
    "bands behind the last": (
        ("model_error:       [{action: step_up}]",
         "model_error:       [{action: step_up}, {action: approve}]"),
        "model_error:",
        "stand_in.model_error[1] is never reached: band 0 answers before it.",
    ),
    "an unknown category in a band": (
        ("model_error:       [", "model_error:       [{categories: [fule], action: approve}, "),
        "model_error:",
        "stand_in.model_error[0].categories[0] is 'fule', must be one of costs.categories. "
        "Did you mean fuel?",
    ),
    "an unknown currency": (
        ("currency: USD", "currency: usd"),
        "currency:",
        "costs.currency is 'usd', must be an active ISO 4217 code. Did you mean USD?",
    ),
    "a merchant category twice": (
        ("mcc: [5411]", "mcc: [5411, 5912]"),
        "grocery:",
        "costs.categories.grocery.mcc[1] is 5912, which stands in pharmacy already. "
        "Keep it in one category.",
    ),
    "a step-up without its costs": (
        ("  step_up: {fee", "  # step_up: {fee"),
        "costs:",
        "costs.step_up is missing: actions has step_up. "
        "Add its costs, or take step_up out of actions.",
    ),
    "approve is no action": (
        ("actions: [approve, step_up, decline]", "actions: [step_up, decline]"),
        "actions:",
        "actions has no approve. Add approve: nothing else costs nothing.",
    ),
    "false positives that cost nothing": (
        ("{margin: 0.02, retained: 0.0, goodwill: 5}", "{margin: 0.02, retained: 1, goodwill: 0}"),
        "false_positive:",
        "costs.false_positive costs nothing: declining everybody would be best. "
        "Set goodwill, or margin with retained below 1, above 0.",
    ),
    "false negatives that cost nothing": (
        ("{loss_rate: 1.0, fee: 25}", "{loss_rate: 0, fee: 0}"),
        "false_negative:",
        "costs.false_negative leaves a missed fraud no dearer than a declined one: approving "
        "everybody would be best. Raise false_negative.loss_rate or fee above decline_of_fraud.",
    ),
    "a declined fraud dearer than a missed one": (
        ("{loss_rate: 1.0, fee: 25}\n  false_positive: {margin: 0.02, retained: 0.0, goodwill: 5}\n"
         "  decline_of_fraud: 0",
         "{loss_rate: 0, fee: 25}\n  false_positive: {margin: 0.02, goodwill: 5}\n"
         "  decline_of_fraud: 30"),
        "decline_of_fraud: 30",
        "costs.decline_of_fraud leaves a missed fraud no dearer than a declined one: approving "
        "everybody would be best. Raise false_negative.loss_rate or fee above decline_of_fraud.",
    ),
    "a held payment without a price": (
        (", hold: {per_hour: 0.20, hours: 4}", ""),
        "review:",
        "costs.review.hold is missing. Price the wait: {per_hour: 0.20, hours: 4}.",
    ),
    "a contact without its time": (
        ("  contact_within_s: 60", "  #"),
        "reach-you",
        "promises[2].sli is contacted_within, but latency.contact_within_s is missing. "
        "Add latency.contact_within_s, such as 60.",
    ),
    "an objective in percent": (
        ("objective: 0.9999", "objective: 99.99"),
        "in-time",
        "promises[0].objective is 99.99, must be 0..1. Did you mean 0.9999?",
    ),
    "a closed set": (
        ("sli: scored_in_path", "sli: scored_in_pth"),
        "always-on",
        "promises[1].sli is 'scored_in_pth', must be one of decided_within_budget, "
        "scored_in_path, contacted_within, customer_loss. Did you mean scored_in_path?",
    ),
    "a duration without a unit": (
        ("window: 28d", "window: 28"),
        "in-time",
        "promises[0].window is 28, must be a duration such as 28d, 12h or 90s, up to 3660d. "
        "Did you mean 28d?",
    ),
    "a day that is not": (
        ("to: 2026-11-30", "to: 2026-11-31"),
        "black-friday",
        "calendar[0].to is '2026-11-31', must be a date such as 2026-11-27. "
        "Day is out of range for month.",
    ),
    "an event that ends before it starts": (
        ("to: 2026-11-30", "to: 2026-11-01"),
        "black-friday",
        "calendar[0].from is 2026-11-27, must not be after to, 2026-11-01.",
    ),
    "a goal with two bounds": (
        ("at_most: 8", "at_most: 8, at_least: 1"),
        "fraud_loss_bps",
        "goals[0] has both at_most and at_least. Give exactly one.",
    ),
    "a goal in percent": (
        ("at_most: 0.005", "at_most: 5"),
        "metric: false_positive_rate,",
        "goals[1].at_most is 5, must be 0..1. Did you mean 0.05?",
    ),
    "a percentage of what is no share": (
        ("at_most: 8", "at_most: 8%"),
        "metric: fraud_loss_bps",
        "goals[0].at_most is a percentage, but fraud_loss_bps is no share.",
    ),
    "a loss in percent": (
        ("objective: 0,", "objective: 1%,"),
        "zero-liability",
        "promises[3].objective is a percentage, must be an amount in major units.",
    ),
    "a limit the wrong way round": (
        ("limit: [0.8, 1.25]", "limit: [1.25, 0.8]"),
        "limit:",
        "fairness.limit is a list, must be two numbers [low, high] with 0 < low < 1 < high. "
        "Did you mean [0.8, 1.25]?",
    ),
    "a group attribute as a feature": (
        ("attributes: {age_band:", "attributes: {entry_mode:"),
        "- {name: entry_mode",
        "features[1].name is 'entry_mode', a group attribute of fairness.attributes. "
        "Groups are compared, never fed to the model: take it out of one of the two.",
    ),
    "an unknown segment": (
        ("watch: [channel, entry_mode]", "watch: [chanel, entry_mode]"),
        "watch:",
        "watch[0] is 'chanel', must be a feature or a request's field. Did you mean channel?",
    ),
    "a word for a list": (
        ("watch: [channel, entry_mode]", "watch: channel"),
        "watch:",
        "watch is 'channel', must be a list. Write [channel].",
    ),
    "a word for a mapping": (
        ("owners: {science: ada, engineering: grace, product: joan, operations: \"+1 555 0100\"}",
         "owners: ada"),
        "owners:",
        "owners is 'ada', must be a mapping. Its keys: science, engineering, product, operations.",
    ),
    "an empty list": (
        ("actions: [approve, step_up, decline]", "actions: []"),
        "actions:",
        "actions is an empty list, must have at least one item.",
    ),
    "a feature twice": (
        ("name: entry_mode", "name: amount"),
        "- {name: amount, type: category",
        "features[1].name is 'amount', as features[0] already. Keep one, or rename it.",
    ),
    "a default outside the range": (
        ("missing: refuse", "missing: -1"),
        "- {name: amount",
        "features[0].missing is -1, outside min and max.",
    ),
    "an unknown value for unknown": (
        ("unknown: keyed", "unknown: key"),
        "- {name: entry_mode",
        "features[1].unknown is 'key', must be refuse, unseen or one of values. "
        "Did you mean keyed?",
    ),
    "a range for a category": (
        ("unknown: keyed", "unknown: keyed, min: 0"),
        "- {name: entry_mode",
        "features[1].min does not go with type category. Leave it out.",
    ),
    "a digest that is none": (
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "9f86"),
        "champion:",
        "models.champion.sha256 is '9f86', must be 64 lower-case hex digits. "
        "`sha256sum FILE` or `gateway check` gives it.",
    ),
    "a file outside the folder": (
        ("path: v7.onnx", "path: ../other/v7.onnx"),
        "champion:",
        "models.champion.path is '../other/v7.onnx', must be a file inside the product's own "
        "folder. Put the file into the folder and write v7.onnx.",
    ),
    "a map without its parameters": (
        ("{kind: isotonic, path: v7.calibration.json}", "{kind: platt, a: 1}"),
        "champion:",
        "models.champion.calibration.b is missing. A platt map needs it, or a path.",
    ),
    "a canary without its share": (
        (", share: 5%", ""),
        "challengers:",
        "models.challengers[1].share is missing. A canary decides a share, such as 5%.",
    ),
    "a scale of one number": (
        ("path: v7.onnx,", "path: v7.onnx, scale: [100, 100],"),
        "champion:",
        "models.champion.scale is a list, must be two different numbers [genuine, fraud].",
    ),
    "a logistic map without a slope": (
        ("{kind: isotonic, path: v7.calibration.json}", "{kind: logistic, a: 0, b: 1}"),
        "champion:",
        "models.champion.calibration.a is 0: every score would mean the same. "
        "Below 0 where low is fraud.",
    ),
    "a pattern that takes forever": (
        ("generation: 7", "generation: 7\ntransaction_id: {pattern: '(a+)+b'}"),
        "transaction_id:",
        "transaction_id.pattern is '(a+)+b', must be a regular expression of up to 200 "
        "characters. No repeated groups, back references or look-arounds.",
    ),
    "a pattern with many repetitions": (
        ("generation: 7", "generation: 7\ntransaction_id: {pattern: '.*-.*-.*'}"),
        "transaction_id:",
        "transaction_id.pattern is '.*-.*-.*', must be a regular expression of up to 200 "
        "characters. At most 2 unbounded repetitions: write {1,32}.",
    ),
    "a pattern that is none": (
        ("generation: 7", "generation: 7\ntransaction_id: {pattern: '[a-'}"),
        "transaction_id:",
        "transaction_id.pattern is '[a-', must be a regular expression of up to 200 "
        "characters. Unterminated character set at position 0.",
    ),
    "more columns than a request carries": (
        ("unknown: keyed}", "unknown: keyed}\n  - {name: v, type: float, repeat: 10000}"),
        "features:",
        "features are 10002, must be 10000 or fewer.",
    ),
    "a name of a repeated feature": (
        ("unknown: keyed}", "unknown: keyed}\n  - {name: v.1, type: float}\n"
         "  - {name: v, type: float, repeat: 3}"),
        "- {name: v.1",
        "features[2].name is 'v.1', as one of a repeated feature.",
    ),
    "a category called unseen": (
        ("values: [chip, swipe, keyed]", "values: [chip, swipe, keyed, unseen]"),
        "- {name: entry_mode",
        "features[1].values[3] is 'unseen', which means something else in missing and unknown. "
        "Use another word.",
    ),
    "a key twice": (
        ("generation: 7", "generation: 7\ngeneration: 8"),
        "generation: 8",
        "generation is set twice, first on line 3. Keep one.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_said_with_its_line_and_what_to_try(name: str) -> None:
    (old, new), anchor, said = BROKEN[name]
    text = changed(old, new)

    found = violations(text)

    expected = f"{PATH}:{line_of(text, anchor)}: {said}"
    assert expected in [str(violation) for violation in found]


def test_every_broken_rule_is_reported_in_one_run() -> None:
    """Errors of schema hide neither each other nor the rules between other sections."""
    text = DESIGN
    edits = [
        ("window: 28d}\n  - {id: always-on", "window: soon}\n  - {id: always-on"),
        ("contact_within_s: 60", "contact_within: 60"),
        ("loss_rate: 1.0", "loss_rate: 10"),
        ("goodwill: 5", "goodwil: 5"),
        ("harm: 4", "harm: 0.5"),
        ("model_error:       [{action: step_up}]", "model_error:       [{action: review}]"),
        ("watch: [channel", "watch: [kanal"),
        ("attributes: {age_band:", "attributes: {entry_mode:"),
    ]
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)

    keys = [violation.key for violation in violations(text)]

    assert keys == [
        "promises[0].window",
        "latency.contact_within",
        "stand_in.model_error[0].action",
        "features[1].name",
        "costs.false_negative.loss_rate",
        "costs.false_positive.goodwil",
        "costs.false_positive.goodwill",
        "costs.categories.pharmacy.harm",
        "watch[0]",
    ]


def test_lines_of_block_style_are_those_of_the_keys() -> None:
    text = changed(
        "  - {name: amount, type: float, min: 0, max: 1e6, missing: refuse}",
        "\n".join(
            (
                "  # a comment",
                "  - name: amount",
                "    type: float",
                "",
                "    min:",
                "      zero",
                "    maks: 1",
                "  -",
                "    type: float",
            )
        ),
    )

    found = {violation.key: violation.line for violation in violations(text)}

    assert found == {
        "features[0].min": line_of(text, "    min:"),
        "features[0].maks": line_of(text, "    maks"),
        "features[1].name": line_of(text, "  -\n") + 1,
    }


OVERRIDE = "{{action: {}, at_least: {}, reason: r, approver: a, expires: 2026-12-01{}}}"


def overridden(*overrides: str) -> str:
    return DESIGN + "overrides:\n" + "".join(f"  - {override}\n" for override in overrides)


@pytest.mark.parametrize(
    ("overrides", "key", "problem"),
    [
        ([("approve", 0.1, "")], "overrides[0].action", "is approve, the least severe action."),
        (
            [("review", 0.1, "")],
            "overrides[0].action",
            "is review, must be one of the product's actions: approve, step_up, decline.",
        ),
        (
            [("decline", 0.1, ", category: foul")],
            "overrides[0].category",
            "is 'foul', must be one of costs.categories.",
        ),
        (
            [("decline", 0.1, ""), ("step_up", 0.2, ", category: fuel")],
            "overrides[0].at_least",
            "is 0.1, must not be below 0.2 of the less severe step_up.",
        ),
        (
            [("decline", 0.1, ""), ("decline", 0.2, ", category: fuel")],
            "overrides[1].action",
            "is decline, which overrides[0] sets for the same payments.",
        ),
    ],
)
def test_an_override_that_cannot_hold_is_refused(
    overrides: list[tuple[str, float, str]], key: str, problem: str
) -> None:
    text = overridden(*(OVERRIDE.format(*override) for override in overrides))

    assert (key, problem) in [(v.key, v.problem) for v in violations(text)]


def test_overrides_of_different_categories_do_not_meet() -> None:
    text = overridden(
        OVERRIDE.format("decline", 0.1, ", category: grocery"),
        OVERRIDE.format("step_up", 0.2, ", category: fuel"),
        OVERRIDE.format("decline", 0.3, ", category: fuel"),
    )

    assert len(parse(text, PATH).overrides) == 3


@pytest.mark.parametrize("key", ["reason", "approver", "expires"])
def test_an_override_needs_a_reason_an_approver_and_an_end(key: str) -> None:
    override = {"action": "decline", "at_least": "0.5", "reason": "r", "approver": "a"}
    override["expires"] = "2026-12-01"
    del override[key]
    text = overridden("{" + ", ".join(f"{k}: {v}" for k, v in override.items()) + "}")

    assert [v.key for v in violations(text)] == [f"overrides[0].{key}"]


def test_a_share_may_be_written_in_percent_where_a_share_is_meant() -> None:
    text = DESIGN.replace("objective: 0.9999", "objective: 99.99%")
    text = text.replace("at_most: 0.005", "at_most: 0.5 %").replace("retained: 0.0", "retained: 7%")

    product = parse(text, PATH)

    assert product.promises[0].objective == 0.9999
    assert product.goals[1].at_most == 0.005
    assert product.costs.false_positive.retained == 0.07


def test_missing_may_be_a_default_or_nan() -> None:
    text = changed("missing: refuse", "missing: nan").replace("unknown: keyed", "missing: chip")
    amount, entry_mode = parse(text, PATH).features

    assert isinstance(amount.missing, float)
    assert math.isnan(amount.missing)
    assert entry_mode.missing == "chip"


def test_merchant_categories_keep_their_leading_zeros() -> None:
    for spelling in ("0742", '"0742"'):
        product = parse(changed("mcc: [5411]", f"mcc: [{spelling}]"), PATH)
        assert product.costs.categories["grocery"].mcc == ("0742",)
