"""The only ways rows get in. Each runs in the caller's transaction and can be repeated without harm."""

import calendar
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import insert

from warehouse import tables
from warehouse.tables import ORGANIZATIONS, Counted

_ARROW_TYPES: Mapping[type[sa.types.TypeEngine[Any]], pa.DataType] = {
    sa.Text: pa.string(),
    sa.BigInteger: pa.int64(),
    sa.Integer: pa.int32(),
    sa.Boolean: pa.bool_(),
    sa.Date: pa.date32(),
    sa.DateTime: pa.timestamp("us", tz="UTC"),
}


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
    """One day as it is stored after a write. `unattributed_count` is the control total minus the sum of the cells."""

    sessions_count: int
    unattributed_count: int
    changes: Changes


def store_listed(
    connection: sa.Connection, counted: Counted, found: Sequence[Mapping[str, Any]], seen_at: datetime
) -> None:
    """Upsert `found` (id, name if the table has one, created_at) as seen at `seen_at`; None leaves what was known.

    From now on they are the listed ones, whatever the clock said when others were.
    """
    table = counted.listed
    known = {row[counted.id]: row for row in connection.execute(sa.select(table)).mappings()}
    nothing: dict[str, Any] = dict.fromkeys(table.columns.keys())
    rows = []
    for item in found:
        before = known.get(item[counted.id], nothing)
        told = {name: value for name, value in item.items() if value is not None}
        if "org_name" in told:
            told["org_name"] = told["org_name"].replace("\0", "\ufffd")  # PostgreSQL has no NUL in a text
        first_seen_at = before["first_seen_at"] or seen_at
        rows.append({**before, **told, "first_seen_at": first_seen_at, "last_seen_at": seen_at, "is_listed": True})
    with _staged(connection, table, rows) as incoming:
        gone = table.c.is_listed & table.c[counted.id].not_in(sa.select(incoming.c[counted.id]))
        connection.execute(sa.update(table).where(gone).values(is_listed=False))
        _upsert(connection, table, incoming)


def store_days(
    connection: sa.Connection,
    counted: Counted,
    totals: Sequence[Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    contradictions: Sequence[Mapping[str, Any]] = (),
) -> dict[date, StoredDay]:
    """Upsert whole days: a row of totals each, and their cells. Returns what is stored now, by day.

    The `contradictions` of these days take the place of earlier ones.

    `totals` come without the sum of the cells and unattributed_count: those are taken from the cells as they are
    stored afterwards, so that the proof is about what analysts read. A count that is stored already stays untouched,
    with its loaded_at and run_id, unless it came from another version of the API.
    """
    table = counted.cells
    with _staged(connection, table, cells) as incoming:
        changes = _compare(connection, counted, incoming)
        _keep_revisions(connection, counted, incoming)
        _upsert(
            connection,
            table,
            incoming,
            only_if=lambda new: (
                (table.c.sessions_count != new.sessions_count) | (table.c.api_version != new.api_version)
            ),
        )
    days = [row["day"] for row in totals]
    of_day = sa.select(table.c.day, sa.func.sum(table.c.sessions_count)).where(table.c.day.in_(days))
    stored = {day: total for day, total in connection.execute(of_day.group_by(table.c.day))}
    proven = []
    for row in totals:
        summed = int(stored.get(row["day"], 0))
        proof = {f"{counted.prefix}_sessions_count": summed, "unattributed_count": row["sessions_count"] - summed}
        proven.append({**row, **proof})
    with _staged(connection, counted.totals, proven) as incoming:
        _upsert(connection, counted.totals, incoming)
    _replace_contradictions(connection, counted, days, {row[counted.id] for row in cells}, contradictions)
    if counted is ORGANIZATIONS:
        stale = [{"rollup": str(rollup.name), "day": day} for rollup in tables.ROLLUPS for day in days]
        with _staged(connection, tables.stale_days, stale) as incoming:
            _upsert(connection, tables.stale_days, incoming)
    return {
        row["day"]: StoredDay(row["sessions_count"], row["unattributed_count"], changes.get(row["day"], Changes()))
        for row in proven
    }


def _replace_contradictions(
    connection: sa.Connection,
    counted: Counted,
    days: Collection[date],
    ids: Collection[str],
    found: Sequence[Mapping[str, Any]],
) -> None:
    """Those of `days` about all together, about `ids`, and about whom nobody lists any more, by those `found`."""
    table, listed = counted.contradictions, counted.listed.c
    id_ = table.c[counted.id]
    left = sa.select(listed[counted.id]).where(listed.is_listed, listed[counted.id].not_in(ids))
    connection.execute(sa.delete(table).where(table.c.day.in_(days), id_.is_(None) | id_.not_in(left)))
    if found:
        with _staged(connection, table, found) as incoming:
            names = list(table.columns.keys())
            connection.execute(sa.insert(table).from_select(names, sa.select(*incoming.columns)))


def store_availability(
    connection: sa.Connection, counted: Counted, refused: Mapping[str, str], answered: Collection[str], at: datetime
) -> None:
    """Mark those that the source refuses to count, with its reason; clear the others for whom it `answered`."""
    table = counted.listed
    id_ = table.c[counted.id]
    for refused_id, reason in refused.items():
        since = sa.func.coalesce(table.c.unavailable_since, at)
        change = sa.update(table).where(id_ == refused_id)
        connection.execute(change.values(unavailable_since=since, unavailable_reason=reason))
    marked = set(connection.scalars(sa.select(id_).where(table.c.unavailable_since.is_not(None))))
    for answered_id in marked.intersection(answered) - refused.keys():
        change = sa.update(table).where(id_ == answered_id)
        connection.execute(change.values(unavailable_since=None, unavailable_reason=None))


def store_history(connection: sa.Connection, first_day: date, last_day: date) -> None:
    """Write down which days are to be loaded, for the views."""
    connection.execute(sa.delete(tables.history))
    connection.execute(sa.insert(tables.history).values(first_day=first_day, last_day=last_day))


def rebuild(connection: sa.Connection, rollup: sa.Table, **parameters: Any) -> int:
    """Replace the rows of a rollup that days loaded since the last time have a part in. Returns how many there are now.

    `parameters` are those of its SQL file beside the first and the last day.
    """
    if rollup is tables.enterprise_sessions:
        _mark_resettled(connection, **parameters)
    stale = tables.stale_days
    mine = stale.c.rollup == rollup.name
    days = connection.scalars(sa.select(stale.c.day).where(mine).order_by(stale.c.day)).all()
    key = rollup.columns[0]
    query = sa.text(tables.select(rollup)).columns(*(sa.column(c.name, c.type) for c in rollup.columns))
    rows = 0
    for first_day, last_day in _periods(rollup, days):
        chosen = query.bindparams(first_day=first_day, last_day=last_day, **parameters)
        with _selected(connection, rollup, chosen) as selected:
            same_key = sa.and_(*(selected.c[c.name] == c for c in rollup.primary_key.columns))
            # Not all of the period: DuckDB cannot undo a transaction that takes a key away and brings it back.
            gone = key.between(first_day, last_day) & ~sa.exists().where(same_key)
            connection.execute(sa.delete(rollup).where(gone))
            _upsert(connection, rollup, selected)
            rows += connection.scalar(sa.select(sa.func.count()).select_from(selected)) or 0
    connection.execute(sa.delete(stale).where(mine))
    return rows


def _mark_resettled(connection: sa.Connection, settled_after_days: int) -> None:
    """As stale, the days that are settled, or no longer are, because the look-back is another than last time."""
    days, totals, stale = tables.enterprise_sessions, ORGANIZATIONS.totals, tables.stale_days
    is_settled = totals.c.loaded_at >= totals.c.window_end + sa.literal(timedelta(days=settled_after_days))
    changed = (
        sa.select(sa.literal(days.name).label("rollup"), days.c.day)
        .select_from(days.join(totals, days.c.day == totals.c.day))
        .where(days.c.is_settled != is_settled)
    )
    _upsert(connection, stale, changed.subquery())


def _periods(rollup: sa.Table, days: Sequence[date]) -> list[tuple[date, date]]:
    """First and last day of what must be built again when these days, in order, have changed; adjoining ones as one."""
    periods: list[tuple[date, date]] = []
    for day in days:
        first, last = _REACH[rollup.name](day)
        if periods and first <= periods[-1][1] + timedelta(days=1):
            periods[-1] = (periods[-1][0], max(last, periods[-1][1]))
        else:
            periods.append((first, last))
    return periods


def _week(day: date) -> tuple[date, date]:
    monday = day - timedelta(days=day.weekday())
    return monday, monday + timedelta(days=6)


def _month(day: date) -> tuple[date, date]:
    return day.replace(day=1), day.replace(day=calendar.monthrange(day.year, day.month)[1])


_REACH: Mapping[str, Callable[[date], tuple[date, date]]] = {
    tables.weekly_sessions.name: _week,
    tables.monthly_sessions.name: _month,
    # A day is in the month so far for up to 30 days after it, in the 28 days for 27, in the week before for 13.
    tables.enterprise_sessions.name: lambda day: (day, day + timedelta(days=31)),
}


def _compare(connection: sa.Connection, counted: Counted, incoming: sa.TableClause) -> dict[date, Changes]:
    table = counted.cells
    same_cell = (incoming.c.day == table.c.day) & (incoming.c[counted.id] == table.c[counted.id])
    rows = connection.execute(
        sa.select(
            incoming.c.day,
            sa.func.count().label("cells"),
            sa.func.count().filter(table.c[counted.id].is_(None)).label("inserted"),
            sa.func.count().filter(table.c.sessions_count != incoming.c.sessions_count).label("changed"),
        )
        .select_from(incoming.outerjoin(table, same_cell))
        .group_by(incoming.c.day)
    )
    return {row.day: Changes(row.inserted, row.changed, row.cells - row.inserted - row.changed) for row in rows}


def _keep_revisions(connection: sa.Connection, counted: Counted, incoming: sa.TableClause) -> None:
    """Append the counts that are about to change."""
    table, revisions = counted.cells, counted.revisions
    same_cell = (incoming.c.day == table.c.day) & (incoming.c[counted.id] == table.c[counted.id])
    changed = (
        sa.select(
            incoming.c.day,
            incoming.c[counted.id],
            incoming.c.loaded_at,
            table.c.sessions_count,
            incoming.c.sessions_count,
            incoming.c.run_id,
        )
        .select_from(incoming.join(table, same_cell))
        .where(table.c.sessions_count != incoming.c.sessions_count)
    )
    names = ["day", counted.id, "revised_at", "previous_count", "new_count", "run_id"]
    connection.execute(sa.insert(revisions).from_select(names, changed))


def _upsert(
    connection: sa.Connection,
    table: sa.Table,
    incoming: sa.FromClause,
    *,
    only_if: Callable[[sa.ColumnCollection[str, Any]], sa.ColumnElement[bool]] | None = None,
) -> None:
    """Insert the incoming rows; where the key exists, take the new values."""
    statement = insert(table).from_select(list(table.columns.keys()), sa.select(*incoming.columns))
    new = statement.excluded
    values = {c.name: new[c.name] for c in table.columns if not c.primary_key}
    key = list(table.primary_key.columns)
    if values:
        where = only_if(new) if only_if else None
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=values, where=where))
    else:
        connection.execute(statement.on_conflict_do_nothing(index_elements=key))


@contextmanager
def _selected(connection: sa.Connection, rollup: sa.Table, query: sa.TextualSelect) -> Iterator[sa.TableClause]:
    """What `query` selects, kept for several statements."""
    name = f"selected_{rollup.name}"
    temporary = sa.Table(name, sa.MetaData(), *_columns(rollup), prefixes=["temporary"])
    connection.execute(sa.schema.CreateTable(temporary))
    connection.execute(sa.insert(temporary).from_select(list(temporary.columns.keys()), query))
    yield temporary
    connection.execute(sa.schema.DropTable(temporary))


@contextmanager
def _staged(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> Iterator[sa.TableClause]:
    """`rows` as a relation that statements of this transaction can select from, for bulk writes in one statement.

    Raises TypeError for a value that is not of its column's type to the letter and ValueError for a key that comes
    twice: DuckDB would round 12.7 to 13, take true as 1 and keep the first of two equal keys, all in silence.
    """
    for column in table.columns:
        expected = column.type.python_type
        for row in rows:
            value = row[column.name]
            if type(value) is not expected and not (value is None and column.nullable):
                raise TypeError(f"{table.name}.{column.name} takes {expected.__name__}, not {value!r}")
    if "sessions_count" in table.columns and any(row["sessions_count"] > tables.LARGEST_COUNT for row in rows):
        raise ValueError(f"{table.name}: a count of more than {tables.LARGEST_COUNT:,} sessions")
    keys = [tuple(row[c.name] for c in table.primary_key.columns) for row in rows]
    if table.primary_key.columns and len(set(keys)) < len(keys):
        raise ValueError(f"{table.name}: a key comes twice in one write")
    stage = _staged_on_postgresql if connection.dialect.name == "postgresql" else _staged_on_duckdb
    name = f"incoming_{table.name}"
    with stage(connection, name, table, rows):
        yield sa.table(name, *(sa.column(c.name, c.type) for c in table.columns))


@contextmanager
def _staged_on_duckdb(
    connection: sa.Connection, name: str, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> Iterator[None]:
    """As a registered Arrow table, which is read where it is."""
    arrow = pa.table(
        {c.name: pa.array([row[c.name] for row in rows], type=_ARROW_TYPES[type(c.type)]) for c in table.columns}
    )
    duckdb_connection: Any = connection.connection.driver_connection
    duckdb_connection.register(name, arrow)
    try:
        yield
    finally:
        duckdb_connection.unregister(name)


@contextmanager
def _staged_on_postgresql(
    connection: sa.Connection, name: str, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> Iterator[None]:
    """As a temporary table, filled by COPY."""
    columns = _columns(table)
    temporary = sa.Table(name, sa.MetaData(), *columns, prefixes=["temporary"], postgresql_on_commit="drop")
    connection.execute(sa.schema.CreateTable(temporary))
    cursor: Any = connection.connection.cursor()
    identifiers = sql.SQL(", ").join([sql.Identifier(c.name) for c in columns])
    copy = sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(name), identifiers)
    with cursor, cursor.copy(copy) as stream:
        for row in rows:
            stream.write_row([row[c.name] for c in columns])
    yield
    connection.execute(sa.schema.DropTable(temporary))


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    """Names and types alone."""
    return [sa.Column(c.name, c.type, autoincrement=False) for c in table.columns]
