"""One transaction at a time, on a real DuckDB file and a real PostgreSQL: kept or undone, private, clear in failure."""

import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from pipelines.definitions import definitions_for
from pipelines.loading.progress import Progress
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import WarehouseDamaged, WarehouseError, WarehouseLocked, WarehouseLost
from tests.conftest import PostgreSQL

PASSWORD = "p@ss/w:rd-5e884898"


def database_at(path: Path, **fields: Any) -> Database:
    return Database(url=f"duckdb:///{path}", **fields)


def numbers(database: Database) -> list[int]:
    with database.transaction(read_only=True) as connection:
        return list(connection.execute(sa.text("select number from numbers order by number")).scalars())


def insert(connection: sa.Connection, number: int) -> None:
    connection.execute(sa.text("insert into numbers values (:number)"), {"number": number})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait for a condition, for half a minute at most."""
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        time.sleep(0.01)  # between two looks, so that what is waited for has the processor


def with_numbers(database: Database) -> Database:
    with database.transaction() as connection:
        connection.execute(sa.text("create table numbers (number integer)"))
        insert(connection, 1)
    return database


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A DuckDB file with one table of one row."""
    return with_numbers(database_at(tmp_path / "data" / "warehouse.duckdb"))


@pytest.fixture
def on_postgresql(postgresql: PostgreSQL) -> Database:
    """A database of PostgreSQL with one table of one row."""
    return with_numbers(Database(url=postgresql.database()))


@pytest.fixture
def each_database(warehouse_url: str) -> Database:
    """One of each kind in turn, with one table of one row."""
    return with_numbers(Database(url=warehouse_url))


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

    def ask(self, expression: str) -> str:
        """What a Python expression is there, or the error."""
        return self.do(f"={expression}")

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
        "        print(eval(line[1:]) if line[0] == '=' else exec(line) or 'done', flush=True)\n"
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


def test_what_a_block_did_is_kept_when_it_ends(each_database: Database) -> None:
    with each_database.transaction() as connection:
        insert(connection, 2)
        insert(connection, 3)
    assert numbers(each_database) == [1, 2, 3]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_all_that_a_block_did_is_undone_when_it_raises(each_database: Database, error: type[BaseException]) -> None:
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


def test_a_process_that_is_killed_in_a_block_leaves_the_last_whole_state(each_database: Database) -> None:
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
def test_a_reader_does_not_get_out_of_its_transaction_to_write(each_database: Database, way_out: str) -> None:
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
def test_a_reader_reaches_no_other_file(database: Database, tmp_path: Path, sql: str) -> None:
    existing, other = tmp_path / "existing.csv", tmp_path / "other"
    existing.write_text("1\n")
    with pytest.raises(sa.exc.DBAPIError), database.transaction(read_only=True) as connection:
        connection.execute(sa.text(sql.format(existing=existing, other=other)))
    assert not other.exists()


def test_a_reader_makes_neither_file_nor_folder(tmp_path: Path) -> None:
    database = database_at(tmp_path / "data" / "warehouse.duckdb")
    with (
        pytest.raises(WarehouseError, match=r"cannot be opened: .*does not exist.* Check WAREHOUSE_URL"),
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


def is_waited_for(connection: sa.Connection) -> bool:
    """Whether another writer of this PostgreSQL database waits for this one to end."""
    waiting = (
        "select exists (select from pg_locks where locktype = 'advisory' and not granted "
        "and database = (select oid from pg_database where datname = current_database()))"
    )
    return bool(connection.execute(sa.text(waiting)).scalar_one())


def test_a_second_writer_of_postgresql_begins_when_the_first_has_ended(on_postgresql: Database) -> None:
    order: list[str] = []

    def write() -> None:
        with on_postgresql.transaction() as connection:
            order.append(f"the second begins and sees {numbers(on_postgresql)}")
            insert(connection, 3)

    second = threading.Thread(target=write)
    with on_postgresql.transaction() as first:
        second.start()
        wait_until(lambda: is_waited_for(first), "the second writer waits")
        insert(first, 2)
        order.append("the first ends")
    second.join(30)
    assert order == ["the first ends", "the second begins and sees [1, 2]"]
    assert numbers(on_postgresql) == [1, 2, 3]


def test_a_writer_of_postgresql_that_raised_lets_the_next_begin(on_postgresql: Database) -> None:
    with pytest.raises(RuntimeError), on_postgresql.transaction():
        raise RuntimeError
    with Database(url=on_postgresql.url, lock_timeout_seconds=0.05).transaction() as connection:
        insert(connection, 2)
    assert numbers(on_postgresql) == [1, 2]


def test_a_writer_of_postgresql_that_stays_is_told_of(on_postgresql: Database) -> None:
    waiting = Database(url=on_postgresql.url, lock_timeout_seconds=0.05)
    with on_postgresql.transaction() as first:
        with pytest.raises(WarehouseLocked) as locked, waiting.transaction() as connection:
            insert(connection, 3)
        insert(first, 2)
    told = str(locked.value)
    assert told.startswith(f"The warehouse {on_postgresql.name} is locked by another process, and stayed so for 0.05 s")
    assert "run the same again" in told
    assert "\n" not in told
    assert numbers(on_postgresql) == [1, 2]


def test_without_time_to_wait_a_writer_of_postgresql_does_not_wait_at_all(on_postgresql: Database) -> None:
    told: list[str] = []

    def write() -> None:
        try:
            with Database(url=on_postgresql.url, lock_timeout_seconds=0).transaction():
                told.append("it waited")
        except WarehouseLocked as error:
            told.append(str(error))

    second = threading.Thread(target=write)
    with on_postgresql.transaction():
        second.start()
        second.join(2)
        assert told, "it waits"
    second.join(30)
    assert "is locked by another process" in told[0]


def test_a_reader_of_postgresql_waits_for_no_writer_and_sees_the_old_rows(on_postgresql: Database) -> None:
    reader = Database(url=on_postgresql.url, lock_timeout_seconds=0.05)
    with on_postgresql.transaction() as connection:
        insert(connection, 2)
        connection.execute(sa.text("delete from numbers where number = 1"))
        assert numbers(reader) == [1]
    assert numbers(reader) == [2]


def test_a_writer_of_postgresql_waits_for_no_reader(on_postgresql: Database) -> None:
    writer = Database(url=on_postgresql.url, lock_timeout_seconds=0.05)
    with on_postgresql.transaction(read_only=True) as reading:
        assert reading.execute(sa.text("select count(*) from numbers")).scalar_one() == 1
        with writer.transaction() as connection:
            insert(connection, 2)
    assert numbers(on_postgresql) == [1, 2]


# The password of PostgreSQL


@pytest.fixture(scope="module")
def guarded(postgresql: PostgreSQL) -> Iterator[sa.URL]:
    """A database on a server that asks its user `writer` for PASSWORD. The others, like this one's, trust everybody."""
    folder = tempfile.mkdtemp(prefix="postgresql-")
    server = PostgreSQL(folder)
    as_owner = server.database()
    url = sa.make_url(as_owner).set(username="writer")
    try:
        hba = Path(folder, "data", "pg_hba.conf")
        hba.write_text(f"local all writer scram-sha-256\n{hba.read_text()}")
        with Database(url=as_owner).transaction() as connection:
            connection.exec_driver_sql(f"create role writer login password '{PASSWORD}'")
            connection.exec_driver_sql("select pg_reload_conf()")
        wait_until(lambda: refusal(url), "a password is asked for")
        yield url
    finally:
        server.server.stop()
        shutil.rmtree(folder)


def refusal(url: sa.URL | str) -> str:
    """What is said when this cannot be opened; nothing if it can."""
    shown = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    try:
        with Database(url=shown).transaction(read_only=True):
            return ""
    except WarehouseError as error:
        assert "\n" not in str(error)
        assert error.__cause__ is None, "what is behind it would be shown as well"
        return str(error)


@pytest.fixture
def with_password(guarded: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a process whose WAREHOUSE_URL holds the password."""
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    monkeypatch.setenv("WAREHOUSE_URL", guarded.set(password=PASSWORD).render_as_string(hide_password=False))
    return Settings.load()


def test_the_password_in_the_environment_is_used_for_an_address_that_does_not_show_it(with_password: Settings) -> None:
    database = Database(url=with_password.warehouse_url)
    assert "writer:***@" in database.url
    for read_only in (False, True):
        with database.transaction(read_only=read_only) as connection:
            assert connection.execute(sa.text("select current_user")).scalar_one() == "writer"


def test_a_password_in_the_address_itself_is_used_too(guarded: sa.URL) -> None:
    assert refusal(guarded.set(password=PASSWORD)) == ""


def test_the_password_is_in_nothing_that_is_shown(with_password: Settings) -> None:
    database = Database(url=with_password.warehouse_url)
    resources = definitions_for(with_password, Progress()).resources
    assert resources is not None
    shown = f"{with_password!r} {with_password.model_dump()} {database!r} {database} {database.name} {database.url} "
    shown += repr(resources)
    with pytest.raises(WarehouseError) as unusable, database.transaction() as connection:
        connection.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))
    with pytest.raises(sa.exc.DBAPIError) as refused, database.transaction() as connection:
        connection.execute(sa.text("select nothing"))
    shown += f"{unusable.value!r} {refused.value!r} {refused.value}"
    for secret in (PASSWORD, PASSWORD.replace("@", "%40").replace("/", "%2F")):
        assert secret not in shown


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("guess-81dc9bdb", "refuses user writer with this password. Check WAREHOUSE_URL."),
        (None, "no password supplied"),
    ],
    ids=["wrong", "none"],
)
def test_a_password_that_does_not_fit_is_told_with_the_user_and_the_variable_but_not_itself(
    guarded: sa.URL, monkeypatch: pytest.MonkeyPatch, password: str | None, sentence: str
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", guarded.set(password=password).render_as_string(hide_password=False))
    told = refusal(Settings.load().warehouse_url)
    assert sentence in told
    assert told.endswith("Check WAREHOUSE_URL.")
    assert "guess" not in told


# What cannot be opened


def test_a_server_that_is_not_there_is_told_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = refusal(
        f"postgresql+psycopg://writer:{PASSWORD.replace('@', '%40').replace('/', '%2F')}@127.0.0.1:{port}/db"
    )
    assert f"127.0.0.1:{port}/db cannot be opened: " in told
    assert PASSWORD not in told
    assert "refused" in told
    assert told.endswith("Check WAREHOUSE_URL.")


def test_a_host_that_nobody_knows_is_told_of() -> None:
    told = refusal("postgresql+psycopg://writer@no.such.host.invalid/db")
    assert "no.such.host.invalid/db cannot be opened: " in told
    assert told.endswith("Check WAREHOUSE_URL.")


def test_a_database_that_does_not_exist_is_told_of(on_postgresql: Database) -> None:
    told = refusal(sa.make_url(on_postgresql.url).set(database="nowhere"))
    assert "/nowhere cannot be opened: " in told
    assert 'database "nowhere" does not exist' in told
    assert told.endswith("Check WAREHOUSE_URL.")


def test_a_connection_that_is_cut_in_a_block_is_told_of_and_the_block_undone(on_postgresql: Database) -> None:
    with pytest.raises(WarehouseError) as lost, on_postgresql.transaction() as connection:
        insert(connection, 2)
        server_process = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
        with on_postgresql.transaction(read_only=True) as another:
            another.execute(sa.text("select pg_terminate_backend(:pid, 30000)"), {"pid": server_process})
        insert(connection, 3)
    assert f"The connection to the warehouse {on_postgresql.name} was lost: " in str(lost.value)
    assert "What was being stored is not stored, everything before it is." in str(lost.value)
    assert "\n" not in str(lost.value)
    assert numbers(on_postgresql) == [1]


def test_an_address_whose_password_is_nowhere_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    told = refusal("postgresql+psycopg://writer:***@127.0.0.1/sessions")
    assert told.startswith("The password of the warehouse postgresql+psycopg://127.0.0.1/sessions is not known: ")
    assert "set WAREHOUSE_URL in the environment of every process" in told


def test_a_file_of_sqlite_is_refused_without_fetching_what_would_open_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("create table numbers (number integer)")
    told = refusal(f"duckdb:///{path}")
    assert f"The warehouse {path} cannot be opened: " in told or f"{path} is not a DuckDB file" in told
    assert "download" not in told.lower()


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_motherduck_is_no_file_and_without_its_extension_is_told_of_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read_only: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where an extension would be, had it been loaded before
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # so that none can be, wherever this runs
    database = Database(url="duckdb:///md:name")
    assert (database.is_duckdb, database.is_file) == (True, False)
    with pytest.raises(WarehouseError) as unusable, database.transaction(read_only=read_only):
        pass
    told = str(unusable.value)
    assert "md:name cannot be opened: " in told
    assert 'Failed to download extension "motherduck"' in told
    assert told.endswith("Check WAREHOUSE_URL.")
    assert "\n" not in told
    assert unusable.value.__cause__ is None


@pytest.mark.parametrize("content", [b"hello", b"day,org_id,sessions_count\n" * 1000], ids=["short", "long"])
@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes, read_only: bool) -> None:
    path = tmp_path / "warehouse.duckdb"
    path.write_bytes(content)
    with (
        pytest.raises(WarehouseError, match=r"is not a DuckDB file\. Set WAREHOUSE_URL to another path") as refused,
        database_at(path).transaction(read_only=read_only),
    ):
        pass
    assert not isinstance(refused.value, WarehouseLocked)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


def test_a_damaged_file_is_refused_in_one_line(database: Database) -> None:
    database.path.write_bytes(database.path.read_bytes()[:9000])
    with pytest.raises(WarehouseDamaged, match=r"is damaged \(.*\)\. .* devin-sessions restore$") as refused:
        numbers(database)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("below", ["warehouse.duckdb", "folder/warehouse.duckdb"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    path = file / below
    with (
        pytest.raises(WarehouseError, match=r"cannot be made: .*Check its rights, or WAREHOUSE_URL") as refused,
        database_at(path).transaction(),
    ):
        pass
    assert f"The folder {path.parent} " in str(refused.value)
    assert file.read_text() == "not a folder"


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(WarehouseError, match=rf"The warehouse {tmp_path} cannot be opened: "),
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


# A transaction that is cut off


def test_a_write_whose_connection_is_cut_is_tried_again_and_stored_once(on_postgresql: Database) -> None:
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


def test_a_reader_whose_connection_is_cut_is_told_that_it_was_lost(on_postgresql: Database) -> None:
    with (
        pytest.raises(WarehouseLost, match="was lost"),
        on_postgresql.transaction(read_only=True) as connection,
    ):
        server_process = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
        with on_postgresql.transaction(read_only=True) as another:
            another.execute(sa.text("select pg_terminate_backend(:pid, 30000)"), {"pid": server_process})
        connection.execute(sa.text("select 1"))


def test_a_write_that_another_transaction_gets_in_the_way_of_is_tried_again(on_postgresql: Database) -> None:
    serializable = Database(url=sa.make_url(on_postgresql.url).render_as_string(hide_password=False))
    tries = []

    def store(connection: sa.Connection) -> None:
        tries.append(connection)
        insert(connection, 10 + len(tries))
        if len(tries) == 1:
            connection.execute(sa.text("do $$ begin raise exception 'hin und her' using errcode = '40001'; end $$"))

    serializable.write(store)
    assert len(tries) == 2
    assert numbers(on_postgresql) == [1, 12]


@pytest.mark.parametrize("state", ["22012", "23505", "42P01", "55P03"])
def test_a_write_that_would_fail_again_is_tried_once(on_postgresql: Database, state: str) -> None:
    tries = []

    def store(connection: sa.Connection) -> None:
        tries.append(connection)
        connection.execute(sa.text(f"do $$ begin raise exception 'nein' using errcode = '{state}'; end $$"))

    with pytest.raises((WarehouseError, sa.exc.DBAPIError)):
        on_postgresql.write(store)
    assert len(tries) == 1
