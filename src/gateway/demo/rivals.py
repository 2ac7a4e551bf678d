"""The rivals of the months' champions, each with what was believed of it before anything was known.

    knows-helpers  half of card-not-present's customers: it was trained in months in which relatives
                   buy for others, so that it turns fewer of them away. It is better, and ships.
    rule-of-thumb  half of card-present's: sure of fraud where somebody pays four times the usual at
                   a shop that is new to them, and of nothing else. It turns away many times as many
                   genuine customers, and lets twice the fraud through: it is stopped.

`train/rivals.py` makes both again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.demo.payment import CARD_NOT_PRESENT, CARD_PRESENT
from gateway.product.edit import content_of, with_challenger, with_key


@dataclass(frozen=True, slots=True)
class Rival:
    """A model that decides `share` of a product's customers, and what was believed of it.

    `believed`: a hypothesis as product.yaml declares it, without its arms.
    """

    name: str
    share: float
    believed: Mapping[str, Any]

    @property
    def file(self) -> str:
        """The model's file in the product's folder."""
        return f"{self.name}.onnx"


RIVALS = {
    CARD_NOT_PRESENT: Rival(
        "knows-helpers",
        0.5,
        {
            "id": "fewer-turned-away",
            "claim": "A model that has seen relatives buy for others turns fewer genuine customers "
            "away, and no fewer payments go through.",
            "metric": "false_positive_rate",
            "minimum_effect": -0.001,
            "guardrails": [{"metric": "approval_rate", "margin": 0.02}],
            "stop": {"min_days": 14, "max_days": 80},
        },
    ),
    CARD_PRESENT: Rival(
        "rule-of-thumb",
        0.5,
        {
            "id": "a-rule-will-do",
            "claim": "At the till a rule of thumb stops more fraud than the network, and turns "
            "hardly anybody more away.",
            "metric": "fraud_loss_bps",
            "minimum_effect": -10,
            "guardrails": [{"metric": "false_positive_rate", "margin": 0.0002}],
            "stop": {"min_days": 14, "max_days": 80},
        },
    ),
}
"""By product."""


def with_rival(text: str, rival: Rival, *, sha256: str) -> str:
    """Let a rival decide its share in a product.yaml, and declare what is believed of it.

    Raises:
        UsageError: the text cannot be read or changed.
    """
    champion = content_of(text)["models"]["champion"]["name"]
    arms = {champion: 1.0 - rival.share, rival.name: rival.share}
    canary = {"name": rival.name, "mode": "canary", "share": rival.share, "sha256": sha256}
    text = with_challenger(text, canary)
    return with_key(text, ("hypotheses",), [{**rival.believed, "arms": arms}])
