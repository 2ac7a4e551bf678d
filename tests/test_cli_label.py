"""`gateway label`: files as they come, wrong ones first."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedback_events import NOW_US, Service, canary, served, stands_for
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli import label as command
from gateway.cli.main import run
from gateway.errors import ExitCode, JournalFull

HEADER = "transaction_id,kind,occurred_time,amount_minor,currency,source_event_id"
GOOD = "t-{i},chargeback,2026-11-02T09:00:00Z,1999,USD,cb-{i}"
PAN = "4111111111111111"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("feedback"), "test", "card-present") as one:
        yield one


@pytest.fixture
def said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, service: Service
) -> Callable[..., tuple[int, str, str]]:
    """Send a text, or a file, and return the exit code, stdout and stderr."""

    def send(content: str | bytes | Path, *more: str, to: str = "") -> tuple[int, str, str]:
        path = content if isinstance(content, Path) else tmp_path / "labels.csv"
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, bytes):
            path.write_bytes(content)
        code = run(["label", str(path), "--to", to or service.address, *more])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return send


Said = Callable[..., tuple[int, str, str]]


def rows(*lines: str, header: str = HEADER) -> str:
    return "\n".join((header, *lines)) + "\n"


SPACED = ("--product", "test", "--source", "the desk")


@pytest.mark.parametrize(
    ("content", "more", "says", "tries"),
    [
        (Path("absent.csv"), (), "cannot be read: No such file", "CSV or Parquet"),
        ("", (), "is empty", "first line names"),
        ("\n\n", (), "is empty", ""),
        ("\nt-1,chargeback\n", (), "has no header", ""),
        (HEADER, ("--product", "test", "--source", "s"), "has a header, but no rows", ""),
        (b"\x00\x01\x02", (), "neither CSV nor Parquet", ""),
        (b"PAR1 and no more", (), "no whole Parquet file", ""),
        (rows(GOOD), ("--source", "s"), "has no column product", "--product NAME"),
        (rows(GOOD), ("--product", "test"), "has no column source", "--source NAME"),
        ("amount,fraud\n1,2\n", (), "has no column", "Columns: product, transaction_id"),
        (
            rows("a,b,c,d", header="transaction_id,knid,occurred_time,source_event_id"),
            (),
            "column 'knid', which is none that is read",
            "Did you mean kind?",
        ),
        (
            rows("a", header="kind,occurred_time,source_event_id,transaction_id,reported_tme"),
            ("--product", "test", "--source", "s"),
            "'reported_tme'",
            "Did you mean reported_time?",
        ),
        (rows("a,b", header="kind,Kind "), (), "has more than one", ""),
        (rows("a,b", header="kind,kind"), (), "has more than one column", "Rename"),
        ("kind" + "," * 100_000, (), "names no columns", "with a header"),
        (rows(GOOD), ("--attributes", "--product", "x"), "--product is of labels", ""),
        (rows(GOOD), ("--attributes",), "has no column subject", "Columns: subject, attribute"),
    ],
)
def test_a_file_that_cannot_be_sent_is_said_once(
    said: Said, content: Any, more: tuple[str, ...], says: str, tries: str
) -> None:
    code, out, err = said(content, *more)
    assert code == ExitCode.USAGE
    assert out == ""
    assert err.count("Error: ") == 1
    assert says in err, err
    assert tries in err, err
    assert "Traceback" not in err


def test_a_folder_is_no_file(said: Said, tmp_path: Path) -> None:
    code, _, err = said(tmp_path)
    assert code == ExitCode.USAGE
    assert "Is a directory" in err


def test_nobody_listens(said: Said) -> None:
    options = ("--product", "test", "--source", "s")
    code, _, err = said(rows(GOOD.format(i=1)), *options, to="127.0.0.1:1")
    assert code == ExitCode.UNREACHABLE
    assert "no sidecar answers" in err
    assert "gateway sidecar" in err
    assert said(rows(GOOD), to="nowhere")[0] == ExitCode.USAGE


def test_who_takes_no_labels_is_told_apart(said: Said, serve: Any) -> None:
    """The gateway itself, which its user may well have named."""
    with serve() as gateway:
        options = ("--product", "test", "--source", "s")
        code, _, err = said(rows(GOOD.format(i=1)), *options, to=gateway.address)
    assert code == ExitCode.UNREACHABLE
    assert "takes no labels" in err
    assert "gateway sidecar" in err


def test_a_sidecar_that_leaves_in_the_middle_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how far it came; sent again, the file goes in whole."""
    path = tmp_path / "labels.csv"
    path.write_text(rows(*(GOOD.format(i=i) for i in range(2500))))
    options = ["--product", "test", "--source", "s"]
    with served(tmp_path / "journal") as service:
        keep = service.store.add_labels
        monkeypatch.setattr(service.store, "add_labels", keep)

        def is_full(labels: Any, received_us: int) -> Any:
            if service.store.last().labels:
                raise JournalFull("cannot write: no space is left", subject="/a/path")
            return keep(labels, received_us)

        monkeypatch.setattr(service.store, "add_labels", is_full)
        assert run(["label", str(path), "--to", service.address, *options]) == ExitCode.REFUSED
        said = capsys.readouterr()
        assert "no space is left; 1,000 rows are on disk there" in said.err
        assert "Send the file again" in said.err
        assert "/a/path" not in said.err
        assert said.out == ""
        monkeypatch.setattr(service.store, "add_labels", keep)
        assert run(["label", str(path), "--to", service.address, *options]) == ExitCode.OK
        assert "1,500 taken, 1,000 known already" in capsys.readouterr().out


def test_a_row_that_is_too_long_is_a_bad_row(said: Said) -> None:
    long = GOOD.format(i=1).replace("t-1", "x" * 100_000)
    code, out, err = said(rows(long, GOOD.format(i=2)), "--product", "test", "--source", "long")
    assert code == ExitCode.REFUSED
    assert "1 taken" in out
    assert "line 2: is too long" in err
    assert len(err) < 1000


def test_a_header_that_is_data_is_not_printed(said: Said) -> None:
    """A file without a header: its first line may hold anything."""
    code, _, err = said(f"t-1,\x1b[31mred,{PAN}\nt-2,x,y\n", "--product", "test", "--source", "s")
    assert code == ExitCode.USAGE
    assert PAN not in err
    assert "\x1b[31m" not in err


def test_a_bad_row_is_named_and_the_good_ones_go_in(said: Said, service: Service) -> None:
    content = rows(
        GOOD.format(i=1),
        "t-2,chargback,2026-11-02T09:00:00Z,1999,USD,cb-2",
        "t-3,chargeback,yesterday,1999,USD,cb-3",
        "t-4,chargeback,2026-11-02T09:00:00Z,19.99,USD,cb-4",
        "t-5,chargeback,2026-11-02T09:00:00Z",
        "",
        '"t-6\nx",refund,2026-11-02T09:00:00Z,1999,USD,cb-6',
        "t-7,chargeback,2026-11-02T09:00:00Z,1999,US,cb-7",
        "t-8,chargeback,2031-01-01,-5,USD,cb-8",
        GOOD.format(i=9),
    )
    code, out, err = said(content, "--product", "test", "--source", "bad-rows")
    assert code == ExitCode.REFUSED
    assert "9 rows, 3 taken, 0 known already, 6 refused" in out
    lines = [line for line in err.splitlines() if line.startswith("line ")]
    assert [line.split()[1] for line in lines] == ["3:", "4:", "5:", "6:", "10:", "11:"]
    assert "Did you mean chargeback?" in lines[0]
    assert "occurred_time is no time" in lines[1]
    assert "19.99 USD is 1999" in lines[2]
    assert "has 3 cells, the header has 6" in lines[3]
    assert "currency is no active ISO 4217 code" in lines[4]
    assert "occurred_time is more than a day ahead" in lines[5]
    assert "amount_minor must not be negative" in lines[5]
    assert "Mend them and send the file again" in err
    assert "--source bad-rows" in err
    kept = {
        one.label.transaction_id
        for one in service.store.labels(0, 10**6)
        if one.label.source == "bad-rows"
    }
    assert kept == {"t-1", "t-6\nx", "t-9"}


def test_the_command_to_send_again_is_one_that_a_shell_takes(said: Said) -> None:
    _, _, err = said(rows("t-1,chargback,2026-11-02T09:00:00Z,1,USD,e"), *SPACED)
    _, found, command = err.partition("what was taken is recognised: ")
    words = shlex.split(command)
    assert found
    assert words[:2] == ["gateway", "label"]
    assert tuple(words[3:7]) == SPACED


def test_no_cell_is_in_what_is_said(said: Said) -> None:
    """Not in stderr, stdout or JSON, wherever in a row it stands."""
    columns = (
        *("product", "transaction_id", "decision_id", "kind", "occurred_time", "reported_time"),
        *("amount_minor", "currency", "liable", "source", "source_event_id", "supersedes"),
        *("action", "category", "subject"),
    )
    lines, texts = [], []
    for _ in range(5):
        cells = [f"{canary()} {PAN}" for _ in columns]
        texts += [cell.split()[0] for cell in cells]
        lines.append(",".join(cells))
    for more in ((), ("--json",)):
        code, out, err = said(rows(*lines, header=",".join(columns)), *more)
        assert code == ExitCode.REFUSED
        assert [text for text in (*texts, PAN) if text in out + err] == []


def test_a_file_that_is_sent_twice_is_all_duplicates(said: Said) -> None:
    content = rows(*(GOOD.format(i=i) for i in range(2500)))
    options = ("--product", "test", "--source", "twice")
    code, out, err = said(content, *options)
    assert (code, "2,500 taken" in out, "Next: gateway label" in err) == (0, True, True)
    code, out, _ = said(content, *options, "--json")
    assert code == ExitCode.OK
    told = json.loads(out)
    assert (told["rows"], told["accepted"], told["duplicates"]) == (2500, 0, 2500)
    # Corrected in place is refused; as an event of its own it goes in.
    code, _, err = said(rows(GOOD.format(i=7).replace("1999", "5")), *options)
    assert code == ExitCode.REFUSED
    assert "line 2: source_event_id was sent before with another content" in err
    corrected = rows(GOOD.format(i=7) + "b,cb-7", header=f"{HEADER},supersedes")
    assert said(corrected, *options)[0] == ExitCode.OK


def test_many_bad_rows_are_counted_and_not_all_said(said: Said) -> None:
    bad = "t,no kind,2026-11-02,1,USD,x"
    code, out, err = said(rows(*[bad] * 3000), "--product", "test", "--source", "s")
    assert code == ExitCode.REFUSED
    assert "3,000 rows, 0 taken, 0 known already, 3,000 refused" in out
    assert err.count("line ") == command.SHOWN_MAX
    assert "and 2,980 more rows" in err
    _, out, _ = said(rows(*[bad] * 3000), "--product", "test", "--source", "s", "--json")
    assert len(json.loads(out)["violations"]) == command.LISTED_MAX


def test_every_column_arrives(said: Said, service: Service) -> None:
    header = (
        "Product;transaction_id;decision_id;kind;occurred_time;reported_time;amount_minor;currency;"
        "liable;source;source_event_id;supersedes;action;category;subject;comment"
    )
    lines = (
        "test;t-1;0123456789abcdef-07-00000000002a;CHARGEBACK;1762074000;1762160400000;0;JPY;"
        "customer;every;e-1;e-0;;;c-1;free text",
        "card-present;t-2;;stand_in_advice;2026-11-02 10:00+01:00;;250.0;KWD;;every;e-2;;step_up;"
        "5411;c-2;",
        ";t-3;;withdrawn;2026-11-02;;;;;;e-3;e-2;;;;",
    )
    options = ("--product", "test", "--source", "every")
    content = b"\xef\xbb\xbf" + rows(*lines, header=header).encode()
    code, _, err = said(content, *options)
    assert code == ExitCode.OK, err
    assert "Not read: comment" in err
    first, second, third = (
        one.label for one in service.store.labels(0, 10**6) if one.label.source == "every"
    )
    assert first[1:3] == ("t-1", "0123456789abcdef-07-00000000002a")
    assert (first.occurred_us, first.reported_us) == (1762074000_000000, 1762160400_000000)
    assert (first.amount_minor, first.currency, first.liable) == (0, "JPY", 3)
    assert (first.supersedes, first.subject) == ("e-0", stands_for("c-1"))
    assert (second.product, second.kind, second.action, second.category) == (
        *("card-present", 12, 2),
        "5411",
    )
    assert second.amount_minor == 250
    assert second.occurred_us == second.reported_us
    assert datetime.fromtimestamp(second.occurred_us / 1e6, UTC).hour == 9
    assert (third.product, third.amount_minor, third.supersedes) == ("test", None, "e-2")


def test_parquet_is_read_as_it_is_typed(said: Said, service: Service, tmp_path: Path) -> None:
    when = [datetime(2026, 11, 2, 9, tzinfo=UTC), datetime(2026, 11, 3, 9, tzinfo=UTC), None]
    table = pa.table(
        {
            "transaction_id": ["t-1", "t-2", "t-3"],
            "kind": pa.array(["refund", "refund", "refund"]).dictionary_encode(),
            "occurred_time": pa.array(when, pa.timestamp("ns", "UTC")),
            "amount_minor": pa.array([5.0, None, 7.0]),
            "currency": ["USD", None, "USD"],
            "source_event_id": pa.array([1, 2, 3]),
        }
    )
    path = tmp_path / "labels.parquet"
    pq.write_table(table, path)
    code, out, err = said(path, "--product", "test", "--source", "parquet")
    assert code == ExitCode.REFUSED
    assert "row 3: occurred_time is missing" in err
    assert "3 rows, 2 taken" in out
    kept = [one.label for one in service.store.labels(0, 10**6) if one.label.source == "parquet"]
    assert [(one.source_event_id, one.amount_minor) for one in kept] == [("1", 5), ("2", None)]


def test_the_readmes_files_give_what_it_says(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    options = ("--product", "card-present", "--source", "disputes")
    code, out, err = said(Path("examples/labels.csv"), *options)
    assert code == ExitCode.REFUSED
    for line in (*out.splitlines(), *err.splitlines()):
        # Its address is the default's there.
        assert re.sub(r"127.0.0.1:\d+", "127.0.0.1:50052", line) in readme, line
    code, out, _ = said(Path("examples/groups.csv"), "--attributes", "--source", "example")
    assert code == ExitCode.OK
    assert out.strip() in readme


def test_groups_go_in_by_pseudonym(said: Said, service: Service) -> None:
    header = "subject,attribute,value,reported_time"
    lines = (
        "c-1,age_band,35-54,2026-11-01",
        "c-2,age_band,18-34,2026-11-01",
        f"{PAN},age_band,18-34,2026-11-01",
        "c-3,age_band,,2026-11-01",
    )
    code, out, err = said(rows(*lines, header=header), "--attributes", "--source", "core")
    assert code == ExitCode.REFUSED
    assert "line 4: subject looks like a payment card number" in err
    assert "line 5: value is missing" in err
    assert "--attributes" in err
    assert "4 rows, 2 taken" in out
    kept = [one.attribute for one in service.store.attributes(0, 99)]
    assert [one.subject for one in kept if one.source == "core"] == [
        stands_for("c-1"),
        stands_for("c-2"),
    ]


def test_cells_that_are_no_text_are_bad_rows_of_their_own(said: Said) -> None:
    latin = rows(GOOD.format(i=1), GOOD.format(i=2), GOOD.format(i=3)).encode()
    content = latin.replace(b"t-2", b"t-\xe9")
    code, out, err = said(content, "--product", "test", "--source", "latin")
    assert code == ExitCode.REFUSED
    assert "line 3: is not UTF-8" in err
    assert "3 rows, 2 taken" in out


def test_a_quote_that_does_not_end_loses_what_it_swallows_and_says_so(said: Said) -> None:
    content = rows(GOOD.format(i=1), '"' + GOOD.format(i=2), *["x" * 1000] * 200)
    code, out, err = said(content, "--product", "test", "--source", "quote")
    assert code == ExitCode.REFUSED
    assert "1 taken" in out
    assert "line 3: " in err


PIECES = st.one_of(
    st.sampled_from(
        [*HEADER.encode().split(b","), b",", b";", b"\t", b"\n", b"\r", b'"', b"\xff", b"\x00"]
    ),
    st.sampled_from([b"t-1", b"chargeback", b"2026-11-02", b"1999", b"USD", b"PAR1", b"1e999"]),
    st.binary(max_size=8),
)


@settings(max_examples=150, deadline=None)
@given(head=st.booleans(), pieces=st.lists(PIECES, max_size=40), attributes=st.booleans())
def test_whatever_a_file_holds_it_ends_with_a_word(
    tmp_path_factory: pytest.TempPathFactory,
    service: Service,
    head: bool,
    pieces: list[bytes],
    attributes: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes((HEADER.encode() + b"\n" if head else b"") + b"".join(pieces))
    more = ["--attributes"] if attributes else ["--product", "test"]
    code = run(["label", str(path), "--to", service.address, "--source", "any", *more])
    assert code in (ExitCode.OK, ExitCode.USAGE, ExitCode.REFUSED)


def test_a_damaged_parquet_is_said_and_what_came_before_is_in(
    said: Said, service: Service, tmp_path: Path
) -> None:
    count = 6000
    table = pa.table(
        {
            "transaction_id": [f"t-{i}" for i in range(count)],
            "kind": ["refund"] * count,
            "occurred_time": ["2026-11-02"] * count,
            "source_event_id": [f"p-{i}-{hash(i)}" for i in range(count)],
        }
    )
    path = tmp_path / "damaged.parquet"
    pq.write_table(table, path, row_group_size=2000, use_dictionary=False)
    content = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(2).column(0)
    begin = group.data_page_offset
    content[begin : begin + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(content)
    code, out, err = said(path, "--product", "test", "--source", "damaged")
    assert code == ExitCode.USAGE
    assert err.count("Error: ") == 1
    assert out == ""
    kept = [one for one in service.store.labels(0, 10**6) if one.label.source == "damaged"]
    assert len(kept) == 4000
    assert "4,000 rows before it are on disk there" in err


def test_a_long_file_has_a_bar_and_a_short_one_has_none(
    monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    shown: list[float] = []

    class Seen(command.Progress):
        def start(self) -> None:
            shown.append(0.0)

        def update(self, *_: Any, **changes: Any) -> None:
            shown.append(changes["completed"])

    monkeypatch.setattr(command, "Progress", Seen)
    content = rows(*(GOOD.format(i=i) for i in range(3500)))
    options = ("--product", "test", "--source", "bar")
    assert said(content, *options)[0] == ExitCode.OK
    assert shown == []
    monkeypatch.setattr(command, "BAR_AFTER_S", 0.0)
    assert said(content, *options)[0] == ExitCode.OK
    assert shown == sorted(shown)
    assert len(shown) == 5
    assert shown[-1] == pytest.approx(1.0, abs=0.3)


def test_the_times_of_a_sane_file_are_in_the_past() -> None:
    """The oracle of these tests: their clock stands behind the files' dates."""
    assert datetime.fromtimestamp(NOW_US / 1e6, UTC) > datetime(2026, 11, 3, tzinfo=UTC)
