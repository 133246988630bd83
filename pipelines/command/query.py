"""`devin-sessions query`: runs one read-only statement and fetches only the rows that are shown."""

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO, cast

import psycopg
import sqlalchemy as sa

from pipelines.command.screen import as_text
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import WarehouseDamaged, WarehouseLost, explain_if_about_database
from warehouse.snapshot import find_bookkeeping

# With these roles, a statement can run programs or access files on the server, even in a read-only transaction.
_PRIVILEGED_ROLES = "pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"
_ROWS_PER_FETCH = 1_000
# Spreadsheets take text that starts with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class QueryRefused(Exception):
    """The query was not run. The message says why and what to do. `is_for_later`: it may succeed later."""

    def __init__(self, message: str, *, is_for_later: bool = False) -> None:
        super().__init__(message)
        self.is_for_later = is_for_later


@dataclass(frozen=True)
class QueryResult:
    """The names of the columns, and the rows, fetched as they are iterated over."""

    columns: Sequence[str]
    rows: Iterator[Sequence[Any]]


@contextlib.contextmanager
def run_query(settings: Settings, sql: str) -> Iterator[QueryResult]:
    """Query the published snapshot, or the warehouse on a server. Raises QueryRefused and WarehouseError."""
    snapshot = settings.published_snapshot
    database = Database(url=f"duckdb:///{snapshot}") if snapshot else settings.warehouse
    if snapshot and not database.exists():
        raise QueryRefused(
            f"There is no snapshot at {snapshot} yet. Load some days first: devin-sessions backfill FIRST LAST",
            is_for_later=True,
        )
    with database.transaction(read_only=True) as connection:
        try:
            find_bookkeeping(connection)
            if not database.is_duckdb:
                _refuse_privileged_user(connection)
            execute = _execute_on_duckdb if database.is_duckdb else _execute_on_postgresql
            with contextlib.closing(execute(connection, sql)) as columns_and_rows:
                yield QueryResult(next(columns_and_rows), columns_and_rows)
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            about_database = explain_if_about_database(database, error, read_only=True)
            if isinstance(about_database, WarehouseLost | WarehouseDamaged):  # the others are about what writers need
                raise about_database from None
            original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise QueryRefused(f"The database refuses this SQL: {original}") from None


def _execute_on_duckdb(connection: sa.Connection, sql: str) -> Generator[Any]:
    """Yields the names of the columns, then the rows as they are fetched."""
    # Closed before the transaction ends; otherwise DuckDB computes the rows that were not fetched.
    with contextlib.closing(connection.exec_driver_sql(sql)) as result:
        if not result.returns_rows:
            raise QueryRefused(_NO_ROWS)
        yield list(result.keys())
        for part in result.partitions(_ROWS_PER_FETCH):
            yield from part


def _execute_on_postgresql(connection: sa.Connection, sql: str) -> Generator[Any]:
    """Yields the names of the columns, then the rows as they are streamed."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor:
        # Without a stream, all rows would be fetched before the first.
        size = _ROWS_PER_FETCH if psycopg.capabilities.has_stream_chunked() else 1
        rows = cursor.stream(sql.encode(), size=size)
        with contextlib.closing(cast(Generator[Any], rows)):
            first = next(rows, None)
            if cursor.description is None:
                raise QueryRefused(_NO_ROWS)
            yield [column.name for column in cursor.description]
            if first is not None:
                yield first
                yield from rows


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


def write_csv(result: QueryResult, *, for_spreadsheet: bool) -> None:
    """Write the result to standard output as CSV in UTF-8.

    `for_spreadsheet` adds a byte order mark, and an apostrophe before text that would otherwise become a formula.
    """
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8")
    if for_spreadsheet:
        out.write("\ufeff")
    writer = csv.writer(_Lines(out), lineterminator=_CRLF)
    convert = _escape_formula if for_spreadsheet else as_text
    writer.writerow(map(convert, result.columns))
    for row in result.rows:
        writer.writerow(map(convert, row))
    out.flush()


_CRLF = "\r\n"


class _Lines:
    """Ends lines as Unix does. csv.writer only quotes the characters of its own line end, and both must be quoted."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        self._out.write(line.removesuffix(_CRLF) + "\n")


def _escape_formula(value: object) -> str:
    text = as_text(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


def first_rows(result: QueryResult, limit: int) -> tuple[list[Sequence[Any]], bool]:
    """Up to `limit` rows, and whether there are more."""
    rows = list(itertools.islice(result.rows, limit + 1))
    return rows[:limit], len(rows) > limit
