"""Which of the rollups and of what is published are older than the stored days."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from pipelines.asset_keys import ACTIVITY_REPORT, PUBLISHED, PUBLISHED_FILES, PUBLISHED_SNAPSHOT
from pipelines.ledger import open_read_only
from pipelines.manifest import ForeignManifest, read_manifest
from pipelines.settings import Settings
from resources.database import Database
from resources.publish_address import PublishAddress
from resources.publish_errors import PublishError
from resources.publish_places import open_place
from warehouse import parquet, reads
from warehouse.dimensions import ORGANIZATIONS

CATCH_UP = "devin-sessions backfill --missing"


@dataclass(frozen=True)
class Behind:
    """Names of the assets that are older than the stored days. `stored_at` is the last reading, None without days."""

    rollups: list[str]
    published: list[str]
    stored_at: datetime | None

    @property
    def assets(self) -> list[str]:
        """All of them, in the order in which they are built."""
        return [*self.rollups, *self.published]


def behind(settings: Settings) -> Behind:
    """What is older than the stored days, such as after a load in the UI or a killed run.

    Raises WarehouseError, UnfitWarehouse or OlderWarehouse.
    """
    database = settings.warehouse
    if database.is_file and not database.exists():
        return Behind([], [], None)
    with open_read_only(database) as connection:
        return _behind(connection, database, settings)


def _behind(connection: sa.Connection, database: Database, settings: Settings) -> Behind:
    read = {dimension: reads.last_read(connection, dimension).values() for dimension in settings.dimensions}
    stored_at = reads.latest([moment for moments in read.values() for moment in moments])
    if stored_at is None:
        return Behind([], [], None)
    rollups = reads.rollups_behind(connection)
    snapshot, report = settings.published_snapshot, settings.published_report
    if snapshot:
        # Anything a transaction changed must be published. After a kill it may be in the log next to the file.
        written = max(path.stat().st_mtime for path in _files(database.path) if path.exists())
    else:
        read_at = reads.latest(read[ORGANIZATIONS])
        written = read_at.timestamp() if read_at else 0.0
    published = {
        PUBLISHED_SNAPSHOT: [snapshot, parquet.directory_beside(snapshot) / parquet.SUMS] if snapshot else [],
        ACTIVITY_REPORT: [report] if report else [],
    }
    late = {name for name, paths in published.items() if any(_is_older(path, written) for path in paths)}
    folder = settings.published_folder
    # On a server, several machines may have stored and published, each by its own clock.
    if folder and _is_older_there(folder, written if snapshot else None, reads.readings_digest(connection)):
        late.add(PUBLISHED_FILES)
    return Behind(rollups, [name for name in PUBLISHED if name in late], stored_at)


def _files(database: Path) -> list[Path]:
    return [database, database.with_name(f"{database.name}.wal")]


def _is_older_there(folder: PublishAddress, written: float | None, readings: str) -> bool:
    """Whether a folder lacks some of these readings, or what one machine has `written` since, if that is known."""
    try:
        manifest = read_manifest(open_place(folder, tries=1))  # a tick of the sensor ends after a minute
    except (OSError, PublishError, ForeignManifest):  # the next run reports what is in the way
        return True
    if manifest is None or manifest.readings != readings:
        return True
    return written is not None and manifest.as_of.timestamp() < written


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except OSError:  # the next run reports what is in the way
        return True
