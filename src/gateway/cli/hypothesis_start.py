"""A hypothesis is frozen: at once by `gateway hypothesis start`, at a told time by the demo."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.errors import UsageError
from gateway.evaluate.arms import SIDES, incomparable
from gateway.evaluate.hypotheses import declared_of, digest, models_digest, written
from gateway.evaluate.terms import Terms
from gateway.product import Hypothesis
from gateway.sidecar.lake import Lake
from gateway.sidecar.lake.hypotheses import Begun, begin

_SAME = 1e-9


def start_at(place: Lake, one: Hypothesis, terms: Terms, at: datetime) -> tuple[Begun, str]:
    """Freeze a hypothesis as its product declares it, and what it declares of its arms' models.

    Its first day is the one behind `at` (UTC). Return the record, and where it stands.

    Raises:
        LakeError: the file system refuses.
        UsageError: it could never be judged, or was started already.
    """
    _startable(one, terms)
    models = models_digest(terms.product.models, tuple(one.arms))
    started = at.astimezone(UTC).isoformat()
    record = Begun(terms.name, one.id, digest(one), written(one), models, started)
    return record, begin(place.filesystem, place.root, record)


def _startable(one: Hypothesis, terms: Terms) -> None:
    """Refuse what could never be judged. Raises UsageError."""
    try:
        declared = declared_of(one)
    except ValueError as error:
        raise UsageError(str(error), subject=one.id, hint="Complete it in product.yaml.") from None
    if unknown := incomparable(declared):
        raise UsageError(
            f"arms cannot be compared by {', '.join(unknown)}",
            subject=one.id,
            hint=f"Take one of {', '.join(SIDES)}.",
        )
    models = terms.product.models
    traffic = {one.name: one.share or 0.0 for one in models.challengers if one.mode == "canary"}
    traffic[models.champion.name] = 1.0 - sum(traffic.values())
    for arm, share in one.arms.items():
        if abs(traffic.get(arm, 0.0) - share) > _SAME:
            raise UsageError(
                f"{arm} decides {traffic.get(arm, 0.0):.4g} of the traffic, declared are {share:g}",
                subject=one.id,
                hint="Make models and the hypothesis's arms agree: "
                + ", ".join(f"{name} {part:.4g}" for name, part in traffic.items()),
            )
