"""The warehouse's database: one transaction at a time, with a clear message for whatever can go wrong.

What is stored there is up to `warehouse`.
"""

import errno
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import duckdb
import psycopg
import sqlalchemy as sa
import tenacity

from resources import database_locks, database_schema, database_session
from resources.database_errors import (
    RESTORE,
    URL_VARIABLE,
    WarehouseDamaged,
    WarehouseError,
    WarehouseLocked,
    explain,
    explain_if_about_database,
    locked_by,
    reached,
    shorten,
)
from resources.database_secrets import is_from_environment, refuse_secrets, safe_options, with_password
from resources.engines import engine
from resources.file_errors import blocked, obstacle
from resources.files import replacing
from resources.first_contact import first_contact
from resources.intact import Reader
from resources.repeating import repeating

_BLOCK_BYTES = 4 * 1024 * 1024
_HEADER_BYTES = 3 * 4096  # the size of a DuckDB file without tables

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Database:
    """A DuckDB file, a MotherDuck database or a PostgreSQL database.

    `url` is duckdb:///path/to/file.duckdb, duckdb:///md:name or postgresql+psycopg://user:***@host/database. Where the
    password is ***, the one from WAREHOUSE_URL in the environment is used, if that has the same address.
    On PostgreSQL, everything is in `schema`; if that is empty, where the search_path of the user or the address says.
    A file is one process's at a time; others, readers too, wait up to `lock_timeout_seconds`: keep transactions short.
    On PostgreSQL, writers wait for each other up to `lock_patience_seconds`, and for what others lock as long as for a
    file; readers wait for no writer. MotherDuck keeps writers apart only by refusing changes of the same row.
    With `tell`, a server that is down at the first connection is waited for as at later ones, and `tell` hears of it.
    """

    url: str = field(repr=False)  # a URL given by a caller may hold a password
    lock_timeout_seconds: float = 30.0
    schema: str = ""
    lock_patience_seconds: float = 600.0
    tell: Callable[[str], None] | None = field(default=None, repr=False, compare=False)

    @contextmanager
    def transaction(self, *, read_only: bool = False, alone: bool = True) -> Iterator[sa.Connection]:
        """A connection whose changes are committed when the block ends and rolled back if it raises.

        Creates the file (mode 0600) and its directory (0700), or the schema, if needed, unless `read_only`, which also
        denies SQL access to any other file. On PostgreSQL no other transaction writes meanwhile, unless this one need
        not be `alone`: then it calls `lock_days` before it writes. Raises WarehouseError, also for failures within it.
        """
        is_new = self.is_file and not read_only and self._create_directory()
        try:
            connected = self._connect(read_only)
        except WarehouseError as error:
            # If it is locked, another process has just created it.
            if is_new and not isinstance(error, WarehouseLocked) and self._remove_partial_file():
                raise WarehouseError(
                    f"The warehouse {self.path} could not be created: its disk is full or failing. "
                    "Nothing is stored yet. Free some space and run the same command again."
                ) from error
            raise
        with connected as connection:
            if is_new:
                self.path.chmod(0o600)
            try:
                with connection.begin():
                    self._prepare(connection, read_only, alone=alone)
                    yield connection
            except (sa.exc.DBAPIError, psycopg.Error, duckdb.Error) as error:
                explanation = explain_if_about_database(self, error, read_only=read_only)
                if isinstance(explanation, WarehouseLocked):
                    explanation = self._locked(database_locks.waited_for(connection, self.lock_timeout_seconds))
                if explanation:
                    raise explanation from None
                raise
            except RuntimeError as error:  # DuckDB wraps what a signal handler raises in the middle of a query
                if error.__cause__ and not isinstance(error.__cause__, Exception):
                    raise error.__cause__ from None
                raise

    def lock_days(self, connection: sa.Connection, days: Collection[date]) -> None:
        """Wait until nobody else writes these days, or everything, and keep others from it in this transaction."""
        if not self.is_duckdb:
            database_locks.lock_days(connection, days, self._limits)

    def write(self, function: Callable[[sa.Connection], _Result], *, alone: bool = True) -> _Result:
        """Return what `function` returns when called with the connection of a `transaction`, which may not be `alone`.

        If the connection is lost or another transaction conflicts, everything is rolled back and `function` is called
        again after a short wait, for `lock_timeout_seconds` and at least five times. What it does must depend only on
        the database and its arguments. Raises WarehouseError.
        """

        def once() -> _Result:
            with self.transaction(alone=alone) as connection:
                return function(connection)

        result: _Result = repeating(tenacity.Retrying, self)(once)
        return result

    def _locked(self, wait: database_locks.Wait) -> WarehouseLocked:
        """The error after a transaction on PostgreSQL waited in vain."""
        holder = ""
        with suppress(WarehouseError), self.transaction(read_only=True) as connection:
            holder = database_locks.holder(connection, wait)
        return locked_by(self, holder, wait.seconds)

    @staticmethod
    def url_of(path: Path) -> str:
        """The URL of a DuckDB file."""
        return sa.URL.create("duckdb", database=str(path)).render_as_string()

    @property
    def is_file(self) -> bool:
        """Whether it is a file on this machine rather than a database on a server."""
        return self.is_duckdb and not str(sa.make_url(self.url).database).startswith(("md:", "motherduck:"))

    @property
    def path(self) -> Path:
        """The database file, where `is_file`."""
        return Path(sa.make_url(self.url).database or "")

    def exists(self) -> bool:
        """Whether the file is there, where `is_file`. Raises WarehouseError if something else is, or is in the way."""
        if error := blocked(self.path, writing=False):
            raise explain(self, error)
        return self.path.exists()

    @property
    def is_duckdb(self) -> bool:
        """Whether it is DuckDB, on this machine or at MotherDuck."""
        return sa.make_url(self.url).drivername == "duckdb"

    @property
    def name(self) -> str:
        """The database as a message shows it: its file, or its server, name and schema. Never the password."""
        url = sa.make_url(self.url)
        if self.is_duckdb:
            return str(url.database)
        address = sa.URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
        return f"{address} (schema {self.schema})" if self.schema else str(address)

    def copy_to(self, target: Path, arrange: Callable[[sa.Connection, Path], None] | None = None) -> None:
        """Checkpoint the file and copy it to `target`, replaced atomically: readers of the old copy keep it.

        No transaction writes during the copy. The copy is read in full before it replaces the old one. If given,
        `arrange` then fills a new file, by its connection, from the copy, and that file becomes `target`. Raises
        WarehouseError, or WarehouseDamaged if the copy can't be read; the old copy then stays as it was.
        """
        try:
            with Reader() as reader, replacing(target) as to:
                with self._connect(read_only=False) as connection:
                    connection.exec_driver_sql("checkpoint")
                    for block in self._blocks(target):
                        to.write(block)
                to.flush()
                if why := reader.read(Path(to.name)).why:
                    raise WarehouseDamaged(
                        f"The warehouse file {self.path} is damaged ({shorten(why)}): a copy of it cannot be read "
                        f"in full. The last published copy, {target}, is kept. {RESTORE}"
                    )
                if arrange:
                    self._arrange(to, target, arrange, reader)
        except sa.exc.DBAPIError as error:
            raise explain(self, error) from None
        except OSError as error:
            found = obstacle(error, target)
            raise WarehouseError(
                f"The snapshot {target} could not be written: {found.why}. The last one is kept. "
                f"{found.fix} and run the same command again."
            ) from None

    def _blocks(self, target: Path) -> Iterator[bytes]:
        """The file, block by block. Raises WarehouseError."""
        try:
            with self.path.open("rb") as source:
                while block := source.read(_BLOCK_BYTES):
                    yield block
        except OSError as error:
            kept = f"The last published copy, {target}, is kept."
            if error.errno == errno.EIO:
                raise WarehouseDamaged(
                    f"The warehouse file {self.path} is damaged ({error.strerror}): it cannot be read in full. {kept} "
                    f"{RESTORE}"
                ) from None
            found = obstacle(error, self.path)
            raise WarehouseError(
                f"The warehouse {self.path} could not be read: {found.why}. {kept} "
                f"{found.fix} and run the same command again."
            ) from None

    @staticmethod
    def _arrange(to: BinaryIO, target: Path, arrange: Callable[[sa.Connection, Path], None], reader: Reader) -> None:
        """Replace the content of `to`, a copy, by what `arrange` makes of it."""
        arranged = target.with_name(f".{target.name}.arranged")
        files = arranged, arranged.with_name(f"{arranged.name}.wal")
        for file in files:  # of a killed run
            file.unlink(missing_ok=True)
        try:
            with Database(url=Database.url_of(arranged)).transaction() as connection:
                arrange(connection, Path(to.name))
            to.seek(0)
            to.truncate()
            with arranged.open("rb") as source:
                shutil.copyfileobj(source, to, _BLOCK_BYTES)
            to.flush()
            if why := reader.read(Path(to.name)).why:
                raise WarehouseError(f"What was written cannot be read back ({shorten(why)}).")
        except WarehouseError as error:
            raise WarehouseError(
                f"The snapshot {target} could not be written from a copy of the warehouse, and the last one is kept. "
                f"{error}"
            ) from error
        finally:
            for file in files:
                file.unlink(missing_ok=True)

    def _engine(self, read_only: bool) -> sa.Engine:
        return engine(*self.address(read_only))

    def address(self, read_only: bool) -> tuple[sa.URL, dict[str, Any]]:
        """Where the database is, and the options of the driver."""
        url = sa.make_url(self.url)
        options: dict[str, Any] = {}
        if self.is_file:
            options["read_only"] = read_only
            # Nothing is downloaded: DuckDB would look for an extension to open a SQLite file, for instance.
            options["config"] = {"autoinstall_known_extensions": "false"}
            if read_only:
                options["config"]["enable_external_access"] = "false"
        elif not (is_own := is_from_environment(url)):
            refuse_secrets(self.url, self.name)
        if not self.is_duckdb:
            if refused := database_session.refused_options(url):
                raise WarehouseError(
                    f"{URL_VARIABLE} or PGOPTIONS sets {', '.join(refused)}, which the job sets itself: remove it."
                )
            if self.schema:
                database_schema.refuse_other_search_path(self.schema, url)
            options |= safe_options(url, is_own=is_own)
            url = with_password(url)
            options |= database_session.options(url)
        return url, options

    @property
    def _limits(self) -> database_locks.Limits:
        asked = database_session.asked_for(sa.make_url(self.url)).get("lock_timeout")
        return database_locks.Limits.of(self.lock_patience_seconds, self.lock_timeout_seconds, asked)

    def _prepare(self, connection: sa.Connection, read_only: bool, *, alone: bool) -> None:
        if self.is_duckdb:
            connection.execute(sa.text("set time zone 'UTC'"))
            return
        database_session.refuse_unfit(connection, self.name)
        limits = self._limits
        database_session.prepare(connection, lock_timeout=limits.for_tables, read_only=read_only)
        if self.schema:
            database_schema.enter(connection, self.schema, self.name, read_only=read_only)
        if alone and not read_only:
            database_locks.lock_schema(connection, limits)

    def _create_directory(self) -> bool:
        """Create the directory if needed. Return whether the file still has to be created."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            found = obstacle(error, self.path.parent)
            raise WarehouseError(
                f"Cannot create directory {self.path.parent}: {found.why}. {found.fix}, or set {URL_VARIABLE} to "
                "another path, and run the same command again."
            ) from None
        return not self.exists()

    def _remove_partial_file(self) -> bool:
        """Remove what DuckDB leaves behind when it runs out of space creating a file, and would refuse ever after.

        Return whether there was such a file.
        """
        if not self.path.exists() or self.path.stat().st_size >= _HEADER_BYTES:
            return False
        self.path.unlink()
        return True

    def _connect(self, read_only: bool) -> sa.Connection:
        try:
            with first_contact(self):
                connection = tenacity.Retrying(
                    retry=tenacity.retry_if_exception_message(match="(?s).*Could not set lock"),
                    wait=tenacity.wait_random_exponential(0.02, 0.5),
                    stop=tenacity.stop_after_delay(self.lock_timeout_seconds),
                    reraise=True,
                )(self._engine(read_only).connect)
        except sa.exc.DBAPIError as error:
            raise explain(self, error, read_only=read_only) from None
        reached.add(self.url)
        return connection
