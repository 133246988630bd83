"""Asset `user_daily_sessions`: session counts per user and day, from the API, if DEVIN_USER_IDS is set."""

import dagster as dg

from pipelines.assets.catalogue import counts_asset
from pipelines.loading.load import load_partitions
from pipelines.loading.progress import Progress
from pipelines.settings import Settings
from resources.database import Database
from resources.devin_api import DevinAPI
from warehouse.dimensions import USERS


def user_daily_sessions_asset(settings: Settings, partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset over these days."""

    @counts_asset(settings, USERS, partitions)
    def user_daily_sessions(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        devin_api: dg.ResourceParam[DevinAPI],
        database: dg.ResourceParam[Database],
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult[None]:
        return load_partitions(USERS, partitions, context, settings, devin_api, database, progress)

    return user_daily_sessions
