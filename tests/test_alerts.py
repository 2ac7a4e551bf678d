"""Rules from promises: valid for the real Prometheus, and they fire when a promise is broken."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import catalogue
import pytest
from prometheus_server import PROMTOOL, needs_promtool

from gateway.cli.main import run
from gateway.errors import ExitCode
from gateway.sidecar.metrics.alerts import BURNS, as_yaml, grown, rules_of

PROMISES = [
    {
        "id": "in-time",
        "says": 'An answer "before" the terminal gives up.',
        "sli": "decided_within_budget",
        "objective": 0.9999,
        "window": "28d",
    },
    {
        "id": "always-on",
        "says": "We watch.",
        "sli": "scored_in_path",
        "objective": 0.999,
        "window": "28d",
    },
    {"id": "never", "says": "x", "sli": "decided_within_budget", "objective": 1, "window": "28d"},
    {
        "id": "zero",
        "says": "You never pay.",
        "sli": "customer_loss",
        "objective": 0,
        "window": "90d",
    },
]


def product(**changes: object):
    return catalogue.product(promises=PROMISES, **changes)


def test_each_promise_that_can_be_measured_has_its_rules_and_the_others_are_named() -> None:
    rules, unmeasured = rules_of([product()])
    (own, common) = rules["groups"]
    by_promise = [rule["labels"]["promise"] for rule in own["rules"]]
    assert by_promise.count("in-time") == by_promise.count("always-on") == len(BURNS)
    assert by_promise.count("never") == 1
    assert [one.promise for one in unmeasured] == ["zero"]
    assert common["rules"]
    assert "# test: zero (customer_loss) needs labels" in as_yaml(rules, unmeasured)


def test_a_window_burns_the_share_of_the_budget_that_it_says() -> None:
    """At the limit's rate, the long window uses exactly its share of the 28 days' budget."""
    rules, _ = rules_of([product()])
    for rule in rules["groups"][0]["rules"]:
        if "window" not in rule["labels"]:
            continue
        share, hours = next(
            (share, hours)
            for _, share, window, hours, _ in BURNS
            if window == rule["labels"]["window"]
        )
        limits = set(re.findall(r" > (\S+) \* (\S+?)(?: and |$)", rule["expr"]))
        ((factor, budget),) = ((float(first), float(second)) for first, second in limits)
        assert factor * hours / (28 * 24) == pytest.approx(share, rel=1e-5)
        promised = {"in-time": 0.9999, "always-on": 0.999}[rule["labels"]["promise"]]
        assert budget == pytest.approx(1 - promised, rel=1e-5)


@needs_promtool
def test_prometheus_itself_takes_the_rules(tmp_path: Path) -> None:
    folder = catalogue.write_folder(tmp_path / "test", promises=PROMISES)
    path = tmp_path / "rules.yml"
    assert run(["alerts", str(folder), "--out", str(path)]) == ExitCode.OK
    checked = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(path)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout


@needs_promtool
def test_an_alert_fires_when_its_promise_burns_and_not_before(tmp_path: Path) -> None:
    """By Prometheus's own unit tests: 1 % late for an hour pages, one in 200,000 does not."""
    rules, unmeasured = rules_of([catalogue.product(promises=PROMISES[:1])])
    (tmp_path / "rules.yml").write_text(as_yaml(rules, unmeasured))
    calm = {"late": "0+0x180", "decided": "0+60000x180"}
    storm = {"late": "0+600x180", "decided": "0+60000x180"}

    def test_of(series: dict[str, str], firing: bool) -> dict[str, object]:
        own = {"product": "test", "promise": "in-time", "owner": "o"}
        expected = [
            {
                "exp_labels": {**own, "severity": severity, "window": rule["labels"]["window"]},
                "exp_annotations": rule["annotations"],
            }
            for rule in rules["groups"][0]["rules"]
            for severity in (rule["labels"]["severity"],)
        ]
        return {
            "interval": "1m",
            "input_series": [
                {"series": 'gateway_late_total{product="test"}', "values": series["late"]},
                {"series": 'gateway_decisions_total{product="test"}', "values": series["decided"]},
            ],
            "alert_rule_test": [
                {
                    "eval_time": "90m",
                    "alertname": "GatewayErrorBudgetBurns",
                    "exp_alerts": expected if firing else [],
                }
            ],
        }

    tests = {"rule_files": ["rules.yml"], "tests": [test_of(calm, False), test_of(storm, True)]}
    (tmp_path / "tests.yml").write_text(json.dumps(tests))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def written(folder: Path, alert: str, labels: dict[str, str]) -> list[object]:
    """Write the rules; return what promtool is to expect where one of them fires."""
    rules, unmeasured = rules_of([product()])
    (folder / "rules.yml").write_text(as_yaml(rules, unmeasured))
    (rule,) = (one for one in rules["groups"][-1]["rules"] if one["alert"] == alert)
    summary = rule["annotations"]["summary"]
    for name, value in labels.items():
        summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
    return [{"exp_labels": {**rule["labels"], **labels}, "exp_annotations": {"summary": summary}}]


VERDICTS = "gateway_evaluation_verdicts"
MISSED = {"product": "t", "metric": "zero"}
OF = ",".join(f'{name}="{value}"' for name, value in MISSED.items())
JUDGED = "gateway_hypothesis_verdict"
CLAIMED = {"product": "t", "hypothesis": "better"}
CLAIM = ",".join(f'{name}="{value}"' for name, value in CLAIMED.items())
LEFT = 'gateway_error_budget_left_ratio{product="t",promise="zero"}'
AGE = "gateway_evaluation_age_seconds"
EVERY = {"gateway_evaluation_interval_seconds": "900x180"}


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "series", "labels"),
    [
        (
            "GatewayGoalMissed",
            {f'{VERDICTS}{{{OF},section="goals",verdict="missed"}}': "1"},
            MISSED,
        ),
        (
            "GatewayGoalMissed",
            {f'{VERDICTS}{{{OF},section="goals",verdict="undecided"}}': "1"},
            None,
        ),
        ("GatewayGoalMissed", {f'{VERDICTS}{{{OF},section="money",verdict="missed"}}': "1"}, None),
        ("GatewayErrorBudgetUsedUp", {LEFT: "0"}, {"product": "t", "promise": "zero"}),
        ("GatewayErrorBudgetUsedUp", {LEFT: "-2.5"}, {"product": "t", "promise": "zero"}),
        ("GatewayErrorBudgetUsedUp", {LEFT: "0.01"}, None),
        (
            "GatewayFairnessBreach",
            {f'{VERDICTS}{{{OF},section="fairness",verdict="breach"}}': "2"},
            MISSED,
        ),
        (
            "GatewayFairnessBreach",
            {f'{VERDICTS}{{{OF},section="calibration",verdict="breach"}}': "2"},
            None,
        ),
        (
            "GatewayHypothesisInvalid",
            {f'{JUDGED}{{{CLAIM},verdict="invalid",because="sample_ratio_mismatch"}}': "1"},
            {**CLAIMED, "because": "sample_ratio_mismatch"},
        ),
        (
            "GatewayHypothesisInvalid",
            {f'{JUDGED}{{{CLAIM},verdict="stop",because="goal_not_reached"}}': "1"},
            None,
        ),
        (
            "GatewayGuardrailBroken",
            {f'{JUDGED}{{{CLAIM},verdict="stop",because="guardrail_broken"}}': "1"},
            CLAIMED,
        ),
        (
            "GatewayGuardrailBroken",
            {f'{JUDGED}{{{CLAIM},verdict="stop",because="goal_not_reached"}}': "1"},
            None,
        ),
        ("GatewayEvaluationOld", {**EVERY, AGE: "0+60x180"}, {}),
        (
            "GatewayEvaluationOld",
            {**EVERY, AGE: "3500x180", "gateway_evaluation_failed": "1"},
            None,
        ),
        ("GatewayEvaluationOld", {**EVERY, "gateway_evaluation_failed": "1"}, {}),
        ("GatewayEvaluationOld", {**EVERY, "gateway_evaluation_failed": "0"}, None),
        ("GatewayEvaluationOld", {}, None),
    ],
)
def test_what_was_evaluated_last_fires_and_what_is_undecided_does_not(
    tmp_path: Path, alert: str, series: dict[str, str], labels: dict[str, str] | None
) -> None:
    """An evaluation of a sidecar that makes one every 900 s; nothing fires where it makes none."""
    fires = written(tmp_path, alert, labels or {})
    values = {name: one if "x" in one else f"{one}x180" for name, one in series.items()}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": one} for name, one in values.items()],
        "alert_rule_test": [
            {
                "eval_time": "2h",
                "alertname": alert,
                "exp_alerts": [] if labels is None else fires,
            }
        ],
    }
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [test]}))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "series", "labels"),
    [
        ("GatewayRecordsLost", 'gateway_lost_records_total{reason="damage"}', {"reason": "damage"}),
        ("GatewayChangeRefused", 'gateway_rejected_changes_total{product="t"}', {"product": "t"}),
        ("GatewayShedsCalls", "gateway_shed_total", {}),
    ],
)
def test_a_counter_that_appears_with_its_first_event_fires_and_an_old_one_does_not(
    tmp_path: Path, alert: str, series: str, labels: dict[str, str]
) -> None:
    """Prometheus itself sees no growth in a series that was not there before."""
    fires = written(tmp_path, alert, labels)

    def test_of(values: str, expected: list[object]) -> dict[str, object]:
        return {
            "interval": "1m",
            "input_series": [{"series": series, "values": values}],
            "alert_rule_test": [{"eval_time": "2h", "alertname": alert, "exp_alerts": expected}],
        }

    appears, old, calm = "_x118 7x9", "7x130", "0x130"
    tests = [test_of(appears, fires), test_of(old, []), test_of(calm, [])]
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_what_a_window_has_grown_by_is_counted_once_whatever_began_in_it(tmp_path: Path) -> None:
    """Each series beside what a reader of its samples would say."""
    series = {
        "old": ("100+1x90", 60.0),
        "appeared": ("_x50 40+0x40", 40.0),
        "appeared and grew": ("_x50 40+1x40", 80.0),
        "appeared and began again": ("_x40 0+5x30 0+1x20", 169.0),
        "began again": ("100+1x79 0+1x10", 59.0),
        "calm": ("7x90", 0.0),
        "young": ("0+1x90", 60.0),
    }
    tests = {
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f'c{{of="{name}"}}', "values": values}
                    for name, (values, _) in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f"round(sum by (of) ({grown('c', '1h')}), 10)",
                        "eval_time": "90m",
                        "exp_samples": [
                            {"labels": f'{{of="{name}"}}', "value": round(value, -1)}
                            for name, (_, value) in series.items()
                        ],
                    }
                ],
            }
        ]
    }
    (tmp_path / "tests.yml").write_text(json.dumps(tests))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_input_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["alerts"]) == ExitCode.USAGE
    assert "no product folder is named" in capsys.readouterr().err
    folder = catalogue.write_folder(tmp_path / "test")
    assert run(["alerts", str(folder), "--out", str(tmp_path)]) == ExitCode.USAGE
    assert "cannot be written" in capsys.readouterr().err
