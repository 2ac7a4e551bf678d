"""Card numbers in text, against generated ones, published ones and a definition by brute force."""

from __future__ import annotations

import hashlib
import math
import random
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.pan import _ISSUERS, holds_pan, masked, number_is_pan

SIXTEEN_ON = range(16, 20)
ISSUED = {
    "Visa": ("4", (13, 16, 19)),
    "Mastercard": ("51 52 53 54 55 2221 2223 2300 2699 2719 2720", (16,)),
    "American Express": ("34 37", (15,)),
    "Discover": ("6011 644 649 65 622126 622925", SIXTEEN_ON),
    "Diners Club": ("300 305 3095 36 38 39", range(14, 20)),
    "JCB": ("3528 3571 3589", SIXTEEN_ON),
    "UnionPay": ("62 81", SIXTEEN_ON),
    "Maestro": ("5018 5020 5038 5893 6304 6759 6761 6763 676770", range(12, 20)),
    "Maestro elsewhere": ("50 56 58 59 60 63 66 69", SIXTEEN_ON),
    "RuPay": ("60 65 81 82 508", (16,)),
    "Mir": ("2200 2204", SIXTEEN_ON),
    "Verve": ("506099 506198 507865 650002", (16, 18, 19)),
    "Elo": ("438935 504175 506699 509000 627780 636368 655000", (16,)),
    "Troy, Napas, mada, Belkart": ("9792 9704 9682 9112", (16,)),
    "Hipercard, Hiper": ("606282 637095", (16,)),
    "Dankort, LankaPay, InstaPayment": ("5019 357111 637 639", (16,)),
    "UzCard, Humo": ("8600 5614 9860", (16,)),
}

PUBLISHED = re.findall(
    r"\d+",
    """
    4111111111111111 4242424242424242 4000056655665556 4012888888881881 4222222222222
    4000000000000000006 4871049999999910 4035501000000008 5555555555554444 5105105105105100
    5200828282828210 5454545454545454 2223003122003222 2222400070000005 378282246310005
    371449635398431 378734493671000 6011111111111117 6011000990139424 6011981111111113
    6445644564456445 30569309025904 38520000023237 36227206271667 3056930009020004
    3530111333300000 3566002020360505 6200000000000005 6200000000000047 6205500000000000004
    6304000000000000 6731012345678906 6771798021000008 6703444444444449 67034200554565015
    5019555544445555 5066991111111118 6062828888666688
""",
)
"""Test numbers of Stripe, Adyen, PayPal and Braintree."""

SEPARATORS = [
    *(" ", "-", ".", "/", "_", "\t", "\n", " - "),
    *("\u00a0", "\u2009", "\u2013", "\u2212", "\u200b"),
]
AROUND = [
    "{}",
    "0000{}",
    "card {} of the customer",
    "visa{}x",
    ";{}=25121010000012345678?",
    "%B{}^DOE/JOHN^2512101",
    '{{"pan":"{}","cvv":"123"}}',
    "2024-01-02 {}",
    "1 {} 12/27",
    "*{}*",
    "+{}",
    "é{}",
]


def luhn_sum(number: str) -> int:
    """Add up as it is taught: from the right, double every other, and add the double's digits."""
    total = 0
    for place, digit in enumerate(map(int, reversed(number)), start=1):
        total += digit if place % 2 else sum(divmod(digit * 2, 10))
    return total


def ended(digits: str) -> str:
    """Append the one digit that makes the sum right."""
    return digits + str(-luhn_sum(f"{digits}0") % 10)


def pan(chance: random.Random, prefix: str, length: int) -> str:
    return ended(prefix + "".join(chance.choices("0123456789", k=length - 1 - len(prefix))))


def pans(each: int) -> Iterator[str]:
    chance = random.Random(11)
    for prefixes, lengths in ISSUED.values():
        for prefix in prefixes.split():
            for length in lengths:
                yield from (pan(chance, prefix, length) for _ in range(each))


def hidden(number: str) -> str:
    stay = 6 if len(number) >= 15 else 0
    return number[:stay] + "*" * (len(number) - stay - 4) + number[-4:]


def fours(number: str, separator: str) -> str:
    return separator.join(re.findall(".{1,4}", number))


@given(st.integers(0, 10**15 - 1).map(lambda n: f"4{n:015}"))
def test_the_check_digit_decides(number: str) -> None:
    assert holds_pan(number) == (luhn_sum(number) % 10 == 0)
    assert holds_pan(ended(number[:-1]))


def test_every_issuers_numbers_are_found_and_hidden_in_whatever_stands_around_them() -> None:
    numbers = list(pans(5))
    assert len(numbers) > 1000
    for i, number in enumerate(numbers):
        around = AROUND[i % len(AROUND)]
        text = around.format(number)
        assert masked(text) == around.format(hidden(number)), text


def test_grouped_numbers_are_found_whatever_stands_between_and_around() -> None:
    """A group may be another PAN's beginning too, so no more than the ends stays, perhaps less."""
    assert math.gcd(len(SEPARATORS), len(AROUND)) == 1, "or not every pair comes up"
    for i, number in enumerate(pans(5)):
        separator = SEPARATORS[i % len(SEPARATORS)]
        around = AROUND[i % len(AROUND)]
        grouped = fours(number, separator)
        text = around.format(grouped)
        at = text.index(grouped)
        after = masked(text)
        assert holds_pan(text), text
        assert not holds_pan(after), after
        assert after[:at] == text[:at]
        shown = after[at : at + len(grouped)].replace(separator, "")
        assert all(c in (h, "*") for c, h in zip(shown, hidden(number), strict=True)), text


@pytest.mark.parametrize("number", PUBLISHED)
def test_the_published_numbers_are_found_and_no_digit_of_them_can_change(number: str) -> None:
    assert masked(number) == hidden(number)
    for place in range(len(number)):
        for digit in "0123456789":
            changed = number[:place] + digit + number[place + 1 :]
            assert holds_pan(changed) == (changed == number), changed


def test_prefix_and_length_are_the_tables() -> None:
    """Every prefix of four digits, against a walk through all rows."""
    chance = random.Random(5)
    for prefix in range(1000, 10_000):
        number = pan(chance, str(prefix), chance.randrange(12, 20))
        issued = any(
            low.ljust(6, "0") <= number[:6] <= (high or low).ljust(6, "9")
            for _, prefixes, lengths in _ISSUERS
            for low, _, high in (span.partition("-") for span in prefixes.split())
            if len(number) in lengths
        )
        assert holds_pan(number) == issued, number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111 1111 1111 1111", "4111 11** **** 1111"),
        ("2024-01-02 4111 1111 1111 1111 12/27 123", "2024-01-02 4111 11** **** 1111 12/27 123"),
        ("00041-4111-1111-1111-1111", "00041-4111-11**-****-1111"),
        ("3782 822463 10005", "3782 82**** *0005"),
        ("4222 2222 2222 2", "**** **** *222 2"),
        ("4111 - 1111 - 1111 - 1111", "4111 - 11** - **** - 1111"),
        ("**4111 1111 1111 1111**", "**4111 11** **** 1111**"),
        ("\uff14" + "\uff11" * 15, "\uff14" + "\uff11" * 5 + "******" + "\uff11" * 4),
        ("\u0664" + "\u0661" * 15, "\u0664" + "\u0661" * 5 + "******" + "\u0661" * 4),
        ("41\u200b11 1\u00ad111 11111111", "41\u200b11 1\u00ad1** ****1111"),
        ("4111\uff0f1111\u22121111\u30001111", "4111\uff0f11**\u2212****\u30001111"),
        ("4\ufe0f\u20e311111\ufe0f1111111111", "4\ufe0f\u20e311111\ufe0f******1111"),
        # What two numbers share stays only where it may in both.
        ("4242 4242 4242 4242 4242", "4242 42** **** **** 4242"),
        # What the first one leaves would make another with its neighbours.
        ("4242424242424242 4242 4242 4242", "424242********** **** **** ****"),
        ("4111111111111111D25121010000012345678F", "411111******1111D25121010000012345678F"),
        ("4111111111111111FFFFFFFFFFFFFFFF", "411111******1111FFFFFFFFFFFFFFFF"),
        ("00000000-0000-0000-4111-111111111111", "00000000-0000-0000-4111-11******1111"),
    ],
)
def test_this_is_what_a_masked_text_looks_like(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "customer-1",
        "+49 151 234 5678",
        "+44 7911 123456",
        "62 81 2345 6789",
        "6281234567890",
        "0049 1512 3456789",
        "2024-01-02 03:04:05.123456",
        "2024-01-02T03:04:05.678901234Z",
        "20240102030405123",
        "41111111111111111111",
        "14111111111111111",
        "4111 1111 1111 1112",
        "4111 1111 11 11 1111",
        "411 1111 1111 1111 1",
        "4111    1111    1111    1111",
        "4111,1111,1111,1111",
        "411111******1111",
        "192.168.100.200 255.255.255.255",
        "0000000000000000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
    ],
)
def test_this_is_none(text: str) -> None:
    assert masked(text) == text
    assert not holds_pan(text)


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_run_of_hex_is_random_from_24_digits_on(case: Callable[[str], str]) -> None:
    number = PUBLISHED[0]
    for filling in ("abc", "deadbee", "a1b2c3d"):
        assert holds_pan(case(filling + number))
        assert holds_pan(case(number + filling))
    for filling in ("deadbeef", "a1b2c3d4"):
        assert not holds_pan(case(filling + number))
        assert not holds_pan(case(f"0x{number}{filling}."))
        assert holds_pan(case(f"{filling}-{number}"))
    assert not holds_pan(case("a1b2c3d4-4111-1111-1111-111111111111"))
    for no_uuid in (
        "a1b2c3d4-4111-1111-1111-1111",
        f"a1b2c3d4-1111-1111-1111-{number}",
        f"{number}-a1b2-a1b2-a1b2-a1b2c3d4a1b2",
    ):
        assert holds_pan(case(no_uuid))


@pytest.mark.parametrize("each", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_pseudonyms_raise_no_alarm(each: int) -> None:
    """The common forms of an id, but for bare numbers of 12 to 19 digits."""
    chance = random.Random(2)
    crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    kinds: dict[str, Callable[[int], str]] = {
        "uuid4": lambda _: str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        "sha256": lambda i: hashlib.sha256(b"%d" % i).hexdigest(),
        "ulid": lambda _: "01" + "".join(chance.choices(crockford, k=24)),
        "e-mail": lambda _: f"a.name{chance.getrandbits(30)}@mail.example",
        "customer": lambda _: f"customer-{chance.getrandbits(36)}",
        "epoch ms": lambda _: str(chance.randrange(10**12, 2 * 10**12)),
        "epoch us": lambda _: str(chance.randrange(10**15, 2 * 10**15)),
    }
    alarms = {kind: sum(holds_pan(draw(i)) for i in range(each)) for kind, draw in kinds.items()}
    assert alarms == dict.fromkeys(kinds, 0)


PIECES = st.one_of(
    st.sampled_from([*PUBLISHED, "4242", "4111", "6759", "0000", "000", "12", "1", "*", "**"]),
    st.sampled_from([*SEPARATORS, " ", "-", " ", "-", "  ", "a", "F", "D2512", "0x", "é", ":"]),
    st.sampled_from(["deadbeefdeadbeef", "a1b2c3d4-", "4111-1111-1111-", "\uff14", "\u0661"]),
    st.text("0123456789", min_size=1, max_size=20),
)
TEXTS = st.one_of(st.lists(PIECES, max_size=14).map("".join), st.text())


@settings(max_examples=200)
@given(TEXTS)
def test_what_is_masked_holds_none_and_is_else_as_it_was(text: str) -> None:
    after = masked(text)
    assert not holds_pan(after)
    assert masked(after) == after
    assert (after != text) == holds_pan(text)
    changed = [(a, b) for a, b in zip(text, after, strict=True) if a != b]
    assert all(a.isdigit() and b == "*" for a, b in changed)


BETWEEN = r"[ \t\n\r./_-]{1,3}"
WRITTEN = re.compile(
    rf"0*(?:[1-9]\d{{3,}}(?:{BETWEEN}\d{{3,}})*"
    rf"|[1-9]\d{{3}}(?:{BETWEEN}\d{{4}})*{BETWEEN}\d{{1,2}})"
)


def by_brute_force(text: str) -> bool:
    """Read the definition: any part of the text that is written like a number, and is issued."""
    starts = [i for i, c in enumerate(text) if c.isdigit() and not text[:i][-1:].isdigit()]
    ends = [i + 1 for i, c in enumerate(text) if c.isdigit() and not text[i + 1 :][:1].isdigit()]
    numbers = (
        re.sub(r"\D", "", text[start:end]).lstrip("0")
        for start in starts
        for end in ends
        if WRITTEN.fullmatch(text, start, end)
    )
    return any(len(number) < 20 and holds_pan(number) for number in numbers)


@st.composite
def pieces_of_numbers(draw: st.DrawFn) -> str:
    """Draw a published number cut anywhere, with anything between its groups and around it."""
    number = draw(st.sampled_from(PUBLISHED))
    cuts = sorted(draw(st.sets(st.sampled_from((3, 4, 4, 7, 8, 10, 12, 15, 16)))))
    groups = [number[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    around = st.sampled_from(["", "", "000", "0", "1", "12", "123", "4242 ", " 1", " 1234", "x"])
    text = draw(around) + groups[0]
    for group in groups[1:]:
        text += draw(st.sampled_from([" ", " ", "-", "/", "..", " - ", "    ", ":", "*"])) + group
    return text + draw(around)


@settings(max_examples=250)
@given(pieces_of_numbers())
def test_groups_are_joined_as_the_definition_says(text: str) -> None:
    assert holds_pan(text) == by_brute_force(text)


def test_what_looks_like_a_digit_is_one() -> None:
    """Every character that Unicode calls a digit, for each 1 of a number."""
    number = "4111111111111111"
    ones = [c for c in map(chr, range(0x80, 0x20000)) if c.isdigit() and unicodedata.digit(c) == 1]
    assert len(ones) > 50
    assert all(holds_pan(number.replace("1", one)) for one in ones)


@given(st.one_of(st.integers(0, 2**53), st.sampled_from([int(n) for n in PUBLISHED])))
def test_a_number_is_read_as_its_digits(number: int) -> None:
    assert number_is_pan(float(number)) == holds_pan(str(int(float(number))))


def test_a_number_that_is_not_whole_or_not_there_is_none() -> None:
    assert number_is_pan(4111111111111111.0)
    assert number_is_pan(4222222222222.0)
    others = (4222222222222.5, -4111111111111111.0, 0.0, 4111.0, math.nan, math.inf, -math.inf)
    assert not any(map(number_is_pan, (*others, 1e11, 1e19, 1e300)))
