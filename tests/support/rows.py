"""Rows of the warehouse, as a load stores them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from warehouse.tables import ORGANIZATIONS, Counted

NOW = datetime(2025, 3, 1, 2, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
DAY = date(2025, 2, 1)
SETTLED_AFTER_DAYS = 2


def cell(day: date, id_: str, count: Any, at: datetime = NOW, of: Counted = ORGANIZATIONS) -> dict[str, Any]:
    return {
        "day": day,
        of.id: id_,
        "sessions_count": count,
        "is_derived": False,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": f"run of {at}",
    }


def total(day: date, count: int, at: datetime = NOW, of: Counted = ORGANIZATIONS) -> dict[str, Any]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return {
        "day": day,
        "window_start": start,
        "window_end": start + timedelta(days=1),
        "sessions_count": count,
        f"{of.prefix}_expected": 2,
        f"{of.prefix}_loaded": 2,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": "run",
    }
