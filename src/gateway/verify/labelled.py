"""A table of labelled payments, as a product's model is fed it.

Each row becomes what the gateway would have made of the payment: features by the product's own
rules, amount in minor units, MCC, time. A row that the gateway would have refused is left out and
counted: it is no decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.errors import UsageError
from gateway.model import FeatureSchema, Rows, feature_schema
from gateway.product import LabelledColumns, Product, minor_per_major
from gateway.scaffold.label import Label, find_label, one_sided
from gateway.scaffold.names import is_time, listed, named, plain
from gateway.scaffold.table import ROWS_MAX, Column, Table, read_table

LEFT_OUT_MAX = 0.1
"""Of the rows. Where more break a product's rules, table and product do not belong together."""

AMOUNTS = (
    *("amount", "amt", "txamount", "transactionamount", "transactionamt", "amountusd", "value"),
    *("purchasevalue", "price", "total", "transactionamountusd", "txnamount", "txamt"),
)
CATEGORIES = (
    *("mcc", "mcccode", "merchantcategorycode", "merchantmcc", "category", "merchantcategory"),
    *("merchanttype", "categorycode"),
)
CLUSTERS = (
    *("subject", "customerid", "customer", "cardid", "card", "accountid", "account", "userid"),
    *("user", "clientid", "client", "ccnum", "nameorig", "custid", "cardnumber", "cardholderid"),
)
"""Names that columns have, the likeliest first; without case and punctuation."""

_CHUNK = 20_000
_LEAST_UNIX_S = 1e8
_AMOUNT_MAX = 2.0**53


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that count for nothing: which column, what is wrong, how many, and the first."""

    column: str
    why: str
    rows: int
    first_row: int

    def __str__(self) -> str:
        count = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        return f"{self.column} {self.why} in {count}, the first is row {self.first_row:,}"


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """n labelled payments, in the order of the file.

    `rows` (n, columns), as `Classifier.score` takes them; `is_fraud` (n,); `amount_minor` (n,) in
    minor units; `category` (n,) MCCs, empty where there is none; `cluster` (n,) whole numbers,
    equal for payments of one customer; `event_s` (n,) Unix seconds, 0 where no column says.
    `row_numbers` (n,): which row of the file each is, from 1. `columns`: what was read as what.
    `file_order`: the indices of the product's columns, in the order of the file's.
    """

    path: str
    rows: Rows
    is_fraud: NDArray[np.bool_]
    amount_minor: NDArray[np.int64]
    category: NDArray[np.object_]
    cluster: NDArray[np.int64]
    event_s: NDArray[np.float64]
    row_numbers: NDArray[np.int64]
    rows_in_file: int
    left_out: tuple[LeftOut, ...]
    columns: LabelledColumns
    file_order: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.is_fraud)

    @property
    def frauds(self) -> int:
        """How many of them are fraud."""
        return int(self.is_fraud.sum())

    def of(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Labelled:
        """Return some of the payments, by index or by truth."""
        return Labelled(
            self.path,
            self.rows[rows],
            self.is_fraud[rows],
            self.amount_minor[rows],
            self.category[rows],
            self.cluster[rows],
            self.event_s[rows],
            self.row_numbers[rows],
            self.rows_in_file,
            self.left_out,
            self.columns,
            self.file_order,
        )


def read_labelled(
    path: Path,
    product: Product,
    columns: LabelledColumns | None = None,
    *,
    schema: FeatureSchema | None = None,
    rows_max: int = ROWS_MAX,
) -> Labelled:
    """Read labelled payments of a product from a Parquet file or a CSV.

    `columns`: which column is what, before what the product's `models.gates.calibration` says,
    before a guess by names. `schema`: that of the generation that is to score them; where left
    out, rows are float32. Of a longer file `rows_max` rows are kept, evenly spaced.

    Raises:
        UsageError: no such file or column, or more than a tenth of the rows break a rule of the
            product: with everything that is wrong.
    """
    table = read_table(path, rows_max)
    schema = feature_schema(product.features) if schema is None else schema
    asked = _asked(columns, product.models.gates.calibration)
    problems: list[str] = []
    sources = _feature_columns(schema, table, problems)
    label, amount, roles = _roles(table, schema, asked, problems)
    if problems or label is None or amount is None:
        raise UsageError(
            "\n".join(problems), subject=table.path, hint=_HINT.format(listed(table.columns))
        )
    n = table.rows
    category = _categories(roles.get("category"), product, n)
    batch = _encoded(sources, schema)
    kept, left_out, rows = _kept(batch, schema, table, label, amount)
    if int(label.known.sum()) - int(kept.sum()) > LEFT_OUT_MAX * n:
        raise UsageError(
            "\n".join(str(one) for one in left_out),
            subject=table.path,
            hint="The gateway would refuse these payments. Give data in the units of features, or "
            "change what features says of missing, unknown, min and max.",
        )
    used = {name: column.name for name, column in roles.items()}
    major = amount.numbers
    assert major is not None, "_roles refuses an amount that is no number"
    return Labelled(
        path=table.path,
        rows=rows[kept],
        is_fraud=label.fraud[kept],
        amount_minor=np.rint(major[kept] * minor_per_major(product.costs.currency)).astype(
            np.int64
        ),
        category=category[kept],
        cluster=_clusters(roles.get("cluster"), n)[kept],
        event_s=_events(roles.get("time"), n)[kept],
        row_numbers=table.numbers[kept],
        rows_in_file=table.rows_in_file,
        left_out=left_out,
        columns=LabelledColumns(label=label.name, fraud=label.value, amount=amount.name, **used),
        file_order=_file_order(sources, table),
    )


_HINT = (
    "models.gates.calibration (label, fraud, amount, category, cluster, time) or the options of "
    "the same names say which column is what; features are found by their names. There are: {}."
)


def _asked(columns: LabelledColumns | None, declared: LabelledColumns) -> LabelledColumns:
    first = {} if columns is None else columns.model_dump(exclude_none=True)
    names = LabelledColumns.model_fields
    return LabelledColumns(**{name: first.get(name, getattr(declared, name)) for name in names})


def _feature_columns(
    schema: FeatureSchema, table: Table, problems: list[str]
) -> tuple[Column, ...]:
    """Return the table's column for each column of the model; note those that it has not."""
    by_plain: dict[str, list[str]] = {}
    for name in table.columns:
        by_plain.setdefault(plain(name), []).append(name)
    found: list[Column] = []
    gone: list[str] = []
    for feature in schema.features:
        alike = by_plain.get(plain(feature.name), [])
        if feature.name in table.columns:
            found.append(table.columns[feature.name])
        elif len(alike) == 1:
            found.append(table.columns[alike[0]])
        else:
            gone.append(feature.name)
    if gone:
        problems.append(f"has no column for these features: {listed(gone)}")
    for feature, column in zip(schema.features, found, strict=False) if not gone else ():
        if feature.type != "category" and column.numbers is None:
            problems.append(
                f"column {column.name!r} holds texts, feature {feature.name} is {feature.type}"
            )
    return tuple(found)


def _file_order(sources: Sequence[Column], table: Table) -> tuple[int, ...]:
    places = {name: place for place, name in enumerate(table.columns)}
    return tuple(sorted(range(len(sources)), key=lambda i: places[sources[i].name]))


def _roles(
    table: Table, schema: FeatureSchema, asked: LabelledColumns, problems: list[str]
) -> tuple[Label | None, Column | None, dict[str, Column]]:
    """Return the label, the amount, and what else was found; note what is missing."""
    label, amount = None, None
    own = [feature.name for feature in schema.features]
    try:
        label = find_label(table, own, asked.label, asked.fraud)
        if label is None:
            problems.append(_why_no_label(table, own))
    except UsageError as error:
        problems.append(f"{error.what} ({error.hint})")
    roles: dict[str, Column] = {}
    guesses = {"amount": AMOUNTS, "category": CATEGORIES, "cluster": CLUSTERS, "time": ()}
    for role, names in guesses.items():
        wanted = getattr(asked, role)
        try:
            column = _guess(table, names) if wanted is None else named(wanted, table, role)
        except UsageError as error:
            problems.append(f"{error.what} for {role}")
            continue
        if role == "time" and wanted is None:
            column = _guessed_time(table)
        if column is not None:
            roles[role] = column
    amount = roles.pop("amount", None)
    if amount is None and asked.amount is None:
        problems.append("no column is an amount by its name: costs depend on it")
    elif amount is not None and amount.numbers is None:
        problems.append(f"column {amount.name!r} is the amount, but holds texts")
    if "time" in roles and roles["time"].seconds is None:
        problems.append(f"column {roles['time'].name!r} is the time, but holds none")
    return label, amount, roles


def _why_no_label(table: Table, own: Sequence[str]) -> str:
    column = one_sided(table, own)
    if column is None:
        return "no column is a label by its name"
    ((value, _),) = column.distinct
    return f"label {column.name!r} is {value} in every row: frauds and genuine payments are needed"


def _guess(table: Table, names: Sequence[str]) -> Column | None:
    known = [column for column in table.columns.values() if plain(column.name) in names]
    return min(known, key=lambda column: names.index(plain(column.name)), default=None)


def _guessed_time(table: Table) -> Column | None:
    """Return the column of times, where one is by its type, or by its name and its values."""
    columns = [column for column in table.columns.values() if is_time(column)]
    for column in sorted(columns, key=lambda one: not one.is_time):
        seconds = column.seconds
        if seconds is None or np.isnan(seconds).all():
            continue
        if float(np.nanmedian(seconds)) > _LEAST_UNIX_S:
            return column
    return None


def _encoded(sources: Sequence[Column], schema: FeatureSchema) -> Rows:
    """Return (n, columns): a missing number is NaN, a text that is refused is -1."""
    columns: list[NDArray[np.float64]] = []
    for i, column in enumerate(sources):
        codes, default = schema.codes(i), schema.missing(i)
        if codes is None:
            values = column.numbers
            assert values is not None, "_feature_columns refuses texts"
        else:
            unknown = codes.get(schema.features[i].unknown, -1)
            values = _coded(column, dict(codes), float(unknown))
        columns.append(values if default is None else np.where(np.isnan(values), default, values))
    with np.errstate(over="ignore"):  # past float32 there is infinity, which the check refuses
        return np.column_stack(columns).astype(schema.dtype)


def _coded(column: Column, codes: dict[str, int], unknown: float) -> NDArray[np.float64]:
    """Return the index of each text; a column of numbers may hold the indices themselves."""
    words = [text for text, _ in column.distinct]
    if column.numbers is not None and not any(word in codes for word in words):
        spelled = {word: f"{float(word):g}" for word in words if _is_number(word)}
        if not any(word in codes for word in spelled.values()):
            return column.numbers
        codes = {word: codes[plain] for word, plain in spelled.items() if plain in codes}
    table = {word: float(codes.get(word, unknown)) for word in words}
    return np.array(
        [np.nan if text is None else table[text] for text in column.texts.tolist()],
        dtype=np.float64,
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _kept(
    batch: Rows, schema: FeatureSchema, table: Table, label: Label, amount: Column
) -> tuple[NDArray[np.bool_], tuple[LeftOut, ...], Rows]:
    """Return which rows count, what is wrong with the others, and all rows by the rules."""
    n = len(batch)
    kept = label.known.copy()
    wrong: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], int] = {}

    def leave_out(column: str, why: str, row: int) -> None:
        kept[row] = False
        wrong[column, why] += 1
        first.setdefault((column, why), int(table.numbers[row]))

    for row in np.flatnonzero(~label.known).tolist():
        leave_out(label.name, "is missing", row)
    major = amount.numbers
    assert major is not None, "_roles refuses an amount that is no number"
    for row in np.flatnonzero(~((major >= 0) & (major < _AMOUNT_MAX))).tolist():
        leave_out(amount.name, "is missing" if np.isnan(major[row]) else "is no amount", row)
    parts: list[Rows] = []
    for start in range(0, n, _CHUNK):
        part, checked = schema.checked(batch[start : start + _CHUNK])
        parts.append(part)
        for i, row_ in checked.items():
            for field, why in row_.violations:
                leave_out(field, why, start + i)
    counted = (LeftOut(*key, count, first[key]) for key, count in wrong.most_common())
    return kept, tuple(counted), np.concatenate(parts)


def _categories(column: Column | None, product: Product, n: int) -> NDArray[np.object_]:
    """Return MCCs: as they stand there, as numbers of up to four digits, or by category's name."""
    if column is None:
        return np.full(n, "", dtype=np.object_)
    by_name = {name: category.mcc[0] for name, category in product.costs.categories.items()}
    table: dict[str | None, str] = {None: ""}
    for word, _ in column.distinct:
        table[word] = by_name.get(word, word)
        if _is_number(word) and float(word).is_integer() and 0 <= float(word) <= 9999:
            table[word] = f"{int(float(word)):04d}"
    return np.array([table[text] for text in column.texts.tolist()], dtype=np.object_)


def _clusters(column: Column | None, n: int) -> NDArray[np.int64]:
    """Return equal numbers for equal values; a row without one is a cluster of its own."""
    if column is None:
        return np.arange(n)
    codes = column.codes
    return np.where(codes < 0, len(codes) + np.arange(n), codes)


def _events(column: Column | None, n: int) -> NDArray[np.float64]:
    seconds = None if column is None else column.seconds
    return np.zeros(n) if seconds is None else np.nan_to_num(seconds)
