"""The writer keeps what it took, counts what it lost, and says why it took nothing."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

import pytest
from faulty_disk import IO_ERROR, NO_SPACE, Clock, FaultyDisk, crash, entries

from gateway.errors import JournalError, JournalFull
from gateway.journal import Gap, Generation, Kind, Loss, Mode, Pause, Writer, segments, verify
from gateway.journal.writer import BUFFER_AGE_NS, BUFFER_BYTES, RETRY_NS

BOOT = bytes(range(16))


def payload(number: int) -> bytes:
    return Pause(number, 0).encode()


def start(directory: Path, **options) -> Writer:
    defaults = {"worker": 0, "boot_id": BOOT}
    return Writer.open(directory, **(defaults | options))


def starts_ns(directory: Path) -> list[int]:
    return [entry.start_ns for entry in entries(directory).values() if isinstance(entry, Pause)]


def gaps(directory: Path) -> list[Gap]:
    return [entry for entry in entries(directory).values() if isinstance(entry, Gap)]


@pytest.mark.parametrize("mode", list(Mode))
def test_what_was_appended_is_there_after_close(tmp_path, mode):
    with start(tmp_path, mode=mode) as writer:
        assert writer.next_sequence == 1
        assert writer.append([payload(1), payload(2)]) == 1
        assert writer.append([]) == 3
        assert writer.append([payload(3)]) == 3
    report = verify(tmp_path)
    assert starts_ns(tmp_path) == [1, 2, 3]
    assert report.ok
    assert [segment.sealed for segment in report.segments] == [True]


def test_each_mode_asks_the_disk_for_no_more_than_it_promises(tmp_path):
    """One write a batch in `process`, one sync more in `power`, nothing in `buffered`."""
    calls = {}
    for mode in Mode:
        disk = FaultyDisk()
        writer = start(tmp_path / mode.value, mode=mode, disk=disk)
        disk.calls.clear()
        writer.append([payload(1), payload(2), payload(3)])
        calls[mode] = list(disk.calls)
        writer.close()
    assert calls == {
        Mode.BUFFERED: [],
        Mode.PROCESS: ["write"],
        Mode.POWER: ["write", "fdatasync"],
    }


def test_a_killed_process_loses_nothing_that_was_written(tmp_path):
    writer = start(tmp_path)
    writer.append([payload(1)])
    crash(writer)
    with start(tmp_path, boot_id=bytes(16)) as again:
        again.append([payload(2)])
    assert starts_ns(tmp_path) == [1, 2]
    assert verify(tmp_path).ok


def test_the_buffer_goes_out_by_age_and_by_size(tmp_path):
    clock = Clock()
    writer = start(tmp_path, mode=Mode.BUFFERED, monotonic_ns=clock)
    writer.append([payload(1)])
    clock.advance(BUFFER_AGE_NS - 1)
    writer.tick()
    assert starts_ns(tmp_path) == []
    clock.advance(1)
    writer.tick()
    assert starts_ns(tmp_path) == [1]
    for number in range(2, 4):
        writer.append([payload(number), b"\x09" + bytes(BUFFER_BYTES // 2)])
    assert starts_ns(tmp_path) == [1, 2, 3]
    crash(writer)


def test_a_full_buffer_on_a_full_disk_refuses_and_loses_nothing_it_had_taken(tmp_path):
    disk, clock = FaultyDisk(), Clock()
    writer = start(tmp_path, mode=Mode.BUFFERED, disk=disk, monotonic_ns=clock)
    disk.fail_write(NO_SPACE)
    writer.append([payload(1), *[payload(0)] * 8000])
    assert isinstance(writer.failure, JournalFull)
    with pytest.raises(JournalFull):
        writer.append([payload(2)])
    clock.advance(RETRY_NS)
    clock.advance(BUFFER_AGE_NS)
    writer.tick()
    writer.append([payload(3)])
    writer.close()
    assert starts_ns(tmp_path)[::8001] == [1, 3]
    assert [(gap.reason, gap.count) for gap in gaps(tmp_path)] == [(Loss.DISK_FULL, 1)]
    assert verify(tmp_path).ok


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [(NO_SPACE, JournalFull, Loss.DISK_FULL), (IO_ERROR, JournalError, Loss.WRITE_FAILED)],
)
@pytest.mark.parametrize("after_bytes", [0, 1, 20, 40])
@pytest.mark.parametrize("cut_fails", [False, True])
def test_a_failed_write_leaves_no_half_frame_and_is_counted(
    tmp_path, error, kind, reason, after_bytes, cut_fails
):
    disk = FaultyDisk()
    with start(tmp_path, disk=disk) as writer:
        writer.append([payload(1)])
        disk.fail_write(error, after_bytes)
        disk.cuts.append(IO_ERROR if cut_fails else 0)
        with pytest.raises(kind) as caught:
            writer.append([payload(2), payload(3)])
        assert caught.value.subject
        assert caught.value.hint
        assert writer.lost == 2
        assert writer.next_sequence >= 4
        writer.append([payload(4)])
    report = verify(tmp_path)
    assert starts_ns(tmp_path) == [1, 4]
    assert [(gap.reason, gap.first_sequence, gap.count) for gap in gaps(tmp_path)] == [
        (reason, 2, 2)
    ]
    assert report.ok, report
    assert report.lost == {reason: 2}


def test_a_short_write_is_continued(tmp_path):
    disk = FaultyDisk()
    with start(tmp_path, disk=disk) as writer:
        disk.writes.extend([(0, 1), (0, 7), (0, 30)])
        writer.append([payload(1), payload(2)])
    assert starts_ns(tmp_path) == [1, 2]
    assert verify(tmp_path).ok


def test_a_long_failure_is_one_gap_told_by_tick(tmp_path):
    disk, clock = FaultyDisk(), Clock()
    writer = start(tmp_path, disk=disk, monotonic_ns=clock)
    for number in range(10):
        disk.fail_write(NO_SPACE)
        with pytest.raises(JournalFull):
            writer.append([payload(number)])
    writer.tick()
    assert gaps(tmp_path) == []
    clock.advance(RETRY_NS)
    writer.tick()
    assert writer.failure is None
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps(tmp_path)] == [(1, 10)]
    writer.close()
    assert verify(tmp_path).ok


def test_a_failed_sync_is_never_tried_again_on_the_same_file(tmp_path):
    disk = FaultyDisk()
    with start(tmp_path, mode=Mode.POWER, disk=disk) as writer:
        writer.append([payload(1)])
        disk.syncs.append(IO_ERROR)
        with pytest.raises(JournalError, match="sync"):
            writer.append([payload(2)])
        writer.append([payload(3)])
    report = verify(tmp_path)
    assert starts_ns(tmp_path) == [1, 3]
    assert [segment.sealed for segment in report.segments] == [False, True]
    assert report.lost == {Loss.SYNC_FAILED: 1}
    assert report.ok


def test_a_disk_that_stays_broken_is_not_filled_with_files(tmp_path):
    disk, clock = FaultyDisk(), Clock()
    writer = start(tmp_path, mode=Mode.POWER, disk=disk, monotonic_ns=clock)
    disk.syncs.extend([IO_ERROR] * 1000)
    for number in range(50):
        with pytest.raises(JournalError):
            writer.append([payload(number)])
        writer.tick()
    assert len(segments(tmp_path)) == 1
    disk.mend()
    clock.advance(RETRY_NS)
    writer.tick()
    writer.append([payload(50)])
    writer.close()
    assert starts_ns(tmp_path) == [50]
    assert verify(tmp_path).ok


def test_segments_rotate_by_size_and_stay_whole(tmp_path):
    with start(tmp_path, segment_bytes=2000, products=[Generation(0, "cnp", 7, "d")]) as writer:
        writer.announce(Generation(1, "cnp", 8, "e"))
        sequences = [writer.append([payload(number)] * 3) for number in range(100)]
    report = verify(tmp_path)
    assert len(report.segments) > 3
    assert all(segment.sealed for segment in report.segments)
    assert report.ok
    assert report.entries[Kind.PAUSE] == 300
    assert sequences == sorted(sequences)
    last = segments(tmp_path)[-1].header
    assert [generation.generation for generation in last.products] == [7, 8]


def test_the_sequence_that_was_promised_is_given(tmp_path):
    """A decision id is laid out before its append: rotation and gaps must not come between."""
    disk = FaultyDisk()
    with start(tmp_path, segment_bytes=500, disk=disk) as writer:
        for number in range(200):
            promised = writer.next_sequence
            if number % 7 == 3:
                disk.fail_write(NO_SPACE, number % 11)
                with pytest.raises(JournalFull):
                    writer.append([payload(number)])
            else:
                assert writer.append([payload(number)]) == promised
            if number % 5 == 0:
                writer.tick()
    assert verify(tmp_path).ok


@pytest.mark.parametrize("shipping", [False, True])
def test_the_limit_is_kept_and_what_it_costs_is_counted(tmp_path, shipping):
    limit = 1 << 16
    shipped = (lambda path: True) if shipping else None
    with start(tmp_path, max_bytes=limit, shipped=shipped) as writer:
        for number in range(3000):
            writer.append([payload(number)])
            writer.tick()
            if number % 100 == 0:
                assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    report = verify(tmp_path)
    kept = starts_ns(tmp_path)
    assert kept == list(range(3000 - len(kept), 3000))
    assert report.ok, report.missing
    if shipping:
        assert sum(report.lost.values()) == 0
    else:
        assert report.lost[Loss.RETENTION] >= 3000 - len(kept)


def test_what_was_shipped_goes_first(tmp_path, monkeypatch):
    """The second segment is said to be shipped: it goes before the first, older one."""
    with start(tmp_path, segment_bytes=1000) as writer:
        for number in range(100):
            writer.append([payload(number)])
    second = segments(tmp_path)[1].path
    shipped_first = segments(tmp_path)[1].name.first_sequence
    options = {"max_bytes": 1 << 16, "shipped": lambda path: path == second}
    order, unlink = [], Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **how: order.append(path) or unlink(path))
    first = segments(tmp_path)[0].path
    with start(tmp_path, boot_id=bytes(16), **options) as writer:
        while second.exists():
            writer.append([payload(0)] * 20)
    assert order[:2] == [second, first]
    dropped = [gap for gap in gaps(tmp_path) if gap.boot_id == BOOT and gap.count]
    assert min(gap.first_sequence for gap in dropped) == 1
    lost = {n for gap in dropped for n in range(gap.first_sequence, gap.last_sequence + 1)}
    assert shipped_first - 1 in lost
    assert shipped_first not in lost
    assert verify(tmp_path).ok


def test_earlier_boots_count_towards_the_limit(tmp_path):
    for boot in range(8):
        writer = start(tmp_path, boot_id=bytes([boot] * 16), max_bytes=1 << 16)
        for number in range(350):
            writer.append([payload(number)])
        crash(writer)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 16
    with start(tmp_path, boot_id=bytes([99] * 16), max_bytes=1 << 16):
        pass
    report = verify(tmp_path)
    assert report.ok
    assert report.lost[Loss.RETENTION] > 0


def test_two_writers_of_one_worker_are_refused(tmp_path):
    with start(tmp_path), pytest.raises(JournalError, match="another writer") as caught:
        start(tmp_path, boot_id=bytes(16))
    assert caught.value.hint
    with start(tmp_path, boot_id=bytes(16)), start(tmp_path, worker=1):
        pass


def test_the_journal_is_for_its_user_alone(tmp_path):
    directory = tmp_path / "a" / "b"
    with start(directory) as writer:
        writer.append([payload(1)])
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path):
    (tmp_path / "journal").write_text("")
    for directory in (tmp_path / "journal", tmp_path / "journal" / "below"):
        with pytest.raises(JournalError) as caught:
            start(directory)
        assert "file stands" in caught.value.hint
        assert str(directory) in str(caught.value)


def test_a_directory_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    """Root may write everywhere, so the question is answered for it."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(JournalError, match="ermission") as caught:
        start(tmp_path)
    assert "right to write" in caught.value.hint


def test_a_disk_that_is_full_from_the_start_is_told_and_leaves_no_file(tmp_path):
    disk = FaultyDisk()
    disk.fail_write(NO_SPACE, 10)
    with pytest.raises(JournalFull):
        start(tmp_path, disk=disk)
    assert list(tmp_path.glob("*.journal")) == []
    start(tmp_path).close()


@pytest.mark.parametrize(
    "options", [{"worker": 256}, {"worker": -1}, {"boot_id": b"short"}, {"max_bytes": 1}]
)
def test_arguments_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(JournalError) as caught:
        start(tmp_path, **options)
    assert caught.value.hint


@pytest.mark.parametrize("mode", list(Mode))
def test_a_closed_journal_takes_nothing(tmp_path, mode):
    writer = start(tmp_path, mode=mode)
    writer.close()
    writer.close()
    with pytest.raises(JournalError, match="closed"):
        writer.append([payload(1)])
    writer.tick()
    assert len(segments(tmp_path)) == 1


def test_a_payload_that_fits_no_frame_takes_nothing_else_with_it_later(tmp_path):
    with start(tmp_path) as writer:
        with pytest.raises(JournalError, match="fit"):
            writer.append([payload(1), b""])
        writer.append([payload(2)])
    assert starts_ns(tmp_path) == [2]
    assert verify(tmp_path).ok


def test_a_clock_that_was_set_back_does_not_disorder_the_segments(tmp_path):
    clock = Clock()
    for boot in range(4):
        with start(tmp_path, boot_id=bytes([boot] * 16), wall_ns=clock) as writer:
            writer.append([payload(boot)])
        clock.advance(-3_600_000_000_000)
    assert starts_ns(tmp_path) == [0, 1, 2, 3]


def test_close_tells_that_the_disk_did_not_confirm(tmp_path):
    disk = FaultyDisk()
    writer = start(tmp_path, disk=disk)
    writer.append([payload(1)])
    disk.syncs.append(IO_ERROR)
    with pytest.raises(JournalError, match="sync"):
        writer.close()
    with start(tmp_path, boot_id=uuid.uuid4().bytes):
        pass
    assert starts_ns(tmp_path) == [1]


def test_out_of_descriptors_the_old_segment_goes_on(tmp_path, monkeypatch):
    with start(tmp_path, segment_bytes=500) as writer:
        real_open = os.open

        def no_more(path, flags, *mode, **rest):
            if flags & os.O_EXCL:
                raise OSError(24, "Too many open files")
            return real_open(path, flags, *mode, **rest)

        monkeypatch.setattr(os, "open", no_more)
        for number in range(50):
            writer.append([payload(number)])
        assert len(segments(tmp_path)) == 1
        monkeypatch.undo()
        writer.append([payload(50)])
        assert len(segments(tmp_path)) == 2
    assert starts_ns(tmp_path) == list(range(51))
    assert verify(tmp_path).ok


@pytest.mark.parametrize("cut_fails", [False, True])
def test_a_seal_that_cannot_be_written_is_counted(tmp_path, cut_fails):
    """The second write of the append that fills a segment is the seal's."""
    disk = FaultyDisk()
    with start(tmp_path, segment_bytes=400, disk=disk) as writer:
        while writer.append([payload(1)]) < 100 and len(segments(tmp_path)) == 1:
            disk.mend()
            disk.writes.append((0, 1 << 20))
            disk.fail_write(NO_SPACE, 5)
            disk.cuts.append(IO_ERROR if cut_fails else 0)
    report = verify(tmp_path)
    assert [segment.sealed for segment in report.segments] == [False, True]
    assert report.lost == {Loss.DISK_FULL: 1}
    assert report.ok, report


def test_what_was_buffered_moves_on_to_the_next_segment(tmp_path):
    """The file can neither be written nor cut back: it is left, and nothing was lost yet."""
    disk, clock = FaultyDisk(), Clock()
    with start(tmp_path, mode=Mode.BUFFERED, disk=disk, monotonic_ns=clock) as writer:
        writer.append([payload(1), payload(2)])
        disk.fail_write(IO_ERROR, 40)
        disk.cuts.append(IO_ERROR)
        with pytest.raises(JournalError):
            writer.flush()
        clock.advance(RETRY_NS)
        writer.tick()
    report = verify(tmp_path)
    assert starts_ns(tmp_path) == [1, 2]
    assert report.lost == {}
    assert report.ok, report
