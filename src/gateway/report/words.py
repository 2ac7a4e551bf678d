"""What metrics, reasons and numbers are called."""

from __future__ import annotations

from math import floor, log10

TITLES = {
    "approval_rate": "payments that went through",
    "fraud_loss": "fraud that was let through",
    "fraud_loss_bps": "fraud let through, of turnover",
    "fraud_rate": "payments that were fraud, of those that went through",
    "false_positive_rate": "genuine payments declined",
    "insult_rate": "genuine payments declined, of all payments",
    "value_detection_rate": "money of fraud that was stopped",
    "savings": "saved, of the cheaper of approving and declining everything",
    "step_up_success_rate": "customers who proved themselves when asked",
    "review_load": "payments for analysts",
    "observed_over_expected": "frauds that came, over frauds expected",
    "observed_over_expected_near_thresholds": "frauds over expected, near thresholds",
    "miscalibration_cost": "lost because probabilities do not hold",
    "fraud_rate_at_probability": "fraud that came, by the probability that was given",
}

COMPARED = {
    "false_positive_rate_ratio": "genuine payments declined in error",
    "true_positive_rate_ratio": "frauds caught",
    "approval_rate_ratio": "payments that went through",
    "observed_expected_ratio": "frauds that came, over frauds expected",
    "decline_rate_ratio": "payments declined, frauds among them",
    "step_up_rate_ratio": "payments asked for proof",
}
"""What groups are compared by."""

AS_OFTEN = {
    "false_positive_rate_ratio": ("Genuine payments of ", " are declined in error "),
    "true_positive_rate_ratio": ("Frauds on ", " are caught "),
    "approval_rate_ratio": ("Payments of ", " go through "),
    "observed_expected_ratio": ("Frauds on ", " come, over what is expected, "),
    "decline_rate_ratio": ("Payments of ", " are declined "),
    "step_up_rate_ratio": ("Customers of ", " are asked for proof "),
}
"""The same around a group's name, before `9.75 times as often as those of …`."""

BASES = {
    "all": "of all decisions",
    "observed": "labels so far",
    "completed": "completed for what is still to come",
    "mature": "mature labels",
    "explored": "from what exploration let through",
    "model_implied": "as the model believes",
    "bounds": "whatever the declined were",
}

WHY = {
    "no_observations": "nothing was counted",
    "no_events": "none came",
    "no_events_in_reference": "the reference has none to compare with",
    "one_cluster": "too few customers",
    "too_few_explored": "too few declines were let through to see",
    "not_reached": "exploration does not reach some declines",
    "not_calibrated": "the model's probabilities do not hold",
    "bounds_only": "only a range is known",
    "too_young": "more may still be reported",
    "too_few": "too few payments",
    "interval_across": "the interval has both sides of the target",
    "many_compared": "as many as were compared, one looks so by chance",
}

STATES = {
    "mature": "mature",
    "provisional": "known early",
    "pending": "still waiting",
    "reversed": "taken back",
    "without_label_for_ever": "declined, never known",
}
"""States of a payment's label."""


_HUNDREDTHS = ("share", "points")
"""Units that are said as hundredths; differences of shares are points."""


def said(value: float, unit: str, how: str = "") -> str:
    """Say a number in its unit, with enough digits to tell it from 0 and from all.

    `unit`: as in the JSON, `n` for a count. `how`: words of `exact` (with ten digits), `bare`
    (without its unit) and `times` (with that word instead).
    """
    if unit == "us" and abs(value) >= 1000:
        return said(value / 1000, "ms", how)
    number = f"{100 * value if unit in _HUNDREDTHS else value:.10g}" if "exact" in how else ""
    suffix = "" if "bare" in how else " times" if "times" in how else _SUFFIX.get(unit, f" {unit}")
    return (number or _rounded(value, unit)) + suffix


UPWARDS = frozenset({"approval_rate", "value_detection_rate", "savings", "step_up_success_rate"})
"""Metrics that are the better the greater they are."""

_SUFFIX = {"n": "", "psi": "", "points": " points", "share": " %", "ratio": " ×", "us": " µs"}


def _rounded(value: float, unit: str) -> str:
    match unit:
        case "n":
            # A count may be a sum of weights, such as expected frauds.
            return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
        case "share" | "points":
            return f"{100 * value:.{_decimals(value)}f}"
    return _digits(value)


def _decimals(share: float) -> int:
    """Return so many decimals of a percentage that two digits differ from 0 and 100."""
    away = 100 * min(abs(share), abs(1.0 - share))
    if away < _LEAST:
        return 0
    return min(max(1, 1 - floor(log10(away))), 8)


_LEAST = 1e-9
"""What is less is written with its power of ten."""


def _digits(value: float) -> str:
    if value == 0.0:
        return "0"
    if abs(value) < _LEAST:
        return f"{value:.2g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - floor(log10(abs(value))))}f}"


def spoken(name: str) -> str:
    """Return a name of the JSON in words."""
    return name.replace("_", " ")
