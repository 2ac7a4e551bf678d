"""The response laid out by hand is what protobuf's own classes would have written."""

from __future__ import annotations

import math
from pathlib import Path

import catalogue
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decide import Decision, Flag
from gateway.model import load_generation
from gateway.product import Action, StandIn
from gateway.serve.hall.response import DECISION_ID_LENGTH, RECORDED, ResponseEncoder
from gateway.v1 import decision_pb2 as pb

EVENT_S = 1_795_000_000.25


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ResponseEncoder:
    folder: Path = tmp_path_factory.mktemp("product")
    return ResponseEncoder(load_generation(catalogue.write_folder(folder)))


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    action=st.sampled_from([Action.APPROVE, Action.STEP_UP, Action.DECLINE]),
    probability=st.floats(0, 1),
    threshold=st.one_of(st.just(math.nan), st.floats(0, 1)),
    costs=st.tuples(FINITE, FINITE, FINITE),
    elapsed_us=st.integers(0, 2**32 - 1),
    near_tie=st.booleans(),
    sequence=st.integers(0, 2**48 - 1),
)
def test_a_decision_reads_back_as_protobuf_would_write_it(
    encoder: ResponseEncoder,
    action: Action,
    probability: float,
    threshold: float,
    costs: tuple[float, float, float],
    elapsed_us: int,
    near_tie: bool,
    sequence: int,
) -> None:
    decision_id = f"0123456789abcdef-00-{sequence:012x}"
    assert len(decision_id) == DECISION_ID_LENGTH
    decision = Decision(
        action=action.value,
        second_best=0,
        probability=probability,
        threshold=threshold,
        margin=1.0,
        propensity=1.0,
        flags=int(Flag.NEAR_TIE) if near_tie else 0,
        cost_class=0,
        costs=costs,
    )
    encoded = encoder.decision(
        decision_id.encode(), decision, elapsed_us, event_s=EVENT_S, defaulted=False
    )
    generation = pb.DecideResponse.FromString(encoded).model
    expected = pb.DecideResponse(
        decision_id=decision_id,
        action=action.name,
        reasons=[pb.Reason(code=pb.LEAST_EXPECTED_COST)],
        probability=probability,
        expected_costs=[
            pb.ExpectedCost(action=a.name, cost=cost)
            for a, cost in zip((Action.APPROVE, Action.STEP_UP, Action.DECLINE), costs, strict=True)
        ],
        model=pb.Model(name="v1", version="1.0", digest=generation.digest),
        product_generation=3,
        budget_us=catalogue.BUDGET_MS * 1000,
        elapsed_us=elapsed_us,
        recorded=True,
    )
    if near_tie:
        expected.reasons.append(pb.Reason(code=pb.NEAR_TIE))
    if not math.isnan(threshold):
        expected.threshold = threshold
    if action is Action.STEP_UP:
        expected.contact_by.FromMicroseconds(int((EVENT_S + 60) * 1e6))
    assert pb.DecideResponse.FromString(encoded) == expected
    assert encoded.endswith(RECORDED)
    expected.recorded = False
    assert pb.DecideResponse.FromString(encoded.removesuffix(RECORDED)) == expected


@pytest.mark.parametrize("reason", [reason for reason in StandIn if reason is not StandIn.NONE])
def test_a_stand_in_says_so_and_has_no_probability(
    encoder: ResponseEncoder, reason: StandIn
) -> None:
    encoded = encoder.stand_in(b"0" * 32, Action.APPROVE, reason, 77, EVENT_S)
    response = pb.DecideResponse.FromString(encoded)
    assert response.stand_in == reason.value
    assert response.action == pb.APPROVE
    assert [one.code for one in response.reasons] == [pb.STOOD_IN]
    assert not response.HasField("probability")
    assert not response.expected_costs
    assert (response.budget_us, response.elapsed_us) == (catalogue.BUDGET_MS * 1000, 77)
    assert response.recorded


@pytest.mark.parametrize(
    ("flag", "code"),
    [
        (Flag.NEAR_TIE, pb.NEAR_TIE),
        (Flag.EXPLORED, pb.EXPLORATION),
        (Flag.OVERRIDDEN, pb.THRESHOLD_OVERRIDE),
        (Flag.CATEGORY_HARM, pb.CATEGORY_HARM),
        (Flag.CALENDAR_EVENT, pb.CALENDAR_EVENT),
    ],
)
def test_every_flag_has_its_reason(encoder: ResponseEncoder, flag: Flag, code: int) -> None:
    decision = Decision(1, 4, 0.5, 0.4, 1.0, 0.02, int(flag), 1, (1.0, 2.0, 3.0))
    encoded = encoder.decision(b"0" * 32, decision, 1, event_s=EVENT_S, defaulted=True)
    reasons = {one.code: one for one in pb.DecideResponse.FromString(encoded).reasons}
    assert code in reasons
    assert pb.FEATURE_DEFAULTED in reasons
    if flag is Flag.EXPLORED:
        assert reasons[code].contribution == 0.02
    if flag is Flag.CATEGORY_HARM:
        assert reasons[code].contribution == 4.0
