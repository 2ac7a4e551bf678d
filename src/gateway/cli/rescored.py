"""Recorded features to the scores that another model, or other rules of features, give them."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray

from gateway.cli.recorded import Part
from gateway.cli.shadowed import Shadow
from gateway.model import FeatureSchema, Generation
from gateway.v1.decision_pb2 import DecideRequest

BATCH = 128
SAME_SCORE = 1e-5
"""Of a score, or of its share above 1: a recorded score that differs by more is another output's.
"""

_SAMPLE = 32

LEFT_OUT = ("", "features not kept", "features break the rules: the call would be refused")
"""Why a payment cannot be scored, by its code; 0 where it can be."""

_NOT_KEPT, _REFUSED = 1, 2

Floats = NDArray[np.float64]


class Scorer:
    """What a generation's champion scores recorded payments as.

    The score in the record is taken where the same model gave it. `knows`: schemas by fingerprint,
    by which `dense` features of others are read. `rules_are_other`: than those that the record
    was made by. `shadow`: what it scored beside the model that decided.
    """

    def __init__(
        self,
        generation: Generation,
        knows: Sequence[FeatureSchema],
        *,
        rules_are_other: bool,
        shadow: Shadow | None = None,
    ) -> None:
        self.rescored = 0
        self.reused = 0
        self.from_shadow = 0
        self._shadow = shadow or {}
        self._generation = generation
        self._knows = {schema.fingerprint: schema for schema in knows}
        self._rules_are_other = rules_are_other
        self._is_own: dict[str, bool] = {}

    def scores(self, part: Part) -> tuple[Floats, NDArray[np.uint8]]:
        """Return the scores (n,), NaN where the model fails, and a code of LEFT_OUT for each.

        What a stand-in answered needs none.
        """
        scores, why = part.score.copy(), np.zeros(len(part.score), dtype=np.uint8)
        asked = part.model >= 0
        own = np.array([self._decided(digest, part) for digest in part.models] + [False])
        anew = np.flatnonzero(asked & ~own[part.model])
        self.reused += int(asked.sum()) - len(anew)
        if len(anew) and part.where.boot in self._shadow:
            anew = self._take_shadows(part, anew, scores)
        if not len(anew):
            return scores, why
        there = part.has_features[anew]
        why[anew[~there]] = _NOT_KEPT
        anew = anew[there]
        scores[anew], sound = self._score(_read(part, anew))
        why[anew[~sound]] = _REFUSED
        self.rescored += int(sound.sum())
        return scores, why

    def _take_shadows(self, part: Part, rows: NDArray[np.intp], scores: Floats) -> NDArray[np.intp]:
        """Put the shadow's scores where there are any; return the other rows."""
        known, shadow = self._shadow[part.where.boot]
        wanted = np.array(part.where.sequences, dtype=np.int64)[rows]
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        found = known[place] == wanted
        scores[rows[found]] = shadow[place[found]]
        self.from_shadow += int(found.sum())
        others: NDArray[np.intp] = rows[~found]
        return others

    def _decided(self, digest: str, part: Part) -> bool:
        """Say whether this generation's champion gave the scores of a model."""
        if self._rules_are_other or digest != self._generation.champion.digest:
            return False
        known = self._is_own.get(digest)
        if known is None:
            known = self._gave(digest, part)
            if known is not None:
                self._is_own[digest] = known
        return known is not False

    def _gave(self, digest: str, part: Part) -> bool | None:
        """Hold a few recorded scores against the model's: it may be another of its outputs.

        None where no features are there to tell by.
        """
        rows = np.flatnonzero((part.model == part.models.index(digest)) & part.has_features)
        rows = rows[:_SAMPLE]
        if not len(rows):
            return None
        scores, sound = self._score(_read(part, rows))
        recorded = part.score[rows]
        with np.errstate(invalid="ignore"):
            off = np.abs(scores - recorded) / np.maximum(1.0, np.abs(recorded))
        return bool((off[sound] <= SAME_SCORE).all()) if sound.any() else None

    def _score(self, requests: Sequence[DecideRequest]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return scores (n,), and which of the requests keep the features' rules."""
        schema, classifier = self._generation.schema, self._generation.champion
        scores, sound = np.full(len(requests), nan), np.zeros(len(requests), dtype=np.bool_)
        for begin in range(0, len(requests), BATCH):
            rows: list[bytes] = []
            places: list[int] = []
            for i, request in enumerate(requests[begin : begin + BATCH], begin):
                row = self._row(request)
                if row is not None:
                    rows.append(row)
                    places.append(i)
            if not rows:
                continue
            matrix, checked = schema.matrix(rows)
            bad = {i for i, row_ in checked.items() if row_.violations}
            kept = [i for i in range(len(rows)) if i not in bad]
            if not kept:
                continue
            batch = matrix[kept]
            at = [places[i] for i in kept]
            sound[at] = True
            try:
                scores[at] = classifier.score(batch)
            except Exception:  # one bad row does not fail its batch, as in the hall
                for i, row_values in zip(at, batch, strict=True):
                    scores[i] = self._one(row_values.tobytes())
        return scores, sound

    def _one(self, row: bytes) -> float:
        try:
            return self._generation.champion.score_one(row)
        except Exception:  # whatever a model raises is the model's error
            return nan

    def _row(self, request: DecideRequest) -> bytes | None:
        schema = self._generation.schema
        if request.dense and request.schema_fingerprint == schema.fingerprint:
            return schema.from_dense(request.dense)
        named = self._named(request)
        if named is None:
            return None
        encoded = schema.encode(named)
        return None if encoded.violations else encoded.row

    def _named(self, request: DecideRequest) -> dict[str, float | str] | None:
        """Return features by name, as far as this generation has them."""
        own = {feature.name for feature in self._generation.schema.features}
        if not request.dense:
            values = {name: value for name, value in request.features.items() if name in own}
            return {
                name: value.text if value.WhichOneof("kind") == "text" else value.number
                for name, value in values.items()
                if value.WhichOneof("kind")
            }
        schema = self._knows.get(request.schema_fingerprint)
        if schema is None or len(request.dense) != schema.dense_bytes:
            return None
        named: dict[str, float | str] = {}
        dense = np.frombuffer(request.dense, dtype="<f4").tolist()
        for feature, value in zip(schema.features, dense, strict=True):
            if feature.name not in own:
                continue
            is_code = feature.type == "category" and value == value
            if is_code and value.is_integer() and 0 <= value < len(feature.values):
                named[feature.name] = feature.values[int(value)]
            elif not is_code:
                named[feature.name] = value
        return named


def _read(part: Part, rows: NDArray[np.intp]) -> list[DecideRequest]:
    return [DecideRequest.FromString(part.requests[i]) for i in rows.tolist()]
