"""Decisions as a table, a column at a time: every call pays for it. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gateway.journal import Flag, Generation
from gateway.sidecar.lake.columns import (
    arm_name,
    boots,
    codes,
    decision_ids,
    finite,
    messages,
    place_of,
    received,
    replied_us,
    replies,
    table_of,
    trace_ids,
    transposed,
)
from gateway.sidecar.lake.features import FeatureReader
from gateway.sidecar.lake.request import FlatRequest, FlatResponse, read_costs
from gateway.sidecar.lake.schema import ACTIONS, ARM, COSTS, STAGES, TIME
from gateway.sidecar.tail.call import Call
from gateway.v1.decision_pb2 import DecideResponse, StandIn

PSEUDONYM_BYTES = 16


_ACTIONS = pa.array([ACTIONS.get(i) for i in range(256)], pa.string())
_STAND_IN_NAMES = {value: name.lower() for name, value in StandIn.items()}
_STAND_INS = pa.array([_STAND_IN_NAMES.get(i) for i in range(256)], pa.string())


def pseudonym(subject: str, key: bytes) -> str:
    """Return what stands for a subject in the lake: 32 hex digits."""
    return hmac.digest(key, subject.encode(), "sha256")[:PSEUDONYM_BYTES].hex()


_OF_ENTRY = attrgetter(
    *("flags", "action", "second_best", "stand_in", "batch_size", "arrival_ns", "deadline_ns"),
    *("admit_after_ns", "encode_after_ns", "infer_after_ns", "decide_after_ns", "record_after_ns"),
    *("score", "probability", "propensity", "margin", "arm", "traceparent"),
    *("request", "response"),
)


_OF_REQUEST = attrgetter(
    *("transaction_id", "amount", "currency", "category", "channel", "subject"),
    *("event_time.seconds", "event_time.nanos"),
)


def decisions(
    calls: Sequence[Call],
    generation: Generation | None,
    reader: FeatureReader | None,
    *,
    key: bytes,
) -> pa.Table:
    """Return the decisions of one generation, a row each in their order."""
    columns = transposed(_OF_ENTRY(call.record.entry) for call in calls)
    flags, action, second_best, stand_in, batch_size, arrival_ns, deadline_ns = columns[:7]
    stages = columns[7:12]
    score, probability, propensity, margin, arm, traceparent, requests, responses = columns[12:]
    read = messages(FlatRequest, requests)
    transaction, amount, currency, category, channel, subject, seconds, nanos = transposed(
        map(_OF_REQUEST, read)
    )
    answers = messages(FlatResponse, responses)
    flag = np.array(flags, dtype=np.uint8)
    arrival = np.array(arrival_ns, dtype=np.int64)
    deadline = np.array(deadline_ns, dtype=np.int64) - arrival
    event_us = np.array(seconds, dtype=np.int64) * 1_000_000 + np.array(nanos, np.int64) // 1000
    places = [place_of(call.record) for call in calls]
    worker, boot_id, sequence = transposed(places)
    replied, reply = replies(calls, arrival)
    in_time = pa.array(replied <= deadline, mask=replied < 0)
    arms = generation.arms if generation else ()
    key_of: dict[str, str] = {}
    for one in set(subject):
        if one:
            key_of[one] = pseudonym(one, key)
    known = {
        "decision_id": decision_ids(places),
        "transaction_id": transaction,
        "generation": [call.record.entry.generation for call in calls]  # type: ignore[union-attr]
        if generation is None
        else pa.repeat(pa.scalar(generation.generation, pa.uint32()), len(calls)),
        "digest": pa.nulls(len(calls), pa.string())
        if generation is None
        else pa.repeat(generation.digest, len(calls)),
        "event_time": pa.array(event_us).cast(TIME),
        "received": received(calls, arrival, event_us),
        "amount_minor": amount,
        "currency": currency,
        "category": category,
        "channel": channel,
        "subject": [key_of.get(one) for one in subject],
        "action": _ACTIONS.take(codes(action)),
        "second_best": _ACTIONS.take(codes(second_best)),
        "stand_in": _STAND_INS.take(codes(stand_in)),
        "arm": pa.array([arm_name(arms, i) for i in range(256)]).take(codes(arm)),
        **_models(arm, stand_in, responses),
        "score": finite(score),
        "probability": finite(probability),
        "threshold": [one.threshold if one.HasField("threshold") else None for one in answers],
        "expected_cost": _expected_costs(answers),
        "margin_minor": finite(margin),
        "propensity": propensity,
        "near_tie": flag & Flag.NEAR_TIE > 0,
        "explored": flag & Flag.EXPLORED > 0,
        "overridden": flag & Flag.OVERRIDDEN > 0,
        "expired": flag & Flag.EXPIRED > 0,
        "other_arms": _other_arms(calls, arms),
        "budget_us": [one.budget_us for one in answers],
        "deadline_us": deadline // 1000,
        **{
            name: (np.array(ends, dtype=np.float64) / 1000).astype(np.float32)
            for name, ends in zip(STAGES, stages, strict=True)
        },
        "replied_us": replied_us(replied),
        "reply": reply,
        "in_time": in_time,
        "batch_size": batch_size,
        "trace_id": trace_ids(traceparent),
        "worker": worker,
        "boot": boots(boot_id),
        "sequence": sequence,
    }
    table = table_of("decisions", known)
    return table if reader is None else _with_features(table, read, flag, reader)


def _with_features(
    table: pa.Table, requests: Sequence[Any], flag: NDArray[np.uint8], reader: FeatureReader
) -> pa.Table:
    kept = flag & Flag.FEATURES_LEFT_OUT == 0
    shape = reader.shape
    is_read = shape.keeps_features or any(map(reader.is_feature, shape.watch))
    matrix = reader.matrix(requests if is_read else ())
    watched: dict[str, pa.Array] = {}
    for name in reader.shape.watch:
        segments = reader.segments(matrix, kept, name)
        if segments is None and name in ("channel", "currency", "category"):
            segments = table[name].combine_chunks()
        if segments is not None:
            watched[name] = segments
    if watched:
        struct = pa.StructArray.from_arrays(list(watched.values()), list(watched))
        table = table.append_column("watch", struct)
    features = reader.struct(matrix, kept)
    return table if features is None else table.append_column("features", features)


def _models(
    arms: Sequence[int], stand_ins: Sequence[int], responses: Sequence[bytes]
) -> dict[str, pa.Array]:
    """Return who decided: an arm's model is the same in all its generation's answers."""
    decided = np.frombuffer(bytes(stand_ins), np.uint8) == 0
    arm = np.frombuffer(bytes(arms), np.uint8)
    told: list[tuple[str, str, str] | None] = [None] * 256
    for one in np.unique(arm[decided]).tolist():
        first = int(np.flatnonzero(decided & (arm == one))[0])
        model = messages(DecideResponse, [responses[first]])[0].model
        told[one] = model.name, model.version, model.digest
    places = pa.array(arm, mask=~decided)
    return {
        name: pa.array([one and one[i] for one in told], pa.string()).take(places)
        for i, name in enumerate(("model", "model_version", "model_digest"))
    }


_COST_PLACES = np.full(256, len(ACTIONS))
"""The column of each action; the last is of what is none."""
_COST_PLACES[list(ACTIONS)] = range(len(ACTIONS))


def _expected_costs(answers: Sequence[Any]) -> pa.Array:
    rows = np.full((len(answers), len(ACTIONS) + 1), np.nan)
    entries: list[bytes] = []
    counts: list[int] = []
    for answer in answers:
        held = len(entries)
        entries += answer.expected_costs
        counts.append(len(entries) - held)
    actions, costs = read_costs(entries)
    rows[np.repeat(np.arange(len(answers)), counts), _COST_PLACES[actions]] = costs
    rows = rows[:, :-1]
    missing = np.isnan(rows)
    arrays = [
        pa.array(np.ascontiguousarray(rows[:, i]), mask=missing[:, i]) for i in range(len(ACTIONS))
    ]
    return pa.StructArray.from_arrays(
        arrays, fields=list(COSTS), mask=pa.array(missing.all(axis=1))
    )


def _other_arms(calls: Sequence[Call], arms: Sequence[str]) -> pa.Array:
    offsets = [0]
    rows: list[tuple[str, float, float, str | None]] = []
    for call in calls:
        for arm, scored in call.scored:
            action = ACTIONS.get(scored.action)
            rows.append((arm_name(arms, arm), scored.score, scored.probability, action))
        offsets.append(len(rows))
    names, scores, probabilities, actions = transposed(rows, 4)
    values = pa.StructArray.from_arrays(
        [
            pa.array(names, pa.string()),
            finite(scores),
            finite(probabilities),
            pa.array(actions, pa.string()),
        ],
        fields=list(ARM),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
