"""Who is counted: the ids that the user chose, or else every one that the source lists."""

from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from pipelines.compatibility import Incompatible, refuse_other_version
from pipelines.progress import Progress
from pipelines.settings import Settings
from resources.database import Database, WarehouseUnusable
from resources.devin_api import DevinAPI, DevinAPIError, DevinClient, Organization, User
from warehouse import migrations, reads, writes
from warehouse.migrations import UnfitWarehouse
from warehouse.tables import Counted


def store_listing(
    counted: Counted,
    ask: Callable[[DevinClient], Coroutine[Any, Any, Sequence[Organization | User]]],
    variable: str,
    *,
    context: dg.AssetExecutionContext,
    settings: Settings,
    devin_api: DevinAPI,
    database: Database,
    progress: Progress,
) -> dg.MaterializeResult[None]:
    """Look up who is counted and store it. `variable` is the setting by which the user chooses."""
    chosen = settings.chosen(counted)
    try:
        if chosen:
            nothing_known = {c.name: None for c in counted.listed.columns if c.name in ("org_name", "created_at")}
            found = [{counted.id: id_, **nothing_known} for id_ in chosen]
        else:
            with devin_api.connected(progress.calls) as (client, portal):
                found = [vars(item) for item in portal.call(ask, client)]
        if not found:
            raise dg.Failure(
                f"The source lists no {counted.noun} at all. Check that the key may see the whole enterprise, "
                f"or set {variable}.",
                allow_retries=False,
            )

        def store(connection: sa.Connection) -> None:
            migrations.bring_forward(connection)
            if not chosen:
                refuse_other_version(reads.api_versions(connection), devin_api.version_name, settings)
            writes.store_listed(connection, counted, found, datetime.now(UTC))

        database.write(store)
    except (DevinAPIError, WarehouseUnusable, Incompatible, UnfitWarehouse) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(f"{len(found)} {counted.noun}s {'configured' if chosen else 'listed by the source'}")
    return dg.MaterializeResult(metadata={"dagster/row_count": len(found)})
