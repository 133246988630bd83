"""Who is counted: the rows that a list makes, and whether the latest list is still the one that the settings mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from warehouse.dimensions import Dimension


def of_rows(dimension: Dimension, rows: Sequence[Mapping[str, Any]]) -> sa.CTE:
    """Id, creation and first sight of each of these rows, to query with."""
    at = sa.DateTime(timezone=True)
    columns = sa.column("id", sa.Text), sa.column("created_at", at), sa.column("first_seen_at", at)
    data = [(row[dimension.id], row["created_at"], row["first_seen_at"]) for row in rows]
    values = sa.values(*columns, name="list").data(data).c
    # PostgreSQL takes a column of nothing but NULL for text.
    created_at = sa.cast(values.created_at, at).label("created_at")
    return sa.select(values.id, created_at, values.first_seen_at).cte("wanted")


def is_list_outdated(connection: sa.Connection, dimension: Dimension, chosen: Sequence[str]) -> bool:
    """Whether the latest list, if there is one, is neither the `chosen` ids nor, without these, one of the API's."""
    table = dimension.listed.c
    listed = {
        id_: is_chosen
        for id_, is_chosen in connection.execute(sa.select(table[dimension.id], table.is_chosen).where(table.is_listed))
    }
    return bool(listed) and (listed.keys() != {*chosen} if chosen else any(listed.values()))


def refused_ids(connection: sa.Connection, dimension: Dimension) -> set[str]:
    """All ids that the API refused to count when it was last asked, whether they are listed or not."""
    table = dimension.listed.c
    return set(connection.scalars(sa.select(table[dimension.id]).where(table.unavailable_since.is_not(None))))


def never_seen(connection: sa.Connection, dimension: Dimension, chosen: Sequence[str]) -> tuple[int, list[str]]:
    """How many sessions are unattributed, and the `chosen` ids without any session that the API has never listed."""
    table, cells, totals = dimension.listed.c, dimension.cells.c, dimension.totals.c
    unattributed = sa.select(sa.func.sum(totals.unattributed_count)).where(totals.unattributed_count > 0)
    id_ = table[dimension.id]
    has_sessions = sa.exists().where(cells[dimension.id] == id_, cells.sessions_count > 0)
    is_counted = sa.exists().where(cells[dimension.id] == id_)
    of_list = [table.created_at.is_(None), *([table[dimension.name_column].is_(None)] if dimension.name_column else [])]
    idle = sa.select(id_).where(id_.in_(chosen), *of_list, is_counted, ~has_sessions).order_by(id_)
    return int(connection.scalar(unattributed) or 0), list(connection.scalars(idle))
