"""Bulk writes: rows are staged beside a table, then merged into it in one statement."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import insert

from warehouse import tables


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    incoming: sa.FromClause,
    *,
    only_if: Callable[[sa.ColumnCollection[str, Any]], sa.ColumnElement[bool]] | None = None,
) -> None:
    """Insert the incoming rows; where the key exists, update the row, or only if `only_if` holds for the new values."""
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
def selected(connection: sa.Connection, rollup: sa.Table, query: sa.TextualSelect) -> Iterator[sa.TableClause]:
    """The rows that `query` returns, in a temporary table for several statements."""
    name = f"selected_{rollup.name}"
    temporary = sa.Table(name, sa.MetaData(), *_columns(rollup), prefixes=["temporary"])
    connection.execute(sa.schema.CreateTable(temporary))
    connection.execute(sa.insert(temporary).from_select(list(temporary.columns.keys()), query))
    yield temporary
    connection.execute(sa.schema.DropTable(temporary))


@contextmanager
def staged(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> Iterator[sa.TableClause]:
    """`rows` as a relation that the statements of this transaction can select from.

    Raises TypeError for a value that isn't exactly of its column's type, and ValueError for a duplicate key or a count
    above `tables.LARGEST_COUNT`: DuckDB would silently round 12.7 to 13, take true as 1 and keep the first of two equal
    keys.
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
        raise ValueError(f"{table.name}: the same key appears twice in one write")
    stage = _staged_on_postgresql if connection.dialect.name == "postgresql" else _staged_on_duckdb
    name = f"incoming_{table.name}"
    with stage(connection, name, table, rows):
        yield sa.table(name, *(sa.column(c.name, c.type) for c in table.columns))


@contextmanager
def _staged_on_duckdb(
    connection: sa.Connection, name: str, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> Iterator[None]:
    """Fills a temporary table from one parameter for each column, as JSON.

    DuckDB takes 75 µs of CPU for each value of another kind; for an Arrow table, imports of 40 MB.
    """
    quote = connection.dialect.identifier_preparer.quote
    types = [column.type.compile(connection.dialect) for column in table.columns]
    columns = [
        f"unnest(from_json_strict(${number}, '[\"{type_}\"]')) as {quote(column.name)}"
        for number, (type_, column) in enumerate(zip(types, table.columns, strict=True), start=1)
    ]
    values = tuple(json.dumps([row[column.name] for row in rows], default=str) for column in table.columns)
    connection.exec_driver_sql(f"create temporary table {quote(name)} as select {', '.join(columns)}", values)
    yield
    connection.exec_driver_sql(f"drop table {quote(name)}")


@contextmanager
def _staged_on_postgresql(
    connection: sa.Connection, name: str, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> Iterator[None]:
    """Fills a temporary table by COPY."""
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
    """Copies of the columns with only their names and types."""
    return [sa.Column(c.name, c.type, autoincrement=False) for c in table.columns]
