"""The load generator measures what it says: against real servers, a strict one, and oracles."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import catalogue
import grpc
import numpy as np
import pytest
from conftest import Serve, stand_still
from hpack import Encoder
from http2_server import Peer, http2_server
from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.connection import Ledger
from gateway.bench.count import (
    QUANTILES,
    count,
    doubts,
    median_of,
    percentiles_us,
    read_answers,
    recovery_ms,
    windows,
)
from gateway.bench.frames import (
    CONNECTION_LOST,
    INTERNAL,
    REFUSED_TWICE,
    RESOURCE_EXHAUSTED,
    STATUS_NAMES,
    UNKNOWN,
    request,
    request_block,
    status_of,
)
from gateway.bench.generator import Calls, Plan, generate
from gateway.bench.load import Deed, Load, apply
from gateway.bench.pool import Pool, address_of
from gateway.bench.product import SLOW, Kind
from gateway.bench.rig import Measured, Scope, Tally
from gateway.bench.scenario import LEVELS, SCENARIOS
from gateway.bench.schedule import burst, poisson, steps
from gateway.bench.traffic import PLACEHOLDER, messages
from gateway.bench.witness import Seen, Witnesses
from gateway.cli.bench_account import account
from gateway.cli.bench_picture import bench_picture
from gateway.cli.main import run
from gateway.errors import ExitCode, UnreachableError
from gateway.v1.decision_pb2 import DecideRequest, DecideResponse
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

NOTHING = np.zeros(0, np.int64)
ASKED = DecideRequest(product="test", transaction_id=PLACEHOLDER.decode(), amount=1)


def plan(address: str, schedule: np.ndarray, **changes: object) -> Plan:
    messages = changes.pop("messages", (ASKED.SerializeToString(),))
    assert isinstance(messages, tuple)
    size = max(1, len(schedule))
    return Plan(
        **{
            "address": address,
            "block": request_block(address),
            "messages": messages,
            "placeholder": PLACEHOLDER,
            "run": "0badcafe",
            "schedule_ns": schedule,
            "which": (np.arange(size) % len(messages)).astype(np.uint16),
            "connections": 2,
            # A busy machine may take its time.
            "patience_s": 20.0,
            **changes,
        }
    )


def told(peer: Peer, stream: int) -> DecideRequest:
    return DecideRequest.FromString(peer.bodies[stream][5:])


def echo(peer: Peer, stream: int) -> None:
    """Answer with the transaction id as decision id."""
    answered = DecideResponse(decision_id=told(peer, stream).transaction_id)
    peer.answer(stream, answered.SerializeToString())


def ids(calls: Calls) -> list[str]:
    return list(read_answers(calls).decision_ids)


def expected_ids(size: int) -> list[str]:
    return [f"0badcafe{number:016x}" for number in range(size)]


# --- the client ---------------------------------------------------------------------------


class TestFrames:
    def test_a_strict_server_reads_the_request_that_was_meant(self) -> None:
        with http2_server(echo) as server:
            block = request_block("a" * 300, timeout_us=25_000)
            calls = generate(plan(server.address, burst(3), block=block, connections=1))
        (peer,) = server.peers
        assert ids(calls) == expected_ids(3)
        assert peer.headers[1] == {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/gateway.v1.DecisionService/Decide",
            ":authority": "a" * 300,
            "grpc-timeout": "25000u",
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "gateway-bench",
        }
        assert peer.table_size == 0
        assert peer.settings_acked >= 1

    @given(st.integers(0, 16), st.booleans(), st.booleans())
    def test_a_status_is_read_however_it_is_encoded(
        self, status: int, huffman: bool, table_update: bool
    ) -> None:
        encoder = Encoder()
        encoder.header_table_size = 0
        fields = [("grpc-status", str(status)), ("grpc-message", "why not")]
        block = encoder.encode(fields, huffman=huffman)
        if not table_update:
            block = block[1:] if block[0] == 0x20 else block
        assert status_of(block) == status

    def test_a_block_without_a_status_is_unknown_and_one_that_needs_a_table_is_no_block(
        self,
    ) -> None:
        encoder = Encoder()
        encoder.header_table_size = 0
        assert status_of(encoder.encode([(":status", "503")])) == UNKNOWN
        for block in (b"\xbe", b"\x40\x0bgrpc-st", b"\x3f\xe1\x1f\x88"):
            with pytest.raises(ValueError, match="header block"):
                status_of(block)

    def test_a_message_must_hold_the_placeholder_once(self) -> None:
        for message in (b"none", PLACEHOLDER * 2):
            with pytest.raises(ValueError, match="once"):
                request(b"", message, PLACEHOLDER)


class TestClient:
    def test_every_call_reaches_grpcio_and_its_status_comes_back(self) -> None:
        """A real server in other hands: its answers and its errors arrive at their own calls."""
        seen: list[str] = []

        def decide(asked: DecideRequest, context: grpc.ServicerContext) -> DecideResponse:
            seen.append(asked.transaction_id)
            if asked.amount:
                context.abort(grpc.StatusCode(_code(asked.amount)), "as asked for")
            return DecideResponse(decision_id=asked.transaction_id, elapsed_us=7)

        amounts = (0, 8, 0, 3, 14)
        variants = tuple(
            DecideRequest(transaction_id=PLACEHOLDER.decode(), amount=one).SerializeToString()
            for one in amounts
        )
        with grpcio_server(decide) as address:
            calls = generate(plan(address, burst(250), messages=variants))
        assert sorted(seen) == expected_ids(250)
        assert calls.status.tolist() == [amounts[i % 5] for i in range(250)]
        assert ids(calls) == [one for i, one in enumerate(expected_ids(250)) if amounts[i % 5] == 0]
        assert read_answers(calls).elapsed_us[0] == 7

    def test_both_fronts_give_the_decision_that_any_other_client_gets(self, serve: Serve) -> None:
        with serve() as running:
            asked = catalogue.request(running.fingerprint)
            asked.transaction_id = PLACEHOLDER.decode()
            calls = generate(
                plan(
                    running.address,
                    poisson(np.random.default_rng(1), 1000.0, 0.4),
                    messages=(asked.SerializeToString(),),
                )
            )
            asked.transaction_id = expected_ids(1)[0]
            other = DecisionServiceStub(running.channel).Decide(asked, timeout=10)
            running.ended()
        assert calls.status.tolist() == [0] * 400
        answers = read_answers(calls)
        # A busy machine may make stand-ins of some; the model's say what they must.
        assert set(answers.action[answers.stand_in == 0]) == {other.action}
        assert len(set(answers.decision_ids)) == 400
        actions = dict(zip(answers.decision_ids, answers.action.tolist(), strict=True))
        held = account(running.journal, Tally({**actions, other.decision_id: other.action}))
        assert held["answered"] == held["recorded"] == 401
        assert held["unrecorded"] == held["unaccounted"] == 0
        wrong = {**actions, "nowhere": 1, answers.decision_ids[0]: 0}
        held = account(running.journal, Tally(wrong, shed=3))
        assert (held["unrecorded"], held["unaccounted"]) == (2, 3)

    def test_a_refusal_of_the_gateway_is_no_answer(self, serve: Serve) -> None:
        with serve() as running:
            calls = generate(plan(running.address, burst(20)))
        assert set(calls.status.tolist()) <= {3, 5}
        assert ids(calls) == []

    def test_no_stream_is_opened_above_the_servers_limit(self) -> None:
        with http2_server(echo, {0x3: 2}) as server:
            calls = generate(plan(server.address, burst(60)))
        assert sorted(ids(calls)) == expected_ids(60)
        assert [peer.open_most for peer in server.peers] == [2, 2]
        assert calls.waited >= 56

    def test_a_large_flow_is_acknowledged_and_arrives_whole(self) -> None:
        """6 MB came and the window is nearly whole: the server was told of what was read."""
        model = "x" * 40_000

        def large(peer: Peer, stream: int) -> None:
            name = told(peer, stream).transaction_id
            answer = DecideResponse(decision_id=name, model={"version": model})
            peer.answer(stream, answer.SerializeToString())

        with http2_server(large) as server:
            calls = generate(plan(server.address, burst(150), connections=1))
            sent, until_s = 150 * 40_000, time.monotonic() + 60
            # The last of it is on its way to the server's thread.
            while server.peers[0].h2.outbound_flow_control_window <= 2**30 - sent / 2:
                assert time.monotonic() < until_s
                time.sleep(0.01)
        assert ids(calls) == expected_ids(150)
        assert DecideResponse.FromString(calls.answers[149][5:]).model.version == model

    def test_padding_and_continued_headers_change_nothing(self) -> None:
        def odd(peer: Peer, stream: int) -> None:
            message = DecideResponse(decision_id=told(peer, stream).transaction_id)
            more = {"pad_length": 100} if stream % 4 == 1 else {}
            peer.h2.send_headers(stream, [(":status", "200"), ("filler", "f" * 27_000)])
            framed = message.SerializeToString()
            peer.h2.send_data(stream, len(framed).to_bytes(5, "big") + framed, **more)
            # Huffman's code makes six bits of an f: still more than a frame holds.
            trailers = [("grpc-status", "0"), ("filler", "f" * 27_000)]
            peer.h2.send_headers(stream, trailers, end_stream=True)

        with http2_server(odd) as server:
            calls = generate(plan(server.address, burst(4), connections=1))
        assert ids(calls) == expected_ids(4)

    def test_a_ping_is_answered(self) -> None:
        """The server answers a call only when its ping has come back."""

        def ping(peer: Peer, stream: int) -> None:
            peer.after_ping.append(lambda: echo(peer, stream))
            peer.h2.ping(b"12345678")

        with http2_server(ping) as server:
            calls = generate(plan(server.address, burst(10), connections=1))
        assert ids(calls) == expected_ids(10)

    def test_a_stream_that_was_reset_fails_and_one_that_was_refused_is_sent_once_more(
        self,
    ) -> None:
        refused: list[str] = []

        def reset(peer: Peer, stream: int) -> None:
            name = told(peer, stream).transaction_id
            number = int(name, 16) & 0xFF
            if number == 3:
                peer.h2.reset_stream(stream, 0x2)
            elif number == 5 or (number == 7 and name not in refused):
                refused.append(name)
                peer.h2.reset_stream(stream, 0x7)
            else:
                echo(peer, stream)

        with http2_server(reset) as server:
            calls = generate(plan(server.address, burst(10)))
        wanted = [0] * 10
        wanted[3], wanted[5] = INTERNAL, REFUSED_TWICE
        assert calls.status.tolist() == wanted
        # 5 was tried twice, and no third time.
        assert sorted(int(one, 16) & 0xFF for one in refused) == [5, 5, 7]
        assert calls.resent == 2

    def test_what_a_goaway_left_unseen_is_sent_elsewhere_its_clock_running(self) -> None:
        others_done, waited = threading.Event(), []

        def leave(peer: Peer, stream: int) -> None:
            if peer.number == 0 and stream < 9:
                echo(peer, stream)
            elif peer.number == 0 and not waited:
                # 9 and above were never looked at. The connection stays until all is done.
                peer.h2.close_connection(last_stream_id=7)
                peer.flush()
                waited.append(others_done.wait(60))
                peer.close()
            elif peer.number > 0:
                echo(peer, stream)
                if stream == 31:
                    peer.flush()
                    others_done.set()

        with http2_server(leave) as server:
            calls = generate(plan(server.address, burst(20), connections=1))
        assert sorted(ids(calls)) == expected_ids(20)
        assert waited == [True]
        assert calls.resent == 16
        # Their clock runs from the first schedule, and from the first time they were sent.
        assert (calls.scheduled_ns == calls.begun_ns).all()
        assert calls.sent_ns[4:].max() < calls.received_ns[4:].min()

    def test_status_names_are_grpcs(self) -> None:
        names = {one.value[0]: one.name for one in grpc.StatusCode}
        assert {code: STATUS_NAMES[code] for code in names} == names | {0: "no message"}

    def test_a_lost_connection_fails_what_was_in_flight_and_is_made_again(self) -> None:
        def drop(peer: Peer, stream: int) -> None:
            if told(peer, stream).transaction_id.endswith("14"):
                peer.close()
            else:
                echo(peer, stream)

        with http2_server(drop) as server:
            schedule = np.arange(40, dtype=np.int64) * 10_000_000
            calls = generate(plan(server.address, schedule, connections=1))
        failed = [i for i, one in enumerate(calls.status) if one]
        # And whatever else a busy machine sent before it saw that.
        assert failed == list(range(20, 20 + len(failed)))
        assert 1 <= len(failed) < 20
        assert set(calls.status[failed]) == {CONNECTION_LOST}
        assert calls.lost == 1
        assert len(server.peers) == 2

    def test_what_the_server_said_last_is_read_although_sending_fails_first(self) -> None:
        """A reset socket refuses the next send while answers and a GOAWAY wait to be read."""
        closed = threading.Event()

        def leave(peer: Peer, stream: int) -> None:
            echo(peer, stream)
            peer.h2.close_connection(last_stream_id=stream)
            peer.flush()
            peer.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.link.close()
            closed.set()

        ledger = Ledger()
        asked = request(request_block("a"), ASKED.SerializeToString(), PLACEHOLDER)
        with http2_server(leave) as server:
            pool = Pool(address_of(server.address), 1, ledger, time.monotonic_ns)
            pool.open(server.address)
            for name in (b"0" * 24, b"1" * 24):
                assert pool.start(ledger.open(0), asked, name)
                pool.flush()
                assert closed.wait(60)
            pool.close()
        assert ledger.status == [0, -1]
        assert ledger.again == [1]

    def test_a_server_that_breaks_the_protocol_is_left(self) -> None:
        def garbage(peer: Peer, stream: int) -> None:
            peer.link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)

        with http2_server(garbage) as server:
            calls = generate(plan(server.address, burst(1), connections=1, patience_s=0.2))
        assert calls.status.tolist() == [CONNECTION_LOST]

    def test_a_silent_server_leaves_its_calls_without_a_status(self) -> None:
        with http2_server(lambda peer, stream: None) as server:
            calls = generate(plan(server.address, burst(3), patience_s=0.1))
        assert calls.status.tolist() == [-1, -1, -1]
        counted = count(calls, read_answers(calls), budget_us=25_000)
        assert (counted.sent, counted.answered, counted.failed) == (3, 0, 3)

    def test_nobody_there_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gateway.bench.pool.CONNECT_S", 0.1)
        with http2_server(echo) as server:
            address = server.address
        with pytest.raises(UnreachableError, match=address):
            generate(plan(address, burst(1)))


@pytest.mark.alone
class TestOpenLoop:
    def test_a_server_that_stalls_is_seen_by_every_call_that_it_kept_waiting(self) -> None:
        """No coordinated omission: a client that waits for answers would see one slow call."""
        stalled_ns: list[int] = []

        def stall(peer: Peer, stream: int) -> None:
            if told(peer, stream).transaction_id.endswith("0050"):
                stalled_ns.append(time.monotonic_ns())
                time.sleep(0.3)
                stalled_ns.append(time.monotonic_ns())
            echo(peer, stream)

        with http2_server(stall) as server:
            calls = generate(plan(server.address, steps_of(300, 2_500_000), connections=1))
        begin_ns, end_ns = stalled_ns
        assert (calls.status == 0).all()
        during = (calls.scheduled_ns > begin_ns) & (calls.scheduled_ns < end_ns)
        assert during.sum() >= 100
        # They were sent although nothing was answered...
        assert (calls.sent_ns[during] < end_ns).mean() > 0.25
        # ... and each waited for the end from its own time on.
        waits_ns = calls.received_ns - calls.scheduled_ns
        assert (waits_ns[during] >= end_ns - calls.scheduled_ns[during]).all()
        counted = count(calls, read_answers(calls), budget_us=25_000)
        assert counted.late >= (during & (calls.sent_ns < end_ns - 26_100_000)).sum() >= 20
        # A call sent only when the one before was answered would have been the only late one.
        assert counted.latency_us["p90"] > 25_000

    def test_latency_counts_from_the_schedule_even_where_no_stream_was_free(self) -> None:
        def slow(peer: Peer, stream: int) -> None:
            time.sleep(0.02)
            echo(peer, stream)

        with http2_server(slow, {0x3: 1}) as server:
            calls = generate(plan(server.address, burst(10), connections=1))
        counted = count(calls, read_answers(calls), budget_us=50_000)
        assert counted.waited == 9
        # From sending each took its 20 ms: none is late, but the last is 200 ms old.
        assert counted.latency_us["max"] >= 200_000
        sent_us = (calls.received_ns - calls.sent_ns) / 1000
        assert np.median(sent_us) < 100_000
        assert counted.lag_us["p99"] >= 160_000

    def test_a_closed_loop_keeps_to_its_number_in_flight(self) -> None:
        with http2_server(echo) as server:
            calls = generate(plan(server.address, NOTHING, closed_s=0.3, in_flight_max=3))
        assert len(calls.status) > 3
        assert (calls.status == 0).all()
        edges = sorted(
            [(one, 1) for one in calls.sent_ns] + [(one, -1) for one in calls.received_ns]
        )
        assert max(np.cumsum([step for _, step in edges])) <= 3

    def test_the_child_process_reports_and_each_deed_is_done_once_in_its_time(self) -> None:
        done: list[tuple[str, int]] = []

        def deed(after_s: float, name: str) -> Deed:
            return Deed(after_s, lambda: done.append((name, time.monotonic_ns())))

        cores = tuple(sorted(os.sched_getaffinity(0)))
        with http2_server(echo) as server:
            load = apply(
                plan(server.address, steps_of(60, gap_ns=10_000_000)),
                cores[-1:],
                deeds=[deed(0.4, "third"), deed(0.2, "first"), deed(0.2, "second")],
            )
        assert ids(load.calls) == expected_ids(60)
        assert [name for name, _ in done] == ["first", "second", "third"]
        for (_, at_ns), after_s in zip(done, (0.2, 0.2, 0.4), strict=True):
            assert after_s <= (at_ns - load.calls.begun_ns) / 1e9


# --- the schedule -------------------------------------------------------------------------


class TestSchedule:
    def test_poisson_arrivals_have_exponential_gaps_and_uniform_places(self) -> None:
        drawn = poisson(np.random.default_rng(3), 5_000.0, 4.0)
        assert len(drawn) == 20_000
        assert (np.diff(drawn) >= 0).all()
        assert 0 <= drawn[0] <= drawn[-1] < 4_000_000_000
        gaps = np.diff(drawn) / 1e9
        # Kolmogorov and Smirnov's distance from the exponential law, at the 1 % level.
        law = 1 - np.exp(-np.sort(gaps) * 5_000)
        ranks = np.arange(len(gaps)) / len(gaps)
        distance = max((law - ranks).max(), (ranks + 1 / len(gaps) - law).max())
        assert distance < 1.63 / np.sqrt(len(gaps))
        assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)
        # The counts of equal windows vary as Poisson's do: variance = mean.
        counts = np.bincount(drawn // 10_000_000, minlength=400)
        assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.25)

    def test_a_seed_gives_the_same_schedule_again_and_another_gives_another(self) -> None:
        one, same, other = (poisson(np.random.default_rng(i), 100.0, 1.0) for i in (1, 1, 2))
        assert (one == same).all()
        assert (one != other).any()

    def test_steps_follow_each_other_at_their_own_rates(self) -> None:
        drawn = steps(np.random.default_rng(1), (100.0, 1.0), (3_000.0, 2.0), (100.0, 1.0))
        assert (np.diff(drawn) >= 0).all()
        begins = np.array([0, 1, 3, 4]) * 1_000_000_000
        assert np.histogram(drawn, begins)[0].tolist() == [100, 6_000, 100]


class TestTraffic:
    def test_requests_differ_and_are_what_the_contract_says(self) -> None:
        made = messages(
            np.random.default_rng(1), "p", fingerprint="f", features=30, event_s=1, count=50
        )
        asked = [DecideRequest.FromString(one) for one in made]
        assert len({one.dense for one in asked}) == 50
        assert len({one.amount for one in asked}) > 40
        assert len({one.category for one in asked}) > 3
        assert {len(one.dense) for one in asked} == {120}
        assert all(one.count(PLACEHOLDER) == 1 for one in made)


# --- counting -----------------------------------------------------------------------------


def calls_of(*rows: tuple[int, int, int, int], answers: dict[int, DecideResponse]) -> Calls:
    """Make calls of (scheduled, sent, received, status), in microseconds."""
    table = np.array(rows, np.int64)
    framed = [
        bytes(5) + answers[i].SerializeToString() if i in answers else None
        for i in range(len(rows))
    ]
    return Calls(
        begun_ns=0,
        scheduled_ns=table[:, 0] * 1000,
        sent_ns=table[:, 1] * 1000,
        received_ns=table[:, 2] * 1000,
        status=table[:, 3].astype(np.int16),
        which=np.zeros(len(rows), np.uint16),
        answers=tuple(framed),
        waited=0,
        resent=0,
        lost=0,
    )


MODEL = DecideResponse(decision_id="a", action=1)
STAND_IN = DecideResponse(decision_id="b", action=1, stand_in=1)
CROWD = DecideResponse(decision_id="c", action=2, stand_in=2)


class TestCount:
    def test_each_call_is_counted_once_as_what_it_got(self) -> None:
        calls = calls_of(
            (1, 1, 26_001, 0),  # exactly budget and 1 ms: not late
            (1, 1, 26_002, 0),  # late
            (1, 40_000, 66_001, 0),  # late, but the machine stood still
            (1, 30_000, 55_000, 0),  # sent late by us: old, not late
            (1, 1, 900, 0),  # a stand-in
            (1, 1, 900, 0),  # another
            (1, 1, 900, RESOURCE_EXHAUSTED),
            (1, 1, 900, 4),  # failed
            (1, 1, 0, -1),  # never answered
            (1, 0, 0, -1),  # never sent
            (1, 1, 900, 0),  # OK without a message is no answer
            answers={0: MODEL, 1: MODEL, 2: MODEL, 3: MODEL, 4: STAND_IN, 5: CROWD},
        )
        gaps = ((50_000_000, 53_000_000), (70_000_000, 80_000_000))
        counted = count(calls, read_answers(calls), budget_us=25_000, gaps=gaps)
        assert (counted.sent, counted.answered, counted.late, counted.excused) == (10, 6, 1, 1)
        assert (counted.shed, counted.failed) == (1, 4)
        assert counted.answered + counted.shed + counted.failed == 11
        wanted = {"DEADLINE_EXCEEDED": 1, "never sent": 1, "no answer": 1, "no message": 1}
        assert counted.failures == wanted
        assert counted.stand_ins == {"DEADLINE": 1, "OVERLOAD": 1}
        assert counted.stand_in_share == pytest.approx(2 / 6, abs=1e-4)
        # Two model decisions in time (the first and the fourth) in 66 ms.
        assert counted.goodput_per_s == pytest.approx(2 / 0.066, rel=1e-3)
        assert counted.latency_us["max"] == 66_000.0

    @given(st.lists(st.integers(0, 10**12), min_size=1, max_size=400))
    def test_percentiles_are_the_nearest_ranks(self, times: list[int]) -> None:
        found = percentiles_us(np.array(times, np.int64))
        ranked = sorted(times)
        for name, quantile in QUANTILES.items():
            rank = ceil(round(quantile * len(ranked), 9))
            assert found[name] == round(ranked[max(rank, 1) - 1] / 1000, 1)
        assert found["max"] == round(max(times) / 1000, 1)
        assert found["p50"] >= round(float(np.percentile(times, 50, method="lower")) / 1000, 1)

    def test_a_run_proves_nothing_where_lag_or_excuses_are_too_many(self) -> None:
        fine = calls_of(*((i * 1000, i * 1000 + 5, i * 1000 + 200, 0) for i in range(1, 2001)),
                        answers=dict.fromkeys(range(2000), MODEL))  # fmt: skip
        sound = count(fine, read_answers(fine), budget_us=25_000)
        asked = {"timed": True, "real_time": True, "shared": False}
        assert doubts([sound], **asked) == ()
        assert "one core" in doubts([sound], **asked | {"shared": True})[0]
        rows = [(i * 1000, i * 1000 + 1_100, i * 1000 + 1_200, 0) for i in range(1, 101)]
        lagging_calls = calls_of(*rows, answers=dict.fromkeys(range(100), MODEL))
        lagging = count(lagging_calls, read_answers(lagging_calls), budget_us=25_000)
        (why,) = doubts([sound, lagging], **asked)
        assert "lag" in why
        assert doubts([sound, lagging], **asked | {"timed": False}) == ()
        rows = [(i * 1000, i * 1000, i * 1000 + 100, 0) for i in range(1, 2001)]
        for excused in (2, 3):
            for i in range(excused):
                rows[i] = (i + 1, i + 1, 90_000_000, 0)
            still = calls_of(*rows, answers=dict.fromkeys(range(2000), MODEL))
            gaps = ((80_000_000_000, 81_000_000_000),)
            counted = count(still, read_answers(still), budget_us=25_000, gaps=gaps)
            assert (counted.excused, counted.late) == (excused, 0)
            assert bool(doubts([counted], **asked)) == (excused > 2)
        assert "root" in doubts([counted], **asked | {"real_time": False})[0]

    def test_rounds_add_what_was_counted_and_take_the_median_of_what_was_measured(self) -> None:
        rounds = []
        for took in (100, 900, 200):
            calls = calls_of((1, 1, took, 0), (2, 2, took, 8), answers={0: STAND_IN})
            rounds.append(count(calls, read_answers(calls), budget_us=25_000))
        one = median_of(rounds)
        assert (one.sent, one.answered, one.shed, one.stand_ins) == (6, 3, 3, {"DEADLINE": 3})
        assert one.latency_us["p50"] == 199.0
        assert one.latency_us["max"] == 899.0

    @pytest.mark.parametrize(
        ("shares", "before", "wanted"),
        [
            ([0.0, 0.0, 0.0], 0.0, 0.0),
            ([0.9, 0.4, 0.0, 0.0, 0.0, 0.2], 0.0, 200.0),
            ([0.9, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0], 0.0, 400.0),
            ([0.9, 0.05, 0.05, 0.04], 0.05, 100.0),
            ([0.9, 0.0, 0.0], 0.0, None),
            ([0.9, np.nan, 0.0, 0.0, 0.0], 0.0, 200.0),
            ([], 0.0, None),
        ],
    )
    def test_recovery_is_when_three_windows_in_a_row_are_as_before(
        self, shares: list[float], before: float, wanted: float | None
    ) -> None:
        assert recovery_ms(np.array(shares), before, 100.0) == wanted

    def test_windows_hold_the_share_of_what_fell_into_them(self) -> None:
        times = np.array([5, 95, 100, 150, 199, 310])
        marked = np.array([True, True, True, False, False, True])
        shares = windows(times, marked, 100, 100)
        assert shares[0] == pytest.approx(1 / 3)
        assert np.isnan(shares[1])
        assert shares[2] == 1.0


# --- the scenarios, against a server that is known exactly ---------------------------------


class KnownServer:
    """A rig whose server takes 1 ms a call (the slow product 40), one after the other.

    With `protects`, a call that would wait 20 ms is answered by a stand-in at once.
    """

    def __init__(self, *, protects: bool, pid: int = 0) -> None:
        self.rng = np.random.default_rng(1)
        self.server = SimpleNamespace(pid=pid)
        self.protects = protects
        self.lost = 16
        self.sent: list[tuple[str, np.ndarray]] = []

    def send(self, what: str, schedule: np.ndarray, *kinds: Kind, **more: Any) -> Measured:
        self.sent.append((what, schedule))
        whose = more.get("kind_of")
        if whose is None:
            whose = np.zeros(len(schedule), np.uint16)
        rows, answers = [], {}
        free = [0.0] * len(kinds)
        for number, (at_ns, kind) in enumerate(zip(schedule, whose, strict=True)):
            at = at_ns / 1000 + 1
            begin = max(at, free[kind])
            waits_us = 200_000 if kinds[kind] is SLOW else 20_000
            if self.protects and begin - at > waits_us:
                rows.append((at, at, at + 100, 0))
                answers[number] = CROWD
            else:
                free[kind] = begin + (kinds[kind].row_us or 100)
                rows.append((at, at, free[kind], 0))
                answers[number] = MODEL
        calls = replace(calls_of(*rows, answers=answers), which=whose)
        if deeds := more.get("deeds"):
            for deed in deeds:
                deed.do()
            calls = replace(calls, lost=self.lost)
        read = read_answers(calls)
        counts = [
            count(calls, read, budget_us=kind.budget_us, only=whose == i)
            for i, kind in enumerate(kinds)
        ]
        load = Load(calls, Seen((), True))
        return Measured(load, read, counts[0], tuple(counts[1:]), kinds[0].budget_us)

    def saturate(self, what: str, seconds: float, in_flight: int, kind: Kind) -> Measured:
        gap_ns = (kind.row_us or 100) * 1000
        return self.send(what, np.arange(0, seconds * 1e9, gap_ns).astype(np.int64), kind)


class TestScenarios:
    def test_a_server_that_protects_itself_keeps_its_promises_in_overload(self) -> None:
        rig = KnownServer(protects=True)
        found = SCENARIOS["overload"].run(rig, Scope(2.0, 3))  # type: ignore[arg-type]
        assert found.broken == ()
        assert found.doubts == ()
        assert found.figures["capacity"] == pytest.approx(1_000, rel=0.01)
        assert found.figures["goodput_ratio"] > 0.98
        assert found.figures["stand_in_share"] == pytest.approx(2 / 3, abs=0.02)
        assert 0 <= found.figures["recovery_ms"] <= 200
        levels = found.figures["levels"]
        assert [one["offered_ratio"] for one in levels] == pytest.approx(LEVELS, rel=0.02)
        # Three rounds of two seconds at each level, by turns.
        assert [one["sent"] for one in levels] == pytest.approx([3_000, 5_400, 9_000, 18_000])
        assert [what for what, _ in rig.sent[3:7]] == [
            f"{level:g} x capacity, round 1" for level in LEVELS
        ]

    def test_a_server_that_answers_everything_in_turn_is_found_out(self) -> None:
        rig = KnownServer(protects=False)
        found = SCENARIOS["overload"].run(rig, Scope(1.0, 1))  # type: ignore[arg-type]
        assert found.figures["goodput_ratio"] < 0.2
        assert found.figures["recovery_ms"] is None
        said = " ".join(found.broken)
        for part in ("3 x, bench-heavy", "late", "less than 90 %", "never"):
            assert part in said
        assert "0.5 x, bench-heavy" not in said

    def test_calls_can_be_given_by_number_and_last_as_long_as_they_take(self) -> None:
        rig = KnownServer(protects=True)
        SCENARIOS["overload"].run(rig, Scope(0.5, 1, calls=700))  # type: ignore[arg-type]
        sent = {what: len(schedule) for what, schedule in rig.sent}
        assert [sent[f"{level:g} x capacity"] for level in LEVELS] == [700] * 4

    def test_beside_compares_neighbouring_rounds_and_counts_both_products(self) -> None:
        rig = KnownServer(protects=True)
        found = SCENARIOS["beside"].run(rig, Scope(2.0, 1))  # type: ignore[arg-type]
        # The known server has a loop a product: the slow one costs the fast one nothing.
        assert found.figures["p99_ratios"] == [1.0, 1.0, 1.0]
        assert found.broken == ()
        assert [what.split(",")[0] for what, _ in rig.sent] == ["alone", "beside"] * 3
        slow = found.figures["levels"][2]
        assert slow["sent"] == 3 * 2 * 50
        assert slow["goodput_per_s"] == pytest.approx(25, rel=0.1)

    def test_burst_sends_500_at_one_instant_to_each_product(self) -> None:
        rig = KnownServer(protects=True)
        found = SCENARIOS["burst"].run(rig, Scope(1.0, 1))  # type: ignore[arg-type]
        assert [len(schedule) for _, schedule in rig.sent] == [500, 500]
        assert all((schedule == 0).all() for _, schedule in rig.sent)
        light, heavy = found.figures["levels"]
        assert heavy["stand_ins"] == {"OVERLOAD": 479}
        assert light["all_answered_ms"] == pytest.approx(20.1, abs=0.2)

    def test_idle_keeps_one_call_in_flight_and_judges_the_tail(self) -> None:
        rig = KnownServer(protects=True)
        found = SCENARIOS["idle"].run(rig, Scope(1.0, 1))  # type: ignore[arg-type]
        ((_, schedule),) = rig.sent
        assert np.diff(schedule).min() == 100_000
        assert found.figures["tail_ratio"] == 1.0
        assert found.broken == ()

    def test_restart_sends_the_server_sighup(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as server:
            rig = KnownServer(protects=True, pid=server.pid)
            found = SCENARIOS["restart"].run(rig, Scope(1.0, 1))  # type: ignore[arg-type]
            assert server.wait(60) == -signal.SIGHUP
        assert found.broken == ()
        assert found.doubts == ()
        assert found.figures["worst_gap_ms"] > 1.0

    def test_a_restart_that_ended_no_connection_proves_nothing(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as server:
            rig = KnownServer(protects=True, pid=server.pid)
            rig.lost = 0
            found = SCENARIOS["restart"].run(rig, Scope(1.0, 1))  # type: ignore[arg-type]
        assert "nothing was replaced" in found.doubts[0]


# --- the witness --------------------------------------------------------------------------


@pytest.mark.alone
def test_a_witness_notices_that_it_was_stopped() -> None:
    core = max(os.sched_getaffinity(0))
    with Witnesses([core]) as witnesses:
        (pid,) = witnesses.pids
        stand_still(pid)
        stopped_ns = time.monotonic_ns()
        time.sleep(0.06)
        continued_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGCONT)
    (gap,) = (
        (begin_ns, end_ns)
        for begin_ns, end_ns in witnesses.seen.gaps
        if begin_ns <= stopped_ns + 1_000_000 and end_ns >= continued_ns
    )
    assert gap[1] - gap[0] >= 59_000_000


# --- the command --------------------------------------------------------------------------


def test_an_unknown_scenario_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["bench", "overlode"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "'overlode': is no scenario" in said
    assert "overload" in said


def test_a_picture_that_cannot_be_drawn_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "nowhere" / "bench.svg"
    assert run(["bench", "idle", "--picture", str(picture)]) == ExitCode.USAGE
    assert f"{picture}: cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.slow
def test_overload_ends_with_one_json_object_and_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "bench.svg"
    command = [sys.executable, "-m", "gateway", "bench", "overload", "--quick", "--json"]
    ran = subprocess.run(
        [*command, "--seconds", "0.4", "--picture", str(picture)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(ran.stdout)
    assert found["scenario"] == "overload"
    assert [level["ratio"] for level in found["levels"]] == [0.5, 0.9, 1.5, 3.0]
    for level in found["levels"]:
        wanted = round(level["ratio"] * found["capacity"] * 0.4)
        assert level["answered"] + level["shed"] + level["failed"] == wanted
    assert found["capacity"] > 0
    # On a busy machine little may be in time, but three times capacity cannot be decided.
    assert found["stand_in_share"] > 0.2
    assert found["goodput_ratio"] > 0
    assert found["late"] >= 0
    assert found["valid"] == (found["invalid_because"] == [])
    assert found["machine"]["onnxruntime"]
    assert found["journal"]["answered"] == found["journal"]["recorded"] > 0
    assert found["journal"]["unrecorded"] == 0
    kept = found["valid"] and not found["broken"]
    assert ran.returncode == (ExitCode.OK if kept else ExitCode.FAILED), ran.stderr
    drawn = ElementTree.parse(picture)
    texts = [one.text or "" for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.5 x", "0.9 x", "1.5 x", "3 x"} <= set(texts)
    assert any(text.startswith("overload: ") and "late" in text for text in texts)


@pytest.mark.slow
def test_sigterm_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "gateway", "bench", "idle"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert bench.stderr is not None
    with bench.stderr:
        while not bench.stderr.readline().startswith("idle: idle"):
            assert bench.poll() is None
        bench.send_signal(signal.SIGTERM)
        said = bench.stderr.read()
        assert bench.wait(30) == ExitCode.INTERRUPTED, said
    assert list(tmp_path.iterdir()) == []
    left = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            left += [one] if str(tmp_path).encode() in one.read_bytes() else []
    assert left == []


def test_the_picture_says_in_words_what_it_shows() -> None:
    quantiles = {"p50": 900.0, "p90": 1e3, "p99": 2e4, "p99_9": 3e4, "max": 2e6}
    level = {
        "level": "3 x",
        "latency_us": quantiles,
        "budget_us": 25_000.0,
        "stand_in_share": 0.625,
        "late": 4,
    }
    found = {"scenario": "overload", "levels": [level], "valid": False}
    drawn = ElementTree.fromstring(bench_picture([found]))
    name = "{http://www.w3.org/2000/svg}"
    described = drawn.findtext(f"{name}desc")
    assert described == "overload: 4 late calls; stand-ins at most 62.5% of the answers, at 3 x."
    texts = {one.text for one in drawn.iter(f"{name}text")}
    assert {"62.5%", "p50 900 µs", "max 2 s", "p99.9 30 ms"} <= texts
    assert "prefers-color-scheme: dark" in (drawn.findtext(f"{name}style") or "")


# --- what the tests above need ------------------------------------------------------------


def steps_of(size: int, gap_ns: int = 2_000_000) -> np.ndarray:
    return np.arange(size, dtype=np.int64) * gap_ns


def _code(number: int) -> tuple[int, str]:
    return next(one.value for one in grpc.StatusCode if one.value[0] == number)


@contextmanager
def grpcio_server(decide: object) -> Iterator[str]:
    handler = grpc.unary_unary_rpc_method_handler(
        decide,
        request_deserializer=DecideRequest.FromString,
        response_serializer=DecideResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler(
        "gateway.v1.DecisionService", {"Decide": handler}
    )
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, handlers=[service])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
