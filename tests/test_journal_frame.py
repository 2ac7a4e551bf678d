"""A frame comes back as it was written, and nothing else passes for one."""

from __future__ import annotations

import pytest
from google_crc32c import value
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import JournalError
from gateway.journal import frame
from gateway.journal.frame import Frame, Unframed, encode, parse, resynchronise, walk

payloads = st.lists(st.binary(min_size=1, max_size=80), max_size=8)


def test_the_bytes_are_as_drawn():
    """The layout in the docstring, built by hand."""
    crc = value(b"\x03\0\0\0" + b"\x07" + bytes(7) + b"abc").to_bytes(4, "little")
    assert encode(7, b"abc") == b"\x03\0\0\0" + crc + b"\x07" + bytes(7) + b"abc"


@given(payloads, st.integers(1, 1 << 48))
def test_frames_come_back(written, first):
    buffer = b"".join(encode(first + i, payload) for i, payload in enumerate(written))
    read = list(walk(buffer, 0, after=first - 1))
    assert [(part.sequence, part.payload) for part in read] == list(enumerate(written, first))


@given(st.binary(max_size=400), st.integers(0, 100))
def test_walk_leaves_out_no_byte_of_anything(buffer, after):
    offset = 0
    for part in walk(buffer, 0, after=after):
        assert part.offset == offset
        offset += part.length if isinstance(part, Unframed) else part.end - part.offset
    assert offset == len(buffer)


@given(st.binary(min_size=1, max_size=30), st.binary(max_size=60))
def test_walk_finds_the_frame_behind_rubbish(rubbish, payload):
    wanted = encode(9, payload + b"!")
    parts = list(walk(encode(1, b"a") + rubbish + wanted, 0, after=0))
    assert parts[0] == Frame(0, 1, b"a")
    assert parts[-1].payload == payload + b"!"


def test_a_frame_whose_sequence_does_not_rise_is_none():
    buffer = encode(5, b"old")
    assert parse(buffer, 0, after=4)
    assert parse(buffer, 0, after=5) is None
    assert parse(buffer, 0, after=5 - 1 - frame.MAX_SKIP) is None
    assert resynchronise(buffer, 0, after=5) is None


def test_zeros_are_no_frame():
    """A hole of zeros has a plausible length and, unsalted, a plausible checksum."""
    assert list(walk(bytes(100_000), 0, after=-1)) == [Unframed(0, 100_000)]


@pytest.mark.parametrize("length", [0, frame.MAX_PAYLOAD + 1])
def test_a_payload_out_of_bounds_is_refused(length):
    with pytest.raises(JournalError, match="does not fit") as caught:
        encode(1, bytes(length))
    assert caught.value.hint


def test_the_longest_payload_is_found_again():
    buffer = b"?" + encode(1, bytes(frame.MAX_PAYLOAD))
    found = resynchronise(buffer, 0, after=0)
    assert found is not None
    assert found.end == len(buffer)
