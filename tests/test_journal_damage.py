"""Whatever happens to the bytes: what is good is read, what is not is named, and life goes on.

The last part matters most: after each recovery the journal is appended to again and read back
whole. Torn-tail tests that stop at the recovery have passed in journals that lost rows.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from faulty_disk import Clock, crash, entries

from gateway.journal import (
    Damage,
    Fault,
    Pause,
    Record,
    Sealed,
    TornTail,
    Writer,
    read,
    segments,
    verify,
)
from gateway.journal.frame import encode
from gateway.journal.segment import decode_header

OLD_BOOT, NEW_BOOT = b"o" * 16, b"n" * 16
COUNT = 6


@pytest.fixture(scope="module")
def crashed(tmp_path_factory) -> Path:
    """A segment of six records whose writer was killed."""
    return _journal(tmp_path_factory.mktemp("crashed"), close=False)


@pytest.fixture(scope="module")
def closed(tmp_path_factory) -> Path:
    """The same, closed in order: a seventh frame seals it."""
    return _journal(tmp_path_factory.mktemp("closed"), close=True)


def _journal(directory: Path, *, close: bool) -> Path:
    clock = Clock()
    writer = Writer.open(directory, worker=3, boot_id=OLD_BOOT, wall_ns=clock, monotonic_ns=clock)
    for number in range(1, COUNT + 1):
        writer.append([Pause(number, number).encode()])
    if close:
        writer.close()
    else:
        crash(writer)
    (segment,) = segments(directory)
    return segment.path


def _frames(path: Path) -> list[tuple[int, int, int]]:
    """Sequence, offset and end of every frame of an undamaged segment."""
    (segment,) = segments(path.parent)
    return [(item.sequence, item.offset, item.end) for item in read(segment)]


def _with(original: Path, content: bytes, directory: Path) -> Path:
    """Put `content` in the place of the segment, in a journal of its own."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    path = directory / original.name
    path.write_bytes(content)
    return path


def _append_again_and_check(directory: Path, expected: set[int]) -> None:
    """Recover, append, and read back: the expected old records and all new ones, unaltered."""
    for boot in (NEW_BOOT, b"m" * 16):
        with Writer.open(directory, worker=3, boot_id=boot) as writer:
            assert writer.append([Pause(100, 1).encode(), Pause(101, 1).encode()]) == 1
    found = entries(directory)
    old = {sequence: entry for (boot, sequence), entry in found.items() if boot == OLD_BOOT}
    assert set(old) >= expected
    assert all(old[sequence] == Pause(sequence, sequence) for sequence in expected)
    for boot in (NEW_BOOT, b"m" * 16):
        assert [found[boot, 1], found[boot, 2]] == [Pause(100, 1), Pause(101, 1)]


def test_every_flipped_byte_is_noticed_and_costs_one_frame_at_most(crashed, tmp_path):
    """One random bit of each byte, all eight of every fourth."""
    chosen = random.Random(7)
    content, frames = crashed.read_bytes(), _frames(crashed)
    for offset in range(len(content)):
        hit = {sequence for sequence, start, end in frames if start <= offset < end}
        for mask in {1 << chosen.randrange(8), 0xFF if offset % 4 == 0 else 1}:
            altered = bytearray(content)
            altered[offset] ^= mask
            path = _with(crashed, bytes(altered), tmp_path / "journal")
            report = verify(path.parent)
            kept = set(range(1, COUNT + 1)) - hit
            assert {sequence for _, sequence in entries(path.parent)} == kept
            if hit == {COUNT}:
                assert report.ok
                assert report.torn_bytes == frames[-1][2] - frames[-1][1]
            else:
                (damage,) = report.damage
                assert damage.offset <= offset < damage.offset + damage.length
                expected = (min(hit), min(hit)) if hit else None
                assert damage.missing == expected
                assert damage.fault is (Fault.FRAME if hit else Fault.HEADER)
                assert [m.first_sequence for m in report.missing] == sorted(hit)
            _append_again_and_check(path.parent, kept)


def test_every_truncation_keeps_the_whole_frames(crashed, tmp_path):
    content, frames = crashed.read_bytes(), _frames(crashed)
    for length in range(len(content)):
        path = _with(crashed, content[:length], tmp_path / "journal")
        whole = {sequence for sequence, _, end in frames if end <= length}
        header = decode_header(content)[1]
        good = max([end for _, _, end in frames if end <= length] + [min(length, header)])
        report = verify(path.parent)
        assert report.ok
        assert report.torn_bytes == (length if length < header else length - good)
        assert {sequence for _, sequence in entries(path.parent)} == whole
        _append_again_and_check(path.parent, whole)
        after = verify(path.parent)
        assert after.ok
        assert after.cut_bytes + after.torn_bytes == report.torn_bytes


def test_in_a_sealed_segment_a_bad_frame_is_damage(closed, tmp_path):
    content, frames = closed.read_bytes(), _frames(closed)
    _, start, _ = frames[COUNT - 1]
    altered = bytearray(content)
    altered[start + 20] ^= 1
    path = _with(closed, bytes(altered), tmp_path / "journal")
    (damage,) = verify(path.parent).damage
    assert damage.missing == (COUNT, COUNT)
    _append_again_and_check(path.parent, set(range(1, COUNT)))


def test_rubbish_behind_the_seal_is_damage(closed, tmp_path):
    path = _with(closed, closed.read_bytes() + b"rubbish", tmp_path / "journal")
    (segment,) = segments(path.parent)
    *records, damage = read(segment)
    assert isinstance(records[-1].entry, Sealed)
    assert isinstance(damage, Damage)
    assert damage.missing is None


def test_zeros_and_rubbish_at_the_end_are_a_torn_tail(crashed, tmp_path):
    for tail in (bytes(5000), b"\x10\0\0\0", random.Random(1).randbytes(3000)):
        path = _with(crashed, crashed.read_bytes() + tail, tmp_path / "journal")
        (segment,) = segments(path.parent)
        *records, torn = read(segment)
        assert len(records) == COUNT
        assert torn == TornTail(path, path.stat().st_size - len(tail), len(tail))
        _append_again_and_check(path.parent, set(range(1, COUNT + 1)))
        assert verify(path.parent).cut_bytes == len(tail)


def test_a_hole_of_zeros_in_the_middle_names_what_is_missing(crashed, tmp_path):
    content, frames = bytearray(crashed.read_bytes()), _frames(crashed)
    start, end = frames[1][1] + 5, frames[3][2] - 5
    content[start:end] = bytes(end - start)
    path = _with(crashed, bytes(content), tmp_path / "journal")
    (damage,) = verify(path.parent).damage
    assert damage.missing == (2, 4)
    _append_again_and_check(path.parent, {1, 5, 6})


def test_a_damaged_header_costs_no_record(crashed, tmp_path):
    content = crashed.read_bytes()
    size = decode_header(content)[1]
    path = _with(crashed, bytes(size) + content[size:], tmp_path / "journal")
    (segment,) = segments(path.parent)
    damage, *records = read(segment)
    assert (damage.fault, damage.offset, damage.length) == (Fault.HEADER, 0, size)
    assert [record.sequence for record in records] == list(range(1, COUNT + 1))
    assert segment.boot == (3, OLD_BOOT)
    assert records[0].wall_ns(5) is None


def test_a_renamed_segment_is_known_by_its_header(crashed, tmp_path):
    path = tmp_path / "copy.journal"
    shutil.copy(crashed, path)
    assert {sequence for boot, sequence in entries(tmp_path)} == set(range(1, COUNT + 1))
    assert verify(tmp_path).ok
    path.write_bytes(b"neither name nor header")
    (damage,) = verify(tmp_path).damage
    assert damage.fault is Fault.NAME


def test_a_segment_that_is_gone_is_missing(tmp_path):
    with Writer.open(tmp_path, worker=0, boot_id=OLD_BOOT, segment_bytes=300) as writer:
        for number in range(60):
            writer.append([Pause(number, 0).encode()])
    gone = segments(tmp_path)[2]
    held = [item.sequence for item in read(gone) if isinstance(item, Record)]
    gone.path.unlink()
    assert list(read(gone)) == []
    (missing,) = verify(tmp_path).missing
    assert (missing.first_sequence, missing.last_sequence) == (held[0], held[-1])


def test_a_good_frame_that_is_no_entry_is_damage_of_its_own(tmp_path):
    writer = Writer.open(tmp_path, worker=0, boot_id=OLD_BOOT)
    writer.append([b"\xee what is this", Pause(1, 1).encode()])
    writer.close()
    report = verify(tmp_path)
    (damage,) = report.damage
    assert (damage.fault, damage.missing) == (Fault.ENTRY, (1, 1))
    assert "what is this" not in damage.detail
    assert entries(tmp_path)[OLD_BOOT, 2] == Pause(1, 1)


def test_random_bytes_are_read_without_an_error(tmp_path):
    """Fuzzing: any content at all under a segment's name, or none."""
    chosen = random.Random(3)
    name = "00000000000000000001-003-" + OLD_BOOT.hex() + "-000000000000001.journal"
    for _ in range(300):
        content = chosen.randbytes(chosen.randrange(200))
        path = tmp_path / chosen.choice([name, "x.journal"])
        path.write_bytes(content)
        report = verify(tmp_path)
        assert not report.entries
        path.unlink()


def test_a_kill_between_the_next_file_and_the_seal_is_neither_damage_nor_a_hole(tmp_path):
    """The seal may be half there, or not at all: in both cases nothing is missing."""
    for torn in (0, 9):
        directory = tmp_path / str(torn)
        writer = Writer.open(directory, worker=0, boot_id=bytes(16))
        writer.append([Pause(1, 2).encode()])
        (path,) = directory.glob("*.journal")
        writer._create_segment(writer.next_sequence + 1)
        seal = encode(writer.next_sequence, Sealed().encode())
        crash(writer)
        with path.open("ab") as file:
            file.write(seal[:torn])
        assert verify(directory).ok
        with Writer.open(directory, worker=0, boot_id=b"c" * 16) as again:
            again.append([Pause(3, 4).encode()])
        assert verify(directory).ok
