"""No card number that a caller sends is in any byte that is written or sent."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import catalogue
import grpc
import pytest
from conftest import Serve
from test_fronts import decide, journalled

from gateway.model import load_generation
from gateway.v1.decision_pb2 import DecideRequest
from gateway.v1.decision_pb2_grpc import DecisionServiceStub

ISSUERS = (("4", 16), ("51", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16), ("36", 14))
EACH_FIELD = ("subject", "channel", "text", "number", "name", "category", "currency", "product")


def check_digit(digits: str) -> str:
    """Return Luhn's digit: the doubled ones count by the sum of their digits."""
    total = sum(
        sum(divmod(int(digit) * (2 - i % 2), 10)) for i, digit in enumerate(reversed(digits))
    )
    return str(-total % 10)


def pans(count: int, seed: int = 7) -> Iterator[str]:
    draw = random.Random(seed)
    for i in range(count):
        prefix, length = ISSUERS[i % len(ISSUERS)]
        digits = prefix + "".join(draw.choices("0123456789", k=length - 1 - len(prefix)))
        yield digits + check_digit(digits)


def written(pan: str, i: int) -> str:
    """Write a card number as people do: bare, in groups, or inside other text."""
    groups = [pan[:4], *(pan[at : at + 4] for at in range(4, len(pan), 4))]
    grouped = len(groups[-1]) > 2
    forms = [pan, f"card {pan}", f"pan={pan};", f"0{pan}"]
    forms += [" ".join(groups), "-".join(groups)] if grouped else []
    return forms[i % len(forms)]


def request_with(field: str, pan: str, i: int) -> DecideRequest:
    asked = catalogue.request(transaction_id=f"t-{i}")
    text = written(pan, i)
    match field:
        case "text":
            asked.features["entry_mode"].text = text
        case "number":
            asked.features["ratio"].number = float(pan)
        case "name":
            asked.features[text].number = 1.0
        case _:
            setattr(asked, field, text)
    return asked


def outcome(stub: DecisionServiceStub, asked: DecideRequest) -> tuple[str, bytes]:
    try:
        return "OK", stub.Decide(asked, timeout=10).SerializeToString()
    except grpc.RpcError as error:
        return error.code().name, f"{error.details()} {error.trailing_metadata()}".encode()


@pytest.mark.parametrize("guard", ["refuse", "mask"])
def test_card_numbers_in_every_text_are_nowhere_in_what_is_written_or_sent(
    serve: Serve, tmp_path: Path, guard: str, caplog: pytest.LogCaptureFixture
) -> None:
    """400 card numbers, each field in turn, on both fronts; `unknown` would take any text."""
    generation = load_generation(catalogue.write_folder(tmp_path / "product", pan_guard=guard))
    sent: list[str] = []
    answers: list[bytes] = []
    with serve(generation) as running:
        stub = DecisionServiceStub(running.channel)
        for i, pan in enumerate(pans(400)):
            field = EACH_FIELD[i % len(EACH_FIELD)]
            asked = request_with(field, pan, i)
            sent.append(pan)
            code, said = outcome(stub, asked)
            answers.append(said)
            taken = guard == "mask" and field in ("subject", "channel", "text")
            allowed = ("OK",) if taken else ("INVALID_ARGUMENT", "NOT_FOUND")
            assert code in allowed, field
        assert decide(running, catalogue.request()).recorded
        running.ended()
    kept = b"".join(path.read_bytes() for path in running.journal.iterdir())
    said = b"".join(answers) + caplog.text.encode()
    digits_kept, digits_said = (digits_of(every) for every in (kept, said))
    for pan in sent:
        for form in (pan, f"{pan[:4]} {pan[4:8]}", f"{pan[:4]}-{pan[4:8]}"):
            assert form[:16].encode() not in kept
            assert form[:16].encode() not in said
        assert pan.encode() not in digits_kept
        assert pan.encode() not in digits_said
    answered = journalled(running.journal)
    assert len(answered) == 401
    if guard == "mask":
        subjects = [
            DecideRequest.FromString(one.record.entry.request).subject
            for one in answered
            if hasattr(one.record.entry, "request")
        ]
        assert any("*" in subject for subject in subjects)


def digits_of(written: bytes) -> bytes:
    """Return the bytes without the separators of groups."""
    return written.translate(None, b" -")


@pytest.mark.parametrize("front", ["native"], indirect=True)
def test_random_transaction_ids_are_never_refused(serve: Serve) -> None:
    """Of 16 random digits one in ten passes Luhn; a millisecond's count is no card either."""
    draw = random.Random(3)
    now_ms = time.time_ns() // 1_000_000
    ids = [str(draw.randrange(10**15, 10**16)) for _ in range(2_000)]
    ids += [str(now_ms - draw.randrange(10**10)) for _ in range(2_000)]
    with serve() as running:
        stub = DecisionServiceStub(running.channel)
        for start in range(0, len(ids), 100):
            calls = [
                stub.Decide.future(catalogue.request(transaction_id=one), timeout=10)
                for one in ids[start : start + 100]
            ]
            assert all(call.result().action for call in calls)


def test_a_transaction_id_must_match_a_declared_pattern(serve: Serve, tmp_path: Path) -> None:
    pattern = {"pattern": "txn-[0-9]{4,16}"}
    generation = load_generation(
        catalogue.write_folder(tmp_path / "product", transaction_id=pattern)
    )
    with serve(generation) as running:
        assert decide(running, catalogue.request(transaction_id="txn-0042")).recorded
        for wrong in ("4111111111111111", "txn-42", "txn-0042 ", "xtxn-0042", "txn-0042\n"):
            with pytest.raises(grpc.RpcError) as caught:
                decide(running, catalogue.request(transaction_id=wrong))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "transaction_id must match" in caught.value.details()
            assert wrong not in caught.value.details()
        running.ended()
    assert b"4111111111111111" not in b"".join(p.read_bytes() for p in running.journal.iterdir())
