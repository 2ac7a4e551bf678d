"""What each action is expected to cost, as a line in p.

One transaction of amount `a`, in a category with harm multiplier κ, has

    c_FN = λ·a + f                    a fraud that was let through
    c_FP = μ·(1−q)·a + κ·h            a genuine customer who was turned away
    approve   p·c_FN
    decline   p·c_TP + (1−p)·c_FP
    step up   c + p·π_F·(1−σ)·c_FN + (1−p)·[(1−π_G)·c_FP + π_G·κ·w]
    review    c + η + p·(1−s_F)·c_FN + (1−p)·[(1−s_G)·c_FP + s_G·κ·u·T]

(decisioning notes, section 2; Elkan 2001, Bahnsen 2014), so cost = α + β·p, where α and β
are linear in the amount: four constants an action and category say everything.

η is review's shadow price: what a case is worth to the other cases that the analysts could have
taken instead. It is a constant of the generation, 0 where they have time left.

With `review.meanwhile: approve` the payment is authorised at once and the analyst
decides before it is captured: nobody waits, so the hold term u·T is 0 and the rest stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.product import Action, Costs


@dataclass(frozen=True, slots=True)
class CostLine:
    """cost(p, a) = (alpha + alpha_amount·a) + (beta + beta_amount·a)·p, in minor units."""

    action: Action
    alpha: float
    alpha_amount: float
    beta: float
    beta_amount: float

    def at(self, amount_minor: float) -> tuple[float, float]:
        """Return (α, β) for one amount, in minor units."""
        alpha = self.alpha + self.alpha_amount * amount_minor
        return alpha, self.beta + self.beta_amount * amount_minor

    def cost(self, probability: float, amount_minor: float) -> float:
        """Return the expected cost in minor units."""
        alpha, beta = self.at(amount_minor)
        return alpha + beta * probability


def cost_line(action: Action, costs: Costs, *, harm: float, minor_per_major: int) -> CostLine:
    """Return the line of one action for categories whose harm multiplier is `harm` (κ ≥ 1)."""
    unit = float(minor_per_major)
    fn, fp = costs.false_negative, costs.false_positive
    # (constant, per minor unit of amount)
    c_fn = (fn.fee * unit, fn.loss_rate)
    c_fp = (harm * fp.goodwill * unit, fp.margin * (1.0 - fp.retained))
    match action:
        case Action.APPROVE:
            genuine, fraud = (0.0, 0.0), c_fn
        case Action.DECLINE:
            genuine, fraud = c_fp, (costs.decline_of_fraud * unit, 0.0)
        case Action.STEP_UP:
            step = costs.step_up
            assert step is not None, "parse refuses an action without its costs"
            fail, hit = 1.0 - step.genuine_pass, step.fraud_pass * (1.0 - step.liability_shift)
            friction = step.genuine_pass * harm * step.friction * unit
            fee = step.fee * unit
            genuine = (fee + fail * c_fp[0] + friction, fail * c_fp[1])
            fraud = (fee + hit * c_fn[0], hit * c_fn[1])
        case Action.REVIEW:
            review = costs.review
            assert review is not None, "parse refuses an action without its costs"
            fail, hit = 1.0 - review.specificity, 1.0 - review.sensitivity
            held = 0.0
            if review.meanwhile == "hold":
                held = harm * review.hold.per_hour * review.hold.hours * unit
            fee = (review.fee + (review.shadow_price or 0.0)) * unit
            genuine = (fee + fail * c_fp[0] + review.specificity * held, fail * c_fp[1])
            fraud = (fee + hit * c_fn[0], hit * c_fn[1])
    return CostLine(
        action=action,
        alpha=genuine[0],
        alpha_amount=genuine[1],
        beta=fraud[0] - genuine[0],
        beta_amount=fraud[1] - genuine[1],
    )
