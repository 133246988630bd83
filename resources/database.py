"""The warehouse's database: one transaction at a time, and sentences for what can go wrong with it.

What is stored there is the business of `warehouse`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import psycopg
import sqlalchemy as sa
import tenacity

from resources.database_errors import (
    RESTORE,
    URL_VARIABLE,
    WarehouseDamaged,
    WarehouseError,
    WarehouseLocked,
    WarehouseLost,
    explain,
    explained,
    reached,
    shortened,
)
from resources.database_secrets import HIDDEN, is_on_this_machine, is_the_environments, refuse_secrets
from resources.files import replacing
from resources.intact import read_through

OLDEST_POSTGRESQL = (14,)
# Any number will do, as long as every writer takes the same: "devins" in ASCII.
_WRITERS_LOCK = 0x646576696E73


_BYTES_OF_HEADERS = 3 * 4096  # a DuckDB file without a table has as many
_TRIES, _MOST_SECONDS_BETWEEN = 6, 8.0  # of one write: 20 s, in which a server that is restarted is there again

_Result = TypeVar("_Result")


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
        file. Raises WarehouseError, also for what happens to the database within the block.
        """
        is_new = self.is_file and not read_only and self._make_room()
        try:
            connected = self._connected(self._engine(read_only))
        except WarehouseError as error:
            # If it is locked, another process has just made it.
            if is_new and not isinstance(error, WarehouseLocked) and self._removed_what_is_no_database():
                raise WarehouseError(
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
                if unusable := explained(self, error, read_only=read_only):
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
        given. Raises WarehouseError.
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
        WarehouseError, or WarehouseDamaged if it can't be read; then the old copy is left as it was.
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
                        f"The warehouse file {self.path} is damaged ({shortened(why)}): a copy of it can't be read "
                        f"whole. The last published copy, {target}, is kept. {RESTORE}"
                    )
        except sa.exc.DBAPIError as error:
            raise explain(self, error) from None
        except OSError as error:
            raise WarehouseError(
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
        elif not (is_own := is_the_environments(url)):
            refuse_secrets(self.url, self.name)
        if not self.is_duckdb:
            if url.password == HIDDEN:
                url = url.set(password=sa.make_url(os.environ[URL_VARIABLE]).password)
            if not is_own:
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
            raise WarehouseError(
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
            raise explain(self, error) from None
        reached.add(self.url)
        version = connection.dialect.server_version_info if not self.is_duckdb else None
        if version is not None and version < OLDEST_POSTGRESQL:
            connection.close()
            raise WarehouseError(
                f"The warehouse {self.name} is PostgreSQL {version[0]}, and {OLDEST_POSTGRESQL[0]} is the oldest that "
                f"works. Update it, or set {URL_VARIABLE} to another."
            )
        return connection
