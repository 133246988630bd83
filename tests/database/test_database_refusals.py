"""A database that cannot be opened says why in one line."""

import contextlib
import sqlite3
from pathlib import Path

import duckdb
import psycopg
import pytest
import sqlalchemy as sa

from resources.database import Database
from resources.database_errors import WarehouseDamaged, WarehouseError, WarehouseLocked, explain
from tests.support.databases import PASSWORD, as_superuser, database_at, insert, numbers, refusal
from tests.support.ports import free_port


def test_a_server_that_is_down_is_reported() -> None:
    port = free_port()
    message = refusal(
        f"postgresql+psycopg://writer:{PASSWORD.replace('@', '%40').replace('/', '%2F')}@127.0.0.1:{port}/db"
    )
    assert f"127.0.0.1:{port}/db cannot be opened: " in message
    assert PASSWORD not in message
    assert "refused" in message
    assert message.endswith("Check WAREHOUSE_URL.")


def test_an_unknown_host_is_reported() -> None:
    message = refusal("postgresql+psycopg://writer@no.such.host.invalid/db")
    assert "no.such.host.invalid/db cannot be opened: " in message
    assert message.endswith("Check WAREHOUSE_URL.")


def test_a_database_that_does_not_exist_is_reported(on_postgresql: Database) -> None:
    message = refusal(sa.make_url(on_postgresql.url).set(database="nowhere"))
    assert "/nowhere cannot be opened: " in message
    assert 'database "nowhere" does not exist' in message
    assert message.endswith("Check WAREHOUSE_URL.")


def test_a_replica_that_took_over_without_being_promoted_is_told_as_one() -> None:
    replica = Database("postgresql+psycopg://writer@127.0.0.1/db")
    message = str(explain(replica, psycopg.errors.FeatureNotSupported("cannot access unlogged relations in recovery")))
    assert "accepts no writes" in message
    assert "It is a replica" in message


def test_a_connection_that_is_cut_within_a_block_is_reported_and_the_block_is_undone(on_postgresql: Database) -> None:
    with pytest.raises(WarehouseError) as lost, on_postgresql.transaction() as connection:
        insert(connection, 2)
        server_process = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
        with on_postgresql.transaction(read_only=True) as another:
            another.execute(sa.text("select pg_terminate_backend(:pid, 30000)"), {"pid": server_process})
        insert(connection, 3)
    assert f"The connection to the warehouse {on_postgresql.name} was lost: " in str(lost.value)
    assert "What was being written is not stored; everything before it is." in str(lost.value)
    assert "\n" not in str(lost.value)
    assert numbers(on_postgresql) == [1]


def test_a_server_without_a_connection_left_is_not_told_as_a_lost_connection(on_postgresql: Database) -> None:
    with Database(url=as_superuser(on_postgresql.url)).transaction() as connection:
        connection.execute(sa.text("create role only_one login connection limit 1"))
    url = sa.make_url(on_postgresql.url).set(username="only_one").render_as_string(hide_password=False)
    with Database(url=url).transaction(read_only=True) as connection:
        connection.execute(sa.text("select 1"))
        message = refusal(url)
    assert "accepts no connection now: " in message
    assert 'too many connections for role "only_one"' in message, "PostgreSQL's own words"
    assert "What was being written is not stored; everything before it is." in message


def test_an_address_without_a_known_password_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    message = refusal("postgresql+psycopg://writer:***@127.0.0.1/sessions")
    assert message.startswith("The password of the warehouse postgresql+psycopg://127.0.0.1/sessions is not known: ")
    assert "set WAREHOUSE_URL in the environment of every process" in message


def test_an_sqlite_file_is_refused_without_downloading_an_extension(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("create table numbers (number integer)")
    message = refusal(f"duckdb:///{path}")
    assert f"The warehouse {path} cannot be opened: " in message or f"{path} is not a DuckDB file" in message
    assert "download" not in message.lower()


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_motherduck_is_not_a_file_and_a_missing_extension_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read_only: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where an extension would be, had it been loaded before
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # so that none can be downloaded, wherever this runs
    database = Database(url="duckdb:///md:name")
    assert (database.is_duckdb, database.is_file) == (True, False)
    with pytest.raises(WarehouseError) as unusable, database.transaction(read_only=read_only):
        pass
    message = str(unusable.value)
    assert "md:name cannot be opened: " in message
    assert 'Failed to download extension "motherduck"' in message
    assert message.endswith("Check WAREHOUSE_URL.")
    assert "\n" not in message
    assert unusable.value.__cause__ is None


@pytest.mark.parametrize("content", [b"hello", b"day,org_id,sessions_count\n" * 1000], ids=["short", "long"])
@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, content: bytes, read_only: bool) -> None:
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


@pytest.mark.parametrize("below", ["warehouse.duckdb", "directory/warehouse.duckdb"])
def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    path = file / below
    with (
        pytest.raises(
            WarehouseError,
            match=rf"Cannot create directory .*: {tmp_path}/file has to be a directory\. Move that file away, or set",
        ) as refused,
        database_at(path).transaction(),
    ):
        pass
    assert f"Cannot create directory {path.parent}: " in str(refused.value)
    assert file.read_text() == "not a directory"


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(WarehouseError, match=rf"The warehouse {tmp_path} cannot be opened: "),
        database_at(tmp_path).transaction(),
    ):
        pass


def test_a_path_with_characters_that_a_url_escapes_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "50% of Ünits & more" / "ware house.duckdb"
    url = sa.make_url("duckdb://").set(database=str(path)).render_as_string()
    database = Database(url=url)
    with database.transaction() as connection:
        connection.execute(sa.text("create table numbers as select 4 as number"))
    assert database.path == path
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("from numbers").fetchall() == [(4,)]
