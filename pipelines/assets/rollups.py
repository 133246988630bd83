"""Assets `weekly_sessions`, `monthly_sessions`, `enterprise_sessions`: the results of their SQL files, kept current."""

import textwrap

import dagster as dg
import sqlalchemy as sa

from pipelines.asset_keys import asset_key
from pipelines.assets.catalogue import table_asset
from pipelines.behind import CATCH_UP
from pipelines.failures import known_errors_fail_the_step
from pipelines.settings import Settings
from resources.database import Database
from warehouse import migrations, rollups, tables


def rollup_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets, each downstream of `daily_sessions`."""
    return [_rollup_asset(settings, rollup) for rollup in tables.ROLLUPS]


def _rollup_asset(settings: Settings, rollup: sa.Table) -> dg.AssetsDefinition:
    """The asset that updates `rollup` for the days loaded since it was last built."""

    def built(database: dg.ResourceParam[Database], settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
        def rebuild(connection: sa.Connection) -> int:
            migrations.migrate(connection)
            return rollups.rebuild(connection, rollup, settled_after_days=settings.settled_after_days)

        try:
            with known_errors_fail_the_step():
                rows_built = database.write(rebuild)
        except sa.exc.DBAPIError as error:  # any error here concerns this rollup alone
            why = textwrap.shorten(" ".join(str(error.orig).split()), 300, placeholder=" …")
            raise dg.Failure(
                f"The rollup {rollup.name} could not be built from the stored days: {why}. It keeps its earlier rows. "
                f"The other rollups, the snapshot and the report are still updated. To try again: {CATCH_UP}. If it "
                "fails again, report it.",
                allow_retries=False,
            ) from error
        return dg.MaterializeResult(metadata={"rows_built": rows_built})

    return table_asset(settings, rollup, deps=[asset_key(settings, tables.daily_sessions.name)])(built)
