"""Asset `daily_sessions`: session counts per organization and day, from the API."""

import dagster as dg

from pipelines.assets.catalogue import counts_asset
from pipelines.loading.load import load_partitions
from pipelines.loading.progress import Progress
from pipelines.settings import Settings
from resources.database import Database
from resources.devin_api import DevinAPI
from warehouse.dimensions import ORGANIZATIONS


def daily_sessions_asset(settings: Settings, partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset over these days."""

    @counts_asset(settings, ORGANIZATIONS, partitions)
    def daily_sessions(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        devin_api: dg.ResourceParam[DevinAPI],
        database: dg.ResourceParam[Database],
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult[None]:
        return load_partitions(ORGANIZATIONS, partitions, context, settings, devin_api, database, progress)

    return daily_sessions
