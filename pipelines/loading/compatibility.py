"""What must stay the same over a warehouse's whole life: the windows of its days, and the version of the API."""

from datetime import date, datetime

import dagster as dg

from pipelines.partitions import as_days
from pipelines.settings import Settings


class Incompatible(Exception):
    """The warehouse holds counts that new ones must not be mixed with. The message is for the user."""


def refuse_other_days(
    stored: dict[date, tuple[datetime, datetime]], partitions: dg.DailyPartitionsDefinition, settings: Settings
) -> None:
    """Raise Incompatible if a stored day has another window than the settings give it."""
    keys = [day.isoformat() for day in sorted(stored) if day >= settings.devin_start_date]
    for day in as_days(partitions, keys):
        if stored[day.day] != (day.start, day.end):
            start, end = stored[day.day]
            raise Incompatible(
                f"The warehouse holds {day.day} as {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, but "
                f"DEVIN_TIMEZONE={settings.devin_timezone} and DEVIN_DAY_START_HOUR={settings.devin_day_start_hour} "
                f"make it {day.start:%Y-%m-%d %H:%M} to {day.end:%Y-%m-%d %H:%M} UTC. Two kinds of day are never "
                "mixed in one table: set these variables back, or set WAREHOUSE_URL to a new warehouse."
            )


def refuse_other_version(stored: set[str], version: str, settings: Settings) -> None:
    """Raise Incompatible if days were read from another version than the one that is to be asked, unless allowed."""
    if stored <= {version} or settings.devin_allow_version_change:
        return
    back = f"Use a key for {min(stored)}, or" if len(stored) == 1 else "To go on,"
    raise Incompatible(
        f"The warehouse holds counts of {' and '.join(sorted(stored))} of the API, but the key and DEVIN_API_VERSION="
        f"{settings.devin_api_version} mean {version}, and nobody promises that the two agree. {back} set "
        "WAREHOUSE_URL to a new warehouse, or accept a change within one series with DEVIN_ALLOW_VERSION_CHANGE=true; "
        "the column api_version then tells them apart."
    )
