"""One transaction at a time on a real DuckDB file: kept or undone, private, and clear about who holds the lock."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from resources.database import Database, WarehouseLocked, WarehouseUnusable


def database_at(path: Path, **fields: Any) -> Database:
    return Database(url=f"duckdb:///{path}", **fields)


def numbers(database: Database) -> list[int]:
    with database.transaction(read_only=True) as connection:
        return list(connection.execute(sa.text("select number from numbers order by number")).scalars())


def insert(connection: sa.Connection, number: int) -> None:
    connection.execute(sa.text("insert into numbers values (:number)"), {"number": number})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A warehouse with one table of one row."""
    database = database_at(tmp_path / "data" / "warehouse.duckdb")
    with database.transaction() as connection:
        connection.execute(sa.text("create table numbers (number integer)"))
        insert(connection, 1)
    return database


@dataclass
class Process:
    """Another process that does as it is told, a line each."""

    running: subprocess.Popen[str]

    def do(self, statement: str) -> str:
        """Run one Python statement there; what it answers: `done`, or the error."""
        assert self.running.stdin and self.running.stdout
        self.running.stdin.write(f"{statement}\n")
        self.running.stdin.flush()
        return self.running.stdout.readline().strip()

    def open(self, path: Path) -> str:
        return self.do(f"connection = duckdb.connect({str(path)!r})")

    def close(self) -> str:
        return self.do("connection.close()")


@contextmanager
def another_process() -> Iterator[Process]:
    code = (
        "import sys, duckdb\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        exec(line)\n"
        "        print('done', flush=True)\n"
        "    except Exception as error:\n"
        "        print(str(error).splitlines()[0], flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield Process(running)
        finally:
            running.kill()


# What is kept


def test_what_a_block_did_is_kept_when_it_ends(database: Database) -> None:
    with database.transaction() as connection:
        insert(connection, 2)
        insert(connection, 3)
    assert numbers(database) == [1, 2, 3]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_all_that_a_block_did_is_undone_when_it_raises(database: Database, error: type[BaseException]) -> None:
    with pytest.raises(error), database.transaction() as connection:
        insert(connection, 2)
        connection.execute(sa.text("delete from numbers where number = 1"))
        connection.execute(sa.text("create table others (number integer)"))
        raise error
    assert numbers(database) == [1]
    with database.transaction(read_only=True) as connection:
        assert sa.inspect(connection).get_table_names() == ["numbers"]


def test_an_error_in_the_database_undoes_the_block_too(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError), database.transaction() as connection:
        insert(connection, 2)
        connection.execute(sa.text("insert into numbers values ('three')"))
    assert numbers(database) == [1]


def test_a_process_that_is_killed_in_a_block_leaves_the_last_whole_state(database: Database) -> None:
    with another_process() as other:
        assert other.do("from resources.database import Database; import sqlalchemy as sa") == "done"
        assert other.do(f"block = Database(url={database.url!r}).transaction(); it = block.__enter__()") == "done"
        assert other.do("_ = it.execute(sa.text('insert into numbers values (2)'))") == "done"
        other.running.kill()
        other.running.wait()
    assert numbers(database) == [1]


def test_times_are_in_utc_whatever_the_machines_zone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    for read_only in (False, True):
        with database.transaction(read_only=read_only) as connection:
            assert connection.execute(sa.text("select current_setting('TimeZone')")).scalar_one() == "UTC"


# Whose the file is


def test_a_new_file_and_its_new_folder_are_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        database = database_at(tmp_path / "new" / "data" / "warehouse.duckdb")
        with database.transaction() as connection:
            assert mode(database.path) == 0o600
            connection.execute(sa.text("create table numbers (number integer)"))
    finally:
        os.umask(before)
    assert (mode(database.path), mode(database.path.parent)) == (0o600, 0o700)


def test_the_rights_of_a_file_and_a_folder_that_exist_are_left_as_they_are(database: Database) -> None:
    database.path.chmod(0o640)
    database.path.parent.chmod(0o750)
    with database.transaction() as connection:
        insert(connection, 2)
    assert (mode(database.path), mode(database.path.parent)) == (0o640, 0o750)


# Read only


def test_a_reader_reads_and_cannot_write(database: Database) -> None:
    with (
        pytest.raises(sa.exc.DBAPIError, match="read-only"),
        database.transaction(read_only=True) as connection,
    ):
        insert(connection, 2)
    assert numbers(database) == [1]


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
def test_a_reader_reaches_no_other_file(database: Database, tmp_path: Path, sql: str) -> None:
    existing, other = tmp_path / "existing.csv", tmp_path / "other"
    existing.write_text("1\n")
    with pytest.raises(sa.exc.DBAPIError), database.transaction(read_only=True) as connection:
        connection.execute(sa.text(sql.format(existing=existing, other=other)))
    assert not other.exists()


def test_a_reader_makes_neither_file_nor_folder(tmp_path: Path) -> None:
    database = database_at(tmp_path / "data" / "warehouse.duckdb")
    with (
        pytest.raises(WarehouseUnusable, match=r"cannot be opened: .*does not exist.* Check WAREHOUSE_URL"),
        database.transaction(read_only=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


# The lock


def test_while_a_block_is_open_no_other_process_can_open_the_file_and_after_it_any_can(database: Database) -> None:
    with another_process() as other:
        with database.transaction() as connection:
            insert(connection, 2)
            assert "Could not set lock" in other.open(database.path)
        assert other.open(database.path) == "done"


def test_after_a_block_that_raised_the_lock_is_free_too(database: Database) -> None:
    with another_process() as other:
        with pytest.raises(RuntimeError), database.transaction():
            raise RuntimeError
        assert other.open(database.path) == "done"


def test_after_a_reader_the_lock_is_free(database: Database) -> None:
    with another_process() as other:
        assert numbers(database) == [1]
        assert other.open(database.path) == "done"


def test_a_lock_that_another_process_holds_is_waited_for(database: Database) -> None:
    attempts = 0
    with another_process() as other:
        assert other.open(database.path) == "done"

        def attempt(*_: object) -> None:
            # The holder lets go only once two attempts have failed, so the third is one that waited.
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                assert other.close() == "done"

        dialect = type(sa.create_engine(database.url).dialect)
        sa.event.listen(dialect, "do_connect", attempt)
        try:
            with database.transaction() as connection:
                insert(connection, 2)
        finally:
            sa.event.remove(dialect, "do_connect", attempt)
    assert attempts == 3
    assert numbers(database) == [1, 2]


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_a_lock_that_stays_names_the_process_that_holds_it(database: Database, read_only: bool) -> None:
    waiting = database_at(database.path, lock_timeout_seconds=0.05)
    with another_process() as other:
        assert other.open(database.path) == "done"
        with pytest.raises(WarehouseLocked) as locked, waiting.transaction(read_only=read_only):
            pass
        told = str(locked.value)
        assert f"The warehouse {database.path} is locked by process {other.running.pid} (" in told
        assert "stayed so for 0.05 s. Close what has it open" in told
    assert numbers(database) == [1]


def test_without_time_to_wait_a_lock_is_tried_for_once(database: Database) -> None:
    attempts: list[object] = []

    def attempt(*arguments: object) -> None:
        attempts.append(arguments)

    dialect = type(sa.create_engine(database.url).dialect)
    with another_process() as other:
        assert other.open(database.path) == "done"
        sa.event.listen(dialect, "do_connect", attempt)
        try:
            with pytest.raises(WarehouseLocked), database_at(database.path, lock_timeout_seconds=0).transaction():
                pass
        finally:
            sa.event.remove(dialect, "do_connect", attempt)
    assert len(attempts) == 1


# What cannot be opened


@pytest.mark.parametrize("content", [b"hello", b"day,org_id,sessions_count\n" * 1000], ids=["short", "long"])
@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes, read_only: bool) -> None:
    path = tmp_path / "warehouse.duckdb"
    path.write_bytes(content)
    with (
        pytest.raises(WarehouseUnusable, match=r"is not a DuckDB file\. Set WAREHOUSE_URL to another path") as refused,
        database_at(path).transaction(read_only=read_only),
    ):
        pass
    assert not isinstance(refused.value, WarehouseLocked)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


def test_a_damaged_file_is_refused_in_one_line(database: Database) -> None:
    database.path.write_bytes(database.path.read_bytes()[:9000])
    with pytest.raises(WarehouseUnusable, match=r"cannot be opened: .*Check WAREHOUSE_URL\.$") as refused:
        numbers(database)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("below", ["warehouse.duckdb", "folder/warehouse.duckdb"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    path = file / below
    with (
        pytest.raises(WarehouseUnusable, match=r"cannot be made: .*Check its rights, or WAREHOUSE_URL") as refused,
        database_at(path).transaction(),
    ):
        pass
    assert f"The folder {path.parent} " in str(refused.value)
    assert file.read_text() == "not a folder"


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(WarehouseUnusable, match=rf"The warehouse {tmp_path} cannot be opened: "),
        database_at(tmp_path).transaction(),
    ):
        pass


def test_a_path_with_letters_that_an_address_escapes_is_that_path(tmp_path: Path) -> None:
    path = tmp_path / "50% of Ünits & more" / "ware house.duckdb"
    url = sa.make_url("duckdb://").set(database=str(path)).render_as_string()
    database = Database(url=url)
    with database.transaction() as connection:
        connection.execute(sa.text("create table numbers as select 4 as number"))
    assert database.path == path
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("from numbers").fetchall() == [(4,)]
