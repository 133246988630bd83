"""The warehouse's database: one transaction at a time, and sentences for what can go wrong with it.

What is stored there is the business of `warehouse`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
import tenacity
from pydantic import Field


class WarehouseUnusable(Exception):
    """The database can't be opened. The message says why and what to do."""


class WarehouseLocked(WarehouseUnusable):
    """Another process keeps the database locked. The message says which."""


class Database(dg.ConfigurableResource["Database"]):
    """A DuckDB file. It is locked only while a transaction is open, so keep transactions short."""

    url: str = Field(description="duckdb:///path/to/file.duckdb")
    lock_timeout_seconds: float = Field(default=30.0, description="How long to wait for another process's lock.")

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[sa.Connection]:
        """A connection whose changes are kept if the block ends, and undone if it raises.

        Makes the file (mode 0600) and its folder (0700) if need be, unless `read_only`, which also denies SQL any other
        file. Raises WarehouseUnusable.
        """
        is_new = not read_only and self._make_room()
        options = {"config": {"enable_external_access": "false"}} if read_only else {}
        engine = sa.create_engine(self.url, poolclass=sa.NullPool, connect_args={"read_only": read_only, **options})
        with self._connected(engine) as connection:
            if is_new:
                self.path.chmod(0o600)
            connection.execute(sa.text("set time zone 'UTC'"))
            connection.commit()
            with connection.begin():
                yield connection

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(sa.make_url(self.url).database or "")

    def _make_room(self) -> bool:
        """Make the folder if need be. Returns whether the file is still to be made."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise WarehouseUnusable(
                f"The folder {self.path.parent} cannot be made: {error.strerror}. Check its rights, or WAREHOUSE_URL."
            ) from None
        return not self.path.exists()

    def _connected(self, engine: sa.Engine) -> sa.Connection:
        def is_locked(error: BaseException) -> bool:
            return isinstance(error, sa.exc.DBAPIError) and "Could not set lock" in str(error)

        try:
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception(is_locked),
                wait=tenacity.wait_random_exponential(0.02, 0.5),
                stop=tenacity.stop_after_delay(self.lock_timeout_seconds),
                reraise=True,
            )(engine.connect)
        except sa.exc.DBAPIError as error:
            raise self._explained(str(error.orig)) from None

    def _explained(self, error: str) -> WarehouseUnusable:
        if "Could not set lock" in error:
            holder = re.search(r"held in (.+?) \(PID (\d+)\)", error)
            who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
            return WarehouseLocked(
                f"The warehouse {self.path} is locked by {who}, and stayed so for {self.lock_timeout_seconds:g} s. "
                "Close what has it open (a DuckDB shell, a notebook, another run) and run the same again."
            )
        if "not a valid DuckDB database file" in error:
            return WarehouseUnusable(
                f"{self.path} is not a DuckDB file. Set WAREHOUSE_URL to another path, or move that file away."
            )
        return WarehouseUnusable(
            f"The warehouse {self.path} cannot be opened: {error.splitlines()[0]}. Check WAREHOUSE_URL."
        )
