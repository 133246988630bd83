"""The only ways rows get in. Each runs in the caller's transaction and can be repeated without harm."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from importlib import resources
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from warehouse.tables import Counted

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


@dataclass(frozen=True)
class StoredDay:
    """One day as it is stored after a write. `unattributed_count` is the control total minus the sum of the cells."""

    sessions_count: int
    unattributed_count: int
    changes: Changes


def store_listed(
    connection: sa.Connection, counted: Counted, found: Sequence[Mapping[str, Any]], seen_at: datetime
) -> None:
    """Upsert `found` (id, name if the table has one, created_at) as seen at `seen_at`; None leaves what was known."""
    table = counted.listed
    known = {row[counted.id]: row for row in connection.execute(sa.select(table)).mappings()}
    nothing: dict[str, Any] = dict.fromkeys(table.columns.keys())
    rows = []
    for item in found:
        before = known.get(item[counted.id], nothing)
        told = {name: value for name, value in item.items() if value is not None}
        rows.append({**before, **told, "first_seen_at": before["first_seen_at"] or seen_at, "last_seen_at": seen_at})
    with _staged(connection, table, rows) as incoming:
        _upsert(connection, table, incoming)


def store_days(
    connection: sa.Connection,
    counted: Counted,
    totals: Sequence[Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
) -> dict[date, StoredDay]:
    """Upsert whole days: a row of totals each, and their cells. Returns what is stored now, by day.

    `totals` come without the sum of the cells and unattributed_count: those are taken from the cells as they are
    stored afterwards, so that the proof is about what analysts read. A count that is stored already stays untouched,
    with its loaded_at and run_id, unless it came from another version of the API.
    """
    table = counted.cells
    with _staged(connection, table, cells) as incoming:
        changes = _compare(connection, counted, incoming)
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
    return {
        row["day"]: StoredDay(row["sessions_count"], row["unattributed_count"], changes.get(row["day"], Changes()))
        for row in proven
    }


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


def rebuild(connection: sa.Connection, table: sa.Table, **parameters: Any) -> int:
    """Replace the rows of a rollup by what its SQL file selects. Returns the number of rows."""
    select = resources.files("warehouse").joinpath("sql", f"{table.name}.sql").read_text(encoding="utf-8")
    names = list(table.columns.keys())
    query = sa.text(select).bindparams(**parameters).columns(*(sa.column(c.name, c.type) for c in table.columns))
    connection.execute(sa.delete(table))
    connection.execute(sa.insert(table).from_select(names, query))
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


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


def _upsert(
    connection: sa.Connection,
    table: sa.Table,
    incoming: sa.TableClause,
    *,
    only_if: Callable[[sa.ColumnCollection[str, Any]], sa.ColumnElement[bool]] | None = None,
) -> None:
    """Insert the incoming rows; where the key exists, take the new values."""
    statement = insert(table).from_select(list(table.columns.keys()), sa.select(*incoming.columns))
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={c.name: new[c.name] for c in table.columns if not c.primary_key},
            where=only_if(new) if only_if else None,
        )
    )


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
    keys = [tuple(row[c.name] for c in table.primary_key.columns) for row in rows]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{table.name}: a key comes twice in one write")
    arrow = pa.table(
        {c.name: pa.array([row[c.name] for row in rows], type=_ARROW_TYPES[type(c.type)]) for c in table.columns}
    )
    name = f"incoming_{table.name}"
    duckdb_connection: Any = connection.connection.driver_connection
    duckdb_connection.register(name, arrow)
    try:
        yield sa.table(name, *(sa.column(c.name, c.type) for c in table.columns))
    finally:
        duckdb_connection.unregister(name)
