"""Asset `published_snapshot`: the copy that analysts read, so that they and the runs never wait for each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock

from pipelines.asset_keys import PUBLISHED_SNAPSHOT, asset_key
from pipelines.assets.catalogue import GROUP, OWNERS
from pipelines.failures import known_errors_fail_the_step, unwritten_files_fail_the_step
from pipelines.ledger import open_read_only
from pipelines.settings import Settings
from resources.database import Database
from resources.files import replacing
from warehouse import parquet
from warehouse.snapshot import arrange

_LOCK_TIMEOUT_SECONDS = 600  # another run may be publishing


@contextmanager
def publishing(directory: Path) -> Iterator[None]:
    """Let one run at a time publish in `directory`: files of an earlier copy must not replace those of a later one."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_SECONDS, mode=0o600):
        yield


def to_publish(settings: Settings, database: Database) -> Database:
    """Where others' copies are read from: the snapshot, if there is one, since reading it blocks no writer.

    It has the same rows as the warehouse.
    """
    snapshot = settings.published_snapshot
    return Database(url=Database.url_of(snapshot)) if snapshot else database


def published_snapshot_asset(settings: Settings, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    """The asset, rebuilt after each run of `deps`."""

    @dg.asset(
        key=asset_key(settings, PUBLISHED_SNAPSHOT),
        group_name=GROUP,
        owners=OWNERS,
        kinds={"duckdb", "parquet"},
        deps=deps,
        description="A copy of the warehouse that is replaced as a whole, and the same tables as Parquet files.",
    )
    def published_snapshot(
        database: dg.ResourceParam[Database], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        snapshot = settings.published_snapshot
        assert snapshot is not None, "without a path there is no such asset"
        parquet_files = f"The Parquet files beside {snapshot}"
        with (
            known_errors_fail_the_step(),
            unwritten_files_fail_the_step(parquet_files, "Those that exist are complete."),
            publishing(snapshot.parent),
        ):
            with open_read_only(database):
                pass  # it is a warehouse, and of this release
            database.copy_to(snapshot, arrange)
            with to_publish(settings, database).transaction(read_only=True) as connection:
                exported = parquet.export(connection, parquet.directory_beside(snapshot), replacing)
        return dg.MaterializeResult(
            metadata={
                "snapshot": dg.MetadataValue.path(str(snapshot)),
                "megabytes": round(snapshot.stat().st_size / 1e6, 1),
                "parquet_files_written": exported.written,
                "parquet_files_unchanged": exported.kept,
            }
        )

    return published_snapshot
