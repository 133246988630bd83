"""Rows of the warehouse, as a load stores them."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from warehouse import writes
from warehouse.dimensions import ORGANIZATIONS, Dimension
from warehouse.writes import Provenance, Reading

NOW = datetime(2025, 3, 1, 2, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
DAY = date(2025, 2, 1)
SETTLED_AFTER_DAYS = 2


def cell(day: date, id_: str, count: Any, at: datetime = NOW, of: Dimension = ORGANIZATIONS) -> dict[str, Any]:
    return {
        "day": day,
        of.id: id_,
        "sessions_count": count,
        "is_derived": False,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": f"run of {at}",
        "how": "asked",
    }


def reading(day: date, total: int, counts: Mapping[str, Any] | None = None) -> Reading:
    """A reading of a UTC day on which two organizations were expected."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Reading(day, start, start + timedelta(days=1), total, counts or {}, how={}, expected=2)


def store(
    connection: sa.Connection,
    *readings: Reading,
    at: datetime = NOW,
    of: Dimension = ORGANIZATIONS,
    api_version: str = "v2",
    run_id: str = "",
) -> dict[date, writes.StoredDay]:
    return writes.store_days(connection, of, readings, Provenance(api_version, at, run_id or f"run of {at}"))
