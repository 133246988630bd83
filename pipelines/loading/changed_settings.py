"""Refuses what must not change during a warehouse's life: the windows of its days, and the version of the API."""

from datetime import date, datetime

import dagster as dg

from pipelines.partitions import as_days
from pipelines.settings import Settings


class Incompatible(Exception):
    """The warehouse holds counts that must not be mixed with new ones. The message is for the user."""


def refuse_other_days(
    stored: dict[date, tuple[datetime, datetime]], partitions: dg.DailyPartitionsDefinition, settings: Settings
) -> None:
    """Raise Incompatible if a stored day's window differs from the one that the settings give it."""
    keys = [day.isoformat() for day in sorted(stored) if day >= settings.devin_start_date]
    for day in as_days(partitions, keys):
        if stored[day.day] != (day.start, day.end):
            start, end = stored[day.day]
            raise Incompatible(
                f"The warehouse holds {day.day} as {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, but "
                f"DEVIN_TIMEZONE={settings.devin_timezone} and DEVIN_DAY_START_HOUR={settings.devin_day_start_hour} "
                f"make it {day.start:%Y-%m-%d %H:%M} to {day.end:%Y-%m-%d %H:%M} UTC. Different day boundaries are "
                "never mixed in one table: restore the earlier values, or set WAREHOUSE_URL to a new warehouse."
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
