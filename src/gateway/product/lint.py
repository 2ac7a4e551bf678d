"""What a product.yaml may say, but hardly means: warnings, not violations."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.errors import Violation
from gateway.product.action import Action
from gateway.product.costs import Review, StepUp
from gateway.product.parse import locate
from gateway.product.product import Product
from gateway.product.section import Problem


def lint(product: Product) -> tuple[Violation, ...]:
    """Return the warnings for a product, in the order of its lines."""
    problems = (*_owners(product), *_actions(product), *_costs(product), *_models(product))
    return tuple(sorted(locate(product.source, problems)))


def _owners(product: Product) -> Iterator[Problem]:
    for role in type(product.owners).model_fields:
        if getattr(product.owners, role) is None:
            yield Problem(("owners", role), "is missing.", "Name who answers for it.")


def _actions(product: Product) -> Iterator[Problem]:
    if len(product.actions) == 1:
        yield Problem(("actions",), "has approve only: every payment is approved.")
    for action in (Action.STEP_UP, Action.REVIEW):
        name = action.spelling
        if getattr(product.costs, name) is not None and action not in product.actions:
            yield Problem(("costs", name), f"is never used: actions has no {name}.")
    if product.exploration is not None and Action.DECLINE not in product.actions:
        yield Problem(("exploration",), "is never used: actions has no decline.")


def _costs(product: Product) -> Iterator[Problem]:
    costs = product.costs
    if costs.decline_of_fraud > 0 and costs.false_negative.fee <= costs.decline_of_fraud:
        yield Problem(
            ("costs", "decline_of_fraud"),
            "is not below false_negative.fee: small payments are never declined.",
        )
    if costs.step_up is not None:
        yield from _step_up(costs.step_up)
    if costs.review is not None:
        yield from _review(costs.review)


def _step_up(step_up: StepUp) -> Iterator[Problem]:
    if step_up.fraud_pass >= step_up.genuine_pass:
        yield Problem(
            ("costs", "step_up", "fraud_pass"),
            f"is {step_up.fraud_pass:g}, not below genuine_pass, {step_up.genuine_pass:g}: "
            "a step-up stops customers rather than fraudsters.",
        )
    elif step_up.fraud_pass == 0:
        yield Problem(
            ("costs", "step_up", "fraud_pass"), "is 0: no fraudster ever passes?", "Measure it."
        )


def _review(review: Review) -> Iterator[Problem]:
    if review.sensitivity + review.specificity <= 1:
        yield Problem(
            ("costs", "review", "sensitivity"),
            "and specificity add up to 1 or less: the analyst is no better than a coin.",
        )


def _models(product: Product) -> Iterator[Problem]:
    for i, challenger in enumerate(product.models.challengers):
        if challenger.sha256 is None:
            yield Problem(
                ("models", "challengers", i, "sha256"),
                "is missing: another file under this name would go unnoticed.",
            )
