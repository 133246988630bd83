"""The numbers on the activity report, read from the tables and views as any analyst would read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from warehouse import reads, tables
from warehouse.dimensions import ORGANIZATIONS

RECENT_DAYS = 28
MOST_ORGS = 20
MOST_SMALL_MULTIPLES = 12
WEEKS = 26
MONTHS = 36
RESTATED_DAYS = 30


@dataclass(frozen=True)
class EnterpriseDay:
    """One day of history. All but `day` and `verdict` are None if it isn't loaded; means are sessions per day."""

    day: date
    sessions_count: int | None
    mean_of_7_days: float | None
    mean_of_28_days: float | None
    is_settled: bool | None
    verdict: str


@dataclass(frozen=True)
class Window:
    """The sessions of a period of `days` days, summed over the `days_loaded` of them that are loaded."""

    days: int
    days_loaded: int
    sessions_count: int

    @property
    def is_complete(self) -> bool:
        return self.days_loaded == self.days

    @property
    def complete_sum(self) -> int | None:
        """The sessions of the whole period; None unless every day of it is loaded."""
        return self.sessions_count if self.is_complete else None


@dataclass(frozen=True)
class EnterprisePeriod:
    """One ISO week or month. `before` is the sum of the previous one; None unless all of its days are loaded."""

    first_day: date
    window: Window
    before: int | None


@dataclass(frozen=True)
class RecentOrganization:
    """One organization's sessions in the RECENT_DAYS days up to the last loaded one, and in the RECENT_DAYS before.

    A day counts as loaded if the organization has a count for it or did not exist yet. `weeks` are in order, and None
    where the count of a day is missing.
    """

    org_id: str
    org_name: str | None
    recent: Window
    before: Window
    weeks: Sequence[tuple[date, int | None]] = ()


@dataclass(frozen=True)
class Activity:
    """Everything the report shows. If no day is loaded, every sequence but `days` is empty.

    `partial_days` are loaded, but without the organizations that the API did not count. In the last RECENT_DAYS days
    `active_organizations` had a session, and `possibly_active` may have had one: they have only zeros, and a count is
    missing. `incomplete_organizations` have no count on a day of those that is loaded. `known_by` has the number of all
    counts by how each is known: asked, derived or listed.
    """

    days: Sequence[EnterpriseDay]
    partial_days: int
    weeks: Sequence[EnterprisePeriod]
    months: Sequence[EnterprisePeriod]
    organizations: Sequence[RecentOrganization]
    known_organizations: int
    active_organizations: int
    possibly_active: int
    incomplete_organizations: int
    restated: int
    restated_by: int
    known_by: Mapping[str, int]
    last_loaded_at: datetime | None

    @property
    def last_loaded(self) -> EnterpriseDay | None:
        """The latest day that is loaded."""
        return next((day for day in reversed(self.days) if day.sessions_count is not None), None)

    def days_up_to_last_loaded(self, days: int) -> Sequence[EnterpriseDay]:
        """The last `days` days of history that end with the latest loaded one; fewer if history is shorter."""
        last = self.last_loaded
        until = [day for day in self.days if last and day.day <= last.day]
        return until[-days:]

    def window(self, days: int, before: int = 0) -> Window:
        """The `days` days that end `before` days ahead of the latest loaded one. Days before history aren't loaded."""
        if (until := self.last_loaded) is None:
            return Window(days, 0, 0)
        last = until.day - timedelta(days=before)
        return window_over(days, [d for d in self.days if last - timedelta(days=days) < d.day <= last])


def window_over(days: int, found: Sequence[EnterpriseDay]) -> Window:
    """A window of `days` days, of which `found` are days of history."""
    counts = [day.sessions_count for day in found if day.sessions_count is not None]
    return Window(days, len(counts), sum(counts))


def read_activity(connection: sa.Connection) -> Activity:
    """Read what the report shows. The rollups should be up to date."""
    days = _days(connection)
    last = max((day.day for day in days if day.sessions_count is not None), default=None)
    known = _organizations(connection, days[0].day, last) if last else []
    listed = {org_id for org_id, is_listed in connection.execute(_IS_LISTED) if is_listed}
    most = sorted((org for org in known if org.recent.sessions_count), key=_rank)[:MOST_ORGS]
    weeks = _whole_weeks(connection, last, [org.org_id for org in most[:MOST_SMALL_MULTIPLES]]) if last else {}
    days_loaded = sum(
        day.sessions_count is not None for day in days if last and 0 <= (last - day.day).days < RECENT_DAYS
    )
    latest, restated, restated_by = _restated(connection)
    return Activity(
        days=days,
        partial_days=connection.scalar(_PARTIAL_DAYS) or 0,
        weeks=_periods(days, "week")[-WEEKS:],
        months=_periods(days, "month")[-MONTHS:],
        organizations=[replace(org, weeks=weeks.get(org.org_id, ())) for org in most],
        known_organizations=len(known),
        active_organizations=sum(org.recent.sessions_count > 0 for org in known),
        possibly_active=sum(
            org.org_id in listed and not org.recent.sessions_count and not org.recent.is_complete for org in known
        ),
        incomplete_organizations=sum(org.org_id in listed and org.recent.days_loaded < days_loaded for org in known),
        restated=restated,
        restated_by=restated_by,
        known_by={how: number for how, number in connection.execute(_KNOWN_BY)},
        last_loaded_at=latest,
    )


_IS_LISTED = sa.select(tables.organizations.c.org_id, tables.organizations.c.is_listed)


_KNOWN_BY = sa.select(tables.daily_sessions.c.how, sa.func.count()).group_by(tables.daily_sessions.c.how)


_PARTIAL_DAYS = (
    sa.select(sa.func.count())
    .select_from(tables.reconciliation)
    .where(tables.reconciliation.c.orgs_loaded < tables.reconciliation.c.orgs_expected)
)


def _rank(org: RecentOrganization) -> tuple[int, str]:
    return -org.recent.sessions_count, org.org_id


def _days(connection: sa.Connection) -> list[EnterpriseDay]:
    enterprise, reconciliation = tables.enterprise_sessions.c, tables.reconciliation.c
    rows = connection.execute(
        sa.select(
            reconciliation.day,
            reconciliation.control_total,
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
        EnterpriseDay(day, count, _rounded(mean_7, 2), _rounded(mean_28, 2), is_settled, verdict)
        for day, count, mean_7, mean_28, is_settled, verdict in rows
    ]


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(float(number), digits)


def _periods(days: Sequence[EnterpriseDay], name: str) -> list[EnterprisePeriod]:
    """Each week or month from the first to the last one with a loaded day, in order."""
    found: dict[date, list[EnterpriseDay]] = {}
    for day in days:
        first_day = day.day.replace(day=1) if name == "month" else day.day - timedelta(days=day.day.weekday())
        found.setdefault(first_day, []).append(day)
    periods: list[EnterprisePeriod] = []
    before: int | None = None
    for first_day, of_period in sorted(found.items()):
        week_later, month_later = first_day + timedelta(days=7), (first_day + timedelta(days=31)).replace(day=1)
        following = week_later if name == "week" else month_later
        window = window_over((following - first_day).days, of_period)
        if periods or window.days_loaded:
            periods.append(EnterprisePeriod(first_day, window, before))
        before = window.complete_sum
    while periods and not periods[-1].window.days_loaded:
        periods.pop()
    return periods


def _organizations(connection: sa.Connection, history: date, last: date) -> list[RecentOrganization]:
    """Every organization that was ever listed, without its weeks. Days before `history` are ignored."""
    cells, organizations, totals = tables.daily_sessions.c, tables.organizations.c, tables.daily_totals.c
    first, middle = max(history, last - timedelta(days=2 * RECENT_DAYS - 1)), last - timedelta(days=RECENT_DAYS)
    counts = (
        sa.select(cells.org_id, cells.day, cells.sessions_count, totals.window_end)
        .select_from(tables.daily_sessions.join(tables.daily_totals, totals.day == cells.day))
        .where(cells.day.between(first, last))
        .subquery()
    )
    existed = organizations.created_at.is_(None) | (organizations.created_at < counts.c.window_end)

    def of(is_in_window: sa.ColumnElement[bool]) -> list[sa.ColumnElement[int]]:
        return [
            sa.func.coalesce(sa.func.sum(counts.c.sessions_count).filter(is_in_window), 0),
            sa.func.count(counts.c.day).filter(is_in_window, existed),
        ]

    rows = connection.execute(
        sa.select(
            organizations.org_id,
            organizations.org_name,
            organizations.created_at,
            *of(counts.c.day > middle),
            *of(counts.c.day <= middle),
        )
        .select_from(tables.organizations.outerjoin(counts, counts.c.org_id == organizations.org_id))
        .group_by(organizations.org_id, organizations.org_name, organizations.created_at)
    ).all()
    loaded = connection.execute(sa.select(totals.day, totals.window_end).where(totals.day.between(first, last))).all()

    def days_before_creation(created_at: datetime | None, *, is_recent: bool) -> int:
        """Loaded days that ended before it was created: it had no session then, whether or not it was counted."""
        ends = [end for day, end in loaded if (day > middle) == is_recent]
        return sum(end <= created_at for end in ends) if created_at else 0

    return [
        RecentOrganization(
            org_id,
            name,
            Window(RECENT_DAYS, days + days_before_creation(created_at, is_recent=True), int(count)),
            Window(RECENT_DAYS, days_before + days_before_creation(created_at, is_recent=False), int(count_before)),
        )
        for org_id, name, created_at, count, days, count_before, days_before in rows
    ]


def _whole_weeks(
    connection: sa.Connection, last: date, org_ids: Sequence[str]
) -> dict[str, list[tuple[date, int | None]]]:
    """For each of `org_ids`, its weeks among the last WEEKS, from its first to its last complete one; gaps are None."""
    weekly = tables.weekly_sessions.c
    next_day = last + timedelta(days=1)
    since = next_day - timedelta(days=next_day.weekday(), weeks=WEEKS)
    complete: dict[str, dict[date, int]] = {}
    for org_id, week, count in connection.execute(
        sa.select(weekly.org_id, weekly.week, weekly.sessions_count)
        .where(weekly.org_id.in_(org_ids), weekly.week >= since, weekly.is_complete)
        .order_by(weekly.week)
    ):
        complete.setdefault(org_id, {})[week] = count
    mondays = [since + timedelta(weeks=n) for n in range(WEEKS)]
    return {
        org_id: [(monday, found.get(monday)) for monday in mondays if min(found) <= monday <= max(found)]
        for org_id, found in complete.items()
    }


def _restated(connection: sa.Connection) -> tuple[datetime | None, int, int]:
    """When a day was last read, how many counts changed in the RESTATED_DAYS before that, and by how many sessions."""
    revisions = tables.session_revisions.c
    latest = reads.latest(reads.last_read(connection, ORGANIZATIONS).values())
    if latest is None:
        return None, 0, 0
    number, by = connection.execute(
        sa.select(
            sa.func.count(), sa.func.coalesce(sa.func.sum(revisions.new_count - revisions.previous_count), 0)
        ).where(revisions.revised_at > latest - timedelta(days=RESTATED_DAYS))
    ).one()
    return latest, number, int(by)
