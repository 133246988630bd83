"""One transaction at a time, on a real DuckDB file and a real PostgreSQL: committed or undone, private, read-only."""

import contextlib
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from resources.database import Database
from resources.database_errors import WarehouseError, WarehouseLost
from tests.support.databases import database_at, insert, mode, numbers
from tests.support.processes import another_process

# What is kept


def test_what_a_block_did_is_kept_when_it_ends(each_database: Database) -> None:
    with each_database.transaction() as connection:
        insert(connection, 2)
        insert(connection, 3)
    assert numbers(each_database) == [1, 2, 3]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_everything_a_block_did_is_undone_when_it_raises(each_database: Database, error: type[BaseException]) -> None:
    with pytest.raises(error), each_database.transaction() as connection:
        insert(connection, 2)
        connection.execute(sa.text("delete from numbers where number = 1"))
        connection.execute(sa.text("create table others (number integer)"))
        raise error
    assert numbers(each_database) == [1]
    with each_database.transaction(read_only=True) as connection:
        assert sa.inspect(connection).get_table_names() == ["numbers"]


def test_an_error_in_the_database_undoes_the_block_too(each_database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError), each_database.transaction() as connection:
        insert(connection, 2)
        connection.execute(sa.text("insert into numbers values ('three')"))
    assert numbers(each_database) == [1]


def test_a_process_that_is_killed_within_a_block_leaves_the_last_committed_state(each_database: Database) -> None:
    with another_process() as other:
        assert other.do("from resources.database import Database; import sqlalchemy as sa") == "done"
        assert other.do(f"block = Database(url={each_database.url!r}).transaction(); it = block.__enter__()") == "done"
        assert other.do("_ = it.execute(sa.text('insert into numbers values (2)'))") == "done"
        other.running.kill()
        other.running.wait()
    assert numbers(each_database) == [1]
    with each_database.transaction() as connection:
        insert(connection, 3)
    assert numbers(each_database) == [1, 3]


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_times_come_back_in_utc_whatever_the_zone_of_the_machine_and_the_server(
    each_database: Database, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    noon = datetime(2025, 6, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    for variable in ("TZ", "PGTZ"):
        monkeypatch.setenv(variable, "Asia/Tokyo")
    with each_database.transaction() as connection:
        connection.execute(sa.text("create table times (seen_at timestamp with time zone)"))
        connection.execute(sa.text("insert into times values (:at)"), {"at": noon})
        if not each_database.is_duckdb:
            connection.execute(
                sa.text(f"alter database {sa.make_url(each_database.url).database} set timezone = 'Asia/Tokyo'")
            )
    with each_database.transaction(read_only=read_only) as connection:
        assert connection.execute(sa.text("select current_setting('TimeZone')")).scalar_one() == "UTC"
        at = connection.execute(sa.text("select seen_at from times")).scalar_one()
        day = connection.execute(sa.text("select cast(seen_at as date) from times")).scalar_one()
    assert (at, at.utcoffset()) == (noon, timedelta(0))
    assert day == noon.astimezone(UTC).date()


# Whose the file is


def test_only_the_owner_may_access_a_new_file_and_its_new_directory(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        database = database_at(tmp_path / "new" / "data" / "warehouse.duckdb")
        with database.transaction() as connection:
            assert mode(database.path) == 0o600
            connection.execute(sa.text("create table numbers (number integer)"))
    finally:
        os.umask(before)
    assert (mode(database.path), mode(database.path.parent)) == (0o600, 0o700)


def test_the_permissions_of_an_existing_file_and_directory_are_left_alone(database: Database) -> None:
    database.path.chmod(0o640)
    database.path.parent.chmod(0o750)
    with database.transaction() as connection:
        insert(connection, 2)
    assert (mode(database.path), mode(database.path.parent)) == (0o640, 0o750)


# Read only


@pytest.mark.parametrize(
    "sql",
    ["insert into numbers values (2)", "delete from numbers", "drop table numbers", "create table others (n int)"],
)
def test_a_reader_reads_and_cannot_write(each_database: Database, sql: str) -> None:
    with (
        pytest.raises(sa.exc.DBAPIError, match="read-only"),
        each_database.transaction(read_only=True) as connection,
    ):
        connection.execute(sa.text(sql))
    assert numbers(each_database) == [1]


@pytest.mark.parametrize(
    "way_out",
    ["commit", "rollback", "commit; begin read write", "set transaction read write", "end; start transaction"],
)
def test_a_reader_cannot_escape_its_transaction_to_write(each_database: Database, way_out: str) -> None:
    with (
        contextlib.suppress(sa.exc.DBAPIError, WarehouseError),
        each_database.transaction(read_only=True) as connection,
    ):
        connection.exec_driver_sql(f"{way_out}; insert into numbers values (2); commit")
    assert numbers(each_database) == [1]


@pytest.mark.parametrize(
    "sql",
    [
        "copy numbers to '{other}'",
        "copy (select 1) to '{other}' (format parquet)",
        "export database '{other}'",
        "attach '{other}' as other",
        "select * from read_text('{existing}')",
        "copy numbers from '{existing}'",
        "set enable_external_access = true",
    ],
)
def test_a_reader_cannot_reach_any_other_file(database: Database, tmp_path: Path, sql: str) -> None:
    existing, other = tmp_path / "existing.csv", tmp_path / "other"
    existing.write_text("1\n")
    with pytest.raises(sa.exc.DBAPIError), database.transaction(read_only=True) as connection:
        connection.execute(sa.text(sql.format(existing=existing, other=other)))
    assert not other.exists()


def test_a_reader_creates_neither_file_nor_directory(tmp_path: Path) -> None:
    database = database_at(tmp_path / "data" / "warehouse.duckdb")
    with (
        pytest.raises(WarehouseError, match=r"cannot be opened: .*does not exist.* Check WAREHOUSE_URL"),
        database.transaction(read_only=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


# A transaction that is cut off


def test_a_write_whose_connection_is_cut_is_retried_and_stored_once(on_postgresql: Database) -> None:
    tries = []

    def store(connection: sa.Connection) -> str:
        tries.append(connection)
        insert(connection, 2)
        if len(tries) == 1:
            server_process = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
            with on_postgresql.transaction(read_only=True) as another:
                another.execute(sa.text("select pg_terminate_backend(:pid, 30000)"), {"pid": server_process})
        insert(connection, 3)
        return "stored"

    assert on_postgresql.write(store) == "stored"
    assert len(tries) == 2
    assert numbers(on_postgresql) == [1, 2, 3]


def test_a_reader_whose_connection_is_cut_learns_that_it_was_lost(on_postgresql: Database) -> None:
    with (
        pytest.raises(WarehouseLost, match="was lost"),
        on_postgresql.transaction(read_only=True) as connection,
    ):
        server_process = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
        with on_postgresql.transaction(read_only=True) as another:
            another.execute(sa.text("select pg_terminate_backend(:pid, 30000)"), {"pid": server_process})
        connection.execute(sa.text("select 1"))


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_write_that_conflicts_with_another_transaction_is_retried(on_postgresql: Database, state: str) -> None:
    serializable = Database(url=sa.make_url(on_postgresql.url).render_as_string(hide_password=False))
    tries = []

    def store(connection: sa.Connection) -> None:
        tries.append(connection)
        insert(connection, 10 + len(tries))
        if len(tries) == 1:
            connection.execute(sa.text(f"do $$ begin raise exception 'hin und her' using errcode = '{state}'; end $$"))

    serializable.write(store)
    assert len(tries) == 2
    assert numbers(on_postgresql) == [1, 12]


def test_a_write_that_always_conflicts_says_so_and_not_that_the_warehouse_cannot_be_opened(
    on_postgresql: Database,
) -> None:
    with (
        pytest.raises(WarehouseLost, match="Other transactions kept conflicting"),
        on_postgresql.transaction() as connection,
    ):
        connection.execute(sa.text("do $$ begin raise exception 'nein' using errcode = '40P01'; end $$"))


def test_a_write_that_duckdb_refuses_because_another_changed_the_row_is_retried(database: Database) -> None:
    tries = []

    def store(connection: sa.Connection) -> None:
        tries.append(connection)
        connection.execute(sa.text("select * from numbers")).all()
        if len(tries) == 1:
            with database.transaction() as another:
                another.execute(sa.text("update numbers set number = 5"))
        connection.execute(sa.text("update numbers set number = number + 1"))

    database.write(store)
    assert len(tries) == 2
    assert numbers(database) == [6]


@pytest.mark.parametrize("state", ["22012", "23505", "42P01", "55P03"])
def test_a_write_that_would_fail_again_is_tried_once(on_postgresql: Database, state: str) -> None:
    tries = []

    def store(connection: sa.Connection) -> None:
        tries.append(connection)
        connection.execute(sa.text(f"do $$ begin raise exception 'nein' using errcode = '{state}'; end $$"))

    with pytest.raises((WarehouseError, sa.exc.DBAPIError)):
        on_postgresql.write(store)
    assert len(tries) == 1
