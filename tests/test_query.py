"""`devin-sessions query`: it waits for no writer, refuses what could do harm, and shows what it finds."""

import csv
import io
import json
import shlex
import subprocess
import sys
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from pipelines.command import cli, exit_codes
from pipelines.settings import PROJECT
from resources.sandbox.contract import ORGANIZATIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from tests.support.command import devin_sessions, in_this_process, start
from tests.support.postgresql import PostgreSQL
from tests.support.processes import another_process
from tests.support.published import snapshot_of
from tests.support.world import World


def test_a_query_does_not_wait_for_a_process_that_has_the_warehouse_open_for_writing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("2025-04-01", "2025-04-02")
    with another_process() as writer:
        assert writer.open(world.database.path) == "done"
        assert writer.do("_ = connection.execute('begin; delete from daily_sessions')") == "done"
        count = ["query", "select count(*) as n from daily_sessions", "--csv"]
        assert in_this_process(capsys, world.environment, *count) == (0, "n\n10\n")


def test_a_reader_of_the_snapshot_and_a_run_that_replaces_it_never_wait_for_each_other(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("2025-04-01", "2025-04-03")
    count = "connection.execute('select count(*), sum(sessions_count)::bigint from daily_sessions').fetchone()"
    before = sum(world.cells().values())
    with another_process() as reader:
        opened = reader.do(f"connection = duckdb.connect({str(snapshot_of(world))!r}, read_only=True)")
        assert opened == "done"
        assert world.run("2025-04-04", "2025-04-05").success
        assert reader.ask(count) == str((15, before)), "a reader that has the old one open keeps it"
    now = sum(world.truth("2025-04-01", "2025-04-05").values())
    total = ["query", "select sum(sessions_count) as n from daily_sessions", "--csv"]
    assert in_this_process(capsys, world.environment, *total) == (0, f"n\n{now}\n")


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_a_query_on_postgresql_waits_for_no_writer(each_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    each_world.run("2025-04-01", "2025-04-02")
    with each_world.database.transaction() as writer:
        writer.exec_driver_sql("delete from daily_sessions")
        count = ["query", "select count(*) as n from daily_sessions", "--csv"]
        assert in_this_process(capsys, each_world.environment, *count) == (0, "n\n10\n")


# What a query may not do


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("selec 1", "syntax error"),
        ("select * from nothing", "nothing"),
        ("delete from daily_sessions", "read-only"),
        ("copy daily_sessions to 'stolen.csv'", "disabled"),
        ("attach 'other.duckdb'", "disabled"),
    ],
)
def test_a_query_can_neither_change_the_warehouse_nor_reach_anything_else(
    world: World, capsys: pytest.CaptureFixture[str], sql: str, sentence: str
) -> None:
    world.run("2025-04-01", "2025-04-01")
    code, shown = in_this_process(capsys, world.environment, "query", sql)
    assert code == exit_codes.WRONG_USE
    assert "The database refuses this SQL" in shown
    assert sentence in shown.lower()
    assert len(world.cells()) == 5


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_no_query_on_postgresql_changes_anything(each_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    each_world.run("2025-04-01", "2025-04-01")
    for sql, sentence in (
        ("selec 1", "syntax error"),
        ("delete from daily_sessions", "read-only"),
        ("drop table daily_sessions", "read-only"),
        ("commit; delete from daily_sessions", ""),
        ("rollback; delete from daily_sessions", ""),
        ("set transaction read write; delete from daily_sessions", ""),
        ("select 1; commit; delete from daily_sessions", ""),
    ):
        code, shown = in_this_process(capsys, each_world.environment, "query", sql)
        assert len(each_world.cells()) == 5, f"changed by {sql}"
        assert code == exit_codes.WRONG_USE
        assert "The database refuses this SQL" in shown
        assert sentence in shown


def test_a_query_may_contain_any_character_of_sql(each_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    each_world.run("2025-04-01", "2025-04-01")
    signs = ["query", "select 'a%b:c' like '%b:c' as x, 7 % 4 as y", "--csv"]
    assert in_this_process(capsys, each_world.environment, *signs) == (0, "x,y\ntrue,3\n")


def test_an_empty_query_is_explained(each_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    each_world.run("2025-04-01", "2025-04-01")
    for nothing in ("", " -- nothing"):
        code, shown = in_this_process(capsys, each_world.environment, "query", nothing)
        assert code == exit_codes.WRONG_USE
        assert shown.strip()


def test_without_a_warehouse_query_and_status_say_so_and_create_none(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = in_this_process(capsys, world.environment, "query", "select 1")
    assert code == exit_codes.MISSING
    assert f"There is no snapshot at {snapshot_of(world)} yet. Load some days first: " in shown
    code, shown = in_this_process(capsys, world.environment, "status")
    assert code == exit_codes.MISSING
    assert "0 of" in shown
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_an_empty_postgresql_database_stays_empty_after_a_query_and_status(
    each_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = in_this_process(capsys, each_world.environment, "query", "select * from daily_sessions")
    assert code == exit_codes.WRONG_USE
    assert 'relation "daily_sessions" does not exist' in shown
    code, shown = in_this_process(capsys, each_world.environment, "status")
    assert code == exit_codes.MISSING
    assert "0 of" in shown
    with each_world.database.transaction(read_only=True) as connection:
        assert sa.inspect(connection).get_table_names() == []


NAME = "org_name"
NASTY = "\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\x9b31m\u2028\tTab\nLine"


def test_no_text_from_the_api_can_control_the_terminal(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    first = world.source.organizations[0]

    def renamed(asked: LoggedRequest, page: Any) -> Any:
        return {
            **page,
            "items": [item | {NAME: NASTY} if item["org_id"] == first.org_id else item for item in page["items"]],
        }

    world.source.fail(rewrite=renamed, path=ORGANIZATIONS_PATH, times=None)
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    names = "select org_name from organizations"
    code, shown = in_this_process(capsys, world.environment, "query", names)
    assert code == 0
    assert r"\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\x9b31m\u2028\tTab\nLine" in shown

    refusal = json.dumps({"detail": NASTY}).encode()
    world.source.fail(status=403, org_id=first.org_id, times=None, body=refusal)
    for command in (("backfill", "2025-04-01", "2025-04-03"), ("status",), ("probe", "--until", "2025-04-03")):
        _, out, err = devin_sessions(*command)
        assert "owned" in out + err
        shown += out + err
    assert [c for c in shown if not c.isprintable() and c != "\n"] == []

    with duckdb.connect(str(snapshot_of(world)), read_only=True) as connection:
        stored = {name for (name,) in connection.execute(names).fetchall()}
    process = start("query", "--csv", names)
    out, _ = process.communicate(timeout=120)
    assert NASTY in stored
    assert NASTY in {name for (name,) in csv.reader(io.StringIO(out, newline=""))}, "programs get it unchanged"


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_in_a_spreadsheet_no_text_becomes_a_formula_and_numbers_stay_numbers(each_world: World) -> None:
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    dangers = ("=1+1", "+1", "-1", "@sum(1)", "\t=1", "\r=1", 'Zoë, "quoted"', "")
    columns = ", ".join("'" + danger.replace("'", "''") + f"' as c{n}" for n, danger in enumerate(dangers))
    command = [sys.executable, "-m", "pipelines", "query", "--excel", f'select {columns}, -5 as "=n"']
    written = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True, timeout=120).stdout
    assert written.startswith(b"\xef\xbb\xbf")
    header, row = csv.reader(io.StringIO(written.decode("utf-8-sig"), newline=""))
    assert header[-1] == "'=n"
    assert row == [*(f"'{danger}" for danger in dangers[:6]), 'Zoë, "quoted"', "", "-5"]
    code, _, err = devin_sessions("query", "--csv", "--excel", "select 1")
    assert (code, "Choose either" in err) == (exit_codes.WRONG_USE, True)


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_an_endless_result_is_fetched_only_as_far_as_it_is_shown(each_world: World) -> None:
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    table = "range(100000000000)" if each_world.database.is_duckdb else "generate_series(1, 100000000000)"
    # As a column, a series is computed only as it is fetched.
    endless = f"select * from {table}" if each_world.database.is_duckdb else f"select {table}"
    code, out, _ = devin_sessions("query", endless)
    assert code == 0
    assert f"Only the first {cli.MAX_ROWS_SHOWN} rows are shown" in out
    head = f"{sys.executable} -m pipelines query --csv {shlex.quote(endless)} | head -n 3"
    done = subprocess.run(head, shell=True, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""


@pytest.mark.parametrize("power", ["superuser", "pg_execute_server_program", "pg_write_server_files"])
@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_a_user_with_power_over_the_servers_machine_is_refused(
    each_world: World, power: str, postgresql: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    assert each_world.run("2025-04-01", "2025-04-02").success
    made = each_world.folder / "made"
    harm = ("query", f"copy (select 1) to program 'touch {made}'")
    code, shown = in_this_process(capsys, each_world.environment, *harm)
    assert (code, "permission denied" in shown) == (exit_codes.WRONG_USE, True)

    postgresql.grant(each_world.settings.warehouse_url, power)
    for command in (harm, ("query", "select 1"), ("query", "--csv", "set role none; select 1")):
        code, shown = in_this_process(capsys, each_world.environment, *command)
        assert code == exit_codes.WRONG_USE
        assert "is refused for queries" in shown
        assert power in shown
        assert "docs/postgresql-roles.sql" in shown
    assert not made.exists()
