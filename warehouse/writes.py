"""The only functions that write rows, except for rollups. Each runs in the caller's transaction and can be repeated."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from warehouse import rollups, stored_days, tables, unattributed
from warehouse.dimensions import Dimension
from warehouse.staging import staged, upsert
from warehouse.unattributed import Others


@dataclass(frozen=True)
class Entry:
    """An organization or user that the API lists or the user chose. None: not known, or names aren't stored."""

    id: str
    name: str | None = None
    created_at: datetime | None = None
    is_chosen: bool = False


@dataclass(frozen=True)
class Provenance:
    """Where readings come from: the API version, when they were read (UTC), and the Dagster run that read them."""

    api_version: str
    loaded_at: datetime
    run_id: str


@dataclass(frozen=True)
class Contradiction:
    """The API counts `in_one` sessions from `first_day` to `last_day` in one request, but `by_day` day by day.

    id: whose sessions; None: without a filter.
    """

    id: str | None
    first_day: date
    last_day: date
    in_one: int
    by_day: int


@dataclass(frozen=True)
class Reading:
    """One day that was read whole: its window (end excluded) and the numbers of sessions in it.

    control_total: the API's own count, with no filter.
    counts: the sessions of each id that was read.
    how: how the count of an id is known, where it was not "asked" for itself: "derived" or "listed".
    expected: how many ids were to be counted.
    lacking: how many of these have no count for that day, neither from this reading nor from an earlier one.
    others: whose the sessions are that are in no count, where the list of sessions names them.
    """

    day: date
    window_start: datetime
    window_end: datetime
    control_total: int
    counts: Mapping[str, int]
    how: Mapping[str, str]
    expected: int
    lacking: int = 0
    contradictions: Sequence[Contradiction] = ()
    others: Others = field(default_factory=Others)


@dataclass(frozen=True)
class Changes:
    """What one day's upsert did to the stored counts, in rows."""

    inserted: int = 0
    changed: int = 0
    unchanged: int = 0

    def __add__(self, other: "Changes") -> "Changes":
        return Changes(self.inserted + other.inserted, self.changed + other.changed, self.unchanged + other.unchanged)

    def __sub__(self, other: "Changes") -> "Changes":
        return Changes(self.inserted - other.inserted, self.changed - other.changed, self.unchanged - other.unchanged)


@dataclass(frozen=True)
class StoredDay:
    """One day as stored by a write. `unattributed_count` is the control total minus the sum of the cells."""

    sessions_count: int
    unattributed_count: int
    changes: Changes


def store_listed(connection: sa.Connection, dimension: Dimension, entries: Sequence[Entry], seen_at: datetime) -> None:
    """Upsert the entries of a list that was read at `seen_at`; what an entry doesn't say keeps its stored value.

    These entries, and no others, are listed from now on, whatever the times at which others were last seen.
    """
    table = dimension.listed
    with staged(connection, table, listed_rows(connection, dimension, entries, seen_at)) as incoming:
        gone = table.c.is_listed & table.c[dimension.id].not_in(sa.select(incoming.c[dimension.id]))
        connection.execute(sa.update(table).where(gone).values(is_listed=False))
        upsert(connection, table, incoming)


def listed_rows(
    connection: sa.Connection, dimension: Dimension, entries: Sequence[Entry], seen_at: datetime
) -> list[dict[str, Any]]:
    """The rows that `store_listed` makes of these entries, whose columns are those of `dimension.listed`.

    After a list that was chosen, who else the API lists may have been there as long: then they are missed on all days.
    """
    table = dimension.listed
    known = {row[dimension.id]: row for row in connection.execute(sa.select(table)).mappings()}
    nothing: dict[str, Any] = dict.fromkeys(table.columns.keys())
    chosen = [row["first_seen_at"] for row in known.values() if row["is_listed"] and row["is_chosen"]]
    rows = []
    for entry in entries:
        before = known.get(entry.id, nothing)
        row = {**before, dimension.id: entry.id, "last_seen_at": seen_at, "is_listed": True}
        row |= {"first_seen_at": before["first_seen_at"] or min([seen_at, *chosen]), "is_chosen": entry.is_chosen}
        if entry.created_at is not None:
            row["created_at"] = entry.created_at
        if dimension.name_column and entry.name is not None:
            row[dimension.name_column] = entry.name.replace("\0", "\ufffd")  # PostgreSQL can't store NUL in text
        rows.append(row)
    return rows


def store_days(
    connection: sa.Connection,
    dimension: Dimension,
    readings: Sequence[Reading],
    provenance: Provenance,
    lock: Callable[[Sequence[date]], None] = lambda _: None,
) -> dict[date, StoredDay]:
    """Upsert whole days: their totals, cells and contradictions. Returns what is stored now, by day.

    `lock` waits for others that write these days. It is called when the rows are checked and staged, which takes half
    of the time, and before anything stored is read or written.

    A day's sum and unattributed count are computed from its cells as stored afterwards, so that the proof is about
    what analysts read. An unchanged count keeps its loaded_at and run_id, unless it came from another version of the
    API. Contradictions, and the names of unattributed sessions, replace earlier ones. Where a day's window was another
    one until now, nothing is kept of that: neither counts of ids that are not in the reading nor contradictions. Of a
    day that another run has read later, and stored meanwhile, this reading changes nothing.

    Raises TypeError or ValueError for values that can't be a count, an id or a day; see `staging.staged`.
    """
    table = dimension.cells
    days = [reading.day for reading in readings]
    with staged(connection, table, list(_cells(dimension, readings, provenance))) as rows:
        incoming: sa.FromClause = rows
        lock(days)
        by = provenance
        later = stored_days.read_later(connection, dimension, days, loaded_at=by.loaded_at, run_id=by.run_id)
        if later:
            readings = [reading for reading in readings if reading.day not in later]
            incoming = sa.select(rows).where(rows.c.day.not_in(later)).subquery()
        changes = _compare(connection, dimension, incoming)
        stored_days.keep_revisions(connection, dimension, incoming)
        moved = stored_days.moved_days(connection, dimension, {r.day: (r.window_start, r.window_end) for r in readings})
        same_cell = (incoming.c.day == table.c.day) & (incoming.c[dimension.id] == table.c[dimension.id])
        connection.execute(sa.delete(table).where(tables.is_among(table.c.day, moved), ~sa.exists().where(same_cell)))
        upsert(
            connection,
            table,
            incoming,
            only_if=lambda new: (
                (table.c.sessions_count != new.sessions_count)
                | (table.c.api_version != new.api_version)
                | tables.is_among(table.c.day, moved)
            ),
        )
    days = [reading.day for reading in readings]
    of_day = sa.select(table.c.day, sa.func.sum(table.c.sessions_count)).group_by("day")
    sums = {day: int(total) for day, total in connection.execute(of_day.where(tables.is_among(table.c.day, days)))}
    totals = [_total(dimension, reading, sums.get(reading.day, 0), provenance) for reading in readings]
    with staged(connection, dimension.totals, totals) as of_days:
        upsert(connection, dimension.totals, of_days)
    _replace_contradictions(connection, dimension, readings, moved, provenance)
    others = {r.day: r.others for r in readings}
    unattributed.store(connection, dimension, others, moved, loaded_at=by.loaded_at, run_id=by.run_id)
    _correct_first_seen(connection, dimension, provenance.loaded_at)
    rollups.mark_stale(connection, dimension, days)
    return {
        row["day"]: StoredDay(row["sessions_count"], row["unattributed_count"], changes.get(row["day"], Changes()))
        for row in [*totals, *later.values()]
    }


def _cells(dimension: Dimension, readings: Sequence[Reading], provenance: Provenance) -> Iterator[dict[str, Any]]:
    by = vars(provenance)
    for reading in readings:
        for id_, count in reading.counts.items():
            how = reading.how.get(id_, "asked")
            yield {
                "day": reading.day,
                dimension.id: id_,
                "sessions_count": count,
                "is_derived": how != "asked",
                "how": how,
                **by,
            }


def _total(dimension: Dimension, reading: Reading, summed: int, provenance: Provenance) -> dict[str, Any]:
    return {
        "day": reading.day,
        "window_start": reading.window_start,
        "window_end": reading.window_end,
        "sessions_count": reading.control_total,
        f"{dimension.prefix}_sessions_count": summed,
        "unattributed_count": reading.control_total - summed,
        f"{dimension.prefix}_expected": reading.expected,
        f"{dimension.prefix}_loaded": reading.expected - reading.lacking,
        **vars(provenance),
    }


def _correct_first_seen(connection: sa.Connection, dimension: Dimension, read_at: datetime) -> None:
    """Let nobody who is listed by now be first seen after this reading, as after a clock that was ahead.

    Else who lacks a count on a day of this reading would be taken for one that didn't exist yet.
    """
    listed = dimension.listed
    is_later = listed.c.is_listed & (listed.c.first_seen_at > read_at)
    connection.execute(sa.update(listed).where(is_later).values(first_seen_at=read_at))


def _replace_contradictions(
    connection: sa.Connection,
    dimension: Dimension,
    readings: Sequence[Reading],
    moved: Collection[date],
    provenance: Provenance,
) -> None:
    """Replace the contradictions of these days.

    Except on `moved` days, those about listed ids that were not read this time are kept.
    """
    table, listed = dimension.contradictions, dimension.listed.c
    of_days = tables.is_among(table.c.day, [reading.day for reading in readings])
    if connection.scalar(sa.select(sa.exists().where(of_days))):  # rarely; and the ids are many
        ids, id_ = {id_ for reading in readings for id_ in reading.counts}, table.c[dimension.id]
        kept = sa.select(listed[dimension.id]).where(listed.is_listed, listed[dimension.id].not_in(ids))
        is_outdated = id_.is_(None) | id_.not_in(kept) | tables.is_among(table.c.day, moved)
        connection.execute(sa.delete(table).where(of_days, is_outdated))
    found = [
        {
            "day": reading.day,
            dimension.id: contradiction.id,
            "first_day": contradiction.first_day,
            "last_day": contradiction.last_day,
            "block_sessions_count": contradiction.in_one,
            "stored_sessions_count": contradiction.by_day,
            "read_at": provenance.loaded_at,
            "run_id": provenance.run_id,
        }
        for reading in readings
        for contradiction in reading.contradictions
    ]
    if found:
        with staged(connection, table, found) as incoming:
            names = list(table.columns.keys())
            connection.execute(sa.insert(table).from_select(names, sa.select(*incoming.columns)))


def store_availability(
    connection: sa.Connection, dimension: Dimension, refused: Mapping[str, str], answered: Collection[str], at: datetime
) -> None:
    """Mark the ids that the API `refused` to count, with its reason; unmark the others that it has `answered`."""
    table = dimension.listed
    id_ = table.c[dimension.id]
    for refused_id, reason in sorted(refused.items()):  # in one order, so that no two writers wait for each other
        since = sa.func.coalesce(table.c.unavailable_since, at)
        change = sa.update(table).where(id_ == refused_id)
        connection.execute(change.values(unavailable_since=since, unavailable_reason=reason))
    marked = set(connection.scalars(sa.select(id_).where(table.c.unavailable_since.is_not(None))))
    for answered_id in sorted(marked.intersection(answered) - refused.keys()):
        change = sa.update(table).where(id_ == answered_id)
        connection.execute(change.values(unavailable_since=None, unavailable_reason=None))


def store_expected_days(connection: sa.Connection, first_day: date, last_day: date) -> None:
    """Record which days are to be loaded, for the views."""
    connection.execute(sa.delete(tables.expected_days))
    connection.execute(sa.insert(tables.expected_days).values(first_day=first_day, last_day=last_day))


def store_day_boundary(connection: sa.Connection, timezone: str, day_start_hour: int) -> None:
    """Record where a day begins, to tell a changed setting from changed rules of the time zone."""
    connection.execute(sa.delete(tables.day_boundary))
    connection.execute(sa.insert(tables.day_boundary).values(timezone=timezone, day_start_hour=day_start_hour))


def forget_days(connection: sa.Connection, dimension: Dimension, days: Sequence[date]) -> None:
    """Delete everything that was read on these days, so that they count as not loaded."""
    for table in (dimension.cells, dimension.totals, dimension.contradictions, dimension.unattributed):
        connection.execute(sa.delete(table).where(tables.is_among(table.c.day, days)))
    rollups.mark_stale(connection, dimension, days)


def _compare(connection: sa.Connection, dimension: Dimension, incoming: sa.FromClause) -> dict[date, Changes]:
    table = dimension.cells
    same_cell = (incoming.c.day == table.c.day) & (incoming.c[dimension.id] == table.c[dimension.id])
    rows = connection.execute(
        sa.select(
            incoming.c.day,
            sa.func.count().label("cells"),
            sa.func.count().filter(table.c[dimension.id].is_(None)).label("inserted"),
            sa.func.count().filter(table.c.sessions_count != incoming.c.sessions_count).label("changed"),
        )
        .select_from(incoming.outerjoin(table, same_cell))
        .group_by(incoming.c.day)
    )
    return {row.day: Changes(row.inserted, row.changed, row.cells - row.inserted - row.changed) for row in rows}
