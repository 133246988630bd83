"""What `devin-sessions query` answers: one statement, read-only, fetched only as far as it is shown."""

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

# What lets a statement run programs or touch files on the server, even in a read-only transaction.
_POWERS = "pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"
_ROWS_A_FETCH = 1_000
# What a spreadsheet takes for the beginning of a formula.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


class Refused(Exception):
    """The statement was not answered. The message says why and what to do; `is_for_later`: it may be another time."""

    def __init__(self, message: str, *, is_for_later: bool = False) -> None:
        super().__init__(message)
        self.is_for_later = is_for_later


@dataclass(frozen=True)
class Answer:
    """The names of the columns, and the rows as they come."""

    columns: Sequence[str]
    rows: Iterator[Sequence[Any]]


@contextlib.contextmanager
def answered(settings: Settings, sql: str) -> Iterator[Answer]:
    """Ask the published snapshot, or the warehouse on a server. Raises Refused and WarehouseError."""
    snapshot = settings.published_snapshot
    if snapshot and not snapshot.exists():
        raise Refused(
            f"There is no snapshot at {snapshot} yet. First load some days: devin-sessions backfill FIRST LAST",
            is_for_later=True,
        )
    database = Database(url=f"duckdb:///{snapshot}" if snapshot else settings.warehouse_url)
    with database.transaction(read_only=True) as connection:
        try:
            if not database.is_duckdb:
                _refuse_power(connection)
            ask = _of_duckdb if database.is_duckdb else _of_postgresql
            with contextlib.closing(ask(connection, sql)) as columns_and_rows:
                yield Answer(next(columns_and_rows), columns_and_rows)
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            about_database = explain_if_about_database(database, error, read_only=True)
            if isinstance(about_database, WarehouseLost | WarehouseDamaged):  # the others are about what writers need
                raise about_database from None
            original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise Refused(f"The database refuses this SQL: {original}") from None


def _of_duckdb(connection: sa.Connection, sql: str) -> Generator[Any]:
    """First the names of the columns, then the rows as they are fetched."""
    # Closed before the transaction ends, or else DuckDB first computes what nobody fetched.
    with contextlib.closing(connection.exec_driver_sql(sql)) as result:
        if not result.returns_rows:
            raise Refused(_NO_ROWS)
        yield list(result.keys())
        for part in result.partitions(_ROWS_A_FETCH):
            yield from part


def _of_postgresql(connection: sa.Connection, sql: str) -> Generator[Any]:
    """First the names of the columns, then the rows as they are fetched: without a stream, all before the first."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor:
        size = _ROWS_A_FETCH if psycopg.capabilities.has_stream_chunked() else 1
        rows = cursor.stream(sql.encode(), size=size)
        with contextlib.closing(cast(Generator[Any], rows)):
            first = next(rows, None)
            if cursor.description is None:
                raise Refused(_NO_ROWS)
            yield [column.name for column in cursor.description]
            if first is not None:
                yield first
                yield from rows


def _refuse_power(connection: sa.Connection) -> None:
    role = sa.func.session_user()
    is_superuser = "select rolsuper from pg_catalog.pg_roles where rolname = session_user"
    held = [name for name in _POWERS if connection.scalar(sa.select(sa.func.pg_has_role(role, name, "member")))]
    if connection.scalar(sa.text(is_superuser)):
        held = ["superuser"]
    if held:
        user = connection.scalar(sa.text("select session_user"))
        raise Refused(
            f"The database user {user} is refused for queries: as {' and '.join(held)} a statement could run programs "
            "or touch files on the server, also where it can change no table. Ask as a user who may only read: "
            "docs/postgresql-roles.sql makes one."
        )


_NO_ROWS = "This SQL answers with no rows at all. Ask for some, as with select."


def write_csv(answer: Answer, *, for_people: bool) -> None:
    """Write it to standard output, in UTF-8. `for_people`: so that a spreadsheet shows it as it is, and runs nothing.

    That is a byte order mark, and an apostrophe before text that would else be a formula.
    """
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8")
    if for_people:
        out.write("\ufeff")
    writer = csv.writer(_Lines(out), lineterminator=_ANY_END)
    cells = _defused if for_people else as_text
    writer.writerow(map(cells, answer.columns))
    for row in answer.rows:
        writer.writerow(map(cells, row))
    out.flush()


_ANY_END = "\r\n"


class _Lines:
    """Ends each line as Unix does. The writer quotes what looks like its own end of a line, and both must be quoted."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        self._out.write(line.removesuffix(_ANY_END) + "\n")


def _defused(value: object) -> str:
    text = as_text(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULAS) else text


def first_rows(answer: Answer, most: int) -> tuple[list[Sequence[Any]], bool]:
    """The first rows, and whether there are more."""
    found = list(itertools.islice(answer.rows, most + 1))
    return found[:most], len(found) > most
