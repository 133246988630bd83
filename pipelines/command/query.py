"""`devin-sessions query`: runs one read-only statement and fetches only the rows that are shown."""

import contextlib
import itertools
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psycopg
import sqlalchemy as sa

from pipelines.command.exit_codes import WrongUse
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import WarehouseDamaged, WarehouseLost, explain_if_about_database
from warehouse.snapshot import find_bookkeeping

# With these roles, a statement can run programs or access files on the server, even in a read-only transaction.
_PRIVILEGED_ROLES = "pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"
_ROWS_PER_FETCH = 1_000


class QueryRefused(Exception):
    """The query was not run. The message says why and what to do."""


class NothingPublished(Exception):
    """There is no snapshot to query yet. The message says how to get one."""


@dataclass(frozen=True)
class QueryResult:
    """The columns' names and types, as the database calls them, and the rows, fetched as they are iterated over.

    `is_duckdb`: which database's types they are.
    """

    columns: Sequence[str]
    types: Sequence[str]
    is_duckdb: bool
    rows: Iterator[Sequence[Any]]


def read_sql(sql: str, file: Path | None) -> str:
    """The SQL that was given: `sql`, or the text of `file`, or for "-" what standard input has. Raises WrongUse."""
    if file and sql != "-":
        raise WrongUse("Give either SQL or --file, not both.")
    try:
        if file:
            return file.read_text(encoding="utf-8-sig")
        if sql != "-":
            return sql
        if sys.stdin is None or sys.stdin.isatty():
            raise WrongUse('Give the SQL, such as "select * from weekly_sessions", or a file that has it: --file FILE')
        piped = sys.stdin.buffer.read().decode("utf-8-sig")
    except OSError as error:
        raise WrongUse(f"{file or 'Standard input'} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise WrongUse(f"{file or 'Standard input'} is not text in UTF-8. Save it as UTF-8.") from None
    if not piped.strip():
        raise WrongUse(
            'There is no SQL in standard input. Give it as an argument, such as "select * from weekly_sessions".'
        )
    return piped


@contextlib.contextmanager
def run_query(settings: Settings, sql: str) -> Iterator[QueryResult]:
    """Query the published snapshot, or the warehouse on a server.

    Raises QueryRefused, NothingPublished and WarehouseError.
    """
    snapshot = settings.published_snapshot
    database = Database(url=f"duckdb:///{snapshot}") if snapshot else settings.warehouse
    if snapshot and not database.exists():
        raise NothingPublished(
            f"There is no snapshot at {snapshot} yet. Load some days first: devin-sessions backfill FIRST LAST"
        )
    with database.transaction(read_only=True) as connection:
        try:
            find_bookkeeping(connection)
            if not database.is_duckdb:
                _refuse_privileged_user(connection)
            execute = _execute_on_duckdb if database.is_duckdb else _execute_on_postgresql
            with contextlib.closing(execute(connection, sql)) as columns_and_rows:
                names, types = next(columns_and_rows)
                yield QueryResult(names, types, database.is_duckdb, columns_and_rows)
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            about_database = explain_if_about_database(database, error, read_only=True)
            if isinstance(about_database, WarehouseLost | WarehouseDamaged):  # the others are about what writers need
                raise about_database from None
            original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise QueryRefused(f"The database refuses this SQL: {original}") from None


def _execute_on_duckdb(connection: sa.Connection, sql: str) -> Generator[Any]:
    """Yields the names and the types of the columns, then the rows as they are fetched."""
    # Closed before the transaction ends; otherwise DuckDB computes the rows that were not fetched.
    with contextlib.closing(connection.exec_driver_sql(sql)) as result:
        if not result.returns_rows:
            raise QueryRefused(_NO_ROWS)
        assert result.cursor is not None
        yield list(result.keys()), [str(column[1]) for column in result.cursor.description]
        for part in result.partitions(_ROWS_PER_FETCH):
            yield from part


def _execute_on_postgresql(connection: sa.Connection, sql: str) -> Generator[Any]:
    """Yields the names and the types of the columns, then the rows as they are streamed."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor:
        # Without a stream, all rows would be fetched before the first.
        size = _ROWS_PER_FETCH if psycopg.capabilities.has_stream_chunked() else 1
        rows = cursor.stream(sql.encode(), size=size)
        with contextlib.closing(cast(Generator[Any], rows)):
            try:
                first = next(rows, None)
            except psycopg.ProgrammingError as error:
                if error.sqlstate is None:  # psycopg's own error
                    raise QueryRefused(_NO_ROWS) from None
                raise
            columns = [(c.name, c.type_code) for c in cursor.description or ()] or _described(driver, sql)
            types = [cursor.adapters.types.get(code) for _, code in columns]
            yield [name for name, _ in columns], [type_.name if type_ else "" for type_ in types]
            if first is not None:
                yield first
                yield from rows


def _described(driver: psycopg.Connection, sql: str) -> list[tuple[str, int]]:
    """The names and the type codes of the columns, which a stream without rows does not tell."""
    driver.pgconn.prepare(b"", sql.encode())
    described = driver.pgconn.describe_prepared(b"")
    return [((described.fname(n) or b"").decode(), described.ftype(n)) for n in range(described.nfields)]


def _refuse_privileged_user(connection: sa.Connection) -> None:
    role = sa.func.session_user()
    is_superuser = "select rolsuper from pg_catalog.pg_roles where rolname = session_user"
    held = [
        name for name in _PRIVILEGED_ROLES if connection.scalar(sa.select(sa.func.pg_has_role(role, name, "member")))
    ]
    if connection.scalar(sa.text(is_superuser)):
        held = ["superuser"]
    if held:
        user = connection.scalar(sa.text("select session_user"))
        raise QueryRefused(
            f"The database user {user} is refused for queries: as {' and '.join(held)}, it could run programs or "
            "access files on the server, even in a read-only transaction. Query as a user who can only read: "
            "docs/postgresql-roles.sql creates one."
        )


_NO_ROWS = "This SQL returns no result. Use a statement that does, such as select."


def first_rows(result: QueryResult, limit: int) -> tuple[list[Sequence[Any]], bool]:
    """Up to `limit` rows, and whether there are more."""
    rows = list(itertools.islice(result.rows, limit + 1))
    return rows[:limit], len(rows) > limit
