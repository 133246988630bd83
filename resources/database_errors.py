"""Turns a driver's error into a message that says what is wrong with the database and what to do."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import duckdb
import psycopg
import sqlalchemy as sa
from psycopg import errors

from resources.file_errors import blocked, obstacle

URL_VARIABLE = "WAREHOUSE_URL"

# PostgreSQL's errors are matched by SQLSTATE: their text is in the server's language.
# The second is that of an unlogged table, such as api_pace, on a replica.
_READ_ONLY = (errors.ReadOnlySqlTransaction.sqlstate, errors.FeatureNotSupported.sqlstate)
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
# DuckDB's errors have neither code nor class for these; their text is always English.
_DAMAGED = re.compile(
    "Corrupt|Failed to deserialize|Serialization Error|Could not read enough|Input/output error|replaying WAL|"
    "INTERNAL Error"
)
_FATAL = "FATAL Error"
_CONFLICT = re.compile("TransactionContext Error: .*([Cc]onflict|duplicate key)")

reached: set[str] = set()
"""URLs to which this process has had a connection."""


class WarehouseError(Exception):
    """The database can't be opened or used. The message says why and what to do."""


class WarehouseLost(WarehouseError):
    """The connection or the transaction was cut off. None of it is stored; a retry may succeed."""


class WarehouseAway(WarehouseLost):
    """The server accepts no connection for now. `what` says so in a sentence, without the advice after it."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what} {advice}".rstrip())
        self.what = what


class WarehouseDamaged(WarehouseError):
    """Blocks of the file can't be read. The message says which copy still has the data and what to do."""


class WarehouseLocked(WarehouseError):
    """Another process keeps the database locked. The message says which process, where that is known."""


class Described(Protocol):
    """What the messages need to know about a database."""

    @property
    def url(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def is_file(self) -> bool: ...
    @property
    def is_duckdb(self) -> bool: ...
    @property
    def lock_timeout_seconds(self) -> float: ...
    @property
    def tell(self) -> Callable[[str], None] | None: ...


def explain_if_about_database(
    database: Described, error: Exception, *, read_only: bool = False
) -> WarehouseError | None:
    """The error to raise for a driver's or SQLAlchemy's error; None if that is about the SQL alone."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    if state == errors.ReadOnlySqlTransaction.sqlstate:
        is_about_database = not read_only  # if read-only, the caller's own SQL tried to write
    else:
        is_about_database = (
            isinstance(original, duckdb.OperationalError | duckdb.InternalError | psycopg.OperationalError)
            or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)
            or state in (*_REFUSED, *_BUSY, *_CUT_OFF)
            or (database.is_duckdb and _FATAL in str(original))
        )
    return explain(database, error, read_only=read_only) if is_about_database else None


def explain(database: Described, error: Exception, *, read_only: bool = False) -> WarehouseError:
    """The error to raise for one that the database, or a file operation on it, raised."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    text = " ".join(str(original).split()) or type(original).__name__
    short = shorten(text).rstrip(".?")
    state = getattr(original, "sqlstate", None) or ""
    user = sa.make_url(database.url).username
    if "Could not set lock" in text or state == errors.LockNotAvailable.sqlstate:
        holder = re.search(r"held in (.+?) \(PID (\d+)\)", text)
        return locked_by(
            database, f"process {holder[2]} ({holder[1]})" if holder else "", database.lock_timeout_seconds
        )
    if "not a valid DuckDB database file" in text:
        return WarehouseError(
            f"{database.name} is not a DuckDB file. Set {URL_VARIABLE} to another path, or move that file away. "
            "If it was your warehouse, run: devin-sessions restore"
        )
    if "No space left" in text or state == errors.DiskFull.sqlstate:
        return WarehouseError(
            f"The disk of the warehouse {database.name} is full. What was being written is not stored; "
            "everything before it is. Free some space and run the same command again."
        )
    if database.is_file and (why := _file_error(database, error, read_only=read_only)):
        found = obstacle(why, database.path)
        return WarehouseError(
            f"The warehouse {database.name} cannot be opened: {found.why}. {found.fix} and run the same command "
            f"again, or set {URL_VARIABLE} to another path."
        )
    if database.is_file and _DAMAGED.search(text):
        return WarehouseDamaged(
            f"The DuckDB file {database.name} is damaged ({short}). What was being written is not stored. {RESTORE}"
        )
    # libpq gives no SQLSTATE for a connection that was refused.
    if state == errors.InvalidPassword.sqlstate or "password authentication failed" in text:
        return WarehouseError(
            f"The warehouse {database.name} refuses user {user} with this password. Check {URL_VARIABLE}."
        )
    if state in _REFUSED:
        return WarehouseError(
            f"The warehouse {database.name} refuses user {user}: {short}. Grant it the writer's permissions; "
            "docs/postgresql-roles.sql shows how."
        )
    if state in _READ_ONLY:
        return WarehouseError(
            f"The warehouse {database.name} accepts no writes: {short}. It is a replica, or an administrator has "
            f"stopped writes. Set {URL_VARIABLE} to the server that accepts them, or run the same command again once "
            "they are allowed. Everything that was stored is kept."
        )
    if state in _BUSY or (database.is_duckdb and _CONFLICT.search(text)):
        return WarehouseLost(
            f"Other transactions kept conflicting in the warehouse {database.name}: {short}. What was being "
            "written is not stored; everything before it is. Run the same command again."
        )
    if _is_turned_away(database, original):
        return WarehouseAway(
            f"The warehouse {database.name} accepts no connection now: {short}.",
            "What was being written is not stored; everything before it is. Run the same command again once it accepts "
            "connections.",
        )
    is_invalidated = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    if is_invalidated or state in _CUT_OFF or state.startswith(_CONNECTION) or _is_cut(database, original):
        return WarehouseLost(
            f"The connection to the warehouse {database.name} was lost: {short}. What was being written is "
            "not stored; everything before it is. Run the same command again once it is back."
        )
    return WarehouseError(f"The warehouse {database.name} cannot be opened: {short}. Check {URL_VARIABLE}.")


def locked_by(database: Described, holder: str, seconds: float) -> WarehouseLocked:
    """The error after `seconds` of waiting in vain for `holder`, which is empty if nobody is known to be it."""
    fix = (
        "Close whatever has it open (a DuckDB shell, a notebook, another run) and run the same command again."
        if database.is_duckdb
        else "What was being written is not stored; everything before it is. Run the same command again "
        "once that has ended its transaction, or end that one first."
    )
    return WarehouseLocked(
        f"The warehouse {database.name} is locked by {holder or 'another process'}, and still was after {seconds:g} s. "
        f"{fix}"
    )


def _file_error(database: Described, error: Exception, *, read_only: bool) -> OSError | None:
    """What keeps this process from the file, or from its write-ahead log: DuckDB's errors have no code for it."""
    if isinstance(error, OSError):
        return error
    files = database.path, database.path.with_name(f"{database.path.name}.wal")
    return next((found for file in files if (found := blocked(file, writing=not read_only))), None)


def _is_turned_away(database: Described, error: BaseException | None) -> bool:
    """Whether a server that this process reached earlier, so its address is right, refuses a connection now."""
    is_about_password = "no password supplied" in str(error)  # libpq gives no SQLSTATE for either
    is_refused = isinstance(error, psycopg.OperationalError) and error.pgconn is not None and error.sqlstate is None
    return is_refused and not is_about_password and database.url in reached


def _is_cut(database: Described, error: BaseException | None) -> bool:
    """Whether the server was reached earlier, and is gone without a word."""
    is_silent = isinstance(error, psycopg.OperationalError) and error.pgconn is None and error.sqlstate is None
    return is_silent and database.url in reached


RESTORE = "To rebuild it, run: devin-sessions restore"


def shorten(text: str) -> str:
    return textwrap.shorten(text, 300, placeholder=" …")
