"""Asset `daily_sessions`: the source → the warehouse, one block of days at a time."""

from datetime import date, datetime

import dagster as dg

from pipelines.catalogue import table_asset
from pipelines.load import Load
from pipelines.organizations import organizations
from pipelines.partitions import as_days
from pipelines.progress import Progress
from pipelines.settings import Settings
from resources.database import Database, WarehouseUnusable
from resources.devin_api import DevinAPI, DevinAPIError
from warehouse import reads, tables

_ROOT_RUN = "dagster/root_run_id"


class OtherDays(Exception):
    """The warehouse holds days that begin at another hour or in another time zone. The message is for the user."""


def refuse_other_days(
    stored: dict[date, tuple[datetime, datetime]], partitions: dg.DailyPartitionsDefinition, settings: Settings
) -> None:
    """Raise OtherDays if a stored day has another window than the settings give it: two kinds of day never mix."""
    keys = [day.isoformat() for day in sorted(stored) if day >= settings.devin_start_date]
    for day in as_days(partitions, keys):
        if stored[day.day] != (day.start, day.end):
            start, end = stored[day.day]
            raise OtherDays(
                f"The warehouse holds {day.day} as {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, but "
                f"DEVIN_TIMEZONE={settings.devin_timezone} and DEVIN_DAY_START_HOUR={settings.devin_day_start_hour} "
                f"make it {day.start:%Y-%m-%d %H:%M} to {day.end:%Y-%m-%d %H:%M} UTC. Two kinds of day are never "
                "mixed in one table: set these variables back, or set WAREHOUSE_URL to a new warehouse."
            )


def _earlier_tries(context: dg.AssetExecutionContext) -> list[str]:
    """The runs of which this one is a re-execution. What they loaded is not asked again."""
    root = context.run.tags.get(_ROOT_RUN)
    if root is None:
        return []
    group = context.instance.get_runs(dg.RunsFilter(tags={_ROOT_RUN: root}))
    return [root, *(run.run_id for run in group)]


def daily_sessions_asset(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset over these days. Any set of them is one run, and each is asked for with its own window."""

    @table_asset(
        tables.daily_sessions,
        "python",
        "api",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[organizations],
    )
    def daily_sessions(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        devin_api: DevinAPI,
        database: Database,
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult[None]:
        days = as_days(partitions, context.partition_keys)
        load = Load(context, settings, devin_api, database, progress)
        try:
            with database.transaction() as connection:
                tables.create(connection)
                refuse_other_days(reads.windows(connection), partitions, settings)
                org_ids = reads.counted_organizations(connection)
                loaded = reads.days_of_runs(connection, _earlier_tries(context))
            if not org_ids:
                raise dg.Failure("No organization is known yet: materialize the asset organizations first.")
            days = [day for day in days if day.day not in loaded]
            if days:
                load.run(days, org_ids)
            problem = load.what_is_missing()
        except (DevinAPIError, WarehouseUnusable, OtherDays) as error:
            problem = str(error)
        except BaseException:  # an interrupt too: what is stored is stored
            load.record_stored_days()
            raise
        if problem:
            load.record_stored_days()
            raise dg.Failure(problem, allow_retries=False)
        for day, metadata in load.stored.items():
            context.add_asset_metadata(metadata, partition_key=day.isoformat())
        return dg.MaterializeResult()

    return daily_sessions
