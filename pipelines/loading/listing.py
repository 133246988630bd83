"""Who is counted: the ids that the user chose, or else every one that the source lists."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from pipelines.failures import known_errors_fail_the_step
from pipelines.loading.compatibility import refuse_other_version
from pipelines.loading.progress import Progress, waits_logged
from pipelines.settings import Settings
from resources.database import Database
from resources.devin_answers import Listed, Organization, User
from resources.devin_api import DevinAPI, DevinClient
from warehouse import migrations, reads, writes
from warehouse.tables import Counted

LIST_IS_WHOLE = "list_is_whole"


def store_listing(
    counted: Counted,
    ask: Callable[[DevinClient], Coroutine[Any, Any, Listed[Organization] | Listed[User]]],
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
    problem = ""
    with known_errors_fail_the_step():
        if chosen:
            nothing_known = {c.name: None for c in counted.listed.columns if c.name in ("org_name", "created_at")}
            found = [{counted.id: id_, **nothing_known} for id_ in chosen]
        else:
            with (
                waits_logged(progress.calls, context.log.warning),
                devin_api.connected(progress.calls) as (client, portal),
            ):
                listed = portal.call(ask, client)
            found, problem = [vars(item) for item in listed.items], listed.problem
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
    context.log.info(f"{len(found)} {counted.noun}s {'configured' if chosen else 'listed by the source'}")
    if problem:
        context.log.warning(problem)
    return dg.MaterializeResult(
        metadata={"dagster/row_count": len(found)},
        check_results=[
            dg.AssetCheckResult(
                check_name=LIST_IS_WHOLE,
                passed=not problem,
                severity=dg.AssetCheckSeverity.ERROR,
                description=problem or None,
            )
        ],
    )
