"""Payment card numbers (PANs) in text: found, and hidden. Pure.

A PAN is a number with an issuer's prefix, a length which that issuer gives out, and a right
check digit (Luhn; ISO/IEC 7812-1). One random 16-digit number in 22 is one.

It is read through whatever stands around it, and written as

- one run of digits, whole: what stands in a longer run is no PAN; zeros in front do not count;
- groups, between any two of them one to three of space, tab, line end, ``- . / _``: the first
  with four digits or more (zeros in front do not count), the others with three or more; behind
  groups of four alone, a rest of one or two may end it. So neither a date nor a telephone number
  like +49 151 234 5678 is joined into one. Any group may begin it, and any may end it.

Unicode's digits, spaces, dashes and full-width forms are what they look like; marks and characters
of no width are not there.

Pseudonyms are often random hexadecimal, and a run of digits in them is no PAN: of a run of 24 or
more hex digits, or a UUID, with a letter in it, nothing is read. Track 2 as chip cards give it
(the PAN, D, digits, perhaps F) and a PAN filled up with F are read all the same. False alarms in
300,000 each of UUIDs, SHA-256, ULIDs, e-mail addresses, ``customer-123`` and epoch times: none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from unicodedata import category, digit, normalize

_ISSUERS: tuple[tuple[str, str, range | tuple[int, ...]], ...] = (
    ("Mir", "2200-2204", range(16, 20)),
    ("BORICA, PayPak", "2205", (16,)),
    ("Mastercard", "2221-2720 51-55", (16,)),
    ("Diners Club", "300-305 309 36 38-39", range(14, 20)),
    ("American Express", "34 37", (15,)),
    ("JCB, LankaPay", "3528-3589", range(16, 20)),
    ("Visa", "4", (13, 16, 19)),
    # Here also Dankort, Discover, Elo, Hipercard, InstaPayment, InterPayment, RuPay, UkrCard,
    # UnionPay, UzCard and Verve. Maestro may have 12 to 15 digits, but where it is not known to
    # use them, telephone numbers do: 62 81 2345 6789.
    ("Maestro", "50 56-69", range(16, 20)),
    ("Maestro, in use", "5018 5020 5038 5893 6304 67", range(12, 20)),
    ("UnionPay, RuPay", "81-82", range(16, 20)),
    ("UzCard", "8600", (16,)),
    # 9 and the country's number in ISO 3166-1.
    ("ArCa, Belkart, Elcart, mada", "9051 9112 9417 9682", (16,)),
    ("Napas", "9704", range(16, 20)),
    ("Troy, Humo, DinaCard", "9792 9860 9891", (16,)),
)
"""Issuer, prefixes, lengths: Wikipedia, "Payment card number", with the national schemes.

Not in it: UATP (1), whose numbers look like times, and what no longer is (enRoute, JCB's 1800).
"""

_LENGTH_MIN, _LENGTH_MAX = 12, 19
_FIRST_MIN, _OTHERS_MIN = 4, 3

_PREFIX = 6
_LAST = 4
_PREFIX_STAYS_FROM = 15

_VALUES = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(bytes(range(10)), bytes(sum(divmod(2 * d, 10)) for d in range(10)))

_SEPARATORS = " \t\n\r./_-"
_RUN = re.compile(rf"([0-9]+)([{_SEPARATORS}]{{1,3}}(?=[0-9]))?")
_HEX = "[0-9A-Fa-f]"
_RANDOM = re.compile(
    rf"(?<!{_HEX})(?:{_HEX}{{24,}}|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})(?!{_HEX})"
)
_NOT_RANDOM = re.compile(r"[0-9-]+|[0-9]{12,19}(?:[Dd][0-9]{7,})?[Ff]*")

_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_SQUEEZED_OUT = _SEPARATORS.encode()
_ENOUGH_DIGITS = "0" * _LENGTH_MIN


def holds_pan(text: str) -> bool:
    """Say whether there is a PAN in a text."""
    if len(text) < _LENGTH_MIN:
        return False
    if text.isascii():
        # At memory speed; a pattern costs ten times that in hexadecimal. Nearly all end here.
        squeezed = text.encode().translate(_DIGITS_TO_ZERO, _SQUEEZED_OUT).decode()
        if _ENOUGH_DIGITS not in squeezed:
            return False
    elif sum(map(str.isdigit, text)) < _LENGTH_MIN:
        return False
    return next(_pans(text), None) is not None


def masked(text: str) -> str:
    """Return a text with ``*`` for the digits of every PAN but the first six and the last four.

    Of a PAN with fewer than 15 digits only the last four stay. What stays is never more than PCI
    DSS 4.0.1 lets be shown (3.4.1: the BIN and the last four) and be stored (3.5.1, by the
    council's FAQ 1091: the first six and the last four, with 5 hidden of 15 digits; for fewer it
    speaks for one brand only). A digit that several PANs share stays only if it does in each.

    In the result there is no PAN: should the end of one make another with what stands beside
    it, that one is hidden whole.
    """
    if not holds_pan(text):
        return text
    return _hidden(_hidden(text, ends_stay=True), ends_stay=False)


def number_is_pan(value: float) -> bool:
    """Say whether a whole number's digits are a PAN.

    Above 2^53 a float64 does not hold every whole number: the digits are those of the one it is.
    """
    return 1e11 <= value < 1e19 and value == int(value) and _is_pan(str(int(value)))


class _Pan(NamedTuple):
    """Where a PAN's groups have their digits in the text; the first `padding` are zeros."""

    places: list[int]
    padding: int


def _pans(text: str) -> Iterator[_Pan]:
    bare, places = _plain(text)
    runs = [
        (run.start(1), run[1], run[2] is not None)
        for run in _RUN.finditer(_RANDOM.sub(_blanked, bare))
    ]
    for i, (_, digits, _) in enumerate(runs):
        number = digits.lstrip("0")
        padding = len(digits) - len(number)
        if len(number) < _FIRST_MIN:
            continue
        only_fours = len(number) == 4
        for j in range(i, len(runs)):
            _, digits, joined = runs[j]
            is_rest = j > i and len(digits) < _OTHERS_MIN
            if is_rest and not only_fours:
                break
            if j > i:
                number += digits
                only_fours = only_fours and len(digits) == 4
            if _is_pan(number):
                group = runs[i : j + 1]
                where = [places[s + k] for s, digits, _ in group for k in range(len(digits))]
                yield _Pan(where, padding)
            if is_rest or not joined or len(number) >= _LENGTH_MAX:
                break


def _hidden(text: str, *, ends_stay: bool) -> str:
    characters = list(text)
    for places, padding in _pans(text):
        if ends_stay:
            stays = _PREFIX if len(places) - padding >= _PREFIX_STAYS_FROM else 0
            places = places[padding + stays : -_LAST]
        for place in places:
            characters[place] = "*"
    return "".join(characters)


def _plain(text: str) -> tuple[str, Sequence[int]]:
    """Return what a text looks like, in ASCII where it can be, and each character's place."""
    if text.isascii():
        return text, range(len(text))
    kept = [(place, look) for place, c in enumerate(text) if (look := _look(c))]
    return "".join(look for _, look in kept), [place for place, _ in kept]


def _look(character: str) -> str:
    if character.isascii():
        return character
    if character.isdigit():
        return str(digit(character))
    kind = category(character)
    if kind in ("Cf", "Me", "Mn"):
        return ""
    if kind == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    form = normalize("NFKC", character)
    return form if len(form) == 1 else character


def _blanked(token: re.Match[str]) -> str:
    return token[0] if _NOT_RANDOM.fullmatch(token[0]) else "x" * len(token[0])


def _is_pan(number: str) -> bool:
    if not _LENGTH_MIN <= len(number) <= _LENGTH_MAX:
        return False
    lengths = _LENGTHS[bisect_right(_EDGES, int(number[:_PREFIX])) - 1]
    return len(number) in lengths and _luhn(number)


def _luhn(number: str) -> bool:
    """Check the last digit: from the right, every second digit doubled, the digits' sum mod 10."""
    values = number.encode().translate(_VALUES)
    return (sum(values[::-2]) + sum(values[-2::-2].translate(_DOUBLED))) % 10 == 0


def _issuer_table() -> tuple[list[int], list[frozenset[int]]]:
    """Return the six-digit prefixes where the lengths change, and the lengths from each on."""
    spans: list[tuple[int, int, range | tuple[int, ...]]] = []
    for _, prefixes, lengths in _ISSUERS:
        for prefix in prefixes.split():
            low, _, high = prefix.partition("-")
            spans.append((int(low.ljust(6, "0")), int((high or low).ljust(6, "9")) + 1, lengths))
    edges = sorted({0, *(edge for low, end, _ in spans for edge in (low, end))})
    return edges, [
        frozenset(n for low, end, lengths in spans if low <= edge < end for n in lengths)
        for edge in edges
    ]


_EDGES, _LENGTHS = _issuer_table()
