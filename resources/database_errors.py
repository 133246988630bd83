"""What a driver's error says about the database, in sentences that say what to do."""

import re
import textwrap
from typing import Protocol

import duckdb
import psycopg
import sqlalchemy as sa
from psycopg import errors

URL_VARIABLE = "WAREHOUSE_URL"

# PostgreSQL's errors go by their SQLSTATE: their words are in the language of the server.
_REFUSED = (errors.InsufficientPrivilege.sqlstate, errors.InvalidSchemaName.sqlstate)
_BUSY = (errors.SerializationFailure.sqlstate, errors.DeadlockDetected.sqlstate)
_CUT_OFF = (
    errors.AdminShutdown.sqlstate,
    errors.CrashShutdown.sqlstate,
    errors.CannotConnectNow.sqlstate,
    errors.IdleSessionTimeout.sqlstate,
    errors.IdleInTransactionSessionTimeout.sqlstate,
)
_CONNECTION = "08"  # the class of SQLSTATEs about connections
# DuckDB's errors have neither code nor class for these; their words are always English.
_DAMAGED = re.compile(
    "Corrupt|Failed to deserialize|Serialization Error|Could not read enough|Input/output error|replaying WAL|"
    "INTERNAL Error"
)
_FATAL = "FATAL Error"

reached: set[str] = set()
"""Addresses at which this process has had a connection."""


class WarehouseError(Exception):
    """The database can't be opened or used. The message says why and what to do."""


class WarehouseLost(WarehouseError):
    """The connection, or the transaction, was cut off: the same again may go well. Nothing of it is stored."""


class WarehouseDamaged(WarehouseError):
    """Blocks of the file can't be read. The message says what keeps its data and what to do."""


class WarehouseLocked(WarehouseError):
    """Another process keeps the database locked. The message says which, where that is known."""


class Described(Protocol):
    """What the sentences need to know of a database."""

    @property
    def url(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def is_file(self) -> bool: ...
    @property
    def is_duckdb(self) -> bool: ...
    @property
    def lock_timeout_seconds(self) -> float: ...


def explained(database: Described, error: Exception, *, read_only: bool = False) -> WarehouseError | None:
    """What a driver's or SQLAlchemy's error says about the database; None if it is about the SQL alone."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    if state == errors.ReadOnlySqlTransaction.sqlstate:
        is_about_database = not read_only  # else the caller's own SQL tried to write
    else:
        is_about_database = (
            isinstance(original, duckdb.OperationalError | duckdb.InternalError | psycopg.OperationalError)
            or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)
            or state in (*_REFUSED, *_BUSY, *_CUT_OFF)
            or (database.is_duckdb and _FATAL in str(original))
        )
    return explain(database, error) if is_about_database else None


def explain(database: Described, error: Exception) -> WarehouseError:
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    said = " ".join(str(original).split()) or type(original).__name__
    short = shortened(said)
    state = getattr(original, "sqlstate", None) or ""
    user = sa.make_url(database.url).username
    holder = re.search(r"held in (.+?) \(PID (\d+)\)", said)
    who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
    if "Could not set lock" in said or state == errors.LockNotAvailable.sqlstate:
        return WarehouseLocked(
            f"The warehouse {database.name} is locked by {who}, and stayed so for {database.lock_timeout_seconds:g} s. "
            "Close what has it open (a DuckDB shell, a notebook, another run) and run the same again."
        )
    if "not a valid DuckDB database file" in said:
        return WarehouseError(
            f"{database.name} is not a DuckDB file. Set {URL_VARIABLE} to another path, or move that file away. "
            "If it was your warehouse: devin-sessions restore"
        )
    if "No space left" in said or state == errors.DiskFull.sqlstate:
        return WarehouseError(
            f"The disk of the warehouse {database.name} is full. What was being stored is not stored, everything "
            "before it is. Make room and run the same again."
        )
    if database.is_file and _DAMAGED.search(said):
        return WarehouseDamaged(
            f"The DuckDB file {database.name} is damaged ({short}). What was being stored is not stored. {RESTORE}"
        )
    # libpq gives no SQLSTATE for a connection that was refused.
    if state == errors.InvalidPassword.sqlstate or "password authentication failed" in said:
        return WarehouseError(
            f"The warehouse {database.name} refuses user {user} with this password. Check {URL_VARIABLE}."
        )
    if state in _REFUSED:
        return WarehouseError(
            f"The warehouse {database.name} refuses user {user}: {short}. Give it the rights of a writer; "
            "docs/postgresql-roles.sql says how."
        )
    if state in _BUSY:
        return WarehouseLost(
            f"Another transaction kept getting in the way in the warehouse {database.name}: {short}. What was being "
            "stored is not stored, everything before it is. Run the same command again."
        )
    is_invalidated = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    if is_invalidated or state in _CUT_OFF or state.startswith(_CONNECTION) or _is_gone(database, original):
        return WarehouseLost(
            f"The connection to the warehouse {database.name} was lost: {short} What was being stored is not "
            "stored, everything before it is. Run the same again once it is back."
        )
    return WarehouseError(f"The warehouse {database.name} cannot be opened: {short}. Check {URL_VARIABLE}.")


def _is_gone(database: Described, error: BaseException | None) -> bool:
    """Whether a server that this process has reached before takes no connection now: its address is right."""
    is_about_password = "no password supplied" in str(error)  # libpq gives no SQLSTATE for either
    is_refused = isinstance(error, psycopg.OperationalError) and error.sqlstate is None and not is_about_password
    return is_refused and database.url in reached


RESTORE = "To rebuild it: devin-sessions restore"


def shortened(said: str) -> str:
    return textwrap.shorten(said, 300, placeholder=" …")
