"""Decisions find their replies, whichever segment tells of them."""

from __future__ import annotations

from dataclasses import replace

from faulty_disk import Clock, crash

from gateway.journal import (
    FOUND_NOBODY,
    Answered,
    Decision,
    Flag,
    Pause,
    Record,
    Refused,
    Replied,
    Reply,
    Writer,
    join_replied,
    read,
    segments,
    verify,
)

BOOT = bytes(16)
DECISION = Decision(
    Flag(0), 1, 0, 0, 0, 7, 1, 1000, 26_000, 1, 2, 3, 4, 5, 0.5, 0.5, 1.0, 9.0, "", 0, b"q", b"a"
)


def answered(directory) -> list[Answered]:
    found = (item for segment in segments(directory) for item in read(segment))
    return list(join_replied(item for item in found if isinstance(item, Record)))


def test_each_call_is_told_once_with_its_reply(tmp_path):
    """Replied, found nobody, never told; a refusal is answered too."""
    refused = Refused(1000, 5, 3, 0, "", ("amount",))
    with Writer.open(tmp_path, worker=0, boot_id=BOOT) as writer:
        first = writer.append([DECISION.encode(), DECISION.encode(), refused.encode()])
        writer.append([Replied(first, 5000, (10, FOUND_NOBODY, 30)).encode(), DECISION.encode()])
    calls = [(call.record.sequence, call.reply, call.replied_ns) for call in answered(tmp_path)]
    assert calls == [
        (1, Reply.LEFT, 5010),
        (2, Reply.FOUND_NOBODY, None),
        (3, Reply.LEFT, 5030),
        (5, Reply.UNKNOWN, None),
    ]


def test_a_reply_is_found_in_a_later_segment_but_not_in_another_boot(tmp_path):
    writer = Writer.open(tmp_path, worker=0, boot_id=BOOT, segment_bytes=600)
    for _ in range(40):
        first = writer.append([replace(DECISION, request=bytes(100)).encode()])
        writer.append([Replied(first, first, (0,)).encode()])
    left = writer.append([DECISION.encode()])
    crash(writer)
    with Writer.open(tmp_path, worker=0, boot_id=b"x" * 16) as again:
        again.append([Pause(0, 0).encode()] * (left - 1))
        again.append([Replied(left, 1, (1,)).encode()])
    calls = answered(tmp_path)
    assert len(segments(tmp_path)) > 5
    assert [call.reply for call in calls] == [Reply.LEFT] * 40 + [Reply.UNKNOWN]
    assert all(call.replied_ns == call.record.sequence for call in calls[:-1])


def test_stamps_of_the_boot_become_wall_time(tmp_path):
    wall, monotonic = Clock(5_000), Clock(70)
    with Writer.open(
        tmp_path, worker=0, boot_id=BOOT, wall_ns=wall, monotonic_ns=monotonic
    ) as writer:
        writer.append([DECISION.encode()])
    (call,) = answered(tmp_path)
    assert call.record.wall_ns(1070) == 6_000


def test_workers_share_a_directory_and_are_told_apart(tmp_path):
    for worker in (0, 1, 255):
        with Writer.open(tmp_path, worker=worker, boot_id=BOOT) as writer:
            writer.append([DECISION.encode()] * (worker % 5 + 1))
    report = verify(tmp_path)
    assert report.ok
    assert {segment.worker: segment.last_sequence for segment in report.segments} == {
        0: 2,
        1: 3,
        255: 2,
    }
