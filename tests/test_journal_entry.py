"""Every entry comes back as it was written, and no bytes at all make `decode` fail otherwise."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import JournalDamaged
from gateway.journal import (
    DECISION_HEAD,
    U32_MAX,
    Decision,
    Flag,
    Gap,
    Generation,
    Kind,
    Loss,
    Pause,
    Refused,
    Rejected,
    Replied,
    Scored,
    ScoredCall,
    Sealed,
    Shed,
    decision_id,
    kind_of,
    parse_decision_id,
    saturated,
)
from gateway.journal.entry import decode

u8, u16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
u32, u64 = st.integers(0, U32_MAX), st.integers(0, (1 << 64) - 1)
number = st.floats(allow_nan=False)
ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=255)
name = st.text(max_size=40)
boot_id = st.binary(min_size=16, max_size=16)

decisions = st.builds(
    Decision,
    flags=st.integers(0, 31).map(Flag),
    action=u8,
    second_best=u8,
    stand_in=u8,
    product=u16,
    generation=u32,
    batch_size=u16,
    arrival_ns=u64,
    deadline_ns=u64,
    admit_after_ns=u32,
    encode_after_ns=u32,
    infer_after_ns=u32,
    decide_after_ns=u32,
    record_after_ns=u32,
    score=number,
    probability=number,
    propensity=number,
    margin=number,
    traceparent=ascii_text,
    arm=u8,
    request=st.binary(max_size=300),
    response=st.binary(max_size=300),
)
entries = st.one_of(
    decisions,
    st.builds(Refused, u64, u32, u8, u16, ascii_text, st.lists(name, max_size=5).map(tuple)),
    st.builds(Replied, u64, u64, st.lists(u32, max_size=20).map(tuple)),
    st.builds(Gap, st.sampled_from(Loss), u64, u64, u64, u64, u16, boot_id),
    st.builds(Pause, u64, u64),
    st.builds(Shed, u64, u64, u32),
    st.builds(Generation, u16, name, u32, name, st.lists(name, max_size=3).map(tuple)),
    st.builds(Rejected, name, name, u32, name, st.lists(name, max_size=3).map(tuple)),
    st.builds(
        Scored,
        *(u16, u8, u32, u32, u64),
        st.lists(st.builds(ScoredCall, u64, number, number, u8), max_size=5).map(tuple),
    ),
    st.just(Sealed()),
)


@given(entries)
def test_an_entry_comes_back(entry):
    payload = entry.encode()
    assert decode(payload) == entry
    assert payload[0] == kind_of(entry)


@given(entries, st.data())
def test_an_altered_payload_is_an_entry_or_damage(entry, data):
    """Cut, prolonged or changed at will: JournalDamaged or an entry, never another error."""
    payload = bytearray(entry.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(u8)
    altered = bytes(payload[: data.draw(st.integers(0, len(payload)))]) + data.draw(
        st.binary(max_size=3)
    )
    with suppress(JournalDamaged):
        decode(altered)


def test_a_cut_entry_is_never_taken_for_a_whole_one():
    entry = Refused(1, 2, 3, 4, "00-ab", ("amount", "currency"))
    payload = entry.encode()
    for length in range(len(payload)):
        with pytest.raises(JournalDamaged):
            decode(payload[:length])


def test_the_struct_for_the_hot_path_is_what_the_dataclass_writes():
    """The hall packs by itself; a stand-in's score is NaN."""
    head = DECISION_HEAD.pack(
        Kind.DECISION, 8, 2, 0, 1, 3, 7, 64, 10, 20, 1, 2, 3, 4, 5, math.nan, 0.5, 1, 9, 2, 0, 3, 4
    )
    entry = decode(head + b"tpreqresp")
    assert isinstance(entry, Decision)
    assert math.isnan(entry.score)
    assert (entry.traceparent, entry.request, entry.response) == ("tp", b"req", b"resp")
    assert (entry.flags, entry.stand_in, entry.record_after_ns) == (Flag.EXPIRED, 1, 5)
    assert entry.encode() == head + b"tpreqresp"


def test_no_message_carries_a_payload():
    with pytest.raises(JournalDamaged) as caught:
        decode(bytes((Kind.GENERATION,)) + b'{"pan": "4111111111111111"')
    assert "4111" not in f"{caught.value}{caught.value.hint}"
    assert caught.value.__suppress_context__


def test_a_stage_that_took_too_long_saturates():
    assert [saturated(ns) for ns in (-5, 0, U32_MAX, U32_MAX + 1)] == [0, 0, U32_MAX, U32_MAX]


@given(boot_id, u8, st.integers(0, (1 << 48) - 1))
def test_a_decision_id_says_where_the_record_stands(boot, worker, sequence):
    text = decision_id(boot, worker, sequence)
    assert len(text) == 32
    assert parse_decision_id(text) == (boot[:8], worker, sequence)


@given(st.text(max_size=40))
def test_no_other_text_is_a_decision_id(text):
    with pytest.raises(ValueError, match="no decision id"):
        parse_decision_id(text + "g")
