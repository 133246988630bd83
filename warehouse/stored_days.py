"""How the days of a block compare with what is stored of them: another window, a newer reading, other counts."""

from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from warehouse import tables
from warehouse.dimensions import Dimension

# No block waits that long to be stored, so that a day read later than this was read by a clock that was ahead.
_LONGEST_WAIT = timedelta(hours=1)


def moved_days(
    connection: sa.Connection, dimension: Dimension, windows: Mapping[date, tuple[datetime, datetime]]
) -> set[date]:
    """The days that are stored with another window than that given here, its start and its end."""
    totals = dimension.totals.c
    stored = sa.select(totals.day, totals.window_start, totals.window_end).where(tables.is_among(totals.day, windows))
    return {day for day, start, end in connection.execute(stored) if windows[day] != (start, end)}


def read_later(
    connection: sa.Connection, dimension: Dimension, days: Collection[date], *, loaded_at: datetime, run_id: str
) -> dict[date, dict[str, Any]]:
    """The totals of those days that another run has read after `loaded_at`, while this one waited to store them."""
    totals = dimension.totals.c
    is_later = totals.loaded_at.between(loaded_at, loaded_at + _LONGEST_WAIT) & (totals.loaded_at != loaded_at)
    stored = sa.select(dimension.totals).where(tables.is_among(totals.day, days), is_later, totals.run_id != run_id)
    return {row["day"]: dict(row) for row in connection.execute(stored).mappings()}


def keep_revisions(connection: sa.Connection, dimension: Dimension, incoming: sa.FromClause) -> None:
    """Append a revision for each stored count that the incoming rows change."""
    table, revisions = dimension.cells, dimension.revisions
    same_cell = (incoming.c.day == table.c.day) & (incoming.c[dimension.id] == table.c[dimension.id])
    changed = (
        sa.select(
            incoming.c.day,
            incoming.c[dimension.id],
            incoming.c.loaded_at,
            table.c.sessions_count,
            incoming.c.sessions_count,
            incoming.c.run_id,
        )
        .select_from(incoming.join(table, same_cell))
        .where(table.c.sessions_count != incoming.c.sessions_count)
    )
    names = ["day", dimension.id, "revised_at", "previous_count", "new_count", "run_id"]
    connection.execute(sa.insert(revisions).from_select(names, changed))
