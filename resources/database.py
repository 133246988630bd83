"""The warehouse's database: one transaction at a time, and sentences for what can go wrong with it.

What is stored there is the business of `warehouse`.
"""

import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import psycopg
import sqlalchemy as sa
import tenacity
from psycopg import errors

from resources.addresses import is_loopback
from resources.files import replacing
from resources.intact import read_through

URL_VARIABLE = "WAREHOUSE_URL"
HIDDEN = "***"
OLDEST_POSTGRESQL = (14,)
# Any number will do, as long as every writer takes the same: "devins" in ASCII.
_WRITERS_LOCK = 0x646576696E73


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
_BYTES_OF_HEADERS = 3 * 4096  # a DuckDB file without a table has as many
_TOKENS = ("MOTHERDUCK_TOKEN", "motherduck_token")
_TRIES, _MOST_SECONDS_BETWEEN = 6, 8.0  # of one write: 20 s, in which a server that is restarted is there again

_Result = TypeVar("_Result")
_reached: set[str] = set()  # addresses at which this process has had a connection


class WarehouseUnusable(Exception):
    """The database can't be opened or used. The message says why and what to do."""


class WarehouseLost(WarehouseUnusable):
    """The connection, or the transaction, was cut off: the same again may go well. Nothing of it is stored."""


class WarehouseDamaged(WarehouseUnusable):
    """Blocks of the file can't be read. The message says what keeps its data and what to do."""


class WarehouseLocked(WarehouseUnusable):
    """Another process keeps the database locked. The message says which, where that is known."""


def is_on_this_machine(url: sa.URL) -> bool:
    """Whether the server can be reached only through a socket or the loopback interface."""
    if "service" in url.query or os.environ.get("PGSERVICE"):
        return False  # a file says where
    told = url.normalized_query
    hosts = [url.host or "", *told.get("host", ())]
    if not any(hosts):
        hosts = [os.environ.get("PGHOST", "")]
    hosts += told.get("hostaddr") or [os.environ.get("PGHOSTADDR", "")]
    names = ",".join(hosts).split(",")
    return all(not name or name.startswith(("/", "@")) or is_loopback(name) for name in names)


@dataclass(frozen=True)
class Database:
    """A DuckDB file, a database of MotherDuck or one of PostgreSQL.

    `url` is duckdb:///path/to/file.duckdb, duckdb:///md:name or postgresql+psycopg://user:***@host/database. Where the
    password is ***, the one of WAREHOUSE_URL in the environment is used, if that is the same address.
    One transaction writes at a time; others wait, for `lock_timeout_seconds` at most. On a file readers wait as well,
    so keep transactions short.
    """

    url: str = field(repr=False)  # a caller's own may hold a password
    lock_timeout_seconds: float = 30.0

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[sa.Connection]:
        """A connection whose changes are kept if the block ends, and undone if it raises.

        Makes a file (mode 0600) and its folder (0700) if need be, unless `read_only`, which also denies SQL any other
        file. Raises WarehouseUnusable, also for what happens to the database within the block.
        """
        is_new = self.is_file and not read_only and self._make_room()
        try:
            connected = self._connected(self._engine(read_only))
        except WarehouseUnusable as error:
            # If it is locked, another process has just made it.
            if is_new and not isinstance(error, WarehouseLocked) and self._removed_what_is_no_database():
                raise WarehouseUnusable(
                    f"The warehouse {self.path} could not be created: there is no room on its disk, or the disk fails. "
                    "Nothing is stored yet. Make room and run the same command again."
                ) from error
            raise
        with connected as connection:
            if is_new:
                self.path.chmod(0o600)
            try:
                with connection.begin():
                    self._prepare(connection, read_only)
                    yield connection
            except (sa.exc.DBAPIError, psycopg.Error, duckdb.Error) as error:
                if unusable := self.explained(error, read_only=read_only):
                    raise unusable from None
                raise
            except RuntimeError as error:
                # DuckDB wraps what a signal's handler raises in the middle of a query.
                if error.__cause__ and not isinstance(error.__cause__, Exception):
                    raise error.__cause__ from None
                raise

    def write(self, function: Callable[[sa.Connection], _Result]) -> _Result:
        """What `function` returns, called with the connection of a `transaction`.

        If the connection is lost, or another transaction is in the way, it is all undone and `function` is called again
        a little later, up to six times in all; what it does must depend on nothing but the database and what it was
        given. Raises WarehouseUnusable.
        """
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(WarehouseLost),
            wait=tenacity.wait_random_exponential(0.5, _MOST_SECONDS_BETWEEN),
            stop=tenacity.stop_after_attempt(_TRIES),
            reraise=True,
        )
        result: _Result = tries(self._written, function)
        return result

    def _written(self, function: Callable[[sa.Connection], _Result]) -> _Result:
        with self.transaction() as connection:
            return function(connection)

    @staticmethod
    def url_of(path: Path) -> str:
        """The URL of a DuckDB file."""
        return sa.URL.create("duckdb", database=str(path)).render_as_string()

    @property
    def is_file(self) -> bool:
        """Whether it is a file on this machine, and not on a server."""
        return self.is_duckdb and not str(sa.make_url(self.url).database).startswith(("md:", "motherduck:"))

    @property
    def path(self) -> Path:
        """The database file, if it is one."""
        return Path(sa.make_url(self.url).database or "")

    @property
    def is_duckdb(self) -> bool:
        """Whether it is DuckDB, on this machine or at MotherDuck."""
        return sa.make_url(self.url).drivername == "duckdb"

    @property
    def name(self) -> str:
        """The database in a sentence: its file, or its server and name. Never the password."""
        url = sa.make_url(self.url)
        if self.is_duckdb:
            return str(url.database)
        return str(sa.URL.create(url.drivername, host=url.host, port=url.port, database=url.database))

    def copy_to(self, target: Path) -> None:
        """Copy the file, checkpointed, to `target`, by an atomic replace: whoever has the old copy open keeps it.

        No transaction writes while it is copied. The copy is read through before it replaces the old one. Raises
        WarehouseUnusable, or WarehouseDamaged if it can't be read; then the old copy is left as it was.
        """
        try:
            with replacing(target) as to:
                with self._connected(self._engine(read_only=False)) as connection:
                    connection.exec_driver_sql("checkpoint")
                    with self.path.open("rb") as source:
                        shutil.copyfileobj(source, to, 4 * 1024 * 1024)
                to.flush()
                if why := read_through(Path(to.name)).why:
                    raise WarehouseDamaged(
                        f"The warehouse file {self.path} is damaged ({_shortened(why)}): a copy of it can't be read "
                        f"whole. The last published copy, {target}, is kept. {_RESTORE}"
                    )
        except sa.exc.DBAPIError as error:
            raise self._explained(error) from None
        except OSError as error:
            raise WarehouseUnusable(
                f"The snapshot {target} could not be written: {error.strerror}. The last one is kept. "
                "Mend that (a full disk? rights?) and run the same again."
            ) from None

    def _engine(self, read_only: bool) -> sa.Engine:
        url = sa.make_url(self.url)
        options: dict[str, Any] = {}
        if self.is_file:
            options["read_only"] = read_only
            # Nothing is fetched: DuckDB would look for an extension to open a file of SQLite, say.
            options["config"] = {"autoinstall_known_extensions": "false"}
            if read_only:
                options["config"]["enable_external_access"] = "false"
        elif not (is_the_environments := _is_the_environments(url)):
            self._refuse_secrets()
        if not self.is_duckdb:
            if url.password == HIDDEN:
                url = url.set(password=sa.make_url(os.environ[URL_VARIABLE]).password)
            if not is_the_environments:
                options["passfile"] = f"{os.devnull}/none"  # a line of ~/.pgpass may be for every host
            if "sslmode" not in url.query and not is_on_this_machine(url):
                options["sslmode"] = "require"  # the driver's own default falls back to no encryption
            milliseconds = max(1, int(self.lock_timeout_seconds * 1000))  # 0 would mean to wait for ever
            options["options"] = f"-c lock_timeout={milliseconds}"
            if read_only:
                options["prepare_threshold"] = 0  # one statement at a time: none can end the transaction for the next
            options["application_name"] = "devin-sessions"
            options["connect_timeout"] = 10
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args=options)

    def _refuse_secrets(self) -> None:
        """Raise WarehouseUnusable if a secret of the environment, which is for its own server, would be sent to this.

        No caller can release it: it comes from the environment, so its address does too.
        """
        url = sa.make_url(self.url)
        secret = _secret_for(url)
        if secret is None:
            return
        if url.password == HIDDEN and not os.environ.get(URL_VARIABLE):
            raise WarehouseUnusable(
                f"The password of the warehouse {self.name} is not known: set {URL_VARIABLE} in the environment of "
                "every process that runs the job."
            )
        raise WarehouseUnusable(
            f"Not connected to {_with_user(self.url)}: the secret in {secret} is sent to "
            f"{_with_user(os.environ.get(URL_VARIABLE, ''))} alone. If the first is the right warehouse, set "
            f"{URL_VARIABLE} to it, with the same user, server, port, database and options, in the environment of "
            "every process that runs the job."
        )

    def _prepare(self, connection: sa.Connection, read_only: bool) -> None:
        connection.execute(sa.text("set time zone 'UTC'"))
        if self.is_duckdb:
            return
        if read_only:
            connection.execute(sa.text("set transaction read only"))
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS_LOCK)))

    def _make_room(self) -> bool:
        """Make the folder if need be. Returns whether the file is still to be made."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise WarehouseUnusable(
                f"The folder {self.path.parent} cannot be made: {error.strerror}. Check its rights, or {URL_VARIABLE}."
            ) from None
        return not self.path.exists()

    def _removed_what_is_no_database(self) -> bool:
        """Remove what DuckDB leaves of a file that it had no room to make, and would refuse for ever."""
        if not self.path.exists() or self.path.stat().st_size >= _BYTES_OF_HEADERS:
            return False
        self.path.unlink()
        return True

    def _connected(self, engine: sa.Engine) -> sa.Connection:
        def is_locked(error: BaseException) -> bool:
            return isinstance(error, sa.exc.DBAPIError) and "Could not set lock" in str(error)

        try:
            connection = tenacity.Retrying(
                retry=tenacity.retry_if_exception(is_locked),
                wait=tenacity.wait_random_exponential(0.02, 0.5),
                stop=tenacity.stop_after_delay(self.lock_timeout_seconds),
                reraise=True,
            )(engine.connect)
        except sa.exc.DBAPIError as error:
            raise self._explained(error) from None
        _reached.add(self.url)
        version = connection.dialect.server_version_info if not self.is_duckdb else None
        if version is not None and version < OLDEST_POSTGRESQL:
            connection.close()
            raise WarehouseUnusable(
                f"The warehouse {self.name} is PostgreSQL {version[0]}, and {OLDEST_POSTGRESQL[0]} is the oldest that "
                f"works. Update it, or set {URL_VARIABLE} to another."
            )
        return connection

    def explained(self, error: Exception, *, read_only: bool = False) -> WarehouseUnusable | None:
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
                or (self.is_duckdb and _FATAL in str(original))
            )
        return self._explained(error) if is_about_database else None

    def _explained(self, error: Exception) -> WarehouseUnusable:
        original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        said = " ".join(str(original).split()) or type(original).__name__
        short = _shortened(said)
        state = getattr(original, "sqlstate", None) or ""
        user = sa.make_url(self.url).username
        holder = re.search(r"held in (.+?) \(PID (\d+)\)", said)
        who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
        if "Could not set lock" in said or state == errors.LockNotAvailable.sqlstate:
            return WarehouseLocked(
                f"The warehouse {self.name} is locked by {who}, and stayed so for {self.lock_timeout_seconds:g} s. "
                "Close what has it open (a DuckDB shell, a notebook, another run) and run the same again."
            )
        if "not a valid DuckDB database file" in said:
            return WarehouseUnusable(
                f"{self.name} is not a DuckDB file. Set {URL_VARIABLE} to another path, or move that file away. "
                "If it was your warehouse: devin-sessions restore"
            )
        if "No space left" in said or state == errors.DiskFull.sqlstate:
            return WarehouseUnusable(
                f"The disk of the warehouse {self.name} is full. What was being stored is not stored, everything "
                "before it is. Make room and run the same again."
            )
        if self.is_file and _DAMAGED.search(said):
            return WarehouseDamaged(
                f"The DuckDB file {self.name} is damaged ({short}). What was being stored is not stored. {_RESTORE}"
            )
        # libpq gives no SQLSTATE for a connection that was refused.
        if state == errors.InvalidPassword.sqlstate or "password authentication failed" in said:
            return WarehouseUnusable(
                f"The warehouse {self.name} refuses user {user} with this password. Check {URL_VARIABLE}."
            )
        if state in _REFUSED:
            return WarehouseUnusable(
                f"The warehouse {self.name} refuses user {user}: {short}. Give it the rights of a writer; "
                "docs/postgresql-roles.sql says how."
            )
        if state in _BUSY:
            return WarehouseLost(
                f"Another transaction kept getting in the way in the warehouse {self.name}: {short}. What was being "
                "stored is not stored, everything before it is. Run the same command again."
            )
        is_invalidated = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
        if is_invalidated or state in _CUT_OFF or state.startswith(_CONNECTION) or self._is_gone(original):
            return WarehouseLost(
                f"The connection to the warehouse {self.name} was lost: {short} What was being stored is not "
                "stored, everything before it is. Run the same again once it is back."
            )
        return WarehouseUnusable(f"The warehouse {self.name} cannot be opened: {short}. Check {URL_VARIABLE}.")

    def _is_gone(self, error: BaseException | None) -> bool:
        """Whether a server that this process has reached before takes no connection now: its address is right."""
        is_about_password = "no password supplied" in str(error)  # libpq gives no SQLSTATE for either
        is_refused = isinstance(error, psycopg.OperationalError) and error.sqlstate is None and not is_about_password
        return is_refused and self.url in _reached


def _is_the_environments(url: sa.URL) -> bool:
    """Whether this is the address in WAREHOUSE_URL: the same in every part but the password.

    The options count too: host, hostaddr, port, service and sslmode say where a password goes, and how safely.
    """
    try:
        # As the settings have it, from where callers have it.
        own = sa.make_url(sa.make_url(os.environ.get(URL_VARIABLE, "")).render_as_string(hide_password=True))
    except sa.exc.ArgumentError:
        return False
    return url.set(password=HIDDEN) == own.set(password=HIDDEN)


def _secret_for(url: sa.URL) -> str | None:
    """Where in the environment the secret is that connecting to this server would send; None if none would be sent."""
    names: tuple[str, ...]
    if url.drivername == "duckdb":
        names = _TOKENS
    elif url.password == HIDDEN:
        return URL_VARIABLE
    elif "service" in url.query:
        return f"the service {url.query['service']}"
    else:
        names = ("PGSERVICE",) if url.password else ("PGSERVICE", "PGPASSWORD")
    return next((name for name in names if os.environ.get(name)), None)


def _with_user(address: str) -> str:
    """The address without its password and options."""
    try:
        url = sa.make_url(address)
    except sa.exc.ArgumentError:
        return f"the address in {URL_VARIABLE}"
    return sa.URL.create(
        url.drivername, url.username, host=url.host, port=url.port, database=url.database
    ).render_as_string()


_RESTORE = "To rebuild it: devin-sessions restore"


def _shortened(said: str) -> str:
    return textwrap.shorten(said, 300, placeholder=" …")
