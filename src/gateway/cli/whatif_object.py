"""What a replay found, as JSON values."""

from __future__ import annotations

from math import isfinite
from typing import Any

from gateway.cli.whatif_replay import Replay, changed_keys, day_and_time
from gateway.evaluate.bootstrap import Interval
from gateway.evaluate.ledger import Large
from gateway.evaluate.whatif import Comparison, Flip, Group, Money, Realised
from gateway.model import Generation
from gateway.product import Action, minor_per_major

VERSION = 1
"""Of the JSON: it rises when a key goes or changes its meaning."""

_FIXED = ("category", "amount", "channel")


def as_object(replay: Replay, folders: tuple[str, str], verdict: str) -> dict[str, Any]:
    """Return it as JSON values. Money is in minor units, times are in µs."""
    found, seen = replay.comparison, replay.seen
    return {
        "version": VERSION,
        "verdict": verdict,
        "product": replay.new.name,
        "currency": replay.currency,
        "minor_per_major": minor_per_major(replay.currency),
        "old": _side(replay.old, folders[0]),
        "new": _side(replay.new, folders[1]),
        "changed": list(changed_keys(replay.old, replay.new)),
        "records": {
            "decisions": found.decisions,
            "read": seen.decisions,
            "retries": found.retries,
            "left_out": dict((replay.left_out + seen.left_out).items()),
            "damaged_bytes": seen.damaged_bytes,
            "torn_bytes": seen.torn_bytes,
            "from": day_and_time(found.from_s),
            "to": day_and_time(found.to_s),
            "generations": {str(one): count for one, count in sorted(seen.generations.items())},
            "workers": sorted(seen.workers),
            "subjects": found.subjects,
            "not_what_old_gives": found.not_reproduced,
            "scores_reused": replay.reused,
            "scored_anew": replay.rescored,
        },
        "flips": {
            "decisions": found.flipped,
            "share": found.flipped / found.decisions,
            "by_action": [_flip(flip) for flip in found.flips],
            **{
                f"by_{name}" if name in _FIXED else f"by_feature:{name}": [
                    _group(group) for group in groups
                ]
                for name, groups in found.groups.items()
            },
        },
        "actions": {
            "old": {action.spelling: count for action, count in found.old_actions.items()},
            "new": {action.spelling: count for action, count in found.new_actions.items()},
        },
        "approval_rate": _rates(found, Action.APPROVE),
        "decline_rate": _rates(found, Action.DECLINE),
        "explored": {"old": found.old_explored, "new": found.new_explored},
        "near_ties": {
            "old": found.old_near_ties,
            "new": found.new_near_ties,
            "among_flips": found.near_tie_flips,
        },
        "expected_cost": {
            "by_new": _money(found.by_new),
            "by_old": _money(found.by_old),
            "probabilities_differ": replay.believes_otherwise,
        },
        "realised_cost": None if found.realised is None else _realised(found.realised),
        "stand_ins": {
            "recorded": {reason.name.lower(): n for reason, n in found.stand_ins.items()},
            "flips": found.stand_in_flips,
            "more_by_model_error": found.new_model_errors,
            "more_by_deadline": found.late_under_new,
            "not_modelled": ["queueing", "overload", "stand-ins that would have been decisions"],
        },
        "latency_us": {
            "row": None
            if replay.row_us is None
            else {"old": dict(replay.row_us[0]), "new": dict(replay.row_us[1])},
            "recorded": {
                "elapsed": dict(replay.elapsed_us),
                "infer": dict(replay.infer_us),
            },
            "budget": {
                "old": replay.old.product.latency.budget_us,
                "new": replay.new.product.latency.budget_us,
            },
        },
        "largest": [_large(one) for one in found.largest],
    }


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None


def _side(generation: Generation, folder: str) -> dict[str, Any]:
    champion = generation.champion
    return {
        "folder": folder,
        "generation": generation.product.generation,
        "digest": generation.digest,
        "model": {
            "name": champion.name,
            "version": champion.version,
            "sha256": champion.digest,
        },
    }


def _rates(found: Comparison, action: Action) -> dict[str, float]:
    return {
        "old": found.share(found.old_actions, action),
        "new": found.share(found.new_actions, action),
    }


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "from": flip.old.spelling,
        "to": flip.new.spelling,
        "decisions": flip.decisions,
        "change_by_new_minor": flip.change_by_new_minor,
        "change_by_old_minor": flip.change_by_old_minor,
    }


def _group(group: Group) -> dict[str, Any]:
    return {**group._asdict(), "share": group.flips / group.decisions}


def _money(of: Money) -> dict[str, Any]:
    return {
        "decisions": of.decisions,
        "old_per_1000_minor": _finite(of.old_per_1000_minor),
        "new_per_1000_minor": _finite(of.new_per_1000_minor),
        "change_per_1000_minor": _interval(of.per_1000),
        "change_minor": _interval(of.total),
    }


def _interval(of: Interval) -> dict[str, float | None]:
    return {"value": _finite(of.value), "low": _finite(of.low), "high": _finite(of.high)}


def _realised(of: Realised) -> dict[str, Any]:
    counts = of._asdict()
    counts.update(by_new=_money(of.by_new), by_old=_money(of.by_old), has_support=of.has_support)
    return counts


def _large(one: Large) -> dict[str, Any]:
    return {
        "decision_id": one.identity,
        "amount_minor": one.amount_minor,
        "category": one.category,
        "from": one.old.spelling,
        "to": one.new.spelling,
        "old_probability": _finite(one.old_probability),
        "new_probability": _finite(one.new_probability),
        "change_by_new_minor": _finite(one.change_minor),
    }
