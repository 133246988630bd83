"""What holds only in a process that Dagster starts for a run, unlike in that of `devin-sessions backfill`."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from pipelines.alive import marked_as_alive
from pipelines.asset_keys import asset_key
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import URL_VARIABLE, WarehouseError
from resources.devin_api import DevinAPI
from warehouse.dimensions import ORGANIZATIONS


@dataclass(frozen=True)
class FilledDatabase(Database):
    """A DuckDB file that is never created, since `filled_by` has stored days in it."""

    filled_by: str = ""

    def exists(self) -> bool:
        """True. Raises WarehouseError if the file is missing."""
        if super().exists():
            return True
        raise WarehouseError(
            f"The warehouse {self.path} is missing here, although {self.filled_by} stored days in it. No new one was "
            "created. If runs have a machine or container of their own, give it the directory of that file, and the "
            f"same {URL_VARIABLE}. If the file is lost: devin-sessions restore, or to load everything again: "
            "devin-sessions backfill --missing"
        )


def warehouse_of(context: dg.InitResourceContext, settings: Settings) -> Database:
    """The warehouse, which a worker may create only if Dagster has no record that a run has filled it."""
    database, instance = settings.warehouse, context.instance
    if instance is None or not _is_worker(context) or not database.is_file or database.path.exists():
        return database
    filled = instance.get_latest_materialization_event(asset_key(settings, ORGANIZATIONS.cells.name))
    if filled is None:
        return database
    day = datetime.fromtimestamp(filled.timestamp, UTC).date()
    return FilledDatabase(database.url, filled_by=f"run {filled.run_id[:8]} of {day}")


def alive_while_asking(context: dg.InitResourceContext, devin_api: DevinAPI) -> Iterator[DevinAPI]:
    """The API; as long as a worker's run has it, the run is marked as alive."""
    run, instance = context.run, context.instance
    if run is None or instance is None or not _is_worker(context):
        yield devin_api
        return
    with ExitStack() as marked:
        with suppress(OSError):  # nobody looks for marks in a home that can't be written, as in a container of its own
            marked.enter_context(marked_as_alive(instance, run.run_id))
        yield devin_api


def _is_worker(context: dg.InitResourceContext) -> bool:
    return context.run is not None and context.run.remote_job_origin is not None
