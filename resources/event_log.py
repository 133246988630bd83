"""Dagster's event log, in the same SQLite files as stock Dagster, but with each batch of events in one transaction."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import dagster as dg
import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData

from resources.engines import engine

_INDEX = "index"  # the file of all runs, by stock's name for it


class BatchingSqliteEventLogStorage(SqliteEventLogStorage):
    """SqliteEventLogStorage with the same files and rows, for runs of many partitions.

    The stock SQLite storage splits a batch up, and each planned or materialized partition costs two transactions on
    separate connections. Where Dagster makes no batches, see `event_batches`, this class behaves as stock does. It
    needs no config: the files are where stock keeps them, under the instance's directory.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data  # the rest waits for the instance, which knows its directory

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        self._prepared: set[str] = set()  # the runs whose files have their tables
        super().__init__(str(Path(instance.root_directory, "history", "runs")), self._inst_data)
        super().register_instance(instance)
        with super().index_connection():
            pass  # it creates the tables, unless another process has

    def _engine(self, shard: str, seconds: float = SQLITE_BUSY_TIMEOUT_SECONDS) -> sa.Engine:
        """The engine for one of the files. Stock makes a new one for each connection."""
        return engine(sa.make_url(self.conn_string_for_shard(shard)), {"timeout": seconds})

    @contextmanager
    def index_connection(self) -> Iterator[sa.Connection]:
        """A transaction on the file of all runs."""
        with self._db_lock, self._engine(_INDEX).begin() as connection:
            yield connection

    @contextmanager
    def run_connection(self, run_id: str | None = None) -> Iterator[sa.Connection]:
        """A transaction on the file of this run."""
        assert run_id is not None, "each run has a file of its own"
        if run_id not in self._prepared:
            with super().run_connection(run_id):
                pass  # it creates the tables
            self._prepared.add(run_id)
        with self._db_lock, self._engine(run_id).begin() as connection:
            yield connection

    def wipe(self) -> None:
        super().wipe()
        self._prepared.clear()

    def check_writable(self, seconds: float) -> None:
        """Wait up to `seconds` for any other program that is writing. Raises SQLAlchemy's OperationalError.

        Stock waits silently for a minute at the first event of a run.
        """
        with self._engine(_INDEX, seconds).connect() as connection:
            connection.exec_driver_sql("begin immediate")
            connection.exec_driver_sql("rollback")

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store the events of one run, all or none: after an error Dagster stores them again, one by one."""
        if any(event.dagster_event_type not in ASSET_EVENTS | ASSET_CHECK_EVENTS for event in events):
            super().store_event_batch(events)  # those go into only one of the two files
            return
        (run_id,) = {event.run_id for event in events}
        # Stock gives a thread only one connection at a time, but a batch needs both files at once.
        with self.run_connection(run_id) as run_log, self._engine(_INDEX).begin() as index:
            ids: list[int] = []
            for event in events:
                row = self.prepare_insert_event(event)
                run_log.execute(row)
                ids.append(index.execute(row).lastrowid)
            stored = list(zip(events, ids, strict=True))
            asset_events = [(event, id_) for event, id_ in stored if event.dagster_event_type in ASSET_EVENTS]
            self._store_asset_event_tags(index, [event for event, _ in asset_events], [id_ for _, id_ in asset_events])
            for event, id_ in _latest(asset_events):
                self._store_asset_event(index, event, id_)
        for event, id_ in stored:
            if event.dagster_event_type in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, id_)


def _latest(stored: Sequence[tuple[dg.EventLogEntry, int]]) -> list[tuple[dg.EventLogEntry, int]]:
    """The last event of each type for each asset: it overwrites what earlier ones wrote to the asset's single row."""
    latest = {(event.get_dagster_event().asset_key, event.dagster_event_type): (event, id_) for event, id_ in stored}
    return sorted(latest.values(), key=lambda event_and_id: event_and_id[1])
