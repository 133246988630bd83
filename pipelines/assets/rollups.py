"""Assets `weekly_sessions`, `monthly_sessions`, `enterprise_sessions`: what their SQL files select, kept up to date."""

import textwrap

import dagster as dg
import sqlalchemy as sa

from pipelines.assets.catalogue import table_asset
from pipelines.behind import CATCH_UP
from pipelines.failures import known_errors_fail_the_step
from pipelines.settings import Settings
from resources.database import Database
from warehouse import migrations, tables, writes

DAILY_SESSIONS = dg.AssetKey(tables.daily_sessions.name)


def _rebuilt(database: Database, table: sa.Table, **parameters: int) -> dg.MaterializeResult[None]:
    def built(connection: sa.Connection) -> int:
        migrations.bring_forward(connection)
        return writes.rebuild(connection, table, **parameters)

    try:
        with known_errors_fail_the_step():
            rows_built = database.write(built)
    except sa.exc.DBAPIError as error:  # whatever it is, it is about this rollup alone
        why = textwrap.shorten(" ".join(str(error.orig).split()), 300, placeholder=" …")
        raise dg.Failure(
            f"The rollup {table.name} could not be built from the stored days: {why}. It keeps its earlier rows. The "
            f"other rollups, the snapshot and the report go on without it. To try again: {CATCH_UP}. If it fails "
            "again, report it.",
            allow_retries=False,
        ) from error
    return dg.MaterializeResult(metadata={"rows_built": rows_built})


@table_asset(tables.weekly_sessions, deps=[DAILY_SESSIONS])
def weekly_sessions(database: dg.ResourceParam[Database]) -> dg.MaterializeResult[None]:
    """Sums per organization and ISO week."""
    return _rebuilt(database, tables.weekly_sessions)


@table_asset(tables.monthly_sessions, deps=[DAILY_SESSIONS])
def monthly_sessions(database: dg.ResourceParam[Database]) -> dg.MaterializeResult[None]:
    """Sums per organization and month."""
    return _rebuilt(database, tables.monthly_sessions)


@table_asset(tables.enterprise_sessions, deps=[DAILY_SESSIONS])
def enterprise_sessions(
    database: dg.ResourceParam[Database], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[None]:
    """The whole enterprise per day, with trailing sums and changes."""
    # The schedule reads a day for the last time on the last night of its look-back, which is that many days
    # minus one after the day has ended.
    return _rebuilt(database, tables.enterprise_sessions, settled_after_days=settings.devin_lookback_days - 1)


ROLLUPS = [weekly_sessions, monthly_sessions, enterprise_sessions]
