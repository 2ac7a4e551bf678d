"""To read a segment in parts tells the same as to read it at once, whatever is wrong with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

from faulty_disk import crash
from hypothesis import example, given
from hypothesis import strategies as st
from test_journal_reader import BOOT, DECISION

from gateway.journal import Between, Generation, Pause, Record, Writer, read, read_on, segments
from gateway.journal import reader as reader_module

ENTRIES = st.sampled_from(
    [DECISION.encode(), Pause(1, 2).encode(), Generation(3, "cnp", 8, "d", ("v8",)).encode(), b"?"]
)


def in_parts(segment, length: int) -> list[object]:
    """Read the segment `length` bytes at a time, as one that nobody writes any more."""
    items, place = [], Between(segment.header_bytes, segment.name.first_sequence - 1)
    while True:
        part = read_on(segment, place, length=length, is_closed=True)
        assert not part.is_cut_back
        items += part.items
        if part.at_end:
            return items
        assert part.items
        place = part.until


@given(
    payloads=st.lists(ENTRIES, max_size=12),
    length=st.integers(1, 400),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=3),
    cut=st.integers(0, 60),
)
@example(payloads=[b"?"] * 3, length=1, damage=[], cut=0)
@example(payloads=[DECISION.encode()] * 2, length=1, damage=[(0.0, 255)], cut=1)
def test_parts_of_any_length_tell_what_the_whole_tells(payloads, length, damage, cut):
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        writer = Writer.open(directory, worker=0, boot_id=BOOT)
        writer.append(payloads)
        crash(writer)
        (segment,) = segments(directory)
        raw = bytearray(segment.path.read_bytes())
        begin = segment.header_bytes
        for at, bits in damage:
            if len(raw) > begin:
                raw[begin + int(at * (len(raw) - begin - 1))] ^= bits
        segment.path.write_bytes(raw[: max(begin, len(raw) - cut)])
        (segment,) = segments(directory)
        whole = list(read(segment))
        with patch.object(reader_module, "_LENGTH_MIN", 1):
            assert in_parts(segment, length) == whole


def test_what_grows_is_read_as_it_comes_and_its_end_is_left_for_later(tmp_path):
    """Byte by byte: each record once, as soon as its last byte is there, and never damage."""
    writer = Writer.open(tmp_path, worker=0, boot_id=BOOT)
    writer.append([DECISION.encode(), Pause(1, 2).encode(), DECISION.encode()])
    crash(writer)
    (segment,) = segments(tmp_path)
    raw = segment.path.read_bytes()
    whole = [item for item in read(segment) if isinstance(item, Record)]
    items, place = [], Between(segment.header_bytes, 0)
    for size in range(segment.header_bytes, len(raw) + 1):
        segment.path.write_bytes(raw[:size])
        part = read_on(segment, place, length=1, is_closed=False)
        items += part.items
        place = part.until
        assert len(items) == sum(record.end <= size for record in whole)
    assert items == whole
