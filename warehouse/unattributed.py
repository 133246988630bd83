"""Whose a day's unattributed sessions are, as far as the list of sessions says: stored beside the day's totals."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from warehouse import tables
from warehouse.dimensions import Dimension
from warehouse.staging import staged, upsert

NO_ID = ""


@dataclass(frozen=True)
class Others:
    """The sessions of ids that were not read, as the list of sessions has them on a day; None: of no id.

    `service_users` are those of the ids that are service users; None if the API doesn't say.
    """

    sessions: Mapping[str | None, int] = field(default_factory=dict)
    service_users: Collection[str] | None = None

    def is_service_user(self, id_: str) -> bool | None:
        """Whether this id is one; None if the API doesn't say, or it is no id."""
        return None if self.service_users is None or id_ == NO_ID else id_ in self.service_users


@dataclass(frozen=True)
class Owner:
    """Whose unattributed sessions are, how many, and on how many days from the first to the last.

    id: empty for sessions without any id.
    is_known: whether it is or was on a list of those that are counted; `is_listed`: on the latest, though it has no
        count on these days.
    is_service_user: what the API says; None if it doesn't.
    """

    id: str
    sessions: int
    days: int
    first_day: date
    last_day: date
    is_listed: bool
    is_known: bool
    is_service_user: bool | None

    @property
    def is_nobodys(self) -> bool:
        """Whether nobody created these sessions."""
        return self.id == NO_ID

    @property
    def may_be_service_user(self) -> bool:
        """Whether the API says so or, where it doesn't say, no list of users had the id."""
        return not self.is_nobodys and (not self.is_known if self.is_service_user is None else self.is_service_user)


def store(
    connection: sa.Connection,
    dimension: Dimension,
    others: Mapping[date, Others],
    moved: Collection[date] = (),
    *,
    loaded_at: datetime,
    run_id: str,
) -> None:
    """Replace the names of these stored days where `others` add up to what is unattributed on them.

    Sessions of ids with a count on the day are none of the unattributed. On `moved` days no older names are kept,
    elsewhere those that still add up. A day's names thus never add up to anything else.
    """
    table, cells = dimension.unattributed, dimension.cells.c
    named = {day: of_day for day, of_day in others.items() if of_day.sessions}
    rest: dict[date, int] = {}
    counted: set[tuple[date, str]] = set()
    if named:
        rest = _unattributed_on(connection, dimension, named)
        ids = {id_ for of_day in named.values() for id_ in of_day.sessions if id_}
        of_ids = sa.select(cells.day, cells[dimension.id]).where(
            tables.is_among(cells.day, named), cells[dimension.id].in_(ids)
        )
        counted = {(day, id_) for day, id_ in connection.execute(of_ids)}
    rows: list[dict[str, Any]] = []
    for day, of_day in named.items():
        sessions = {id_ or NO_ID: n for id_, n in of_day.sessions.items() if n and (day, id_) not in counted}
        if sum(sessions.values()) == rest.get(day):
            rows += [
                {
                    "day": day,
                    dimension.id: id_,
                    "sessions_count": n,
                    "loaded_at": loaded_at,
                    "run_id": run_id,
                    "is_service_user": of_day.is_service_user(id_),
                }
                for id_, n in sessions.items()
            ]
    replaced = {row["day"] for row in rows} | {*moved}
    if replaced:
        with staged(connection, table, rows) as incoming:
            # Not all of a day: DuckDB can't roll back a transaction that deletes a key and inserts it again.
            is_named = (incoming.c.day == table.c.day) & (incoming.c[dimension.id] == table.c[dimension.id])
            connection.execute(
                sa.delete(table).where(tables.is_among(table.c.day, replaced), ~sa.exists().where(is_named))
            )
            upsert(connection, table, incoming)
    drop_outdated(connection, dimension, [*others])


def drop_outdated(connection: sa.Connection, dimension: Dimension, days: Collection[date] | None = None) -> None:
    """Delete the names of those of `days`, or of all days, that don't add up to what is unattributed on them.

    Nor are names kept on a day on which one of them has a count by now.
    """
    table, cells = dimension.unattributed.c, dimension.cells.c
    of_days = sa.true() if days is None else tables.is_among(table.day, days)
    sums = sa.select(table.day, sa.func.sum(table.sessions_count).label("sessions")).where(of_days).group_by(table.day)
    stored = {day: int(sessions) for day, sessions in connection.execute(sums)}
    if not stored:
        return
    rest = _unattributed_on(connection, dimension, stored)
    is_same = (cells.day == table.day) & (cells[dimension.id] == table[dimension.id])
    counted = connection.scalars(sa.select(table.day).where(of_days, sa.exists().where(is_same)))
    outdated = {day for day, sessions in stored.items() if sessions != rest.get(day)} | {*counted}
    if outdated:
        connection.execute(sa.delete(dimension.unattributed).where(tables.is_among(table.day, outdated)))


def _unattributed_on(connection: sa.Connection, dimension: Dimension, days: Collection[date]) -> dict[date, int]:
    """How many sessions are unattributed on those of `days` that are stored."""
    totals = dimension.totals.c
    found = sa.select(totals.day, totals.unattributed_count).where(tables.is_among(totals.day, days))
    return {day: number for day, number in connection.execute(found)}


def owners(connection: sa.Connection, dimension: Dimension, since: date) -> list[Owner]:
    """Whose unattributed sessions are from the day `since` on, those with the most sessions first."""
    table, listed = dimension.unattributed.c, dimension.listed.c
    id_, sessions = table[dimension.id], sa.func.sum(table.sessions_count)
    ends = sa.func.min(table.day), sa.func.max(table.day)
    is_known = sa.exists().where(listed[dimension.id] == id_)
    is_service_user = sa.func.bool_or(table.is_service_user) if dimension.has_service_users else sa.null()
    found = (
        sa.select(id_, sessions, sa.func.count(), *ends, is_known.where(listed.is_listed), is_known, is_service_user)
        .where(table.day >= since)
        .group_by(id_)
        .order_by(sessions.desc(), id_)
    )
    return [Owner(row[0], int(row[1]), *row[2:]) for row in connection.execute(found)]


def days_without_names(connection: sa.Connection, dimension: Dimension, days: Collection[date]) -> dict[date, int]:
    """The control totals of those of `days` that have unattributed sessions of which nobody knows whose they are."""
    totals = dimension.totals.c
    is_named = sa.exists().where(dimension.unattributed.c.day == totals.day)
    found = sa.select(totals.day, totals.sessions_count).where(
        tables.is_among(totals.day, days), totals.unattributed_count > 0, ~is_named
    )
    return {day: number for day, number in connection.execute(found)}
