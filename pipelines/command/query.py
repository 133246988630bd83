"""`devin-sessions query`: runs one read-only statement, and fetches its rows as they are shown or written."""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import sqlalchemy as sa

from pipelines.command import query_duckdb, query_postgresql
from pipelines.command.exit_codes import WrongUse
from pipelines.command.query_result import QueryRefused, QueryResult
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import WarehouseDamaged, WarehouseLost, explain_if_about_database
from warehouse.snapshot import find_bookkeeping

# With these roles, a statement can run programs or access files on the server, even in a read-only transaction.
_PRIVILEGED_ROLES = "pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"


class NothingPublished(Exception):
    """There is no snapshot to query yet. The message says how to get one."""


def read_sql(sql: str, file: Path | None) -> str:
    """The SQL that was given: `sql`, or the text of `file`, or for "-" what standard input has. Raises WrongUse."""
    if file and sql != "-":
        raise WrongUse("Give either SQL or --file, not both.")
    where = str(file) if file else "Standard input" if sql == "-" else "The SQL"
    try:
        text = _read(file).decode("utf-8-sig") if sql == "-" else sql
        text.encode()  # an argument that is not UTF-8 has characters that no database takes
    except OSError as error:
        raise WrongUse(f"{where} cannot be read: {error.strerror or error}.") from None
    except UnicodeError:
        raise WrongUse(f"{where} is not text in UTF-8. Save it as UTF-8.") from None
    if "\0" in text:
        raise WrongUse(f"{where} has a NUL byte, at which a database would end the SQL. Remove it.")
    if not text.strip():
        raise WrongUse(f'{where} is empty. Give a query, such as "select * from weekly_sessions".')
    return text


def _read(file: Path | None) -> bytes:
    if file:
        return file.read_bytes()
    if sys.stdin is None or sys.stdin.isatty():
        raise WrongUse('Give the SQL, such as "select * from weekly_sessions", or a file that has it: --file FILE')
    return sys.stdin.buffer.read()


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
            driver: Any = connection.connection.driver_connection
            if database.is_duckdb:
                yield query_duckdb.run(driver, sql)
            else:
                _refuse_privileged_user(connection)
                yield query_postgresql.run(driver, sql)
        except (sa.exc.DBAPIError, psycopg.Error, duckdb.Error) as error:
            about_database = explain_if_about_database(database, error, read_only=True)
            if isinstance(about_database, WarehouseLost | WarehouseDamaged):  # the others are about what writers need
                raise about_database from None
            original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise QueryRefused(f"The database refuses this SQL: {query_duckdb.without_cast(original)}") from None


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


def first_rows(result: QueryResult, limit: int) -> tuple[list[list[int | str | None]], bool]:
    """Up to `limit` rows, integers as numbers and all else as text, and whether there are more."""
    with contextlib.closing(result.texts()) as texts:
        rows = list(itertools.islice(texts, limit + 1))
    is_integer = [kind == "integer" for kind in result.kinds]
    shown = [
        [int(value) if value and whole else value for value, whole in zip(row, is_integer, strict=True)]
        for row in rows[:limit]
    ]
    return shown, len(rows) > limit
