"""Migrates an older warehouse to the current layout of `tables`, its version, and refuses a newer one."""

import sqlalchemy as sa

from warehouse import rollups, snapshot, tables
from warehouse.dimensions import DIMENSIONS, ORGANIZATIONS
from warehouse.tables import expected_days, warehouse_version

# A new table or view states its version in its facts; for any other change, raise the number here.
VERSION = max(8, *(tables.facts(relation).since for relation in tables.RELATIONS))

EXPECTED_DAYS_UP_TO_VERSION_4 = "history"  # the table's name until then; it sounded like a change log


class UnfitWarehouse(Exception):
    """The database can't serve as this release's warehouse, and was left as it is. The message is for the user."""


class NewerWarehouse(UnfitWarehouse):
    """A later release has written this warehouse."""


class NamesTaken(UnfitWarehouse):
    """Tables or views that this project didn't create have names that the warehouse needs."""


def version(connection: sa.Connection) -> int:
    """The version of the warehouse in this database: 0 if there is none."""
    there = tables.present(connection)
    if warehouse_version.name in there:
        return connection.scalar(sa.select(warehouse_version.c.version)) or 0
    return 1 if ORGANIZATIONS.totals.name in there else 0  # the first release didn't record its version


def refuse_newer(connection: sa.Connection) -> int:
    """Return the warehouse's version. Raises NewerWarehouse if a later release has written it."""
    found = version(connection)
    if found > VERSION:
        raise NewerWarehouse(
            f"The warehouse has version {found}, but this release supports versions up to {VERSION}: a later release "
            "has written it. Use that release, or set WAREHOUSE_URL to another warehouse."
        )
    return found


def migrate(connection: sa.Connection) -> None:
    """Bring the warehouse to this release's layout, in the caller's transaction. Only reads if it has it already.

    Raises UnfitWarehouse.
    """
    snapshot.become_warehouse(connection)  # a backup may have been put in the warehouse's place
    found = refuse_newer(connection)
    if found == VERSION:
        return
    there = tables.present(connection)
    taken = there & {relation.name for relation in tables.RELATIONS if tables.facts(relation).since > found}
    if taken:
        raise NamesTaken(
            f"The database already holds {', '.join(sorted(taken))}, which this job did not create and whose names it "
            "needs. Rename them, or set WAREHOUSE_URL to another database, or, on PostgreSQL, DEVIN_SCHEMA to a schema "
            "of its own."
        )
    if 0 < found < 8:
        _complete_lists(connection, there, found)
    if found in (2, 3, 4):
        connection.execute(sa.text(f"alter table {EXPECTED_DAYS_UP_TO_VERSION_4} rename to {expected_days.name}"))
    tables.create(connection)
    if found in (1, 2, 3):
        _drop_impossible_days(connection)
    if found == 1:  # it tracked neither which days the rollups have yet to take in nor which days are expected
        expect_loaded_days(connection)
    if found:  # a new rollup has yet to take in what is stored
        rollups.mark_everything_stale(connection, since=0 if found == 1 else found)
    connection.execute(sa.delete(warehouse_version))
    connection.execute(sa.insert(warehouse_version).values(version=VERSION))


def _complete_lists(connection: sa.Connection, there: set[str], found: int) -> None:
    """Add who is listed, where that is not recorded, and who is on a list by choice, which the next load records.

    Up to version 3, those with the latest last_seen_at were the listed ones.
    """
    for table, is_listed, is_chosen in (
        (
            tables.organizations,
            "alter table organizations add column is_listed boolean",
            "alter table organizations add column if not exists is_chosen boolean",
        ),
        (
            tables.users,
            "alter table users add column is_listed boolean",
            "alter table users add column if not exists is_chosen boolean",
        ),
    ):
        if table.name not in there:
            continue
        if found < 4:
            connection.execute(sa.text(is_listed))
        connection.execute(sa.text(is_chosen))  # DuckDB adds none after the update below
        if found < 4:
            latest = sa.select(sa.func.max(table.c.last_seen_at)).scalar_subquery()
            connection.execute(sa.update(table).values(is_listed=table.c.last_seen_at == latest))


def _drop_impossible_days(connection: sa.Connection) -> None:
    """Delete days with counts too large to sum, which versions up to 3 allowed. They are then loaded again."""
    for dimension in DIMENSIONS:
        days = set()
        for table in (dimension.cells, dimension.totals):
            too_large = sa.select(table.c.day).where(table.c.sessions_count > tables.LARGEST_COUNT)
            days |= set(connection.scalars(too_large))
        for table in (dimension.cells, dimension.totals) if days else ():
            connection.execute(sa.delete(table).where(table.c.day.in_(days)))
        if days:
            rollups.mark_stale(connection, dimension, sorted(days))


def expect_loaded_days(connection: sa.Connection) -> None:
    """Record the days from the first to the last stored one as expected, where no load has recorded any."""
    days = ORGANIZATIONS.totals.c.day
    first_and_last = sa.select(sa.func.min(days), sa.func.max(days)).having(sa.func.count() > 0)
    connection.execute(sa.insert(expected_days).from_select(["first_day", "last_day"], first_and_last))
