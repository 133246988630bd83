"""Asset `organizations`: whose sessions are counted."""

from datetime import UTC, datetime

import dagster as dg

from pipelines.catalogue import table_asset
from pipelines.progress import Progress
from pipelines.settings import Settings
from resources.database import Database, WarehouseUnusable
from resources.devin_api import DevinAPI, DevinAPIError, Organization
from warehouse import tables, writes


@table_asset(tables.organizations, "python", "api")
def organizations(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    devin_api: DevinAPI,
    database: Database,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult[None]:
    """Those in DEVIN_ORG_IDS, or else every one that the source lists."""
    try:
        if settings.devin_org_ids:
            found = [Organization(org_id, None, None) for org_id in settings.devin_org_ids]
        else:
            with devin_api.connected(progress.calls) as (client, portal):
                found = portal.call(client.organizations)
        if not found:
            raise dg.Failure(
                "The source lists no organization at all. Check that the key belongs to an Enterprise admin, "
                "or set DEVIN_ORG_IDS.",
                allow_retries=False,
            )
        with database.transaction() as connection:
            tables.create(connection)
            writes.store_organizations(connection, [vars(o) for o in found], datetime.now(UTC))
    except (DevinAPIError, WarehouseUnusable) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(f"{len(found)} organizations {'configured' if settings.devin_org_ids else 'listed by the source'}")
    return dg.MaterializeResult(metadata={"dagster/row_count": len(found)})
