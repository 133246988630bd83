"""Asset `users`: the users whose sessions are counted, if DEVIN_USER_IDS is set."""

import dagster as dg

from pipelines.assets.catalogue import listed_asset
from pipelines.loading.counted_ids import as_user, store_listing
from pipelines.loading.progress import Progress
from pipelines.settings import Settings
from resources.database import Database
from resources.devin_api import DevinAPI, DevinClient
from warehouse.dimensions import USERS


def users_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset, with the check of the API's list."""

    @listed_asset(settings, USERS)
    def users(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        devin_api: dg.ResourceParam[DevinAPI],
        database: dg.ResourceParam[Database],
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with checks, Dagster accepts only the bare type
        """Those in DEVIN_USER_IDS, or every user that the API lists."""
        return store_listing(
            USERS,
            DevinClient.users,
            as_user,
            context=context,
            settings=settings,
            devin_api=devin_api,
            database=database,
            progress=progress,
        )

    return users
