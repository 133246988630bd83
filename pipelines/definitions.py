"""Everything Dagster loads, listed by name."""

import warnings
from collections.abc import Callable

import dagster as dg

from pipelines.alerts import alerts_sensor
from pipelines.assets.activity_report import activity_report_asset
from pipelines.assets.asset_checks import checks_of
from pipelines.assets.daily_sessions import daily_sessions_asset
from pipelines.assets.organizations import organizations_asset
from pipelines.assets.published_files import published_files_asset
from pipelines.assets.published_snapshot import published_snapshot_asset
from pipelines.assets.rollups import rollup_assets
from pipelines.assets.user_daily_sessions import user_daily_sessions_asset
from pipelines.assets.users import users_asset
from pipelines.follow import follow_sensor
from pipelines.loading.progress import Progress
from pipelines.partitions import daily_partitions
from pipelines.schedules import daily_refresh_schedule
from pipelines.settings import SECRETS, Settings
from pipelines.worker import alive_while_asking, warehouse_of
from resources.database import Database
from resources.devin_api import DevinAPI
from resources.event_batches import store_in_batches
from resources.pace_row import PaceRows
from warehouse import migrations
from warehouse.dimensions import ORGANIZATIONS, USERS


def definitions_for(settings: Settings, progress: Progress | None = None) -> dg.Definitions:
    """The code location for these settings; each load reports to `progress`, if anyone wants to know.

    For a Dagster of your own, see docs/own-dagster.md. The key and the database's password are not in the definitions:
    what sends them reads them from the environment.
    """
    store_in_batches()
    partitions = daily_partitions(settings)
    # For each dimension: its assets up to the counts, and the last ones, which publishing waits for.
    assets_of = {
        ORGANIZATIONS: (
            [organizations_asset(settings), daily_sessions_asset(settings, partitions)],
            rollup_assets(settings),
        ),
        USERS: ([users_asset(settings)], [user_daily_sessions_asset(settings, partitions)]),
    }
    chosen = [assets_of[dimension] for dimension in settings.dimensions]
    assets = [asset for before, after in chosen for asset in (*before, *after)]
    last = [asset.key for _, after in chosen for asset in after]
    checks = [check for dimension in settings.dimensions for check in checks_of(settings, dimension)]
    if settings.published_snapshot:
        assets.append(published_snapshot_asset(settings, last))
        last = [assets[-1].key]
    if settings.published_folder:
        assets.append(published_files_asset(settings, last))
    if settings.published_report:
        assets.append(activity_report_asset(settings, last))
    sensors = [follow_sensor(settings)]
    if settings.devin_alert_webhook_url:
        sensors.append(alerts_sensor(assets, checks, settings))
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        sensors=sensors,
        schedules=[daily_refresh_schedule(assets, checks, partitions, settings)],
        resources={
            "settings": _fixed(settings.model_copy(update=dict.fromkeys(SECRETS))),  # read where they are sent
            "progress": _fixed(progress or Progress()),
            "devin_api": _resource(
                lambda context: alive_while_asking(context, devin_api_for(settings, warehouse_of(context, settings)))
            ),
            "database": _resource(lambda context: warehouse_of(context, settings)),
            # The default one writes files to a directory that a run's config may choose. With the one in memory,
            # Dagster starts no run again from where it failed.
            "io_manager": dg.IOManagerDefinition(lambda _: _NoValues(), config_schema={}),
        },
        executor=dg.in_process_executor,
    )


class _NoValues(dg.IOManager):
    """Neither stores nor loads anything: assets pass no values on."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise TypeError(f"{context.get_identifier()} returned a value, but assets pass none on")

    def load_input(self, context: dg.InputContext) -> object:
        raise TypeError(f"{context.name} asks for a value, but assets pass none on")


def _fixed(value: object) -> dg.ResourceDefinition:
    return _resource(lambda _: value)


def _resource(function: Callable[[dg.InitResourceContext], object]) -> dg.ResourceDefinition:
    """A resource that a run's config cannot change, since anyone who reaches the UI can write that config."""
    return dg.ResourceDefinition(function, config_schema={})


def devin_api_for(settings: Settings, database: Database) -> DevinAPI:
    """The API client's resource for these settings and this warehouse; it takes the key from the environment itself."""
    return DevinAPI(
        base_url=settings.devin_api_url,
        version=settings.devin_api_version,
        window_end=settings.devin_window_end,
        max_connections=settings.devin_max_connections,
        requests_per_minute=settings.devin_requests_per_minute,
        timeout_seconds=settings.devin_timeout_seconds,
        max_tries=settings.devin_max_tries,
        patience_seconds=settings.devin_patience_seconds,
        # With DuckDB, one process at a time asks: see loading.asking.
        pace_rows=None if database.is_duckdb else PaceRows(database, migrations.create_pace),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What the Dagster webserver, daemon and runs load, with the environment's settings."""
    # Dagster warns at each start that single-run backfills are beta; the tests check that they work.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    return definitions_for(Settings.load())
