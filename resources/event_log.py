"""How Dagster's event log is stored: in the SQLite files of stock Dagster, but a batch of events in one transaction."""

import threading
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


class BatchingSqliteEventLogStorage(SqliteEventLogStorage):
    """SqliteEventLogStorage, same files and rows, for runs of many partitions.

    Stock SQLite storage takes a batch apart, and each planned or materialized partition costs two transactions on
    connections of their own. Dagster makes batches only where the environment has DAGSTER_EVENT_BATCH_SIZE; where it
    has not, this class does what stock does. It needs no config: the files are under the folder of the instance, where
    stock has them.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._held = threading.local()
        self._inst_data = inst_data  # the rest waits for the instance, which alone knows its folder

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        super().__init__(str(Path(instance.root_directory, "history", "runs")), self._inst_data)
        super().register_instance(instance)
        with self.index_connection():  # makes the tables if another process is about to, but has not yet
            # Stock lets a thread have one of its connections at a time, and a batch needs both files at once.
            self._index = sa.create_engine(
                self.conn_string_for_shard("index"),
                poolclass=sa.NullPool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )

    def check_writable(self, seconds: float) -> None:
        """Wait `seconds` at most for another program to let this one write. Raises SQLAlchemy's OperationalError.

        Stock waits a minute, in silence, at the first event of a run.
        """
        engine = sa.create_engine(
            self.conn_string_for_shard("index"), poolclass=sa.NullPool, connect_args={"timeout": seconds}
        )
        with engine.connect() as connection:
            connection.exec_driver_sql("begin immediate")
            connection.exec_driver_sql("rollback")

    @contextmanager
    def in_one_batch(self) -> Iterator[None]:
        """Store the asset events that this thread reports within in one batch at the end, come what may.

        For events that Dagster reports one by one. They must be of one run.
        """
        self._held.events = []
        try:
            yield
        finally:
            events, self._held.events = self._held.events, None
            if events:
                self.store_event_batch(events)

    def store_event(self, event: dg.EventLogEntry) -> None:
        held = getattr(self._held, "events", None)
        if held is None or event.dagster_event_type not in ASSET_EVENTS:
            super().store_event(event)
        else:
            held.append(event)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store the events of one run, all or none: after an error Dagster stores each of them again, one by one."""
        if any(event.dagster_event_type not in ASSET_EVENTS | ASSET_CHECK_EVENTS for event in events):
            super().store_event_batch(events)  # these are not in both files
            return
        (run_id,) = {event.run_id for event in events}
        with self.run_connection(run_id) as run_log, self._index.begin() as index:
            ids: list[int] = []
            for event in events:
                row = self.prepare_insert_event(event)
                run_log.execute(row)
                ids.append(index.execute(row).lastrowid)
            stored = list(zip(events, ids, strict=True))
            of_assets = [(event, id_) for event, id_ in stored if event.dagster_event_type in ASSET_EVENTS]
            self._store_asset_event_tags(index, [event for event, _ in of_assets], [id_ for _, id_ in of_assets])
            for event, id_ in _latest(of_assets):
                self._store_asset_event(index, event, id_)
        for event, id_ in stored:
            if event.dagster_event_type in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, id_)


def _latest(stored: Sequence[tuple[dg.EventLogEntry, int]]) -> list[tuple[dg.EventLogEntry, int]]:
    """The last event of each type of each asset: each overwrites in the asset's one row what the earlier ones wrote."""
    latest = {(event.get_dagster_event().asset_key, event.dagster_event_type): (event, id_) for event, id_ in stored}
    return sorted(latest.values(), key=lambda event_and_id: event_and_id[1])
