"""Migrates an older warehouse to the current layout of `tables`, its version, and refuses what it can't be.

That is a newer warehouse, and a database in which others have tables or views with these names.
"""

import sqlalchemy as sa

from warehouse import pace_table, rollups, snapshot, tables
from warehouse.dimensions import DIMENSIONS, ORGANIZATIONS
from warehouse.tables import expected_days, warehouse_version

# A new table or view states its version in its facts; for any other change, raise the number here.
VERSION = max(9, *(tables.facts(relation).since for relation in tables.RELATIONS))

EXPECTED_DAYS_UP_TO_VERSION_4 = "history"  # the table's name until then; it sounded like a change log


class UnfitWarehouse(Exception):
    """The database can't serve as this release's warehouse, and was left as it is. The message is for the user."""


class NewerWarehouse(UnfitWarehouse):
    """A later release has written this warehouse."""


class NamesTaken(UnfitWarehouse):
    """Tables or views that this project didn't create have names that the warehouse needs."""


def version(connection: sa.Connection) -> int:
    """The version of the warehouse in this database: 0 if there is none. Raises UnfitWarehouse if it can't be read."""
    return _version(connection, tables.present(connection))


def _version(connection: sa.Connection, there: set[str]) -> int:
    recorded = _recorded_version(connection) if warehouse_version.name in there else None
    if not _tables_of(1) <= there:
        return 0
    if recorded is None:  # as in the first release's warehouse
        return 1 if tables.have_their_keys(connection, _tables_of(1)) else 0
    return recorded


def _recorded_version(connection: sa.Connection) -> int:
    """The version in the table for it; 0 if that isn't a table of one version, and so is somebody else's."""
    everything = sa.select(sa.text("*")).select_from(sa.text(warehouse_version.name)).limit(2)
    try:
        rows = connection.execute(everything).mappings().all()
    except (sa.exc.ProgrammingError, sa.exc.DataError) as error:
        why = " ".join(str(error.orig).split())
        raise UnfitWarehouse(
            f"The version of the warehouse can't be read from {warehouse_version.name} ({why}). If this job created "
            "that, use the database as the writer of docs/postgresql-roles.sql. If not, rename it, or set "
            f"{_ELSEWHERE}."
        ) from None
    found = rows[0].get("version") if len(rows) == 1 else None
    return found if type(found) is int and found > 0 else 0


def _tables_of(of_version: int) -> set[str]:
    """The names of the tables that a warehouse of this version has; views may have been dropped."""
    return {table.name for table in tables.metadata.sorted_tables if tables.facts(table).since <= of_version}


def refuse_unfit(connection: sa.Connection) -> int:
    """Return the version of the warehouse in this database: 0 if there is none yet. Raises UnfitWarehouse."""
    there = tables.present(connection)
    found = _version(connection, there)
    refuse_newer(found)
    if lacking := _tables_of(found) - there:
        raise UnfitWarehouse(
            f"The warehouse has version {found}, but {', '.join(sorted(lacking))} of it is not there. Restore a "
            "backup, or set WAREHOUSE_URL to a new warehouse and load history again."
        )
    later = {relation.name for relation in tables.RELATIONS if tables.facts(relation).since > found}
    if later and (taken := later & tables.in_use(connection)):
        raise NamesTaken(
            f"The database already holds {', '.join(sorted(taken))}, which this job did not create and whose names it "
            f"needs. Rename them, or set {_ELSEWHERE}."
        )
    return found


_ELSEWHERE = "WAREHOUSE_URL to another database, or, on PostgreSQL, DEVIN_SCHEMA to a schema of its own"


def refuse_newer(found: int) -> None:
    """Raise NewerWarehouse if this is the version of a later release."""
    if found > VERSION:
        raise NewerWarehouse(
            f"The warehouse has version {found}, but this release supports versions up to {VERSION}: a later release "
            "has written it. Use that release, or set WAREHOUSE_URL to another warehouse."
        )


def migrate(connection: sa.Connection) -> None:
    """Bring the warehouse to this release's layout, in the caller's transaction. Only reads if it has it already.

    Raises UnfitWarehouse.
    """
    is_snapshot = snapshot.find_bookkeeping(connection)  # a backup may have been put in the warehouse's place
    found = refuse_unfit(connection)
    if is_snapshot:
        snapshot.become_warehouse(connection)
    if found == VERSION:
        return
    if 0 < found < 8:
        _complete_lists(connection, tables.present(connection), found)
    if 0 < found < 9:
        there = tables.present(connection)
        for table in (dimension.cells for dimension in DIMENSIONS if dimension.cells.name in there):
            connection.execute(sa.text(f"alter table {table.name} add column if not exists how text"))
            say_how_counts_are_known(connection, table)
    if found in (2, 3, 4):
        connection.execute(sa.text(f"alter table {EXPECTED_DAYS_UP_TO_VERSION_4} rename to {expected_days.name}"))
    tables.create(connection)
    if connection.dialect.name == "postgresql":
        pace_table.create_missing(connection)
        _withhold_bookkeeping(connection)
    if found in (1, 2, 3):
        _drop_impossible_days(connection)
    if found == 1:  # it tracked neither which days the rollups have yet to take in nor which days are expected
        expect_loaded_days(connection)
    if found:  # a new rollup has yet to take in what is stored
        rollups.mark_everything_stale(connection, since=0 if found == 1 else found)
    connection.execute(sa.delete(warehouse_version))
    connection.execute(sa.insert(warehouse_version).values(version=VERSION))


def create_pace(connection: sa.Connection) -> None:
    """Create the table of `pace_table` if it is missing. Raises UnfitWarehouse if this can't be a warehouse."""
    refuse_unfit(connection)
    pace_table.create_missing(connection)
    _withhold_bookkeeping(connection)


def _withhold_bookkeeping(connection: sa.Connection) -> None:
    """Take from readers the bookkeeping tables, which default privileges have given them with all others.

    Views that read these do so as their owner. Roles that may also write there keep their privileges.
    """
    readers = sa.text("""
        select relname, case grantee when 0 then 'public' else cast(cast(grantee as regrole) as text) end as reader
        from pg_class cross join aclexplode(relacl)
        where relnamespace = to_regnamespace(quote_ident(current_schema())) and relname = any(:names)
        group by relname, relowner, grantee
        having grantee <> relowner and not bool_or(privilege_type in ('INSERT', 'UPDATE', 'DELETE'))
    """)
    names = [table.name for table in tables.metadata.sorted_tables if tables.facts(table).kind == "bookkeeping table"]
    names.append(pace_table.api_pace.name)
    for table, reader in connection.execute(readers, {"names": names}).all():
        revoke = sa.DDL("revoke all on %(table)s from %(reader)s", context=dict(table=table, reader=reader))  # type: ignore[no-untyped-call]
        connection.execute(revoke)


def _complete_lists(connection: sa.Connection, there: set[str], found: int) -> None:
    """Add who is listed, where that is not recorded, and who is on a list by choice, which the next load records."""
    for table in (tables.organizations, tables.users):
        if table.name in there:
            if found < 4:
                connection.execute(sa.text(f"alter table {table.name} add column is_listed boolean"))
            connection.execute(sa.text(f"alter table {table.name} add column if not exists is_chosen boolean"))
            if found < 4:
                list_last_seen(connection, table)  # last: DuckDB adds no column after an update


def say_how_counts_are_known(connection: sa.Connection, cells: sa.Table) -> None:
    """Fill in `how` for counts of releases up to version 8, which asked for each or derived it from totals."""
    how = sa.case((cells.c.is_derived, "derived"), else_="asked")
    connection.execute(sa.update(cells).where(cells.c.how.is_(None)).values(how=how))


def list_last_seen(connection: sa.Connection, listed: sa.Table) -> None:
    """Mark as listed those with the latest last_seen_at, where a release up to version 3 didn't mark any."""
    latest = sa.select(sa.func.max(listed.c.last_seen_at)).scalar_subquery()
    unmarked = sa.update(listed).where(listed.c.is_listed.is_(None))
    connection.execute(unmarked.values(is_listed=listed.c.last_seen_at == latest))


def _drop_impossible_days(connection: sa.Connection) -> None:
    """Delete days with counts too large to sum, which versions up to 3 allowed. They are then loaded again."""
    for dimension in DIMENSIONS:
        days = set()
        for table in (dimension.cells, dimension.totals):
            too_large = sa.select(table.c.day).where(table.c.sessions_count > tables.LARGEST_COUNT)
            days |= set(connection.scalars(too_large))
        for table in (dimension.cells, dimension.totals) if days else ():
            connection.execute(sa.delete(table).where(tables.is_among(table.c.day, days)))
        if days:
            rollups.mark_stale(connection, dimension, sorted(days))


def expect_loaded_days(connection: sa.Connection) -> None:
    """Record the days from the first to the last stored one as expected, where no load has recorded any."""
    days = ORGANIZATIONS.totals.c.day
    first_and_last = sa.select(sa.func.min(days), sa.func.max(days)).having(sa.func.count() > 0)
    connection.execute(sa.insert(expected_days).from_select(["first_day", "last_day"], first_and_last))
