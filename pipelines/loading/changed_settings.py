"""Refuses what must not change during a warehouse's life: where its days begin, and the version of the API.

The rules of a time zone may change: this finds the days whose windows they have moved.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime

import sqlalchemy as sa

from pipelines.partitions import Day, as_days, daily_partitions, format_days, ranges
from pipelines.settings import Settings, is_timezone
from warehouse import reads
from warehouse.dimensions import DIMENSIONS, Dimension

_MAX_COMMANDS = 6

Windows = Mapping[date, tuple[datetime, datetime]]


class Incompatible(Exception):
    """The warehouse holds counts that must not be mixed with new ones. The message is for the user."""


def moved_days(
    connection: sa.Connection, settings: Settings, *, to_read_again: Collection[date] = ()
) -> dict[Dimension, set[date]]:
    """The days since DEVIN_START_DATE whose windows have moved since they were read: their zone's rules have changed.

    Raises Incompatible if the settings have changed instead. An older release didn't record them: then days with other
    windows are accepted only if all of them are `to_read_again`.
    """
    stored = {dimension: reads.windows(connection, dimension) for dimension in DIMENSIONS}
    differing = {dimension: _differing(windows, settings) for dimension, windows in stored.items()}
    moved = {
        dimension: {day for day in days if day >= settings.devin_start_date} for dimension, days in differing.items()
    }
    recorded = reads.day_boundary(connection)
    if recorded is None:
        days = set[date]().union(*moved.values())
        if days <= {*to_read_again}:
            return moved
        command = f"devin-sessions backfill {min(days)} {max(days)} --refresh"
        raise Incompatible(
            f"{_difference(min(days), stored, settings)}: restore the earlier values, or set WAREHOUSE_URL to a new "
            "warehouse. If you changed neither of the two, the rules of the time zone have changed since an older "
            f"release read these days. Then read all of them again: {command}"
        )
    days = set[date]().union(*differing.values())
    if days and not _is_same(recorded, settings, {day for windows in stored.values() for day in windows}):
        timezone, hour = recorded
        raise Incompatible(
            f"{_difference(min(days), stored, settings)}: restore the earlier values, DEVIN_TIMEZONE={timezone} and "
            f"DEVIN_DAY_START_HOUR={hour}, or set WAREHOUSE_URL to a new warehouse."
        )
    return moved


def describe_moved(days: Sequence[date], settings: Settings) -> str:
    """A sentence about these days, which have moved, and the commands that read them again."""
    apart = ranges(days)
    if len(apart) > _MAX_COMMANDS:
        apart = [(days[0], days[-1])]
    commands = " && ".join(f"devin-sessions backfill {first} {last} --refresh" for first, last in apart)
    return (
        f"{format_days(days)}, stored with other bounds than the rules of {settings.devin_timezone} now give. "
        f"To read again: {commands}"
    )


def _differing(stored: Windows, settings: Settings) -> set[date]:
    """The stored days that have another window now."""
    return {day.day for day in _days(stored, settings) if stored[day.day] != (day.start, day.end)}


def _is_same(recorded: tuple[str, int], settings: Settings, stored: Collection[date]) -> bool:
    """Whether the settings make the same days of the `stored` ones as those `recorded`, by the rules of today.

    They do if they are the same, or if a zone was renamed, such as Europe/Kiev to Europe/Kyiv.
    """
    timezone, hour = recorded
    if recorded == (settings.devin_timezone, settings.devin_day_start_hour):
        return True
    if not is_timezone(timezone):
        return False
    earlier = settings.model_copy(update={"devin_timezone": timezone, "devin_day_start_hour": hour})
    return _days(stored, earlier) == _days(stored, settings)


def _days(days: Iterable[date], settings: Settings) -> list[Day]:
    return as_days(daily_partitions(settings), [day.isoformat() for day in sorted(days)])


def _difference(day: date, stored: Mapping[Dimension, Windows], settings: Settings) -> str:
    (now,) = _days([day], settings)
    of_day = [windows[day] for windows in stored.values() if day in windows]
    start, end = next(window for window in of_day if window != (now.start, now.end))
    return (
        f"The warehouse holds {day} as {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, but DEVIN_TIMEZONE="
        f"{settings.devin_timezone} and DEVIN_DAY_START_HOUR={settings.devin_day_start_hour} make it "
        f"{now.start:%Y-%m-%d %H:%M} to {now.end:%Y-%m-%d %H:%M} UTC. Different day boundaries are never mixed in one "
        "table"
    )


def refuse_other_version(stored: set[str], version: str, settings: Settings) -> None:
    """Raise Incompatible if stored days come from another version of the API than `version`, unless that is allowed."""
    if stored <= {version} or settings.devin_allow_version_change:
        return
    fix = f"Use a key for {min(stored)}, set" if len(stored) == 1 else "Set"
    raise Incompatible(
        f"The warehouse holds counts of {' and '.join(sorted(stored))} of the API, but the key and DEVIN_API_VERSION="
        f"{settings.devin_api_version} mean {version}, and the two are not guaranteed to agree. {fix} WAREHOUSE_URL to "
        "a new warehouse, or allow a change within one series with DEVIN_ALLOW_VERSION_CHANGE=true; the column "
        "api_version then tells the counts apart."
    )
