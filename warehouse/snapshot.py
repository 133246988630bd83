"""How the published snapshot differs from the warehouse that it is a copy of, and how it becomes a warehouse again.

The rows of each table are in order. The bookkeeping tables are in a schema of their own, so that analysts who list the
tables see those that are for them; `calendar`, which reads one of them, is therefore a table.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from warehouse import tables

BOOKKEEPING = "bookkeeping"

_COPIED = "warehouse"
_APART = [
    (table, table.to_metadata(sa.MetaData(), schema=BOOKKEEPING))
    for table in tables.metadata.sorted_tables
    if tables.facts(table).kind == "bookkeeping table"
]
_CALENDAR = tables.calendar.to_metadata(sa.MetaData())


def arrange(connection: sa.Connection, copied: Path) -> None:
    """Fill the empty DuckDB file of `connection` with everything in the file `copied`, rows ordered by their keys.

    Rows without a key are ordered by all columns. Tables and views that others made there are copied as they are.
    """
    driver_connection: Any = connection.connection.driver_connection
    quote = connection.dialect.identifier_preparer.quote
    path = str(copied).replace("'", "''")
    driver_connection.execute(f"attach '{path}' as {_COPIED} (read_only)")
    database = quote(str(connection.scalar(sa.text("select current_database()"))))
    driver_connection.execute(f"copy from database {_COPIED} to {database} (schema)")
    there = sa.text("select schema_name, table_name from duckdb_tables() where database_name = :database")
    for schema, name in connection.execute(there, {"database": _COPIED}).all():
        table = f"{quote(schema)}.{quote(name)}"
        rows = driver_connection.sql(f"from {_COPIED}.{table}")
        if schema == "main" and name in tables.metadata.tables:
            rows = rows.order(", ".join(tables.key(tables.metadata.tables[name])) or "all")
        rows.insert_into(table)
    become_warehouse(connection)
    _set_apart(connection)
    recreated = {tables.calendar.name, *(table.name for table, _ in _APART)}
    tables.describe(connection, (r for r in tables.RELATIONS if r.name not in recreated))  # no copy has comments


def is_snapshot(connection: sa.Connection) -> bool:
    """Whether this database is a published snapshot, wherever it was copied to."""
    return connection.dialect.name == "duckdb" and tables.warehouse_version.name in _bookkeeping_in(connection)


def find_bookkeeping(connection: sa.Connection) -> bool:
    """Let this connection find the bookkeeping tables of a snapshot by their names alone, as in a warehouse.

    Returns whether this is a snapshot.
    """
    if found := is_snapshot(connection):
        connection.execute(sa.text(f"set search_path = 'main,{BOOKKEEPING}'"))
    return found


def become_warehouse(connection: sa.Connection) -> None:
    """Undo what sets a snapshot apart from a warehouse; does nothing to a warehouse."""
    if not is_snapshot(connection):
        return
    there = _bookkeeping_in(connection)
    for table, apart in _APART:
        if table.name in there:  # an earlier release had fewer
            _move(connection, apart, table)
    connection.execute(sa.text("set search_path = 'main'"))
    connection.execute(sa.schema.DropSchema(BOOKKEEPING))
    connection.execute(sa.schema.DropTable(_CALENDAR))
    tables.create_view(connection, tables.calendar)
    tables.describe(connection, [tables.calendar])


def _bookkeeping_in(connection: sa.Connection) -> set[str]:
    found = sa.text(
        "select table_name from duckdb_tables() where database_name = current_database() and schema_name = :schema"
    )
    return set(connection.scalars(found, {"schema": BOOKKEEPING}))


def _set_apart(connection: sa.Connection) -> None:
    connection.execute(sa.text("alter view calendar rename to calendar_as_view"))
    _create(connection, _CALENDAR)
    connection.execute(sa.text("insert into calendar select * from calendar_as_view order by day"))
    connection.execute(sa.text("drop view calendar_as_view"))
    connection.execute(sa.schema.CreateSchema(BOOKKEEPING))
    for table, apart in _APART:
        _move(connection, table, apart)


def _move(connection: sa.Connection, source: sa.Table, target: sa.Table) -> None:
    _create(connection, target)
    connection.execute(sa.insert(target).from_select(target.columns.keys(), sa.select(source)))
    connection.execute(sa.schema.DropTable(source))


def _create(connection: sa.Connection, table: sa.Table) -> None:
    connection.execute(sa.schema.CreateTable(table))
    tables.describe(connection, [table])
