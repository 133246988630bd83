"""Refills a warehouse from files that hold its tables: DuckDB files of any release, and Parquet files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from warehouse import migrations, parquet, reads, rollups, snapshot, tables, unattributed
from warehouse.dimensions import DIMENSIONS, ORGANIZATIONS, Dimension

_DERIVED = {
    *(rollup.name for rollup in tables.ROLLUPS),
    *tables.views.tables,  # a snapshot has one of them as a table
    tables.stale_days.name,
    tables.warehouse_version.name,
}
# Not missed where no file has it: the next load writes it.
_NEEDED_ONLY_BY_RUNS = {tables.expected_days.name, migrations.EXPECTED_DAYS_UP_TO_VERSION_4}
_REGISTERED = "rows_of_a_file"


@dataclass(frozen=True)
class Source:
    """Where to restore tables from: a DuckDB `file` with a warehouse of a `version`, or a `directory` of Parquet files.

    name: how messages refer to it.
    whole: the tables that can be read completely.
    problems: why others can't, by table; for Parquet files that hold one month, by table/month.
    """

    name: str
    whole: frozenset[str]
    file: Path | None = None
    version: int = migrations.VERSION
    directory: Path | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_all(self) -> bool:
        """Whether it is a DuckDB file with every table that can't be rebuilt from others."""
        return self.file is not None and bool(self.whole) and not self.problems.keys() - _DERIVED - _NEEDED_ONLY_BY_RUNS


@dataclass(frozen=True)
class Restored:
    """The result of `restore`.

    sources: the name of the source of each table.
    lost: why a table, or a month of one, could not be restored.
    as_of: when the most recently read day was read; None if no day was restored.
    dropped: the days that were left out because their counts don't add up to what their total says.
    """

    sources: dict[str, str]
    lost: dict[str, str]
    as_of: datetime | None
    dropped: set[date]


def parquet_source(directory: Path) -> Source | None:
    """Return what can be restored from the Parquet files in `directory`; None if there are none.

    Raises NewerWarehouse if a later release has written them.
    """
    problems: dict[str, str] = {}
    seen: dict[str, bool] = {}
    for path in sorted(directory.rglob("*.parquet")):
        table = path.parent.name if path.parent != directory else path.stem
        name = path.relative_to(directory).as_posix().removesuffix(".parquet")
        try:
            rows = parquet.read(path)
        except (OSError, pa.ArrowException, ValueError) as error:
            problems[name] = " ".join(str(error).split())
        else:
            if table == tables.warehouse_version.name:
                migrations.refuse_newer(max(rows.column("version").to_pylist(), default=0))
        seen[table] = seen.get(table, True) and name not in problems
    if not seen:
        return None
    whole = frozenset(table for table, is_whole in seen.items() if is_whole)
    return Source("the Parquet files", whole, directory=directory, problems=problems)


def restore(connection: sa.Connection, sources: Sequence[Source], *, settled_after_days: int) -> Restored:
    """Fill the empty DuckDB file of `connection`, each table from the first of `sources` that has it.

    Counts and totals come from one source if any has both. If not, or if months are missing, days whose counts don't
    add up to what their total says are left out, so that they count as not loaded. Rollups and views are then rebuilt;
    a day is settled if it was read at least `settled_after_days` after its end.
    """
    chosen = _choose(sources)
    whole = next((source for source in sources if source.has_all), None)
    layout = chosen.get(ORGANIZATIONS.cells.name)
    if layout and layout.file and layout.version < migrations.VERSION:
        quoted = connection.dialect.identifier_preparer.quote
        old, new = quoted(_attach(connection, layout.file)), quoted(_current_database(connection))
        connection.exec_driver_sql(f"copy from database {old} to {new} (schema)")
        snapshot.become_warehouse(connection)
        excluded = _DERIVED - {tables.warehouse_version.name}  # the old version says where to migrate from
    else:
        migrations.migrate(connection)
        excluded = _DERIVED
    names = _tables_in(connection) - excluded
    lost: dict[str, str] = {}
    for name in sorted(names):
        lost |= _fill(connection, name, chosen.get(name), sources)
    migrations.migrate(connection)
    for dimension in DIMENSIONS:
        migrations.list_last_seen(connection, dimension.listed)
        migrations.say_how_counts_are_known(connection, dimension.cells)
    dropped = set() if whole else {day for dimension in DIMENSIONS for day in _drop_unproven(connection, dimension)}
    for dimension in DIMENSIONS:  # their names may be from another source than the totals
        unattributed.drop_outdated(connection, dimension)
    _rebuild(connection, settled_after_days)
    return Restored(
        {name: source.name for name, source in chosen.items() if name in names},
        lost,
        reads.latest(reads.last_read(connection, ORGANIZATIONS).values()),
        dropped,
    )


def _choose(sources: Sequence[Source]) -> dict[str, Source]:
    """The first source that has every table; else the first per table, counts and totals together if possible."""
    for source in sources:
        if source.has_all:
            return dict.fromkeys(source.whole, source)
    chosen: dict[str, Source] = {}
    for source in sources:
        for name in source.whole:
            chosen.setdefault(name, source)
    for dimension in DIMENSIONS:
        pair = {dimension.cells.name, dimension.totals.name}
        both = next((source for source in sources if pair <= source.whole), None)
        if both:
            chosen |= dict.fromkeys(pair, both)
    return chosen


def _fill(connection: sa.Connection, name: str, source: Source | None, sources: Sequence[Source]) -> dict[str, str]:
    """Copy the rows of a table. Returns what could not be restored, and why."""
    if source and source.file:
        attached = _attach(connection, source.file)
        return _insert(connection, name, _in_file(connection, name, attached), _columns(connection, name, attached))
    directory = source.directory if source else next((s.directory for s in sources if s.directory), None)
    lost = {}
    if directory:
        monthly = sorted((directory / name).glob("*.parquet"))
        for path in monthly or [directory / f"{name}.parquet"]:
            part = f"{name}/{path.stem}" if monthly else name
            try:
                rows = parquet.read(path)
            except FileNotFoundError:
                break
            except (OSError, pa.ArrowException, ValueError) as error:
                lost[part] = " ".join(str(error).split())
                continue
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.register(_REGISTERED, rows)
            try:
                lost |= _insert(connection, name, sa.table(_REGISTERED), rows.column_names, part)
            finally:
                driver_connection.unregister(_REGISTERED)
        else:
            return lost
    if name in _NEEDED_ONLY_BY_RUNS or not any(name in {*s.whole, *s.problems} for s in sources):
        return lost
    return lost | {name: next((s.problems[name] for s in sources if name in s.problems), "no file contains it")}


def _insert(
    connection: sa.Connection, name: str, incoming: sa.TableClause, columns: Sequence[str], part: str = ""
) -> dict[str, str]:
    there = _columns(connection, name)
    common = [column for column in there if column in columns]
    known = tables.metadata.tables.get(name)
    lacking = (
        [c.name for c in known.columns if c.name in there and c.name not in common and not c.nullable]
        if known is not None
        else []
    )
    if lacking:
        return {part or name: f"the release that wrote it did not have {', '.join(lacking)}"}
    rows: Any = sa.select(*(sa.column(c) for c in common)).select_from(incoming)
    connection.execute(sa.insert(sa.table(name, *(sa.column(c) for c in common))).from_select(common, rows))
    return {}


def _drop_unproven(connection: sa.Connection, dimension: Dimension) -> set[date]:
    """Delete the days whose counts don't add up to what their total says. Returns them."""
    cells, totals = dimension.cells, dimension.totals
    of_day = (
        sa.select(cells.c.day, sa.func.sum(cells.c.sessions_count).label("sessions"), sa.func.count().label("cells"))
        .group_by(cells.c.day)
        .subquery()
    )
    is_proven = (sa.func.coalesce(of_day.c.sessions, 0) == totals.c[f"{dimension.prefix}_sessions_count"]) & (
        sa.func.coalesce(of_day.c.cells, 0) >= totals.c[f"{dimension.prefix}_loaded"]
    )
    both = totals.outerjoin(of_day, of_day.c.day == totals.c.day)
    unproven = set(connection.scalars(sa.select(totals.c.day).select_from(both).where(~is_proven)))
    without_total = sa.select(cells.c.day).where(cells.c.day.not_in(sa.select(totals.c.day))).distinct()
    dropped = unproven | set(connection.scalars(without_total))
    for table in (cells, totals):
        connection.execute(sa.delete(table).where(tables.is_among(table.c.day, dropped)))
    return dropped


def _rebuild(connection: sa.Connection, settled_after_days: int) -> None:
    rollups.mark_everything_stale(connection)
    if not connection.scalar(sa.select(sa.func.count()).select_from(tables.expected_days)):
        migrations.expect_loaded_days(connection)
    for rollup in tables.ROLLUPS:
        rollups.rebuild(connection, rollup, settled_after_days=settled_after_days)


def _attach(connection: sa.Connection, file: Path) -> str:
    """Attach a DuckDB file until the connection is closed. Returns the name of its database."""
    driver_connection: Any = connection.connection.driver_connection
    quoted = str(file).replace("'", "''")
    driver_connection.execute(f"attach if not exists '{quoted}' (read_only)")
    return file.stem


def _in_file(connection: sa.Connection, table: str, database: str) -> sa.TableClause:
    """A table in an attached file, which has it in the bookkeeping schema if it is a snapshot."""
    rows = sa.text("select schema_name from duckdb_tables() where database_name = :database and table_name = :table")
    schemas = set(connection.scalars(rows, {"database": database, "table": table}))
    quote = connection.dialect.identifier_preparer.quote
    of_table = snapshot.BOOKKEEPING if schemas == {snapshot.BOOKKEEPING} else "main"
    return sa.table(table, schema=sa.quoted_name(f"{quote(database)}.{quote(of_table)}", quote=False))


def _current_database(connection: sa.Connection) -> str:
    return str(connection.scalar(sa.text("select current_database()")))


def _tables_in(connection: sa.Connection) -> set[str]:
    rows = sa.text("select table_name from duckdb_tables() where database_name = current_database() and not temporary")
    return set(connection.scalars(rows))


def _columns(connection: sa.Connection, table: str, database: str | None = None) -> list[str]:
    rows = sa.text(
        "select column_name from duckdb_columns() where table_name = :table and schema_name in ('main', :bookkeeping) "
        "and database_name = coalesce(:database, current_database()) order by column_index"
    )
    return list(connection.scalars(rows, {"table": table, "database": database, "bookkeeping": snapshot.BOOKKEEPING}))
