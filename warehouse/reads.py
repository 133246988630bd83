"""What runs and the command need to know of what is stored. Analysts' questions are SQL and not here."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from warehouse.tables import daily_sessions, daily_totals, organizations


@dataclass(frozen=True)
class Coverage:
    """What the warehouse holds of the days from `first_day` to `last_day`, both included."""

    first_day: date
    last_day: date
    days_expected: int
    days_loaded: int
    days_reconciled: int
    organizations: int
    sessions_count: int
    last_loaded_at: datetime | None


def counted_organizations(connection: sa.Connection) -> list[str]:
    """Ids of the organizations that were listed or configured the last time that was looked up, in order."""
    latest = sa.select(sa.func.max(organizations.c.last_seen_at)).scalar_subquery()
    of_latest = sa.select(organizations.c.org_id).where(organizations.c.last_seen_at == latest)
    return list(connection.scalars(of_latest.order_by(organizations.c.org_id)))


def windows(connection: sa.Connection) -> dict[date, tuple[datetime, datetime]]:
    """Start and end of every day that was read."""
    rows = connection.execute(sa.select(daily_totals.c.day, daily_totals.c.window_start, daily_totals.c.window_end))
    return {row.day: (row.window_start, row.window_end) for row in rows}


def last_loaded_at(connection: sa.Connection) -> datetime | None:
    """When a day was last read; None if none ever was."""
    latest: datetime | None = connection.scalar(sa.select(sa.func.max(daily_totals.c.loaded_at)))
    return latest


def days_of_runs(connection: sa.Connection, run_ids: Sequence[str]) -> set[date]:
    """The days that one of these runs was the last to read."""
    return set(connection.scalars(sa.select(daily_totals.c.day).where(daily_totals.c.run_id.in_(run_ids))))


def recent_activity(connection: sa.Connection, first: date, before: date) -> dict[str, tuple[float, float]]:
    """For each organization: how many of its days from `first` to before `before` are stored, and their sessions."""
    cells = daily_sessions.c
    rows = connection.execute(
        sa.select(cells.org_id, sa.func.count().label("days"), sa.func.sum(cells.sessions_count).label("sessions"))
        .where(cells.day >= first, cells.day < before)
        .group_by(cells.org_id)
    )
    return {row.org_id: (float(row.days), float(row.sessions)) for row in rows}


def unavailable_organizations(connection: sa.Connection) -> dict[str, str]:
    """The organizations that the source refuses to count, and its reason."""
    refused = organizations.c.unavailable_since.is_not(None)
    rows = connection.execute(sa.select(organizations.c.org_id, organizations.c.unavailable_reason).where(refused))
    return {row.org_id: row.unavailable_reason for row in rows}


def missing_cells(connection: sa.Connection, org_ids: Sequence[str] = ()) -> dict[date, int]:
    """How many of the organizations to count have no count on a day that was read, for the days where some have none.

    `org_ids` are those to count; empty means `counted_organizations`. One created after a day is not missed there,
    nor is one that the source refuses to count.
    """
    unavailable = unavailable_organizations(connection)
    org_ids = [o for o in org_ids or counted_organizations(connection) if o not in unavailable]
    known = sa.select(organizations.c.org_id, organizations.c.created_at).where(organizations.c.org_id.in_(org_ids))
    created_at = {row.org_id: row.created_at for row in connection.execute(known)}
    stored = (
        sa.select(daily_sessions.c.day, daily_sessions.c.org_id).where(daily_sessions.c.org_id.in_(org_ids)).subquery()
    )
    # Counting is enough where all are there; only the other days are looked at one by one.
    counts = connection.execute(
        sa.select(daily_totals.c.day, daily_totals.c.window_end, sa.func.count(stored.c.org_id).label("cells"))
        .select_from(daily_totals.outerjoin(stored, daily_totals.c.day == stored.c.day))
        .group_by(daily_totals.c.day, daily_totals.c.window_end)
    )
    short = {row.day: row.window_end for row in counts if row.cells < len(org_ids)}
    present: dict[date, set[str]] = {day: set() for day in short}
    for day, org_id in connection.execute(sa.select(stored).where(stored.c.day.in_(list(short)))):
        present[day].add(org_id)
    gaps = {}
    for day, end in short.items():
        absent = (o for o in org_ids if o not in present[day])
        missing = sum(1 for o in absent if created_at.get(o) is None or created_at[o] < end)
        if missing:
            gaps[day] = missing
    return gaps


def loaded_days(connection: sa.Connection, org_ids: Sequence[str] = ()) -> set[date]:
    """The days that were read and lack no organization that is to be counted; see `missing_cells`."""
    return windows(connection).keys() - missing_cells(connection, org_ids).keys()


def coverage(
    connection: sa.Connection, days: Collection[date], loaded: Collection[date], org_ids: Sequence[str] = ()
) -> Coverage:
    """How much of `days`, in order and not empty, is loaded and reconciled; `loaded` are the `loaded_days`."""
    expected = set(days)
    rows = [row for row in connection.execute(sa.select(daily_totals)) if row.day in expected and row.day in loaded]
    return Coverage(
        first_day=min(expected),
        last_day=max(expected),
        days_expected=len(expected),
        days_loaded=len(rows),
        days_reconciled=sum(1 for row in rows if row.unattributed_count == 0),
        organizations=len(org_ids or counted_organizations(connection)),
        sessions_count=sum(row.sessions_count for row in rows),
        last_loaded_at=max((row.loaded_at for row in rows), default=None),
    )
