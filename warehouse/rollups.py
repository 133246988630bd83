"""Keeps rollups up to date with the stored days: tracks which days each has yet to take in, and takes them in."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import sqlalchemy as sa

from warehouse import tables
from warehouse.dimensions import DIMENSIONS, Dimension
from warehouse.staging import selected, staged, upsert


def mark_stale(connection: sa.Connection, dimension: Dimension, days: Iterable[date]) -> None:
    """Record that the rollups of `dimension` have yet to take in these days."""
    stale = [{"rollup": str(rollup.name), "day": day} for day in days for rollup in dimension.rollups]
    if stale:
        with staged(connection, tables.stale_days, stale) as incoming:
            upsert(connection, tables.stale_days, incoming)


def mark_everything_stale(connection: sa.Connection, since: int = 0) -> None:
    """Record that every rollup that was introduced after version `since` has yet to take in every stored day."""
    for dimension in DIMENSIONS:
        for rollup in (each for each in dimension.rollups if tables.facts(each).since > since):
            connection.execute(sa.delete(tables.stale_days).where(tables.stale_days.c.rollup == rollup.name))
            days = sa.select(sa.literal(rollup.name), dimension.totals.c.day)
            connection.execute(sa.insert(tables.stale_days).from_select(["rollup", "day"], days))


def rebuild(connection: sa.Connection, rollup: sa.Table, *, settled_after_days: int) -> int:
    """Rebuild the rows of a rollup that its stale days contribute to. Returns how many rows were written.

    A day is settled if it was read at least `settled_after_days` after its end, and not in the future.
    """
    values = {"settled_after_days": settled_after_days}
    if "is_settled" in rollup.columns:
        _mark_resettled(connection, rollup, **values)
    stale = tables.stale_days
    mine = stale.c.rollup == rollup.name
    days = connection.scalars(sa.select(stale.c.day).where(mine).order_by(stale.c.day)).all()
    key = rollup.columns[0]
    select = sa.text(tables.select(rollup))
    parameters = {name: value for name, value in values.items() if name in select.compile().params}
    query = select.columns(*(sa.column(c.name, c.type) for c in rollup.columns))
    rows = 0
    for first_day, last_day in _periods(rollup, days):
        chosen = query.bindparams(first_day=first_day, last_day=last_day, **parameters)
        with selected(connection, rollup, chosen) as rebuilt:
            same_key = sa.and_(*(rebuilt.c[c.name] == c for c in rollup.primary_key.columns))
            # Not the whole period: DuckDB can't roll back a transaction that deletes a key and inserts it again.
            gone = key.between(first_day, last_day) & ~sa.exists().where(same_key)
            connection.execute(sa.delete(rollup).where(gone))
            upsert(connection, rollup, rebuilt)
            rows += connection.scalar(sa.select(sa.func.count()).select_from(rebuilt)) or 0
    connection.execute(sa.delete(stale).where(mine))
    return rows


def _mark_resettled(connection: sa.Connection, rollup: sa.Table, settled_after_days: int) -> None:
    """Mark as stale the days that are now settled, or no longer are: the look-back or the clock has changed."""
    totals = tables.daily_totals
    settles_at = totals.c.window_end + sa.literal(timedelta(days=settled_after_days))
    is_settled = totals.c.loaded_at.between(settles_at, sa.func.current_timestamp())
    changed = (
        sa.select(sa.literal(rollup.name).label("rollup"), rollup.c.day)
        .select_from(rollup.join(totals, rollup.c.day == totals.c.day))
        .where(rollup.c.is_settled != is_settled)
    )
    upsert(connection, tables.stale_days, changed.subquery())


def _periods(rollup: sa.Table, days: Sequence[date]) -> list[tuple[date, date]]:
    """First and last day of each period to rebuild after these sorted days have changed, adjoining periods merged."""
    reach = tables.facts(rollup).reach
    periods: list[tuple[date, date]] = []
    for day in days:
        first, last = reach(day)
        if periods and first <= periods[-1][1] + timedelta(days=1):
            periods[-1] = (periods[-1][0], max(last, periods[-1][1]))
        else:
            periods.append((first, last))
    return periods
