"""What runs have produced since another run began, by Dagster's own record and by the warehouse's.

"Since" is the order of Dagster's event log, because a clock that was set back or forth makes no order of times.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import dagster as dg
from dagster._core.event_api import RunStatusChangeEventType
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from pipelines.asset_keys import Key, asset_key
from pipelines.failures import UNUSABLE_WAREHOUSE
from pipelines.ledger import open_read_only
from pipelines.settings import Settings
from warehouse import reads

# Dagster gives a sensor's tick one minute.
LOCK_TIMEOUT_SECONDS = 5.0
_EVENTS_A_PAGE = 200

Piece = tuple[Key, str]
"""Something that a run produces: a check's result, an asset, or one day of an asset. The text is the day, or empty."""


@dataclass(frozen=True)
class Produced:
    """What was produced since any of these runs, which have ended, began."""

    instance: dg.DagsterInstance
    settings: Settings
    runs: Sequence[dg.RunRecord]

    def since(self, record: dg.RunRecord, wanted: set[Piece]) -> set[Piece]:
        """What was produced since this one of the runs began: everything in `wanted` that was, and perhaps more."""
        start = self._began.get(record.dagster_run.run_id, 0)
        later = {run_id for run_id, began in self._began.items() if began >= start}
        produced: set[Piece] = set()
        for key in {key for key, _ in wanted}:
            if isinstance(key, dg.AssetCheckKey):
                produced |= {(key, "") for result in results_of(self.instance, key, 1) if result.run_id in later}
                continue
            latest = self.instance.fetch_materializations(key, limit=1).records
            if latest and latest[0].storage_id > start:
                days = self.instance.get_materialized_partitions(key, None, start)
                produced |= {(key, day) for day in ("", *days)}
        if any(day for _, day in wanted - produced):
            # Only the warehouse knows what a killed run stored, or one that another Dagster has recorded: of that run,
            # nothing but the time is known.
            began = record.start_time or record.create_timestamp.timestamp()
            produced |= {
                piece
                for piece, (reader, read_at) in self.last_read.items()
                if reader in later or (reader not in self._recorded and read_at.timestamp() > began)
            }
        return produced

    @cached_property
    def _began(self) -> dict[str, int]:
        """Where in the event log these runs began, or failed if they never did, and all runs since; by run id."""
        began: dict[str, int] = {}
        failed: dict[str, int] = {}
        never = {run.dagster_run.run_id for run in self.runs if run.start_time is None}
        for change in self._changes(dg.DagsterEventType.RUN_FAILURE) if never else ():
            failed[change.run_id] = change.storage_id
            if never <= failed.keys():
                break
        others = {run.dagster_run.run_id for run in self.runs} - never
        oldest = min((failed[run_id] for run_id in never & failed.keys()), default=math.inf)
        for change in self._changes(dg.DagsterEventType.RUN_START) if self.runs else ():
            began[change.run_id] = change.storage_id
            if others <= began.keys() and change.storage_id < oldest:
                break
        return {run_id: failed[run_id] for run_id in never & failed.keys()} | began

    def _changes(self, kind: RunStatusChangeEventType) -> Iterator[dg.EventLogRecord]:
        """The events of this kind, newest first."""
        cursor, has_more = None, True
        while has_more:
            page = self.instance.fetch_run_status_changes(kind, limit=_EVENTS_A_PAGE, cursor=cursor)
            yield from page.records
            cursor, has_more = page.cursor, page.has_more

    @cached_property
    def last_read(self) -> dict[Piece, tuple[str, datetime]]:
        """The run that last read each day in the warehouse, and when; empty if the warehouse is not usable."""
        database = replace(self.settings.warehouse, lock_timeout_seconds=LOCK_TIMEOUT_SECONDS)
        found: dict[Piece, tuple[str, datetime]] = {}
        with suppress(*UNUSABLE_WAREHOUSE), open_read_only(database) as connection:
            for dimension in self.settings.dimensions:
                key = asset_key(self.settings, dimension.cells.name)
                readers = reads.last_readers(connection, dimension)
                found |= {(key, day.isoformat()): reader for day, reader in readers.items()}
        return found

    @cached_property
    def _recorded(self) -> set[str]:
        """Which of the runs that last read a day this Dagster knows."""
        return {reader for reader in {reader for reader, _ in self.last_read.values()} if self.instance.has_run(reader)}


def results_of(instance: dg.DagsterInstance, key: dg.AssetCheckKey, most: int) -> Sequence[AssetCheckExecutionRecord]:
    """The latest results of a check, newest first, without evaluations that are planned, running or skipped."""
    results = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    return instance.event_log_storage.get_asset_check_execution_history(key, most, status=results)
