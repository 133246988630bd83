"""A time zone in which it is about noon, so that no day ends while a test runs."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

NOON = f"Etc/GMT{datetime.now(UTC).hour - 12:+}"
"""Its name, for `DEVIN_TIMEZONE`."""

ZONE = ZoneInfo(NOON)


def ago(days: int) -> str:
    """The day that began this many days ago there: the last closed day is `ago(1)`."""
    return f"{datetime.now(ZONE).date() - timedelta(days)}"
