"""The journal, held to what the benchmark's client saw."""

from __future__ import annotations

from pathlib import Path

from gateway.bench.rig import Tally
from gateway.journal import Decision, Record, Scored, Shed, decision_id, read, segments


def account(journal: Path, tally: Tally) -> dict[str, int]:
    """Compare the journal with what the client was told.

    `unrecorded` are answers that stand in the journal not at all, or with another action;
    `unaccounted` is how far apart the two counts of shed calls are. `scored` and `skipped` are
    what models that did not decide made of calls.
    """
    recorded: dict[str, int] = {}
    shed = scored = skipped = 0
    for segment in segments(journal):
        name = segment.name
        for item in read(segment):
            if not isinstance(item, Record):
                continue
            if isinstance(item.entry, Decision):
                key = decision_id(name.boot_id, name.worker, item.sequence)
                recorded[key] = item.entry.action
            elif isinstance(item.entry, Shed):
                shed += item.entry.count
            elif isinstance(item.entry, Scored):
                scored += len(item.entry.calls)
                skipped += item.entry.skipped
    return {
        "answered": len(tally.actions),
        "recorded": len(recorded),
        "unrecorded": sum(recorded.get(key) != action for key, action in tally.actions.items()),
        "shed": tally.shed,
        "shed_recorded": shed,
        "unaccounted": abs(tally.shed - shed),
        "scored": scored,
        "skipped": skipped,
    }
