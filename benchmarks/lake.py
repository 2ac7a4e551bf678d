"""CPU and bytes a decision, from calls that the tail gave out to rows in the lake.

    python benchmarks/lake.py [--records 50000] [--batch 5000] [--rounds 5]

Thirty features a payment, sent as `dense` and by name; without features the struct column is left
out, as `records.features: none` leaves it. The time is the process's, until the file is renamed.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from model import write_product
from whatif import write

from gateway.journal import Record, join_replied, read, segments
from gateway.model import load_generation
from gateway.sidecar.lake.features import Shape, shape_of
from gateway.sidecar.lake.lake import Lake
from gateway.sidecar.lake.rows import Rows
from gateway.sidecar.tail.call import Call, Range


def calls_of(journal: Path) -> list[Call]:
    """Return the journal's calls, in the order of their sequences."""
    records = (
        item for segment in segments(journal) for item in read(segment) if isinstance(item, Record)
    )
    calls = [
        Call(one.record, one.record.generation(0), one.reply, one.replied_ns)
        for one in join_replied(records)
    ]
    return sorted(calls, key=lambda call: call.record.sequence)


def ship(lake: Lake, rows: Rows, calls: Sequence[Call], batch: int) -> Range:
    """Write the calls in batches; return the range of all."""
    for i in range(0, len(calls), batch):
        some = calls[i : i + batch]
        lake.write(_range(some), rows.parts(some, ()))
    return _range(calls)


def _range(calls: Sequence[Call]) -> Range:
    worker, boot_id = calls[0].record.segment.boot
    return Range(worker, boot_id, calls[0].record.sequence, calls[-1].record.sequence)


def measure(shape: Shape, calls: Sequence[Call], batch: int) -> tuple[float, ...]:
    """Return µs a decision to make rows, to write them and to compact, and bytes of both."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.at(folder)
        rows = Rows(key=b"benchmark", shape=lambda _: shape)
        begun = time.process_time()
        for i in range(0, len(calls), batch):
            rows.parts(calls[i : i + batch], ())
        made = time.process_time() - begun
        begun = time.process_time()
        whole = ship(lake, rows, calls, batch)
        shipped = time.process_time() - begun
        small = _bytes(lake)
        begun = time.process_time()
        lake.compact([whole], now_ns=time.time_ns(), least_files=2, grace_s=0.0)
        compacted = time.process_time() - begun
        seconds = made, shipped, compacted
        return (
            *(1e6 * one / len(calls) for one in seconds),
            small / len(calls),
            _bytes(lake) / len(calls),
        )


def _bytes(lake: Lake) -> int:
    return sum(Path(path).stat().st_size for path in lake.files("decisions"))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--records", type=int, default=50_000)
    arguments.add_argument("--batch", type=int, default=5_000)
    arguments.add_argument("--rounds", type=int, default=5)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        served = load_generation(write_product(Path(scratch) / "product"))
        shape = shape_of(served.product)
        bare = Shape(shape.columns, shape.fingerprint, keeps_features=False)
        print(
            "| features | kept | µs: rows | µs: rows and files | µs: compaction | bytes | joined |"
        )
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        for named in (False, True):
            journal = Path(scratch) / f"journal-{named}"
            write(journal, served, asked.records, named=named)
            calls = calls_of(journal)
            gc.collect()
            gc.freeze()  # the calls: a sidecar holds a batch, not a journal
            for what, one in {"no": bare, "yes": shape}.items():
                told = [measure(one, calls, asked.batch) for _ in range(asked.rounds)]
                made, shipped, compacted, small, joined = map(
                    statistics.median, zip(*told, strict=True)
                )
                sent = "by name" if named else "dense"
                print(
                    f"| {sent} | {what} | {made:.1f} | {shipped:.1f} | {compacted:.1f} "
                    f"| {small:.0f} | {joined:.0f} |"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
