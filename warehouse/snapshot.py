"""How the published snapshot differs from the warehouse that it is a copy of: the rows of each table are in order."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from warehouse import tables

_COPIED = "warehouse"


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
    tables.describe(connection)  # no copy has comments
