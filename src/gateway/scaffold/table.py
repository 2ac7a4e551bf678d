"""A table of payments: CSV or Parquet, read as evenly spaced rows, typed when it is asked.

A CSV's cells stay the texts they are until somebody needs numbers: a merchant code 0742 is
a text to one model and a number to another.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from gateway.errors import UsageError

ROWS_MAX = 200_000
CELLS_MAX = 20_000_000
"""Of a wide table fewer rows are kept."""

_ROWS_MIN = 1000
"""But so many at least, where there are as many."""

_LEAST_UNIX_S = 1e8
"""A time of 1973: what is more in a smaller unit is in that unit."""

DELIMITERS = ",;\t|"
_HEAD_BYTES = 1 << 22
_NO_NUMBER = ("", "na", "n/a", "nan", "null", "none", "nil", "-", "?", "<na>", "#n/a")

Floats = NDArray[np.float64]
Texts = NDArray[np.object_]


@dataclass(eq=False)
class Column:
    """One column of n values.

    `truths`: all of them are true or false. `numbers` is None where some value is no number.
    """

    name: str
    values: Any
    decimal_comma: bool = False

    @cached_property
    def truths(self) -> bool:
        """Whether every value that is there is true or false."""
        if pa.types.is_boolean(self.values.type):
            return True
        if not pa.types.is_string(self.values.type):
            return False
        words = pc.unique(pc.utf8_lower(pc.utf8_trim_whitespace(self.values))).to_pylist()
        there = set(words) - {None, ""}
        return bool(there) and there <= {"true", "false"}

    @cached_property
    def numbers(self) -> Floats | None:
        """The values as float64 (n,), NaN where one is missing; None where they are no numbers."""
        kind = self.values.type
        if pa.types.is_null(kind):
            return np.full(len(self.values), np.nan)
        if pa.types.is_boolean(kind) or _is_number(kind):
            return _as_floats(self.values)
        if not pa.types.is_string(kind):
            return None
        words = pc.utf8_trim_whitespace(self.values)
        lower = pc.utf8_lower(words)
        if self.truths:
            truths = pc.if_else(
                pc.equal(lower, "true"), 1.0, pc.if_else(pc.equal(lower, "false"), 0.0, None)
            )
            return _as_floats(truths)
        words = pc.if_else(pc.is_in(lower, pa.array(_NO_NUMBER)), None, words)
        for bare in (words, _without_marks(words, comma=self.decimal_comma)):
            plain = pc.replace_substring(bare, ",", ".") if self.decimal_comma else bare
            try:
                return _as_floats(pc.cast(plain, pa.float64()))
            except pa.ArrowInvalid:
                continue
        return None

    @cached_property
    def texts(self) -> Texts:
        """The values as texts (n,), None where one is missing."""
        plain = [None if one is None else str(one) for one in self._words.to_pylist()]
        return np.array(plain, dtype=np.object_)

    @cached_property
    def count(self) -> int:
        """How many different values there are, besides missing ones."""
        return int(pc.count_distinct(self._words, mode="only_valid").as_py())

    @cached_property
    def distinct(self) -> tuple[tuple[str, int], ...]:
        """Each text with how often it stands there: the most frequent first, then by text."""
        counted = pc.value_counts(self._words)
        pairs = zip(
            counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
        )
        counts = [(str(text), count) for text, count in pairs if text is not None]
        return tuple(sorted(counts, key=lambda one: (-one[1], one[0])))

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Equal values as equal whole numbers (n,), from 0; -1 where one is missing."""
        words = self._words
        whole = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
        encoded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
        codes: NDArray[np.int64] = pc.fill_null(pc.cast(encoded.indices, pa.int64()), -1).to_numpy()
        return codes

    @cached_property
    def seconds(self) -> Floats | None:
        """The values as Unix seconds (n,), NaN where one is missing; None where they are no times.

        Numbers are taken as they are, and as milliseconds or microseconds where they are so large.
        """
        kind = self.values.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return _as_seconds(self.values)
        if self.numbers is not None:
            there = self.numbers[~np.isnan(self.numbers)]
            usual = float(np.median(np.abs(there))) if len(there) else 0.0
            unit = next((unit for unit in (1e9, 1e6, 1e3) if usual / unit > _LEAST_UNIX_S), 1.0)
            return self.numbers / unit
        if pa.types.is_string(kind):
            for zone in (None, "UTC"):
                try:
                    return _as_seconds(pc.cast(self._words, pa.timestamp("us", zone)))
                except pa.ArrowInvalid:
                    continue
        return None

    @property
    def _words(self) -> Any:
        if not pa.types.is_string(self.values.type):
            return self.values
        return pc.if_else(pc.equal(self.values, ""), None, self.values)

    @cached_property
    def is_time(self) -> bool:
        """Whether the column is of a time or date by its type."""
        return bool(pa.types.is_temporal(self.values.type))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a file, evenly spaced where it has too many: `rows` of `rows_in_file`.

    `numbers` (rows,): which row of the file each is, from 1, without a header.
    """

    path: str
    rows: int
    rows_in_file: int
    columns: Mapping[str, Column] = field(repr=False)
    numbers: NDArray[np.int64] = field(repr=False)


def read_table(path: Path, rows_max: int = ROWS_MAX) -> Table:
    """Read a CSV (also gzipped; separated by comma, semicolon, tab or bar) or a Parquet file.

    `rows_max`: of a file with more, so many rows are kept, evenly spaced.

    Raises:
        UsageError: there is no such file, or it holds no table that can be told apart.
    """
    subject = str(path)
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            subject=subject,
            hint="Name a Parquet file, or CSV.",
        ) from None
    if not head:
        raise UsageError("is empty", subject=subject)
    comma = False
    try:
        if head == b"PAR1":
            batches = _of_parquet(path)
        else:
            batches, comma = _of_csv(path, subject)
        kept, numbers, seen = _thinned(batches, rows_max)
    except (pa.ArrowException, OSError, EOFError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        said = re.sub(r"(got \d+): .*", r"\1", said)  # without the row itself
        raise UsageError(
            f"cannot be read as a table: {said}",
            subject=subject,
            hint="Save it as CSV in UTF-8 with a header, or as Parquet.",
        ) from None
    if kept is None or not seen:
        raise UsageError("has a header, but no rows", subject=subject)
    names = [name.strip() or f"column_{i}" for i, name in enumerate(kept.column_names)]
    _expect_unique(names, subject)
    columns = {
        name: Column(name, _plain(values), comma)
        for name, values in zip(names, kept.columns, strict=True)
        if not pa.types.is_nested(values.type)
    }
    return Table(subject, kept.num_rows, seen, columns, numbers + 1)


def _thinned(batches: Iterator[Any], rows_max: int) -> tuple[Any, NDArray[np.int64], int]:
    """Return evenly spaced rows, as many as may be kept, their numbers from 0, and how many
    there were."""
    parts: list[Any] = []
    numbers: list[NDArray[np.int64]] = []
    seen, kept, step, most = 0, 0, 1, rows_max
    for batch in batches:
        most = min(rows_max, max(_ROWS_MIN, CELLS_MAX // max(batch.num_columns, 1)))
        rows = np.arange(-seen % step, batch.num_rows, step)
        parts.append(batch if step == 1 else batch.take(pa.array(rows)))
        numbers.append(seen + rows)
        seen, kept = seen + batch.num_rows, kept + len(rows)
        while kept > 2 * most:
            halved = np.arange(0, kept, 2)
            parts = [pa.concat_tables(parts).take(pa.array(halved))]
            numbers = [np.concatenate(numbers)[halved]]
            kept, step = len(halved), 2 * step
    if not kept:
        return None, np.empty(0, dtype=np.int64), seen
    table, places = pa.concat_tables(parts), np.concatenate(numbers)
    if kept > most:
        spaced = np.linspace(0, kept - 1, most).astype(np.int64)
        table, places = table.take(pa.array(spaced)), places[spaced]
    return table.combine_chunks(), places, seen


def _of_parquet(path: Path) -> Iterator[Any]:
    file = pa_parquet.ParquetFile(path)
    # What pandas keeps as its index is no column of the table.
    for batch in file.iter_batches(1 << 16):
        table = pa.Table.from_batches([batch])
        index = [name for name in table.column_names if name.startswith("__index_level_")]
        yield table.drop_columns(index) if index else table


def _of_csv(path: Path, subject: str) -> tuple[Iterator[Any], bool]:
    names, delimiter = _header(path, subject)
    stream = pa.input_stream(str(path), compression="gzip" if _gzipped(path) else None)
    reader = pa_csv.open_csv(
        stream,
        read_options=pa_csv.ReadOptions(column_names=names, skip_rows=1, block_size=1 << 24),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    return (pa.Table.from_batches([batch]) for batch in reader), delimiter == ";"


def _header(path: Path, subject: str) -> tuple[list[str], str]:
    """Return the names in the first line, and what separates them."""
    with pa.input_stream(str(path), compression="gzip" if _gzipped(path) else None) as stream:
        head = stream.read(_HEAD_BYTES)
    if b"\0" in head:
        raise UsageError(
            "is neither CSV nor Parquet", subject=subject, hint="Save it as CSV or Parquet."
        )
    try:
        line = head.split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8", subject=subject, hint="Save it as UTF-8.") from None
    if not line.strip():
        raise UsageError(
            "has no header: its first line is empty",
            subject=subject,
            hint="The first line names the columns.",
        )
    outside = "".join(line.split('"')[::2])
    delimiter = max(DELIMITERS, key=outside.count)
    names = _cells(line, delimiter)
    if all(_reads_as_number(name) for name in names):
        raise UsageError(
            "has no header: its first line holds numbers",
            subject=subject,
            hint="The first line names the columns.",
        )
    names = [name or f"column_{i}" for i, name in enumerate(names)]
    _expect_unique(names, subject)  # two of one name would be one to Arrow
    return names, delimiter


def _expect_unique(names: list[str], subject: str) -> None:
    (name, count), *_ = Counter(names).most_common(1)
    if count > 1:
        raise UsageError(f"has more than one column {name!r}", subject=subject, hint="Rename one.")


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _without_marks(words: Any, *, comma: bool) -> Any:
    """Return amounts without currency signs and thousands separators, if all words are amounts."""
    thousands, point = (r"\.", ",") if comma else (",", r"\.")
    amount = rf"^[-+]?[$€£¥]?\s?[-+]?[0-9]{{1,3}}(({thousands}[0-9]{{3}})+|[0-9]*)({point}[0-9]+)?$"
    if not pc.all(pc.match_substring_regex(words, amount)).as_py():
        return words
    return pc.replace_substring_regex(words, rf"[$€£¥\s]|{thousands}", "")


def _gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _plain(values: Any) -> Any:
    """Return a column without its encoding: what pandas calls a category, and large texts."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return values.cast(pa.string()) if is_text else values


def _as_floats(values: Any) -> Floats:
    numbers = pc.cast(values, pa.float64(), safe=False)
    floats: Floats = pc.fill_null(numbers, float("nan")).to_numpy()
    return floats.astype(np.float64, copy=False)


def _as_seconds(values: Any) -> Floats:
    zone = values.type.tz if pa.types.is_timestamp(values.type) else None
    micros = pc.cast(values, pa.timestamp("us", zone), safe=False)
    return _as_floats(pc.cast(micros, pa.int64())) / 1e6


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )
