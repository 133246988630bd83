"""Creates warehouses without rows, and reads and rebuilds the tables of a warehouse."""

import atexit
import shutil
import tempfile
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from resources.database import Database
from tests.support.rows import SETTLED_AFTER_DAYS
from warehouse import migrations, rollups, tables


@cache
def _empty_file() -> Path:
    """A DuckDB file without rows: creating its tables takes as long as loading some days."""
    directory = Path(tempfile.mkdtemp(prefix="empty-warehouse-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = directory / "warehouse.duckdb"
    with Database(url=Database.url_of(path)).transaction() as connection:
        migrations.migrate(connection)
    return path


def tables_since(version: int) -> list[str]:
    """The tables, by name, that a warehouse before this version didn't have."""
    return [table.name for table in tables.metadata.sorted_tables if tables.facts(table).since >= version]


def make_missing_warehouse(database: Database) -> Database:
    """Create the warehouse that a first run would create, if it is a file in an existing directory. Returns it."""
    if database.is_file and database.path.parent.is_dir() and not database.path.exists():
        shutil.copy(_empty_file(), database.path)
    return database


def migrated(database: Database) -> Database:
    """The same database, with this release's tables. A file that exists already must have them."""
    if database.is_file:
        return make_missing_warehouse(database)
    with database.transaction() as connection:
        migrations.migrate(connection)
    return database


def stored(connection: sa.Connection) -> dict[tuple[date, str], int]:
    return {(r.day, r.org_id): r.sessions_count for r in connection.execute(sa.select(tables.daily_sessions))}


def rows_of(connection: sa.Connection, table: sa.Table) -> list[tuple[Any, ...]]:
    """Every row, ordered by the key, or by all columns if there is none."""
    order = list(table.primary_key.columns) or list(table.columns)
    return [tuple(row) for row in connection.execute(sa.select(table).order_by(*order))]


def everything(connection: sa.Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: rows_of(connection, table) for table in tables.metadata.sorted_tables}


def rebuild(connection: sa.Connection, name: str, settled_after_days: int = SETTLED_AFTER_DAYS) -> int:
    return rollups.rebuild(connection, tables.metadata.tables[name], settled_after_days=settled_after_days)


def rebuild_all(connection: sa.Connection) -> None:
    """Let each rollup take in what has changed, as a run does."""
    for table in tables.ROLLUPS:
        rebuild(connection, table.name)


def select_over_all_time(connection: sa.Connection, name: str) -> list[tuple[Any, ...]]:
    """What the rollup's SQL file selects for all time, regardless of which days are marked stale."""
    table = tables.metadata.tables[name]
    query = sa.text(tables.select(table))
    values = {"first_day": date(2000, 1, 1), "last_day": date(2100, 12, 31), "settled_after_days": SETTLED_AFTER_DAYS}
    known = query.bindparams(**{key: value for key, value in values.items() if f":{key}" in query.text})
    return sorted(tuple(row) for row in connection.execute(known))


def wide_integers(database: Database, sql: str) -> list[str]:
    """The columns of a query's result that hold integers in a type wider than bigint, which clients may not show so."""
    with database.transaction(read_only=True) as connection:
        result = connection.execute(sa.text(sql))
        if database.is_duckdb:
            columns = cast(Any, result.cursor).description
            return [name for name, type_, *_ in columns if str(type_) == "HUGEINT"]
        rows = result.all()
        values = {name: [row[n] for row in rows] for n, name in enumerate(result.keys())}
        # Rounded numbers have decimal places.
        return [
            name
            for name, column in values.items()
            if any(isinstance(v, Decimal) and int(v.as_tuple().exponent) >= 0 for v in column)
        ]


def comments(connection: sa.Connection) -> dict[tuple[str, str | None], str | None]:
    """The comment that the database has on each table or view (column None) and each column."""
    if connection.dialect.name == "postgresql":
        sql = """
            select relname, null, obj_description(oid, 'pg_class')
            from pg_class where relnamespace = to_regnamespace(quote_ident(current_schema())) and relkind in ('r', 'v')
            union all
            select relname, attname, col_description(attrelid, attnum)
            from pg_class inner join pg_attribute on attrelid = pg_class.oid
            where relnamespace = to_regnamespace(quote_ident(current_schema())) and relkind in ('r', 'v') and attnum > 0
                and not attisdropped
        """
    else:
        sql = """
            select table_name, null, comment from duckdb_tables()
            union all
            select view_name, null, comment from duckdb_views() where not internal
            union all
            select table_name, column_name, comment from duckdb_columns() where not internal
        """
    return {(relation, column): comment for relation, column, comment in connection.execute(sa.text(sql))}
