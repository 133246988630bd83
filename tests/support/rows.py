"""Rows of the warehouse, as a load stores them."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from warehouse import writes
from warehouse.tables import ORGANIZATIONS, Counted

NOW = datetime(2025, 3, 1, 2, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
DAY = date(2025, 2, 1)
SETTLED_AFTER_DAYS = 2


def midnight(day: date) -> datetime:
    """When the day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def cell(day: date, id_: str, count: Any, at: datetime = NOW, of: Counted = ORGANIZATIONS, **by: str) -> dict[str, Any]:
    """A count that was read at a time, by a run named after it unless `by` says otherwise."""
    return {
        "day": day,
        of.id: id_,
        "sessions_count": count,
        "is_derived": False,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": f"run of {at}",
        **by,
    }


def total(
    day: date,
    count: int,
    at: datetime = NOW,
    of: Counted = ORGANIZATIONS,
    *,
    expected: int = 2,
    loaded: int = 2,
    **by: str,
) -> dict[str, Any]:
    """A control total that was read at a time, with how many ids were expected and loaded. The day is one of UTC."""
    return {
        "day": day,
        "window_start": midnight(day),
        "window_end": midnight(day) + timedelta(days=1),
        "sessions_count": count,
        f"{of.prefix}_expected": expected,
        f"{of.prefix}_loaded": loaded,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": "run",
        **by,
    }


def store(
    connection: sa.Connection,
    of: Counted,
    days: Mapping[date, Mapping[str, int]],
    *,
    totals: Mapping[date, int] | None = None,
    expected: int | None = None,
    loaded: int | None = None,
    read_after: timedelta = timedelta(hours=2),
    **by: str,
) -> None:
    """Store these counts by day and id, each day read that long after its end.

    A day's control total is the sum of its counts unless `totals` has one, which may be of a day without counts.
    `expected` and `loaded` are how many ids each day should have and has, if not those with a count.
    """
    by = {"run_id": "run", **by}
    control = {day: sum(counts.values()) for day, counts in days.items()} | dict(totals or {})
    rows, cells = [], []
    for day, count in control.items():
        counts = days.get(day, {})
        at = midnight(day) + timedelta(days=1) + read_after
        wanted = len(counts) if expected is None else expected
        found = len(counts) if loaded is None else loaded
        rows.append(total(day, count, at, of, expected=wanted, loaded=found, **by))
        cells += [cell(day, id_, n, at, of, **by) for id_, n in counts.items()]
    writes.store_days(connection, of, rows, cells)
