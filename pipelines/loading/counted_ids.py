"""Which ids are counted: those that the user chose, or else all that the API lists."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import dagster as dg
import sqlalchemy as sa

from pipelines.failures import failure, known_errors_fail_the_step
from pipelines.loading.asking import run_asking_alone
from pipelines.loading.changed_settings import refuse_other_version
from pipelines.loading.progress import Progress, log_waits
from pipelines.settings import Settings
from resources.database import Database
from resources.devin_api import DevinAPI, DevinClient
from resources.devin_lists import Listed, Organization, User
from resources.first_few import first_few
from warehouse import migrations, reads, tables, writes
from warehouse.dimensions import Dimension
from warehouse.listing import never_seen
from warehouse.writes import Entry

LIST_IS_WHOLE = "list_is_whole"

Item = TypeVar("Item", Organization, User)


def chosen_entries(ids: Sequence[str]) -> list[Entry]:
    """The list that the ids which the user chose make."""
    return [Entry(id_, is_chosen=True) for id_ in ids]


def as_organization(item: Organization) -> Entry:
    """What the warehouse stores of an organization that the API lists."""
    return Entry(item.org_id, item.org_name, item.created_at)


def as_user(item: User) -> Entry:
    """What the warehouse stores of a user that the API lists."""
    return Entry(item.user_id, created_at=item.created_at)


def store_listing(
    dimension: Dimension,
    ask: Callable[[DevinClient], Coroutine[Any, Any, Listed[Item]]],
    as_entry: Callable[[Item], Entry],
    *,
    context: dg.AssetExecutionContext,
    settings: Settings,
    devin_api: DevinAPI,
    database: Database,
    progress: Progress,
) -> dg.MaterializeResult[None]:
    """Find out which ids are counted and store them.

    `ask` gets the API's list, and `as_entry` makes of each item what the warehouse stores. Raises dg.Failure if the
    list is empty or cannot be read.
    """
    chosen = settings.chosen(dimension)
    problem = ""
    with known_errors_fail_the_step():
        if chosen:
            found = chosen_entries(chosen)
        else:
            with (
                run_asking_alone(context, settings, progress),
                log_waits(progress.calls, context.log.warning),
                devin_api.connected(progress.calls) as (client, portal),
            ):
                listed = portal.call(ask, client)
            found, problem = [as_entry(item) for item in listed.items], listed.problem
        if not found:
            raise failure(
                f"The API lists no {dimension.noun} at all. Check that the key may see the whole enterprise, "
                f"or set {dimension.setting}.",
                must_be_fixed=True,
            )

        def store(connection: sa.Connection) -> None:
            migrations.migrate(connection)
            tables.describe_changed(connection)  # a release may word them anew without a new version
            if not chosen:
                refuse_other_version(reads.api_versions(connection), devin_api.version_name, settings)
            writes.store_listed(connection, dimension, found, progress.calls.clock.now())

        database.write(store)
    context.log.info(f"{len(found)} {dimension.plural} {'configured' if chosen else 'listed by the API'}")
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


def doubt_about_choice(connection: sa.Connection, dimension: Dimension, chosen: Sequence[str]) -> str:
    """A sentence about chosen ids that may be misspelled; empty if none is suspicious.

    They have no session on any loaded day, the API has never listed them, and there are sessions of nobody chosen.
    """
    unattributed, idle = never_seen(connection, dimension, chosen) if chosen else (0, [])
    if not unattributed or not idle:
        return ""
    shown = first_few(idle)
    return (
        f"No session on any loaded day: {shown} in {dimension.setting}; {unattributed:,} sessions belong to no id "
        "there. Check the spelling: the API may count an unknown id as 0. To compare with its list:"
        " devin-sessions probe"
    )
