"""Where `devin-sessions query` gets its SQL, and the forms in which programs get its result."""

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines.command import exit_codes
from tests.support.command import Here, command_here
from tests.support.warehouse import make_missing_warehouse
from tests.support.world import World

VALUES = """
select 'Zoë, "quoted"' as name, cast(null as integer) as nothing, 9007199254740993 as large,
cast(2 as decimal(9, 2)) as two, cast(2.5 as decimal(9, 2)) as more, cast(0.1 as double precision) as tenth,
true as is_so, date '2025-01-31' as day, cast('2025-01-31 12:00:00+00' as timestamp with time zone) as at
"""


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return command_here(capsys, monkeypatch)


@pytest.fixture
def queried(each_world: World) -> World:
    """A world with something to query: on each database, no table is needed."""
    if each_world.database.is_duckdb:
        snapshot = each_world.settings.published_snapshot
        assert snapshot
        snapshot.parent.mkdir(parents=True)
        duckdb.connect(str(snapshot)).close()
    else:
        make_missing_warehouse(each_world.database)
    return each_world


def given(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_sql_comes_from_the_command_line_a_file_or_a_pipe(
    queried: World, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "seven.sql"
    file.write_text("\ufeff-- what is it?\nselect 'ü' || 7 as seven;\n", encoding="utf-8")
    found = ["seven", "ü7"]
    assert here("query", "--csv", "--file", str(file))[1].split() == found
    assert here("query", "--csv", "-f", str(file))[1].split() == found
    assert here("query", "--csv", "-- a comment\nselect 'ü' || 7 as seven")[1].split() == found
    for argument in ([], ["-"]):
        given(monkeypatch, file.read_bytes())
        assert here("query", "--csv", *argument)[1].split() == found


def test_sql_that_cannot_be_read_is_asked_for_in_a_sentence(
    queried: World, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latin = tmp_path / "latin.sql"
    latin.write_bytes("select 'ü'".encode("latin-1"))
    nul, blank = tmp_path / "nul.sql", tmp_path / "blank.sql"
    nul.write_bytes(b"select 1 as a\0, 2 as b")
    blank.write_bytes(b"\xef\xbb\xbf\n")
    given(monkeypatch, b"")
    for arguments, sentence in (
        (["-f", str(tmp_path / "none.sql")], f"{tmp_path}/none.sql cannot be read: No such file or directory"),
        (["-f", str(tmp_path)], f"{tmp_path} cannot be read: Is a directory"),
        (["-f", str(latin)], f"{latin} is not text in UTF-8. Save it as UTF-8."),
        (["-f", str(latin), "select 1"], "Give either SQL or --file, not both."),
        (["-f", str(nul)], f"{nul} has a NUL byte, at which a database would end the SQL. Remove it."),
        (["select '\udcfc'"], "The SQL is not text in UTF-8."),
        (["-f", str(blank)], f"{blank} is empty. Give a query, such as"),
        ([" "], "The SQL is empty."),
        ([], "Standard input is empty."),
    ):
        code, out, err = here("query", *arguments)
        assert (code, out) == (exit_codes.WRONG_USE, "")
        assert sentence in err


def test_json_has_an_object_for_each_row_with_numbers_as_numbers(queried: World, here: Here) -> None:
    code, out, err = here("query", "--json", VALUES)
    assert (code, err) == (0, "")
    (row,) = json.loads(out)
    at = datetime.fromisoformat(row.pop("at"))
    assert at == datetime(2025, 1, 31, 12, tzinfo=UTC)
    assert row == {
        "name": 'Zoë, "quoted"',
        "nothing": None,
        "large": 9007199254740993,
        "two": 2,
        "more": 2.5,
        "tenth": 0.1,
        "is_so": True,
        "day": "2025-01-31",
    }
    assert "Zoë" in out
    assert json.loads(here("query", "--json", "select 1 as n where 1 = 2")[1]) == []


def test_json_never_has_a_value_that_json_lacks(queried: World, here: Here) -> None:
    is_duckdb = queried.database.is_duckdb
    sql = "select cast('nan' as double precision) as a, cast('inf' as float) as b"
    sql += ", cast('NaN' as json) as c" if is_duckdb else ", cast('nan' as numeric) as c"
    code, out, _ = here("query", "--json", sql)
    assert code == 0

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    as_the_database_says = ("nan", "inf", "NaN") if is_duckdb else ("NaN", "Infinity", "NaN")
    assert json.loads(out, parse_constant=refuse) == [dict(zip("abc", as_the_database_says, strict=True))]


def test_a_file_has_all_rows_in_the_form_that_its_name_says(queried: World, here: Here, tmp_path: Path) -> None:
    rows = "select n, n / 2.0 as half from " + (
        "range(25000) t(n)" if queried.database.is_duckdb else "generate_series(0, 24999) t(n)"
    )
    (tmp_path / "new").mkdir()
    files = {name: tmp_path / "new" / name for name in ("rows.csv", "rows.json", "rows.PARQUET")}
    for path in files.values():
        code, out, err = here("query", "-o", str(path), rows)
        assert (code, out, err) == (0, f"25,000 rows written to {path}.\n", "")
        assert path.stat().st_mode & 0o777 == 0o600
    with files["rows.csv"].open(encoding="utf-8", newline="") as file:
        assert [int(row["n"]) for row in csv.DictReader(file)] == list(range(25_000))
    assert [row["n"] for row in json.loads(files["rows.json"].read_bytes())] == list(range(25_000))
    table = pq.read_table(files["rows.PARQUET"])
    assert table["n"].to_pylist() == list(range(25_000))
    assert float(table["half"][3].as_py()) == 1.5
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(files), "nothing is left beside them"


def test_parquet_keeps_types_and_nulls(queried: World, here: Here, tmp_path: Path) -> None:
    path = tmp_path / "values.parquet"
    assert here("query", "-o", str(path), VALUES)[0] == 0
    (row,) = pq.read_table(path).to_pylist()
    two: int | float | Decimal = row.pop("two")
    assert two == 2
    assert float(row.pop("more")) == 2.5
    assert row == {
        "name": 'Zoë, "quoted"',
        "nothing": None,
        "large": 9007199254740993,
        "tenth": 0.1,
        "is_so": True,
        "day": date(2025, 1, 31),
        "at": datetime(2025, 1, 31, 12, tzinfo=UTC),
    }
    assert here("query", "-o", str(path), "select cast(null as varchar) as t where 1 = 2")[0] == 0
    assert (pq.read_table(path).num_rows, pq.read_schema(path).names) == (0, ["t"])


def test_a_spreadsheets_file_is_safe_csv(queried: World, here: Here, tmp_path: Path) -> None:
    path = tmp_path / "for-excel.csv"
    assert here("query", "--excel", "-o", str(path), "select '=1+1' as a")[0] == 0
    assert path.read_bytes() == "\ufeffa\n'=1+1\n".encode()


def test_a_file_is_replaced_as_a_whole_or_not_at_all(queried: World, here: Here, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("of before", encoding="utf-8")
    path.chmod(0o640)
    failing = "select 1 / (3 - n) from " + (
        "range(5) t(n)" if queried.database.is_duckdb else "generate_series(0, 4) t(n)"
    )
    if queried.database.is_duckdb:
        failing = "select case when n < 4 then n else error('no') end from range(5) t(n)"
    code, _, err = here("query", "-o", str(path), failing)
    assert (code, "The database refuses this SQL" in err) == (exit_codes.WRONG_USE, True)
    assert path.read_text(encoding="utf-8") == "of before"
    assert here("query", "-o", str(path), "select 1 as one")[0] == 0
    assert (path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777) == ("one\n1\n", 0o640)
    assert [entry.name for entry in tmp_path.iterdir() if "rows" in entry.name] == ["rows.csv"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-o", "rows.xlsx"], "rows.xlsx says no format. Choose a name that ends with .csv, .json or .parquet."),
        (["-o", "rows"], "rows says no format."),
        (["-o", "rows.parquet", "--csv"], "rows.parquet and --csv contradict each other."),
        (["-o", "rows.json", "--excel"], "rows.json and --excel contradict each other."),
        (["--json", "--excel"], "Choose one of --csv and --json, for programs, and --excel, for spreadsheets."),
        (["-o", "/proc/rows.csv"], "/proc/rows.csv cannot be written"),
        (["-o", "none/rows.csv"], "none/rows.csv cannot be written: there is no directory none."),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_sentence(
    queried: World, here: Here, options: list[str], sentence: str
) -> None:
    code, out, err = here("query", "select 1 as a", *options)
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert sentence in err


@pytest.mark.parametrize("option", [["--json"], ["-o", "two.parquet"]])
def test_two_columns_of_one_name_are_refused_where_names_are_keys(
    queried: World, here: Here, option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = here("query", *option, "select 1 as a, 2 as a")
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert "Two columns are called a. Give each a name of its own, with as." in err
    assert not (tmp_path / "two.parquet").exists()


def test_a_link_is_followed_and_nothing_planted_beside_the_file_is_written_through(
    queried: World, here: Here, tmp_path: Path
) -> None:
    (tmp_path / "target.csv").write_text("of before", encoding="utf-8")
    (tmp_path / "link.csv").symlink_to("target.csv")
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    (tmp_path / ".target.csv.unfinished").symlink_to("victim")
    assert here("query", "-o", str(tmp_path / "link.csv"), "select 1 as one")[0] == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text(encoding="utf-8") == "one\n1\n"
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "mine"
    code, _, err = here("query", "-o", "/dev/null/x.csv", "select 1 as one")
    assert (code, "cannot be written" in err) == (exit_codes.WRONG_USE, True)
