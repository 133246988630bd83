"""The documentation of the warehouse is complete and also in the databases, and its SQL runs."""

import re
import shlex
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import sqlalchemy as sa

from pipelines.home import PROJECT
from resources.database import Database
from resources.database_errors import WarehouseError
from tests.support.command import in_this_process
from tests.support.loads import fill_all_tables, publish
from tests.support.warehouse import wide_integers
from tests.support.world import World
from warehouse import dictionary, migrations, tables
from warehouse.dictionary import COMMENTS
from warehouse.pace_table import api_pace

SQL_PAGE = (PROJECT / "docs" / "sql.md").read_text(encoding="utf-8")
RELATIONS = {table.name: table for table in (*tables.metadata.sorted_tables, *tables.views.sorted_tables)}


def starting_queries() -> Iterator[tuple[str, str]]:
    """Each statement in the SQL blocks of the SQL page, with the comment above it."""
    for block in re.findall(r"^```sql\n(.*?)^```$", SQL_PAGE, re.MULTILINE | re.DOTALL):
        for statement in block.split(";"):
            if statement.strip():
                yield statement.strip().splitlines()[0], statement


def commands_of_the_page(beginning: str) -> list[list[str]]:
    """The arguments of each command on the SQL page that starts with `beginning`, without any redirection."""
    lines = [line for line in SQL_PAGE.splitlines() if line.startswith(beginning)]
    return [shlex.split(line[len(beginning) :].partition(" > ")[0], comments=True) for line in lines]


# The page


def test_the_page_is_up_to_date_with_the_tables() -> None:
    page = (PROJECT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
    assert page == dictionary.as_markdown(), "docs/data-dictionary.md is out of date: run `make docs`"


def test_every_table_view_and_column_is_on_the_page_with_a_query() -> None:
    assert {relation.name for relation in tables.RELATIONS} == set(RELATIONS)
    _, *parts = dictionary.as_markdown().split("\n### ")
    sections = {part.partition("\n")[0]: part for part in parts}
    assert list(sections) == [relation.name for relation in tables.RELATIONS]
    for name, relation in RELATIONS.items():
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (no|possible) \| (.+) \|$", sections[name], re.MULTILINE)
        assert [row[0] for row in rows] == relation.columns.keys()
        title, sql = tables.example(relation)
        assert f"\n{relation.comment}\n" in sections[name]
        assert f"\n{title}\n\n```sql\n{sql}\n```" in sections[name]
        assert re.search(rf"\b{name}\b", sql), f"the example of {name} does not query it"


def test_the_files_that_the_page_and_the_sql_page_link_to_exist() -> None:
    for directory, text in ((PROJECT / "docs", dictionary.as_markdown()), (PROJECT / "docs", SQL_PAGE)):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in target or (directory / target).exists(), f"{target} does not exist"


def test_the_page_is_written_to_a_file_or_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dictionary"])
    dictionary.main()
    assert capsys.readouterr().out == dictionary.as_markdown()
    monkeypatch.setattr("sys.argv", ["dictionary", f"{tmp_path}/page.md"])
    dictionary.main()
    assert capsys.readouterr().out == ""
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == dictionary.as_markdown()


def complaints(world: World, queries: dict[str, str]) -> Iterator[str]:
    """The queries that fail or return no rows."""
    for name, sql in queries.items():
        try:
            rows = world.rows(sql)
        except (sa.exc.DBAPIError, WarehouseError) as error:
            yield f"{name}: {error}"
        else:
            # There are no stale days if the rollups are up to date, and neither contradictions nor unattributed
            # sessions if the API's counts add up.
            if bool(rows) != (name != "stale_days" and not name.endswith(("contradictions", "unattributed_sessions"))):
                yield f"{name}: {len(rows)} rows"
            if wide := wide_integers(world.database, sql):
                yield f"{name}: {wide} are wider than bigint"


def broken_promises(world: World) -> Iterator[str]:
    """Keys that are not unique, and columns with a NULL that they should not have."""
    for name, relation in RELATIONS.items():
        required = [column.name for column in relation.columns if not column.nullable]
        (nulls,) = world.rows(f"select {', '.join(f'count(*) - count({column})' for column in required)} from {name}")
        yield from (f"{name}.{column} is NULL" for column, number in zip(required, nulls, strict=True) if number)
        if key := ", ".join(tables.key(relation)):
            duplicates = world.rows(f"select {key} from {name} group by {key} having count(*) > 1")
            yield from (f"{name} has {row} more than once" for row in duplicates)


def test_every_query_on_the_pages_runs_and_keys_and_nulls_are_as_documented(
    each_world: World,
) -> None:
    fill_all_tables(each_world, "2025-04-30", "2025-06-09")
    to_start_from = dict(starting_queries())
    assert len(to_start_from) == 5
    assert (
        list(
            complaints(
                each_world, {name: tables.example(relation)[1] for name, relation in RELATIONS.items()} | to_start_from
            )
        )
        == []
    )
    assert list(broken_promises(each_world)) == []

    # The results of the queries on the SQL page.
    top, weeks, off, restated, grid = (each_world.rows(sql) for sql in to_start_from.values())
    listed = {o.org_id: o.org_name for o in each_world.source.organizations}
    truth = each_world.truth("2025-04-30", "2025-06-09")
    assert {(org_id, name, n) for org_id, name, n in top} == {
        (org_id, name, sum(truth[day, org_id] for day, of in truth if of == org_id and day > date(2025, 5, 12)))
        for org_id, name in listed.items()
    }
    assert [week for week, *_ in weeks] == [date(2025, 5, 5) + timedelta(weeks=n) for n in range(5)]
    assert weeks[0][1] == sum(n for (day, _), n in truth.items() if date(2025, 5, 5) <= day < date(2025, 5, 12))
    assert [(row[0], row[3], row[4]) for row in off] == [(date(2025, 5, 26), 1, "unattributed")]
    assert [(row[1], row[2], row[4] - row[3]) for row in restated] == [
        (date(2025, 6, 9), org_id, 1) for org_id in sorted([*listed][:2])
    ]
    assert grid[0][0] == date(2025, 3, 15)
    assert {day: n for day, n in grid if n is not None} == {
        day: n for (day, of), n in truth.items() if listed[of] == "Northwind Health"
    }


def test_the_commands_of_the_sql_page_run_on_the_snapshot_and_the_parquet_files(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_all_tables(world, "2025-04-15", "2025-05-04")
    publish(world)
    monkeypatch.chdir(world.directory)
    typed = commands_of_the_page(".venv/bin/devin-sessions query ")
    assert typed[3][:2] == ["-o", "daily_sessions.parquet"]
    for first, arguments in zip((15, 101, 11, 1), typed, strict=True):
        code, shown = in_this_process(capsys, monkeypatch, "query", *arguments)
        assert code == 0, f"{arguments}: {shown}"
        assert shown.count("\n") >= first, f"{arguments}: {shown}"

    published = world.directory / "published"
    assert commands_of_the_page("duckdb -readonly ") == [["data/published/devin_sessions.duckdb"]]
    ((sql,),) = commands_of_the_page("duckdb -c ")
    sessions = sum(world.truth("2025-04-15", "2025-05-04").values())
    assert duckdb.sql(sql.replace("data/published", str(published))).fetchall() == [(sessions,)]
    files = {path.relative_to(published / "parquet").as_posix() for path in published.glob("parquet/**/*.parquet")}
    cells = {"daily_sessions", "user_daily_sessions"}
    assert files == {f"{name}/2025-{month}.parquet" for name in cells for month in ("04", "05")} | {
        f"{name}.parquet" for name in tables.metadata.tables.keys() - cells - {"stale_days"}
    }
    monkeypatch.setenv("WAREHOUSE_URL", "")
    assert world.settings.published_snapshot == PROJECT / "data" / "published" / "devin_sessions.duckdb"


# The comments


def test_every_table_view_and_column_has_its_description_in_the_databases(warehouse_url: str) -> None:
    with Database(url=warehouse_url).transaction() as connection:
        migrations.migrate(connection)
        rows = connection.execute(sa.text(COMMENTS[connection.dialect.name])).all()
    comments = {(row.table_name, row.column_name): row.comment for row in rows}
    expected: dict[tuple[str, str | None], str | None] = {
        (name, None): relation.comment for name, relation in RELATIONS.items()
    }
    expected |= {(name, column.name): column.comment for name, r in RELATIONS.items() for column in r.columns}
    assert {key: comment for key, comment in comments.items() if key[0] != api_pace.name} == expected
    assert all(comments.values())


def test_every_asset_with_a_table_has_its_descriptions_in_the_catalogue(world: World) -> None:
    world.configure(devin_user_ids="discover")
    specs = {spec.key.to_user_string(): spec for spec in world.definitions.resolve_all_asset_specs()}
    assert {"daily_sessions", "organizations", "users", "user_daily_sessions", "weekly_sessions"} <= specs.keys()
    for name in specs.keys() & RELATIONS.keys():
        assert specs[name].description == RELATIONS[name].comment
        schema = specs[name].metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert {column.name: column.description for column in schema.columns} == {
            column.name: column.comment for column in RELATIONS[name].columns
        }
