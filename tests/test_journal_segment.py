"""A segment's header and name come back, and an altered header is noticed."""

from __future__ import annotations

from json import dumps

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import JournalDamaged
from gateway.journal import Generation, segment
from gateway.journal.segment import (
    Dropped,
    Header,
    HeaderIncomplete,
    Recovered,
    SegmentName,
    decode_header,
    parse_name,
)

boot_id = st.binary(min_size=16, max_size=16)
u64 = st.integers(0, (1 << 64) - 1)
names = st.builds(
    SegmentName, st.integers(0, 10**20 - 1), st.integers(0, 255), boot_id, st.integers(0, 1 << 48)
)
headers = st.builds(
    Header,
    st.integers(0, 255),
    boot_id,
    u64,
    u64,
    u64,
    st.lists(
        st.builds(
            Generation, st.integers(0, 9), st.text(max_size=9), st.integers(0, 9), st.just("d")
        ),
        max_size=3,
    ).map(tuple),
    st.lists(st.builds(Recovered, st.text(max_size=9), u64, u64), max_size=2).map(tuple),
    st.lists(st.builds(Dropped, boot_id, u64, u64, st.booleans()), max_size=2).map(tuple),
)


@given(headers, st.binary(max_size=20))
def test_a_header_comes_back(header, frames):
    encoded = header.encode()
    assert decode_header(encoded + frames) == (header, len(encoded))


@pytest.mark.parametrize(
    ("table", "is_read"),
    [
        ({"products": [], "recovered": []}, True),  # of a gateway before it said what was dropped
        ({"products": [], "recovered": [], "dropped": [["00" * 16, 1, 2, True]]}, True),
        ({"products": [], "recovered": [], "dropped": [["0x", 1, 2, True]]}, False),
        ({"products": [], "recovered": [], "dropped": [[]]}, False),
        ({"products": [], "recovered": [], "dropped": 7}, False),
    ],
)
def test_a_table_that_lacks_what_was_dropped_is_read_and_one_of_no_sense_is_not(
    table, is_read, monkeypatch
):
    monkeypatch.setattr(segment.json, "dumps", lambda _: dumps(table))
    encoded = Header(0, bytes(16), 1, 1, 1).encode()
    if is_read:
        assert len(decode_header(encoded)[0].dropped) == len(table.get("dropped", ()))
    else:
        with pytest.raises(JournalDamaged):
            decode_header(encoded)


@given(headers, st.data())
def test_a_header_that_was_altered_is_noticed(header, data):
    encoded = bytearray(header.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(JournalDamaged):
        decode_header(bytes(encoded))


@given(headers, st.data())
def test_a_header_that_was_cut_is_known_as_such(header, data):
    encoded = header.encode()
    with pytest.raises(HeaderIncomplete):
        decode_header(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(names)
def test_a_name_comes_back(name):
    assert parse_name(str(name)) == name


@given(names, names)
def test_names_sort_as_text_in_the_order_of_time(one, other):
    if one.created_ns != other.created_ns:
        assert (str(one) < str(other)) == (one.created_ns < other.created_ns)


@given(st.text(max_size=100))
def test_another_name_is_none(text):
    assert parse_name(text) is None


def test_monotonic_stamps_become_wall_time():
    header = Header(0, bytes(16), created_wall_ns=1_000, created_monotonic_ns=40, first_sequence=1)
    assert header.wall_ns(45) == 1_005
    assert header.wall_ns(30) == 990
