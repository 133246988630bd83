"""Asset `activity_report`: one page for people who prefer looking to writing SQL."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import sqlalchemy as sa

from pipelines.asset_keys import ACTIVITY_REPORT, asset_key
from pipelines.assets.catalogue import GROUP, OWNERS
from pipelines.assets.published_snapshot import publishing, to_publish
from pipelines.checks import listing_verdicts, verdicts
from pipelines.failures import known_errors_fail_the_step, unwritten_files_fail_the_step
from pipelines.ledger import read
from pipelines.report.activity import Activity, read_activity
from pipelines.report.page import as_page, library
from pipelines.report.picture import picture
from pipelines.report.sections import DAYS_ONE_BY_ONE
from pipelines.settings import Settings
from resources.database import Database
from resources.files import replacing


def activity_report_asset(settings: Settings, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    """The asset, rebuilt after each run of `deps`."""

    @dg.asset(
        key=asset_key(settings, ACTIVITY_REPORT),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"html"},
        deps=deps,
        description="A page with the trend, a calendar, the organizations and the quality of the data.",
    )
    def activity_report(
        context: dg.AssetExecutionContext,
        database: dg.ResourceParam[Database],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult[None]:
        path = settings.published_report
        assert path is not None, "without a path there is no such asset"
        with (
            known_errors_fail_the_step(),
            unwritten_files_fail_the_step(f"The report {path}", "The last one is kept."),
            publishing(path.parent),
        ):
            source = to_publish(settings, database)
            shown, page = read(source, lambda connection: report_of(connection, context.instance, settings))
            with replacing(path) as file:
                file.write(page.encode())
        metadata: dict[str, Any] = {
            "report": dg.MetadataValue.path(str(path)),
            "kilobytes": round(len(page.encode()) / 1000),
        }
        if shown.last_loaded:
            trend = picture(shown.days_up_to_last_loaded(DAYS_ONE_BY_ONE))
            metadata["trend"] = dg.MetadataValue.md(f"![Sessions a day]({trend})")
        return dg.MaterializeResult(metadata=metadata)

    return activity_report


def report_of(connection: sa.Connection, instance: dg.DagsterInstance, settings: Settings) -> tuple[Activity, str]:
    """What a warehouse has to show, and the page that shows it."""
    shown = read_activity(connection)
    found = [*verdicts(connection, settings), *listing_verdicts(instance, settings)]
    return shown, as_page(shown, found, library(), settings.devin_enterprise)
