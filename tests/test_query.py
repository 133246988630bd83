"""`devin-sessions query`: it waits for no writer, refuses what could do harm, and shows what it finds."""

import contextlib
import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from pipelines.command import cli, exit_codes
from pipelines.command.query import run_query
from resources.sandbox.contract import ORGANIZATIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from tests.support.command import command_here, devin_sessions, in_this_process, start
from tests.support.forks import Command
from tests.support.loads import fill, publish
from tests.support.postgresql import PostgreSQL
from tests.support.processes import another_process
from tests.support.published import snapshot_of
from tests.support.shared import rolled_back
from tests.support.world import World, template_world

COUNT = ["query", "select count(*) as n from daily_sessions", "--csv"]


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of two days that are loaded and published."""
    directory = tmp_path_factory.mktemp("two-days")
    with template_world(directory) as world:
        fill(world, "2025-04-01", "2025-04-02")
        publish(world)
    return directory


@pytest.fixture
def loaded(world: World, two_days: Path) -> World:
    """A world of its own with those files."""
    shutil.copytree(two_days, world.directory, dirs_exist_ok=True)
    return world


@pytest.fixture
def on_postgresql(world: World, postgresql: PostgreSQL) -> World:
    """A world with an empty PostgreSQL database."""
    world.configure(warehouse_url=postgresql.database(unprivileged=True))
    return world


@pytest.fixture(params=["loaded", "on_postgresql"], ids=["duckdb", "postgresql"])
def queried(request: pytest.FixtureRequest) -> World:
    """Each of these in turn, for queries that need no table."""
    world: World = request.getfixturevalue(request.param)
    return world


def test_a_query_does_not_wait_for_a_process_that_has_the_warehouse_open_for_writing(
    loaded: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with another_process() as writer:
        assert writer.open(loaded.database.path) == "done"
        assert writer.do("_ = connection.execute('begin; delete from daily_sessions')") == "done"
        assert in_this_process(capsys, loaded.environment, *COUNT) == (0, "n\n10\n")


# What a query may not do


def test_a_query_can_neither_change_the_warehouse_nor_reach_anything_else(
    loaded: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for sql, sentence in (
        ("selec 1", "syntax error"),
        ("select * from nothing", "nothing"),
        ("delete from daily_sessions", "read-only"),
        ("copy daily_sessions to 'stolen.csv'", "disabled"),
        ("from read_text('/etc/passwd')", "disabled"),
    ):
        code, shown = in_this_process(capsys, loaded.environment, "query", sql)
        assert code == exit_codes.WRONG_USE, sql
        assert "The database refuses this SQL" in shown
        assert sentence in shown.lower()
        assert in_this_process(capsys, loaded.environment, *COUNT) == (0, "n\n10\n"), f"changed by {sql}"


def test_no_query_on_postgresql_changes_anything_or_waits_for_a_writer(
    on_postgresql: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world = on_postgresql
    fill(world, "2025-04-01", "2025-04-02")
    with rolled_back(world.database) as writer:
        writer.exec_driver_sql("delete from daily_sessions")
        assert in_this_process(capsys, world.environment, *COUNT) == (0, "n\n10\n")
    for sql, sentence in (
        ("selec 1", "syntax error"),
        ("delete from daily_sessions returning org_id", "read-only"),
        ("commit; delete from daily_sessions", ""),
        ("rollback; delete from daily_sessions", ""),
        ("set transaction read write; delete from daily_sessions", ""),
        ("select 1; commit; delete from daily_sessions", ""),
    ):
        code, shown = in_this_process(capsys, world.environment, "query", sql)
        assert len(world.cells()) == 10, f"changed by {sql}"
        assert code == exit_codes.WRONG_USE
        assert "The database refuses this SQL" in shown
        assert sentence in shown


def test_a_query_may_contain_any_character_of_sql(queried: World, capsys: pytest.CaptureFixture[str]) -> None:
    signs = ["query", "select 'a%b:c' like '%b:c' as x, 7 % 4 as y", "--csv"]
    assert in_this_process(capsys, queried.environment, *signs) == (0, "x,y\ntrue,3\n")
    code, shown = in_this_process(capsys, queried.environment, "query", "select 1 as x, 'a' as y where 1 = 2", "--csv")
    assert (code, shown) == (0, "x,y\n"), "no row is a result too"


def test_only_one_statement_that_returns_rows_is_run(queried: World, capsys: pytest.CaptureFixture[str]) -> None:
    is_duckdb = queried.database.is_duckdb
    for one in ("select 1 as a;", "select 1 as a; -- done", "values (1) /* ; */", "explain select 1"):
        assert in_this_process(capsys, queried.environment, "query", one)[0] == 0, one
    if is_duckdb:
        pivot = "pivot (select 1 as a, 2 as b) on a using sum(b)"
        assert in_this_process(capsys, queried.environment, "query", pivot, "--csv") == (0, "1\n2\n")
        code, shown = in_this_process(capsys, queried.environment, "query", "call enable_logging()")
        assert (code, "Success" in shown) == (0, True)
    without_rows = ("-- nothing", ";", "set timezone = 'UTC'", "begin", "commit", "rollback", "prepare p as select 1")
    others = ("attach 'other.duckdb'",) if is_duckdb else ("copy (select 1) to stdout", "drop table daily_sessions")
    for nothing in (*without_rows, *others):
        code, shown = in_this_process(capsys, queried.environment, "query", nothing)
        assert (code, "This SQL returns no result. Use a statement that does" in shown) == (exit_codes.WRONG_USE, True)
    code, shown = in_this_process(capsys, queried.environment, "query", "select $1::integer")
    assert (code, "parameter" in shown) == (exit_codes.WRONG_USE, True)
    two = "more than one SQL statement" if is_duckdb else "multiple commands"
    for several in ("select 1; select 2", "select 1; commit", "begin; select 1", "select 1; select * from nothing"):
        code, shown = in_this_process(capsys, queried.environment, "query", several)
        assert (code, two in shown) == (exit_codes.WRONG_USE, True), several


def test_without_a_warehouse_query_and_status_say_so_and_create_none(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = in_this_process(capsys, world.environment, "query", "select 1")
    assert code == exit_codes.MISSING
    assert f"There is no snapshot at {snapshot_of(world)} yet. Load some days first: " in shown
    code, shown = in_this_process(capsys, world.environment, "status")
    assert code == exit_codes.MISSING
    assert "0 of" in shown
    assert list(world.directory.iterdir()) == []


def test_an_empty_postgresql_database_stays_empty_after_a_query_and_status(
    on_postgresql: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = in_this_process(capsys, on_postgresql.environment, "query", "select * from daily_sessions")
    assert code == exit_codes.WRONG_USE
    assert 'relation "daily_sessions" does not exist' in shown
    code, shown = in_this_process(capsys, on_postgresql.environment, "status")
    assert code == exit_codes.MISSING
    assert "0 of" in shown
    with on_postgresql.database.transaction(read_only=True) as connection:
        assert sa.inspect(connection).get_table_names() == []


NAME = "org_name"
NASTY = "\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\x9b31m\u2028\tTab\nLine"


def test_no_text_from_the_api_can_control_the_terminal(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    here = command_here(capsys, world.environment)
    first = world.source.organizations[0]

    def renamed(asked: LoggedRequest, page: Any) -> Any:
        return {
            **page,
            "items": [item | {NAME: NASTY} if item["org_id"] == first.org_id else item for item in page["items"]],
        }

    world.source.fail(rewrite=renamed, path=ORGANIZATIONS_PATH, times=None)
    refusal = json.dumps({"detail": NASTY}).encode()
    world.source.fail(status=403, org_id=first.org_id, times=None, body=refusal)
    shown = "".join(map(str, here("backfill", "2025-04-01", "2025-04-02")))
    assert "owned" in shown
    for command in (("status",), ("probe", "--until", "2025-04-02")):
        _, output = in_this_process(capsys, world.environment, *command)
        assert "owned" in output, command
        shown += output

    names = "select org_name from organizations"
    code, output = in_this_process(capsys, world.environment, "query", names)
    assert code == 0
    assert r"\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\x9b31m\u2028\tTab\nLine" in output
    assert [c for c in shown + output if not c.isprintable() and c != "\n"] == []

    with duckdb.connect(str(snapshot_of(world)), read_only=True) as connection:
        stored = {name for (name,) in connection.execute(names).fetchall()}
    assert NASTY in stored
    code, output, _ = devin_sessions("query", "--csv", names)
    assert NASTY in {name for (name,) in csv.reader(io.StringIO(output, newline=""))}, "programs get it unchanged"


def test_in_a_spreadsheet_no_text_becomes_a_formula_and_numbers_stay_numbers(queried: World, tmp_path: Path) -> None:
    dangers = ("=1+1", "+1", "-1", "@sum(1)", "\t=1", "\r=1", 'Zoë, "quoted"', "")
    columns = ", ".join("'" + danger.replace("'", "''") + f"' as c{n}" for n, danger in enumerate(dangers))
    out = tmp_path / "out.csv"
    query = Command(("query", "--excel", f'select {columns}, -5 as "=n"'), os.environ, out).ended()
    assert query.code == 0, query.output
    written = out.read_bytes()
    assert written.startswith(b"\xef\xbb\xbf")
    header, row = csv.reader(io.StringIO(written.decode("utf-8-sig"), newline=""))
    assert header[-1] == "'=n"
    assert row == [*(f"'{danger}" for danger in dangers[:6]), 'Zoë, "quoted"', "", "-5"]


def test_csv_is_either_for_programs_or_for_spreadsheets(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = in_this_process(capsys, world.environment, "query", "--csv", "--excel", "select 1")
    assert (code, "Choose one of --csv and --json" in shown) == (exit_codes.WRONG_USE, True)


def test_an_endless_result_is_fetched_only_as_far_as_it_is_read(
    queried: World, capsys: pytest.CaptureFixture[str]
) -> None:
    is_duckdb = queried.database.is_duckdb
    # As a column, a series is computed only as it is fetched.
    endless = "select * from range(100000000000)" if is_duckdb else "select generate_series(0, 100000000000)"
    code, shown = in_this_process(capsys, queried.environment, "query", endless)
    assert code == 0
    assert f"Only the first {cli.MAX_ROWS_SHOWN} rows are shown" in shown
    for form in ("texts", "json", "batches"):
        with pytest.raises(BrokenPipeError), run_query(queried.settings, endless) as result:
            with contextlib.closing(getattr(result, form)()) as rows:
                assert len([next(rows) for _ in range(2)]) == 2
            raise BrokenPipeError


def test_a_reader_that_wants_only_the_first_rows_ends_an_endless_query_quietly(loaded: World) -> None:
    with start("query", "--csv", "select * from range(100000000000)") as process:
        assert process.stdout and process.stderr
        assert [process.stdout.readline() for _ in range(3)] == ["range\n", "0\n", "1\n"]
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("power", ["superuser", "pg_execute_server_program", "pg_write_server_files"])
def test_a_user_with_power_over_the_servers_machine_is_refused(
    on_postgresql: World, power: str, postgresql: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    world = on_postgresql
    made = world.directory / "made"
    harm = ("query", f"copy (select 1) to program 'touch {made}'")
    code, shown = in_this_process(capsys, world.environment, *harm)
    assert (code, "This SQL returns no result" in shown) == (exit_codes.WRONG_USE, True)

    postgresql.grant(world.settings.warehouse_url, power)
    for command in (harm, ("query", "select 1"), ("query", "--csv", "set role none; select 1")):
        code, shown = in_this_process(capsys, world.environment, *command)
        assert code == exit_codes.WRONG_USE
        assert "is refused for queries" in shown
        assert power in shown
        assert "docs/postgresql-roles.sql" in shown
    assert not made.exists()
