"""What the warehouse holds when a load begins, and whether new counts may be added to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from pipelines.loading.block_size import Wanted
from pipelines.loading.changed_settings import moved_days, refuse_other_version
from pipelines.partitions import Day, closed_days, daily_partitions
from pipelines.settings import Settings
from warehouse import migrations, reads, writes
from warehouse.dimensions import Dimension


@dataclass(frozen=True)
class StoredBefore:
    """What is stored of the days of a load.

    ids: all ids that are counted.
    loaded: the days that were loaded by the runs which this one re-executes.
    lacking: for each day that was read, the ids that have no count on it.
    refused: those of the ids that the API refused to count.
    moved: for each day whose window has moved since it was read, the ids that have a count on it.
    """

    ids: list[str]
    loaded: set[date]
    lacking: dict[date, set[str]]
    refused: set[str]
    moved: dict[date, set[str]]

    @property
    def no_longer_counted(self) -> set[str]:
        """The ids that are read on moved days alone."""
        return set[str]().union(*self.moved.values()) - {*self.ids}

    def wanted(self, days: Sequence[Day], to_complete: Mapping[date, set[str]]) -> Wanted:
        """The ids to read on each of `days`: those in `to_complete`, elsewhere all.

        On days whose windows have moved, also those that are no longer counted: their stored counts are those of other
        windows.
        """
        return {day: sorted({*to_complete.get(day.day, self.ids), *self.moved.get(day.day, ())}) for day in days}

    def to_complete(self, complete_before: str) -> dict[date, set[str]]:
        """The days on which only these ids are to be read: those already loaded, or read and before a date."""
        days = {day for day in self.lacking if day in self.loaded or day.isoformat() < complete_before}
        return {day: self.lacking[day] for day in days - self.moved.keys()}


def begin(
    connection: sa.Connection,
    dimension: Dimension,
    settings: Settings,
    *,
    api_version: str,
    days: Sequence[Day],
    earlier_runs: Sequence[str],
    now: datetime,
) -> StoredBefore:
    """Migrate the warehouse, record where its days begin and which are expected, and return what it holds.

    `earlier_runs` are the ids of the runs that this one re-executes. Raises UnfitWarehouse or Incompatible.
    """
    migrations.migrate(connection)
    moved = moved_days(connection, settings)[dimension]
    refuse_other_version(reads.api_versions(connection), api_version, settings)
    writes.store_day_boundary(connection, settings.devin_timezone, settings.devin_day_start_hour)
    expect_closed_days(connection, settings, now)
    dates = [day.day for day in days]
    return StoredBefore(
        reads.latest_listed(connection, dimension),
        reads.days_of_runs(connection, dimension, earlier_runs),
        reads.missing_ids(connection, dimension, dates, settings.chosen(dimension)),
        {*reads.unavailable(connection, dimension)},
        reads.counted_on(connection, dimension, moved.intersection(dates)),
    )


def expect_closed_days(connection: sa.Connection, settings: Settings, now: datetime) -> None:
    """Record for the views that every day which is over at `now` is to be loaded, if any is."""
    if closed := closed_days(daily_partitions(settings), now):
        writes.store_expected_days(connection, closed[0], closed[-1])
