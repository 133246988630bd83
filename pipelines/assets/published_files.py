"""Asset `published_files`: the tables and the report where other machines and query engines read them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as sa

from pipelines.asset_keys import PUBLISHED_FILES, asset_key
from pipelines.assets.activity_report import report_of
from pipelines.assets.catalogue import GROUP, OWNERS
from pipelines.assets.published_snapshot import to_publish
from pipelines.failures import known_errors_fail_the_step, unwritten_files_fail_the_step
from pipelines.publishing import publish
from pipelines.settings import Settings
from resources.database import Database
from resources.publish_places import open_place


def published_files_asset(settings: Settings, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    """The asset, rebuilt after each run of `deps`."""

    @dg.asset(
        key=asset_key(settings, PUBLISHED_FILES),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"parquet", "html"},
        deps=deps,
        description="The tables as Parquet files and the report at DEVIN_PUBLISH_URL, one whole version at a time.",
    )
    def published_files(
        context: dg.AssetExecutionContext,
        database: dg.ResourceParam[Database],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult[None]:
        folder, snapshot = settings.published_folder, settings.published_snapshot
        assert folder is not None, "without a folder there is no such asset"

        def report(connection: sa.Connection) -> str:
            return report_of(connection, context.instance, settings)[1]

        source = to_publish(settings, database)
        page = report if settings.published_report else None
        with (
            known_errors_fail_the_step(),
            unwritten_files_fail_the_step(f"The files for {folder.text}", "The last version is kept."),
        ):
            now = datetime.now(UTC)
            as_of = datetime.fromtimestamp(snapshot.stat().st_mtime, UTC) if snapshot and snapshot.exists() else now
            place = open_place(folder)
            done = publish(
                place,
                source,
                as_of=as_of,
                now=now,
                run_id=context.run.run_id,
                report=page,
                warehouse=database.name,
            )
        if not done.is_ours:
            context.log.info(f"Another run has published later data to {folder.text}, which stays.")
        if done.not_removed:
            context.log.warning(str(done.not_removed))
        return dg.MaterializeResult(
            metadata={
                "folder": folder.text,
                "version": done.manifest.version,
                "files_uploaded": done.uploaded,
                "files_unchanged": done.kept,
                "files_of_earlier_versions_removed": done.removed,
            }
        )

    return published_files
