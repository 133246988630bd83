"""The numbers that the activity report shows: read from the tables and views as any analyst would."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from warehouse import tables

RECENT_DAYS = 28
MOST_ORGS = 20
MOST_SMALL_MULTIPLES = 12
WEEKS = 26
MONTHS = 36
RESTATED_DAYS = 30


@dataclass(frozen=True)
class DayOfEnterprise:
    """One day of history. All but `day` and `verdict` are None if it is not loaded; the means are per day."""

    day: date
    sessions_count: int | None
    mean_of_7_days: float | None
    mean_of_28_days: float | None
    is_settled: bool | None
    verdict: str


@dataclass(frozen=True)
class PeriodOfEnterprise:
    """One ISO week or month, by its first day. `change` is to the one before: 0.1 is 10 % more; None if unknown."""

    first_day: date
    sessions_count: int
    is_complete: bool
    change: float | None


@dataclass(frozen=True)
class OrganizationLately:
    """Sessions of one organization in the last RECENT_DAYS days that are loaded, and in as many before them."""

    org_id: str
    org_name: str | None
    sessions_count: int
    before: int
    weeks: Sequence[tuple[date, int]] = ()


@dataclass(frozen=True)
class Trust:
    """What speaks for the numbers, and what does not."""

    days: int
    days_by_verdict: dict[str, int]
    unattributed: int
    restated: int
    restated_by: int
    unavailable: Sequence[tuple[str, str, datetime, str]]
    last_loaded_at: datetime | None


@dataclass(frozen=True)
class Activity:
    """All of it. Without a loaded day every sequence but `days` is empty."""

    days: Sequence[DayOfEnterprise]
    weeks: Sequence[PeriodOfEnterprise]
    months: Sequence[PeriodOfEnterprise]
    organizations: Sequence[OrganizationLately]
    organizations_listed: int
    active_organizations: int
    trust: Trust

    @property
    def last_loaded(self) -> DayOfEnterprise | None:
        """The latest day that is loaded."""
        return next((day for day in reversed(self.days) if day.sessions_count is not None), None)

    def up_to_the_last_loaded(self, days: int) -> Sequence[DayOfEnterprise]:
        """So many days that end with the latest loaded one, or as many as there are."""
        until = [day for day in self.days if self.last_loaded and day.day <= self.last_loaded.day]
        return until[-days:]

    def sum_of(self, days: int, before: int = 0) -> int | None:
        """Sessions of so many days up to so many before the latest loaded one; None unless all of them are loaded."""
        if self.last_loaded is None:
            return None
        last = self.last_loaded.day - timedelta(days=before)
        counts = [d.sessions_count for d in self.days if last - timedelta(days=days) < d.day <= last]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == days else None


def activity(connection: sa.Connection) -> Activity:
    """Read it. The rollups should be up to date."""
    days = _days(connection)
    last = max((day.day for day in days if day.sessions_count is not None), default=None)
    listed = connection.scalar(sa.select(sa.func.count()).select_from(tables.organizations)) or 0
    return Activity(
        days=days,
        weeks=_periods(connection, "week")[-WEEKS:],
        months=_periods(connection, "month")[-MONTHS:],
        organizations=_organizations(connection, last) if last else [],
        organizations_listed=listed,
        active_organizations=_active(connection, last) if last else 0,
        trust=_trust(connection, days),
    )


def _days(connection: sa.Connection) -> list[DayOfEnterprise]:
    enterprise, reconciliation = tables.enterprise_sessions.c, tables.reconciliation.c
    rows = connection.execute(
        sa.select(
            reconciliation.day,
            enterprise.sessions_count,
            enterprise.trailing_7_day_count / 7.0,
            enterprise.trailing_28_day_count / 28.0,
            enterprise.is_settled,
            reconciliation.verdict,
        )
        .select_from(
            tables.reconciliation.outerjoin(tables.enterprise_sessions, enterprise.day == reconciliation.day),
        )
        .order_by(reconciliation.day)
    )
    return [
        DayOfEnterprise(day, count, _rounded(mean_7, 2), _rounded(mean_28, 2), is_settled, verdict)
        for day, count, mean_7, mean_28, is_settled, verdict in rows
    ]


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(float(number), digits)


def _periods(connection: sa.Connection, name: str) -> list[PeriodOfEnterprise]:
    """Each week or month with a loaded day, in order."""
    calendar, enterprise = tables.calendar.c, tables.enterprise_sessions.c
    period = calendar[name]
    rows = connection.execute(
        sa.select(period, sa.func.sum(enterprise.sessions_count), sa.func.count(enterprise.day))
        .select_from(tables.calendar.outerjoin(tables.enterprise_sessions, enterprise.day == calendar.day))
        .group_by(period)
        .order_by(period)
    )
    periods: list[PeriodOfEnterprise] = []
    previous: int | None = None  # sessions of the one before, if it is whole
    for first_day, total, loaded in rows:
        week_later, month_later = first_day + timedelta(days=7), (first_day + timedelta(days=31)).replace(day=1)
        following = week_later if name == "week" else month_later
        is_complete = loaded == (following - first_day).days
        change = total / previous - 1 if is_complete and previous else None
        if loaded:
            periods.append(PeriodOfEnterprise(first_day, int(total), is_complete, _rounded(change, 4)))
        previous = int(total) if is_complete else None
    return periods


def _organizations(connection: sa.Connection, last: date) -> list[OrganizationLately]:
    """The MOST_ORGS with most sessions lately; the first MOST_SMALL_MULTIPLES with their complete weeks."""
    cells, organizations = tables.daily_sessions.c, tables.organizations.c
    lately = cells.day > last - timedelta(days=RECENT_DAYS)
    now = sa.func.coalesce(sa.func.sum(cells.sessions_count).filter(lately), 0)
    before = sa.func.coalesce(sa.func.sum(cells.sessions_count).filter(~lately), 0)
    rows = connection.execute(
        sa.select(cells.org_id, organizations.org_name, now, before)
        .select_from(tables.daily_sessions.join(tables.organizations, organizations.org_id == cells.org_id))
        .where(cells.day > last - timedelta(days=2 * RECENT_DAYS), cells.day <= last)
        .group_by(cells.org_id, organizations.org_name)
        .having(now > 0)
        .order_by(now.desc(), cells.org_id)
        .limit(MOST_ORGS)
    ).all()
    weekly = tables.weekly_sessions.c
    drawn = [row.org_id for row in rows[:MOST_SMALL_MULTIPLES]]
    next_day = last + timedelta(days=1)
    since = next_day - timedelta(days=next_day.weekday(), weeks=WEEKS)
    weeks: dict[str, list[tuple[date, int]]] = {org_id: [] for org_id in drawn}
    for org_id, week, count in connection.execute(
        sa.select(weekly.org_id, weekly.week, weekly.sessions_count)
        .where(weekly.org_id.in_(drawn), weekly.week >= since, weekly.is_complete)
        .order_by(weekly.week)
    ):
        weeks[org_id].append((week, count))
    return [
        OrganizationLately(org_id, name, int(count), int(earlier), weeks.get(org_id, ()))
        for org_id, name, count, earlier in rows
    ]


def _active(connection: sa.Connection, last: date) -> int:
    """Organizations with a session lately."""
    cells = tables.daily_sessions.c
    of_these = sa.select(sa.func.count(cells.org_id.distinct())).where(
        cells.day > last - timedelta(days=RECENT_DAYS), cells.day <= last, cells.sessions_count > 0
    )
    return connection.scalar(of_these) or 0


def _trust(connection: sa.Connection, days: Sequence[DayOfEnterprise]) -> Trust:
    totals, revisions, organizations = tables.daily_totals.c, tables.session_revisions.c, tables.organizations.c
    verdicts: dict[str, int] = {}
    for day in days:
        verdicts[day.verdict] = verdicts.get(day.verdict, 0) + 1
    latest, unattributed = connection.execute(
        sa.select(sa.func.max(totals.loaded_at), sa.func.coalesce(sa.func.sum(totals.unattributed_count), 0))
    ).one()
    since = (latest or datetime.now(UTC)) - timedelta(days=RESTATED_DAYS)
    restated, restated_by = connection.execute(
        sa.select(
            sa.func.count(), sa.func.coalesce(sa.func.sum(revisions.new_count - revisions.previous_count), 0)
        ).where(revisions.revised_at > since)
    ).one()
    refused = connection.execute(
        sa.select(
            organizations.org_id,
            sa.func.coalesce(organizations.org_name, organizations.org_id),
            organizations.unavailable_since,
            organizations.unavailable_reason,
        )
        .where(
            organizations.unavailable_since.is_not(None),
            organizations.is_listed,
        )
        .order_by(organizations.unavailable_since, organizations.org_id)
    )
    return Trust(
        days=len(days),
        days_by_verdict=verdicts,
        unattributed=int(unattributed),
        restated=restated,
        restated_by=int(restated_by),
        unavailable=[(row[0], row[1], row[2], row[3]) for row in refused],
        last_loaded_at=latest,
    )
