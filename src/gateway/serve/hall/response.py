"""DecideResponse, laid out by hand.

Building one with protobuf's own classes costs as much as running the model on its row;
everything but a few numbers of it is the same for every call of a generation. So the
constant fields are encoded once, by protobuf, and the others packed behind them with one
`struct` call: a message is the concatenation of its fields, in any order (protobuf's
encoding guide, "Last One Wins"). `benchmarks/encode.py` has the figures, and
`tests/test_response.py` holds that protobuf reads back what its own classes would write.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from math import isnan, log

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.decide import Decision, Flag
from gateway.model import Arm, Generation
from gateway.product import Action, StandIn
from gateway.v1.decision_pb2 import (
    DecideResponse,
    Model,
    Reason,
    ReasonCode,
)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _tag(field: str, wire_type: int) -> bytes:
    number = DecideResponse.DESCRIPTOR.fields_by_name[field].number
    assert number < 16, "a tag of one byte"
    return bytes([number << 3 | wire_type])


DECISION_ID_LENGTH = 32
_ID = _tag("decision_id", _BYTES) + bytes([DECISION_ID_LENGTH])
_ACTION = _tag("action", _VARINT)
_PROBABILITY = _tag("probability", _FIXED64)
_COST = _tag("expected_costs", _BYTES) + bytes([11, 1 << 3 | _VARINT])
_COST_VALUE = bytes([2 << 3 | _FIXED64])
_ELAPSED = _tag("elapsed_us", _FIXED32)
_CALENDAR_EVENT = int(Flag.CALENDAR_EVENT)
_THRESHOLD = struct.Struct("<1sd")
_THRESHOLD_TAG = _tag("threshold", _FIXED64)
RECORDED = _tag("recorded", _VARINT) + b"\x01"
"""The last two bytes of a response that the journal took; cut off where it could not."""


class ResponseEncoder:
    """Encodes the responses of one generation, in which `arm` decides; or else the champion."""

    def __init__(self, generation: Generation, arm: Arm | None = None) -> None:
        arm = arm or generation.arms[0]
        product, model = generation.product, arm.classifier
        constant = DecideResponse(
            product_generation=product.generation,
            budget_us=round(product.latency.budget_ms * 1000),
        )
        self._stand_in_constant = constant.SerializeToString()
        constant.model.CopyFrom(Model(name=model.name, version=model.version, digest=model.digest))
        self._constant = constant.SerializeToString()
        self._policy = arm.policy
        self._contact_within_s = product.latency.contact_within_s
        cost_heads = [_COST + bytes([action]) + _COST_VALUE for action in self._policy.actions]
        # Every other one of these is replaced by a cost.
        self._costs: list[object] = [part for head in cost_heads for part in (head, 0.0)]
        # id, action, probability, elapsed, then each cost behind its own constant bytes
        self._numbers = struct.Struct(
            "<2s32s1sB1sd1sI" + "".join(f"{len(head)}sd" for head in cost_heads)
        )

    def decision(
        self,
        decision_id: bytes,
        decision: Decision,
        elapsed_us: int,
        *,
        event_s: float,
        defaulted: bool,
    ) -> bytes:
        """Encode what the model decided, ending in RECORDED."""
        costs = self._costs[:]
        costs[1::2] = decision.costs
        parts = [
            self._constant,
            self._numbers.pack(
                _ID,
                decision_id,
                _ACTION,
                decision.action,
                _PROBABILITY,
                decision.probability,
                _ELAPSED,
                elapsed_us,
                *costs,
            ),
            self._reasons(decision, event_s, defaulted),
        ]
        if not isnan(decision.threshold):
            parts.append(_THRESHOLD.pack(_THRESHOLD_TAG, decision.threshold))
        if decision.action == Action.STEP_UP and self._contact_within_s is not None:
            parts.append(_contact_by(event_s + self._contact_within_s))
        parts.append(RECORDED)
        return b"".join(parts)

    def stand_in(
        self, decision_id: bytes, action: int, reason: StandIn, elapsed_us: int, event_s: float
    ) -> bytes:
        """Encode what the product chose beforehand, ending in RECORDED."""
        contact = b""
        if action == Action.STEP_UP and self._contact_within_s is not None:
            contact = _contact_by(event_s + self._contact_within_s)
        return b"".join(
            (
                self._stand_in_constant,
                _ID,
                decision_id,
                _stand_in_fields(action, reason),
                _ELAPSED,
                elapsed_us.to_bytes(4, "little"),
                contact,
                RECORDED,
            )
        )

    def _reasons(self, decision: Decision, event_s: float, defaulted: bool) -> bytes:
        flags = decision.flags
        if not flags and not defaulted:
            return _LEAST_COST
        policy = self._policy
        shift = 0.0
        if flags & _CALENDAR_EVENT:
            shift = log(policy.odds_ratio(event_s) / policy.base_odds_ratio)
        harm = policy.classes[decision.cost_class].harm
        return _encoded_reasons(flags, harm, shift, decision.propensity, defaulted)


@lru_cache(maxsize=4096)
def _encoded_reasons(
    flags: int, harm: float, log_odds_shift: float, propensity: float, defaulted: bool
) -> bytes:
    reasons = [
        Reason(code=ReasonCode.EXPLORATION, contribution=propensity)
        if flags & Flag.EXPLORED
        else Reason(code=ReasonCode.LEAST_EXPECTED_COST)
    ]
    if flags & Flag.OVERRIDDEN:
        reasons.append(Reason(code=ReasonCode.THRESHOLD_OVERRIDE))
    if flags & Flag.CATEGORY_HARM:
        reasons.append(Reason(code=ReasonCode.CATEGORY_HARM, contribution=harm))
    if flags & Flag.CALENDAR_EVENT:
        reasons.append(Reason(code=ReasonCode.CALENDAR_EVENT, contribution=log_odds_shift))
    if flags & Flag.NEAR_TIE:
        reasons.append(Reason(code=ReasonCode.NEAR_TIE))
    if defaulted:
        reasons.append(Reason(code=ReasonCode.FEATURE_DEFAULTED))
    return DecideResponse(reasons=reasons).SerializeToString()


_LEAST_COST = _encoded_reasons(0, 1.0, 0.0, 1.0, False)


@lru_cache(maxsize=64)
def _stand_in_fields(action: int, reason: StandIn) -> bytes:
    return DecideResponse(
        action=Action(action).name,
        stand_in=reason.name,
        reasons=[Reason(code=ReasonCode.STOOD_IN)],
    ).SerializeToString()


def _contact_by(unix_s: float) -> bytes:
    seconds = int(unix_s // 1)
    nanos = int((unix_s - seconds) * 1e9)
    return DecideResponse(contact_by=Timestamp(seconds=seconds, nanos=nanos)).SerializeToString()
