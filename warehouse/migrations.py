"""How an older warehouse becomes one of today, and how a newer one is refused. A version is a layout of `tables`."""

import sqlalchemy as sa

from warehouse import rollups, tables
from warehouse.dimensions import DIMENSIONS, ORGANIZATIONS
from warehouse.tables import expected_days, warehouse_version

# A new table or view brings its own in its facts; a change of another kind needs a number here.
VERSION = max(4, *(tables.facts(relation).since for relation in tables.RELATIONS))

EXPECTED_DAYS_UP_TO_VERSION_4 = "history"  # as this table was called then, which reads like a log of changes


class UnfitWarehouse(Exception):
    """The database cannot be this release's warehouse, and was left as it is. The message is for the user."""


class NewerWarehouse(UnfitWarehouse):
    """A later release has written it."""


class NamesTaken(UnfitWarehouse):
    """Somebody else's tables or views have the names that the warehouse needs."""


def version(connection: sa.Connection) -> int:
    """The version of what is there: 0 if that is nothing."""
    there = tables.present(connection)
    if warehouse_version.name in there:
        return connection.scalar(sa.select(warehouse_version.c.version)) or 0
    return 1 if ORGANIZATIONS.totals.name in there else 0  # the first release did not write its version down


def refuse_newer(connection: sa.Connection) -> int:
    """The version of what is there. Raises NewerWarehouse if this release does not know it."""
    found = version(connection)
    if found > VERSION:
        raise NewerWarehouse(
            f"The warehouse has version {found}, and this release knows up to {VERSION}: a later release has written "
            "it. Use that release, or set WAREHOUSE_URL to another warehouse."
        )
    return found


def migrate(connection: sa.Connection) -> None:
    """Make the warehouse what this release needs, in the caller's transaction. One look if it is that already.

    Raises UnfitWarehouse.
    """
    found = refuse_newer(connection)
    if found == VERSION:
        return
    there = tables.present(connection)
    taken = there & {relation.name for relation in tables.RELATIONS if tables.facts(relation).since > found}
    if taken:
        raise NamesTaken(
            f"The database holds {', '.join(sorted(taken))} already, which this job did not make, and needs these "
            "names for itself. Rename them, or set WAREHOUSE_URL to another database."
        )
    if found in (1, 2, 3):
        _know_who_is_listed(connection, there)
    if found in (2, 3, 4):
        connection.execute(sa.text(f"alter table {EXPECTED_DAYS_UP_TO_VERSION_4} rename to {expected_days.name}"))
    tables.create(connection)
    if found in (1, 2, 3):
        _forget_absurd_days(connection)
    if found == 1:
        # The second version brought revisions, users and views, and rollups that know what they have yet to take in.
        rollups.mark_everything_stale(connection)
        expect_what_is_loaded(connection)
    connection.execute(sa.delete(warehouse_version))
    connection.execute(sa.insert(warehouse_version).values(version=VERSION))


def _know_who_is_listed(connection: sa.Connection, there: set[str]) -> None:
    """Up to version 3 those were listed that were seen last by the clock."""
    for table, column in (
        (tables.organizations, "alter table organizations add column is_listed boolean"),
        (tables.users, "alter table users add column is_listed boolean"),
    ):
        if table.name in there:
            connection.execute(sa.text(column))
            latest = sa.select(sa.func.max(table.c.last_seen_at)).scalar_subquery()
            connection.execute(sa.update(table).values(is_listed=table.c.last_seen_at == latest))


def _forget_absurd_days(connection: sa.Connection) -> None:
    """Up to version 3 a count could be too large for any sum. Those days count as not loaded, and are read again."""
    for dimension in DIMENSIONS:
        days = set()
        for table in (dimension.cells, dimension.totals):
            absurd = sa.select(table.c.day).where(table.c.sessions_count > tables.LARGEST_COUNT)
            days |= set(connection.scalars(absurd))
        for table in (dimension.cells, dimension.totals) if days else ():
            connection.execute(sa.delete(table).where(table.c.day.in_(days)))
        if days:
            rollups.mark_stale(connection, dimension, sorted(days))


def expect_what_is_loaded(connection: sa.Connection) -> None:
    """Expect the days from the first to the last that is stored, where no load has said which to expect."""
    days = ORGANIZATIONS.totals.c.day
    first_and_last = sa.select(sa.func.min(days), sa.func.max(days)).having(sa.func.count() > 0)
    connection.execute(sa.insert(expected_days).from_select(["first_day", "last_day"], first_and_last))
