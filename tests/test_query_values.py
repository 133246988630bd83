"""Every value that a database returns: `devin-sessions query` shows and writes it exactly, or refuses it in words."""

import csv
import io
import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command import exit_codes, query_duckdb
from pipelines.command.query_output import Format, write_file
from tests.support.command import Here, command_here
from tests.support.examples import examples
from tests.support.warehouse import make_missing_warehouse
from tests.support.world import World

ON_DUCKDB = {
    "interval": ("interval '1 month 2 days 0.000001 s'", '"1 month 2 days 00:00:00.000001"'),
    "nanoseconds": ("timestamp_ns '2025-01-01 00:00:00.123456789'", '"2025-01-01 00:00:00.123456789"'),
    "infinity": ("'-infinity'::timestamptz", '"-infinity"'),
    "bc": ("'0044-03-15 (BC)'::date", '"0044-03-15 (BC)"'),
    "late": ("'20000-01-01'::date", '"20000-01-01"'),
    "decimal": ("123456789012345678.12345678901234567890::decimal(38,20)", "123456789012345678.12345678901234567890"),
    "fraction": ("-.5::decimal(2,2)", "-0.50"),
    "hugeint": ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
    "uhugeint": ("'340282366920938463463374607431768211455'::uhugeint", "340282366920938463463374607431768211455"),
    "bignum": ("('9' || repeat('0', 60))::bignum", "9" + "0" * 60),
    "timetz": ("'12:00:00+02'::timetz", '"12:00:00+02"'),
    "midnight": ("'24:00:00'::time", '"24:00:00"'),
    "bit": ("'10101'::bit", '"10101"'),
    "uuid": ("'e43af302-4fa3-4bf5-a266-2af959eb3f89'::uuid", '"e43af302-4fa3-4bf5-a266-2af959eb3f89"'),
    "enum": ("'a'::enum('a', 'b')", '"a"'),
    "union": ("union_value(num := 2)", '"2"'),
    "map": ("map {1: [0.10], 2: null}", '{"1": [0.10], "2": null}'),
    "nested_key": ("map {{'k': 1}: true}", "{\"{'k': 1}\": true}"),
    "struct": ("{'a \"b': 1.50, 'c': interval '1 day'}", '{"a \\"b": 1.50, "c": "1 day"}'),
    "unnamed": ("row(1, 'x')", '"(1, x)"'),
    "list": ("[0.1::float, null, 'nan']", '[0.1, null, "nan"]'),
    "array": ("[[1, 2], [3, 4]]::integer[2][2]", "[[1, 2], [3, 4]]"),
    "json": ('\'{"a": 1.00,\n"b": [12345678901234567890]}\'::json', '{"a": 1.00, "b": [12345678901234567890]}'),
    "blob": (r"'\xAA\x00z'::blob", r'"\\xAA\\x00z"'),
    "double": ("1e300", "1e+300"),
    "small": ("-0.0::double", "-0.0"),
    "nul": ("'a' || chr(0)", r'"a\u0000"'),
    "variant": ("{'a': 1}::variant", "\"{'a': 1}\""),
    "empty": ("''", '""'),
    "nothing": ("null::interval", "null"),
}
"""For each name the SQL of a value on DuckDB, and the value in JSON."""

ON_POSTGRESQL = {
    "interval": ("interval '1 month 2 days 0.000001 s'", '"1 mon 2 days 00:00:00.000001"'),
    "infinity": ("'-infinity'::timestamptz", '"-infinity"'),
    "bc": ("'0044-03-15 BC'::date", '"0044-03-15 BC"'),
    "late": ("'20000-01-01'::date", '"20000-01-01"'),
    "numeric": ("1234567890123456789012345678901234567890.10", "1234567890123456789012345678901234567890.10"),
    "nan": ("'nan'::numeric", '"NaN"'),
    "timetz": ("'12:00:00+02'::timetz", '"12:00:00+02"'),
    "midnight": ("'24:00:00'::time", '"24:00:00"'),
    "bit": ("B'10101'", '"10101"'),
    "uuid": ("'e43af302-4fa3-4bf5-a266-2af959eb3f89'::uuid", '"e43af302-4fa3-4bf5-a266-2af959eb3f89"'),
    "ints": ("array[[1, null], [3, 4]]", "[[1, null], [3, 4]]"),
    "texts": ("array['a,b', null, 'NULL', '{\"']", '["a,b", null, "NULL", "{\\""]'),
    "numerics": ("array[0.10, 'nan']::numeric[]", '[0.10, "NaN"]'),
    "booleans": ("array[true, false]", "[true, false]"),
    "jsons": ("array['{\"a\": 1.0}'::json]", '[{"a": 1.0}]'),
    "boxes": ("array['(1,1),(0,0)'::box, '(3,3),(2,2)']", '["(1,1),(0,0)", "(3,3),(2,2)"]'),
    "bounded": ("'[0:1]={1,2}'::integer[]", '"[0:1]={1,2}"'),
    "none": ("'{}'::date[]", "[]"),
    "range": ("'[1,5)'::int4range", '"[1,5)"'),
    "ranges": ("array['[2025-01-01,infinity)'::daterange]", '["[2025-01-01,infinity)"]'),
    "multirange": ("'{[1,3),[5,7)}'::int4multirange", '"{[1,3),[5,7)}"'),
    "money": ("1234.5::numeric::money", '"$1,234.50"'),
    "inet": ("'10.0.0.1/8'::inet", '"10.0.0.1/8"'),
    "composite": ("row(1, 'a b', null)", '"(1,\\"a b\\",)"'),
    "json": ('\'{"a": 1.00,\n"b": [12345678901234567890]}\'::json', '{"a": 1.00, "b": [12345678901234567890]}'),
    "jsonb": ("'{\"a\": 1.00}'::jsonb", '{"a": 1.00}'),
    "bytea": (r"'\xaa007a'::bytea", r'"\\xaa007a"'),
    "double": ("0.1::float8 + 0.2", "0.30000000000000004"),
    "single": ("0.1::float4", "0.1"),
    "boolean": ("true", "true"),
    "large": ("9007199254740993", "9007199254740993"),
    "empty": ("''", '""'),
    "nothing": ("null::inet", "null"),
}
"""The same on PostgreSQL."""


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return command_here(capsys, monkeypatch)


@pytest.fixture
def values(each_world: World) -> dict[str, tuple[str, str]]:
    """The values of the database that is queried, which has something to query."""
    if not each_world.database.is_duckdb:
        make_missing_warehouse(each_world.database)
        return ON_POSTGRESQL
    snapshot = each_world.settings.published_snapshot
    assert snapshot
    snapshot.parent.mkdir(parents=True)
    duckdb.connect(str(snapshot)).close()
    return ON_DUCKDB


@pytest.fixture
def printed(values: dict[str, tuple[str, str]], each_world: World) -> list[str | None]:
    """The same values as the database itself prints them."""
    casts = ", ".join(f"cast({sql} as varchar)" for sql, _ in values.values())
    with each_world.database.transaction() as connection:
        return list(connection.exec_driver_sql(f"select {casts}".replace("%", "%%")).one())


def select(values: dict[str, tuple[str, str]]) -> str:
    return "select " + ", ".join(f'{sql} as "{name}"' for name, (sql, _) in values.items())


def test_in_json_numbers_have_all_their_digits_and_all_else_is_the_text_of_the_database(
    values: dict[str, tuple[str, str]], here: Here
) -> None:
    code, out, err = here("query", "--json", select(values))
    assert (code, err) == (0, "")
    json.loads(out)
    assert out == "[\n{" + ", ".join(f'"{name}": {in_json}' for name, (_, in_json) in values.items()) + "}\n]\n"


def test_csv_and_the_table_show_what_the_database_prints(
    values: dict[str, tuple[str, str]], printed: list[str | None], here: Here
) -> None:
    code, out, err = here("query", "--csv", select(values))
    assert (code, err) == (0, "")
    _, row = csv.reader(io.StringIO(out, newline=""))
    assert row == [text or "" for text in printed]
    assert out.endswith(',"",\n'), "an empty text is not NULL"
    _, out, _ = here("query", select(values))
    for name, text in zip(values, printed, strict=True):
        whole = text and text.isdigit() and name != "bit" and name != "bignum"
        shown = "NULL" if text is None else f"{int(text):,}" if whole else text
        assert shown.replace("\n", "\\n").replace("\0", "\\x00") in out, name


def test_a_spreadsheet_has_the_same_texts_of_which_none_is_a_formula(
    values: dict[str, tuple[str, str]], printed: list[str | None], here: Here
) -> None:
    _, out, _ = here("query", "--excel", select(values))
    _, row = csv.reader(io.StringIO(out, newline=""))
    numbers = ("-.50", "-0.0")
    assert row == [f"'{t}" if t and t.startswith("-") and t not in numbers else t or "" for t in printed]


def test_parquet_has_each_value_exactly_or_a_sentence_refuses_it(
    values: dict[str, tuple[str, str]], printed: list[str | None], here: Here, tmp_path: Path, each_world: World
) -> None:
    refused = {"infinity", "uhugeint", "hugeint", "numeric", "nan", "ints", "bounded"}
    if not each_world.database.is_duckdb:
        refused |= {"bc", "late"}
    path = tmp_path / "values.parquet"
    for name in refused & values.keys():
        code, out, err = here("query", "-o", str(path), f'select {values[name][0]} as "{name}"')
        assert (code, out) == (exit_codes.WRONG_USE, ""), name
        assert "can't be written as Parquet" in err and "Cast" in err
        assert not path.exists()
    kept = {name: value for name, value in values.items() if name not in refused}
    assert here("query", "-o", str(path), select(kept)) == (0, f"1 row written to {path}.\n", "")
    texts = dict(zip(values, printed, strict=True))
    if each_world.database.is_duckdb:
        with duckdb.connect() as connection:
            read = connection.execute(f"select columns(*)::varchar from '{path}'").fetchone()
        texts["nested_key"] = r"{'{\'k\': 1}'=true}"  # in Parquet, such a key is text too
        assert read == tuple(texts[name] for name in kept)
    else:
        lists = {
            "texts": ["a,b", None, "NULL", '{"'],
            "numerics": ["0.10", "NaN"],
            "booleans": [True, False],
            "jsons": ['{"a": 1.0}'],
            "boxes": ["(1,1),(0,0)", "(3,3),(2,2)"],
            "none": [],
            "ranges": ["[2025-01-01,infinity)"],
        }
        (row,) = pq.read_table(path).to_pylist()
        typed = {"double": 0.1 + 0.2, "single": pytest.approx(0.1, rel=1e-7), "boolean": True, "large": 2**53 + 1}
        assert row == {name: {**texts, **lists, **typed}[name] for name in kept}


def instants(name: str, most: int) -> st.SearchStrategy[str]:
    return st.integers(-most, most).map(lambda n: f"{name}({n}::bigint)")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5).map(
    lambda text: "'" + text.replace("'", "''") + "'"
)
DECIMALS = st.decimals(-(10**17), 10**17, places=20).map(lambda number: f"'{number}'::decimal(38, 20)")
INTERVALS = st.tuples(*[st.integers(-(10**6), 10**6)] * 3).map(
    lambda n: f"to_months({n[0]}) + to_days({n[1]}) + to_microseconds({n[2]})"
)
TYPES: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.booleans().map(str),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "hugeint": st.integers(-(10**37), 10**37).map(str),
    "decimal(38, 20)": DECIMALS,
    "double": st.floats().map(lambda number: f"'{number!r}'::double"),
    "float": st.floats(width=32).map(lambda number: f"'{number!r}'::float"),
    "varchar": TEXTS,
    "blob": st.binary(max_size=5).map(lambda data: f"unhex('{data.hex()}')"),
    "date": st.integers(-2_000_000, 2_000_000).map(lambda n: f"date '1970-01-01' + {n}"),
    "time": st.integers(0, 86_400_000_000).map(lambda n: f"make_time(0, 0, 0) + to_microseconds({n})"),
    "timestamp": instants("make_timestamp", 10**17),
    "timestamptz": instants("make_timestamp", 10**17),
    "timestamp_ns": instants("make_timestamp_ns", 9 * 10**18),
    "interval": INTERVALS,
    "varchar[]": st.lists(TEXTS | st.just("null"), max_size=3).map(lambda parts: f"[{', '.join(parts)}]::varchar[]"),
    "struct(a decimal(38, 20), b interval)": st.tuples(DECIMALS, INTERVALS).map(
        lambda parts: f"{{'a': {parts[0]}, 'b': {parts[1]}}}"
    ),
    "map(date, bigint)": st.integers(-(10**5), 10**5).map(lambda n: f"map {{date '1970-01-01' + {n}: {n}}}"),
}
ROWS = st.lists(st.tuples(*(values | st.just("null") for values in TYPES.values())), min_size=1, max_size=3)


@examples(25)
@given(ROWS)
def test_whatever_duckdb_returns_is_read_back_from_each_file_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    columns = [f"c{n}" for n in range(len(TYPES))]
    forms: tuple[Format, ...] = ("csv", "json", "parquet")
    files = {form: tmp_path_factory.getbasetemp() / f"rows.{form}" for form in forms}
    names = ", ".join(columns)
    casts = ", ".join(f"cast({name} as {type_}) as {name}" for name, type_ in zip(columns, TYPES, strict=True))
    with duckdb.connect() as connection:
        connection.execute("set time zone 'UTC'")
        values = ", ".join(f"({', '.join(row)})" for row in rows)
        query = f"select {casts} from (values {values}) as given ({names})"
        expected = connection.sql(f"select columns(*)::varchar from ({query})").fetchall()
        for form, path in files.items():
            assert write_file(query_duckdb.run(connection, query), form, path) == len(rows)
        read_csv = (
            "header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"', allow_quoted_nulls = false"
        )
        # DuckDB itself reads large numbers in JSON as doubles.
        digits = json.loads(files["json"].read_bytes(), parse_int=str, parse_float=str)
        files["json"].write_text(json.dumps(digits), encoding="utf-8")
        nested = {"varchar[]": "varchar[]", "map(date, bigint)": "map(varchar, varchar)"}
        nested["struct(a decimal(38, 20), b interval)"] = "struct(a varchar, b varchar)"
        as_text = (nested.get(type_, "varchar") for type_ in TYPES)
        json_columns = ", ".join(f"{name}: '{type_}'" for name, type_ in zip(columns, as_text, strict=True))
        for read in (
            f"from read_csv('{files['csv']}', {read_csv})",
            f"from read_json('{files['json']}', columns = {{{json_columns}}})",
            f"from '{files['parquet']}'",
        ):
            assert connection.sql(f"select columns(*)::varchar from (select {casts} {read})").fetchall() == expected, (
                read
            )
