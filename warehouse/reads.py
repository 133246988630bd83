"""What runs and the command ask of the warehouse. Analysts' queries are SQL files, not here."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from warehouse import tables
from warehouse.dimensions import DIMENSIONS, Dimension
from warehouse.listing import of_rows
from warehouse.tables import ROLLUPS, monthly_sessions, stale_days

_CLOCKS_DIFFER = timedelta(hours=1)  # between the machines that load and that read

DayState = Literal["missing", "partial", "proven", "unattributed", "contradiction"]


@dataclass(frozen=True)
class Coverage:
    """How much of the days from `first_day` to `last_day`, both included, the warehouse holds."""

    first_day: date
    last_day: date
    days_expected: int
    days_loaded: int
    days_reconciled: int
    counted: int
    sessions_count: int
    last_loaded_at: datetime | None


def latest_listed(connection: sa.Connection, dimension: Dimension) -> list[str]:
    """The ids on the latest list, sorted."""
    table = dimension.listed.c
    return list(connection.scalars(sa.select(table[dimension.id]).where(table.is_listed).order_by(table[dimension.id])))


def windows(connection: sa.Connection, dimension: Dimension) -> dict[date, tuple[datetime, datetime]]:
    """Start and end of every day that was read."""
    totals = dimension.totals.c
    rows = connection.execute(sa.select(totals.day, totals.window_start, totals.window_end))
    return {row.day: (row.window_start, row.window_end) for row in rows}


def day_boundary(connection: sa.Connection) -> tuple[str, int] | None:
    """The time zone and the hour at which a day begins, as a load last recorded them; None if none has."""
    row = connection.execute(sa.select(tables.day_boundary)).one_or_none()
    return (row.timezone, row.day_start_hour) if row else None


def read_days(connection: sa.Connection, dimension: Dimension) -> set[date]:
    """Every day that was read, without those that were read in the future.

    They were read by a clock that was ahead, so that they may not have been over.
    """
    totals = dimension.totals.c
    return set(connection.scalars(sa.select(totals.day).where(totals.loaded_at <= datetime.now(UTC) + _CLOCKS_DIFFER)))


def last_read(connection: sa.Connection, dimension: Dimension) -> dict[date, datetime]:
    """When each day that was read was last read."""
    totals = dimension.totals.c
    return {day: loaded_at for day, loaded_at in connection.execute(sa.select(totals.day, totals.loaded_at))}


def last_readers(connection: sa.Connection, dimension: Dimension) -> dict[date, tuple[str, datetime]]:
    """The id of the run that last read each day, and when."""
    totals = dimension.totals.c
    rows = connection.execute(sa.select(totals.day, totals.run_id, totals.loaded_at))
    return {day: (run_id, loaded_at) for day, run_id, loaded_at in rows}


def readings_digest(connection: sa.Connection) -> str:
    """A hash that changes whenever a day is read, whatever the clocks of the machines that read days said."""
    digest = hashlib.sha256()
    for dimension in DIMENSIONS:
        for day, (run_id, loaded_at) in sorted(last_readers(connection, dimension).items()):
            digest.update(f"{dimension.noun} {day} {run_id} {loaded_at.timestamp()}\n".encode())
    return digest.hexdigest()


def latest(moments: Collection[datetime]) -> datetime | None:
    """The latest of these moments, without those in the future, which a clock that was ahead has written.

    None if there are none at all; the earliest if all are in the future.
    """
    now = datetime.now(UTC)
    return max((moment for moment in moments if moment <= now), default=min(moments, default=None))


def api_versions(connection: sa.Connection) -> set[str]:
    """The API versions from which the stored days were last read."""
    of_each = (sa.select(dimension.totals.c.api_version) for dimension in DIMENSIONS)
    return set(connection.scalars(sa.union(*of_each)))


def contradicted_days(connection: sa.Connection, dimension: Dimension) -> set[date]:
    """The days whose cells exceed their total, and the `days_off_their_block`."""
    totals = dimension.totals.c
    exceeded = sa.select(totals.day).where(totals.unattributed_count < 0)
    return set(connection.scalars(exceeded)) | days_off_their_block(connection, dimension)


def days_off_their_block(connection: sa.Connection, dimension: Dimension) -> set[date]:
    """The days that, together with those they were read with, don't sum to the API's own count of all of them."""
    return set(connection.scalars(sa.select(dimension.contradictions.c.day)))


def rollups_behind(connection: sa.Connection) -> list[str]:
    """The rollups that have yet to take in loaded days, as after a run that was killed between the two steps."""
    names = set(connection.scalars(sa.select(stale_days.c.rollup)))
    return [rollup.name for rollup in ROLLUPS if rollup.name in names]


def days_of_runs(connection: sa.Connection, dimension: Dimension, run_ids: Sequence[str]) -> set[date]:
    """The days that were last read by one of these runs."""
    totals = dimension.totals.c
    return set(connection.scalars(sa.select(totals.day).where(totals.run_id.in_(run_ids))))


def recent_activity(
    connection: sa.Connection, dimension: Dimension, first: date, before: date
) -> dict[str, tuple[float, float]]:
    """For each id, how many of its days from `first` up to but excluding `before` are stored, and their sessions."""
    cells = dimension.cells.c
    rows = connection.execute(
        sa.select(cells[dimension.id], sa.func.count(), sa.func.sum(cells.sessions_count))
        .where(cells.day >= first, cells.day < before)
        .group_by(cells[dimension.id])
    )
    return {id_: (float(days), float(sessions)) for id_, days, sessions in rows}


def counts(connection: sa.Connection, dimension: Dimension, days: Collection[date]) -> dict[date, dict[str, int]]:
    """The sessions of each id that has a count on one of `days`; days without any are left out."""
    cells = dimension.cells.c
    found: dict[date, dict[str, int]] = {}
    columns = cells.day, cells[dimension.id], cells.sessions_count
    for day, id_, sessions in connection.execute(sa.select(*columns).where(tables.is_among(cells.day, days))):
        found.setdefault(day, {})[id_] = sessions
    return found


def counted_on(connection: sa.Connection, dimension: Dimension, days: Collection[date]) -> dict[date, set[str]]:
    """The ids that have a count on each of `days`."""
    found = counts(connection, dimension, days)
    return {day: {*found.get(day, ())} for day in days}


def unavailable(connection: sa.Connection, dimension: Dimension) -> dict[str, str]:
    """The `latest_listed` ids that the API refuses to count, each with the API's reason."""
    table = dimension.listed.c
    refused = sa.select(table[dimension.id], table.unavailable_reason).where(
        table.unavailable_since.is_not(None), table.is_listed
    )
    return {id_: reason for id_, reason in connection.execute(refused)}


def missing_cells(
    connection: sa.Connection, dimension: Dimension, chosen: Sequence[str] = (), days: Sequence[date] = ()
) -> dict[date, int]:
    """For each day that was read but lacks counts, how many ids have none.

    The ids to count are the `chosen` ones or, if that is empty, the `latest_listed`, including those that the API
    refuses to count. All days that were read are checked; with `days`, only the months from the first of them to the
    last, so that the result may cover more days than these.

    An id is not missing on days before its creation. Where the API doesn't say when a listed one was created, it isn't
    missing on days that were read before it was first seen either: its sessions there are among the unattributed ones.
    """
    gaps = _gaps(dimension, chosen, days).subquery()
    rows = connection.execute(sa.select(gaps.c.day, sa.func.count()).group_by(gaps.c.day))
    missing = {day: number for day, number in rows}
    if unknown := len(unknown_ids(connection, dimension, chosen)):
        return {day: missing.get(day, 0) + unknown for day in read_days(connection, dimension)}
    return missing


def unknown_ids(connection: sa.Connection, dimension: Dimension, chosen: Sequence[str]) -> set[str]:
    """Those of the `chosen` ids that no load has counted yet."""
    listed = dimension.listed.c[dimension.id]
    return set(chosen) - set(connection.scalars(sa.select(listed).where(listed.in_(chosen))))


def missing_ids(
    connection: sa.Connection,
    dimension: Dimension,
    days: Sequence[date],
    chosen: Sequence[str] = (),
    listed: Sequence[Mapping[str, Any]] = (),
) -> dict[date, set[str]]:
    """For each of `days` that was read, the ids that have no count; see `missing_cells`.

    `listed` are the rows of a list that is not stored yet, to use in place of the latest one.
    """
    missing: dict[date, set[str]] = {day: set() for day in read_days(connection, dimension) & {*days}}
    for row in connection.execute(_gaps(dimension, chosen, days, listed)):
        if row.day in missing:
            missing[row.day].add(row.id)
    return missing


def _gaps(
    dimension: Dimension, chosen: Sequence[str], days: Sequence[date], rows: Sequence[Mapping[str, Any]] = ()
) -> sa.Select[Any]:
    cells, totals = dimension.cells.c, dimension.totals.c
    wanted = of_rows(dimension, rows) if rows else _listed(dimension, chosen)
    read = sa.select(_month(totals.day).label("month"), totals.day, totals.window_end, totals.loaded_at)
    if days:
        # Whole months, because the rollup counts loaded days per month.
        next_month = (max(days).replace(day=1) + timedelta(days=31)).replace(day=1)
        read = read.where(totals.day >= min(days).replace(day=1), totals.day < next_month)
    ledger = read.cte("ledger")
    suspects = _suspects(dimension, wanted, ledger)
    is_missing = sa.case(
        (suspects.c.created_at.is_not(None), suspects.c.created_at < ledger.c.window_end),
        else_=sa.true() if chosen else suspects.c.first_seen_at <= ledger.c.loaded_at,
    )
    same_cell = (cells.day == ledger.c.day) & (cells[dimension.id] == suspects.c.id)
    return (
        sa.select(ledger.c.day, suspects.c.id)
        .select_from(
            suspects.join(ledger, suspects.c.month == ledger.c.month).outerjoin(dimension.cells, same_cell),
        )
        .where(cells.day.is_(None), is_missing)
    )


def _listed(dimension: Dimension, chosen: Sequence[str]) -> sa.CTE:
    listed = dimension.listed.c
    is_wanted = listed[dimension.id].in_(chosen) if chosen else listed.is_listed
    columns = listed[dimension.id].label("id"), listed.created_at, listed.first_seen_at
    return sa.select(*columns).where(is_wanted).cte("wanted")


def _suspects(dimension: Dimension, wanted: sa.CTE, ledger: sa.CTE) -> sa.CTE:
    """Each wanted id with each month in which it may lack days.

    These are few if the monthly rollup, which knows how many days are loaded, is up to date: checking it first avoids
    reading every cell.
    """
    months = (
        sa.select(ledger.c.month, sa.func.count().label("days"), sa.func.max(ledger.c.window_end).label("ends"))
        .group_by(ledger.c.month)
        .cte("months")
    )
    exists_then = wanted.c.created_at.is_(None) | (wanted.c.created_at < months.c.ends)
    suspects = sa.select(months.c.month, *wanted.c)
    if monthly_sessions not in dimension.rollups:
        return suspects.select_from(months.join(wanted, exists_then)).cte("suspects")
    monthly = monthly_sessions.c
    of_rollup = sa.select(_month(stale_days.c.day)).where(stale_days.c.rollup == monthly_sessions.name)
    is_short = sa.func.coalesce(monthly.days_loaded, 0) < months.c.days
    same_month = (monthly.month == months.c.month) & (monthly.org_id == wanted.c.id)
    return (
        suspects.select_from(months.join(wanted, exists_then).outerjoin(monthly_sessions, same_month))
        .where(is_short | months.c.month.in_(of_rollup))
        .cte("suspects")
    )


def _month(day: sa.ColumnElement[date]) -> sa.ColumnElement[date]:
    return sa.cast(sa.func.date_trunc(sa.literal_column("'month'"), day), sa.Date)


def loaded_days(
    connection: sa.Connection, dimension: Dimension, days: Sequence[date], chosen: Sequence[str] = ()
) -> set[date]:
    """Those of `days` that were read and lack no count; see `missing_cells`."""
    return (read_days(connection, dimension) & {*days}) - missing_cells(connection, dimension, chosen, days).keys()


def day_states(
    connection: sa.Connection, dimension: Dimension, days: Collection[date], loaded: Collection[date]
) -> dict[date, DayState]:
    """The state of each of `days`; `loaded` are the `loaded_days`."""
    totals = dimension.totals.c
    rest = {day: number for day, number in connection.execute(sa.select(totals.day, totals.unattributed_count))}
    contradicted = contradicted_days(connection, dimension)

    def state(day: date) -> DayState:
        if day not in rest:
            return "missing"
        if day not in loaded:
            return "partial"
        if day in contradicted:
            return "contradiction"
        return "unattributed" if rest[day] else "proven"

    return {day: state(day) for day in days}


def coverage(
    connection: sa.Connection,
    dimension: Dimension,
    days: Collection[date],
    loaded: Collection[date],
    chosen: Sequence[str] = (),
) -> Coverage:
    """How much of `days`, which may not be empty, is loaded and reconciled; `loaded` are the `loaded_days`."""
    expected, contradicted = set(days), contradicted_days(connection, dimension)
    rows = [row for row in connection.execute(sa.select(dimension.totals)) if row.day in expected and row.day in loaded]
    return Coverage(
        first_day=min(expected),
        last_day=max(expected),
        days_expected=len(expected),
        days_loaded=len(rows),
        days_reconciled=sum(row.unattributed_count == 0 and row.day not in contradicted for row in rows),
        counted=len(chosen or latest_listed(connection, dimension)),
        sessions_count=sum(row.sessions_count for row in rows),
        last_loaded_at=latest([row.loaded_at for row in rows]),
    )
