"""Asset `organizations`: whose sessions are counted."""

import dagster as dg

from pipelines.catalogue import table_asset
from pipelines.listing import store_listing
from pipelines.progress import Progress
from pipelines.settings import Settings
from resources.database import Database
from resources.devin_api import DevinAPI, DevinClient
from warehouse.tables import ORGANIZATIONS


@table_asset(ORGANIZATIONS.listed, "python", "api")
def organizations(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    devin_api: DevinAPI,
    database: Database,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult[None]:
    """Those in DEVIN_ORG_IDS, or else every one that the source lists."""
    return store_listing(
        ORGANIZATIONS,
        DevinClient.organizations,
        "DEVIN_ORG_IDS",
        context=context,
        settings=settings,
        devin_api=devin_api,
        database=database,
        progress=progress,
    )
