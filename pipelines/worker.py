"""What holds only in a process that Dagster starts for a run, unlike in that of `devin-sessions backfill`."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import dagster as dg

from pipelines.alive import marked_as_alive
from pipelines.asset_keys import asset_key
from pipelines.launching import NEEDS_A_SERVER, launches_elsewhere
from pipelines.lost import lost_warehouse
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import URL_VARIABLE, WarehouseError
from resources.devin_api import DevinAPI
from warehouse.dimensions import ORGANIZATIONS


@dataclass(frozen=True)
class FoundDatabase(Database):
    """A DuckDB file that is used where it is found, and never created."""

    why: str = ""
    """What to tell the user where it is missing."""

    def exists(self) -> bool:
        """True. Raises WarehouseError if the file is missing."""
        if super().exists():
            return True
        raise WarehouseError(self.why)


def warehouse_of(context: dg.InitResourceContext, settings: Settings) -> Database:
    """The warehouse, which a worker may create only where later runs will find it, and none has filled it already.

    A worker, and a tick of the schedule, waits for a server that is down: nobody is there to start either again.
    """
    database, instance = settings.warehouse, context.instance
    if context.run is None or _is_worker(context):
        database = replace(database, tell=context.log.warning if context.log else None)
    if instance is None or not _is_worker(context) or not database.is_file or database.path.exists():
        return database
    if why := lost_warehouse(settings):
        return FoundDatabase(database.url, why=why)
    if launcher := launches_elsewhere(instance):
        return FoundDatabase(
            database.url,
            why=f"The warehouse {database.path} is a DuckDB file, and is not here: {launcher} gives each run a "
            "container or a machine of its own, with which a new file would be lost. Nothing was loaded. "
            f"{NEEDS_A_SERVER}",
        )
    filled = instance.get_latest_materialization_event(asset_key(settings, ORGANIZATIONS.cells.name))
    if filled is None:
        return database
    day = datetime.fromtimestamp(filled.timestamp, UTC).date()
    return FoundDatabase(
        database.url,
        why=f"The warehouse {database.path} is missing here, although run {filled.run_id[:8]} of {day} stored days in "
        "it. No new one was created. If runs have a machine or container of their own, give it the directory of that "
        f"file, and the same {URL_VARIABLE}. If the file is lost, put a backup of it back and type: devin-sessions "
        "restore. To load everything again: devin-sessions backfill --missing",
    )


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
