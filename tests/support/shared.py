"""One migrated warehouse on each database for many tests: to migrate one takes longer than most of them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import sqlalchemy as sa

from resources.database import Database
from tests.support.postgresql import PostgreSQL
from tests.support.warehouse import migrated
from warehouse import tables

DATABASES = ["duckdb", "postgresql"]


class _RollBack(Exception):
    """Ends a transaction and rolls it back."""


def new_warehouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A warehouse without rows, on the database that is the fixture's parameter."""
    if request.param == "duckdb":
        url = f"duckdb:///{tmp_path_factory.mktemp('shared')}/warehouse.duckdb"
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        url = server.database(unprivileged=True)
    return migrated(Database(url=url))


@contextmanager
def rolled_back(database: Database) -> Iterator[sa.Connection]:
    """A transaction that leaves nothing behind."""
    with suppress(_RollBack), database.transaction() as connection:
        yield connection
        raise _RollBack


def empty(database: Database) -> None:
    """Delete every row, except that of the version."""
    with database.transaction() as connection:
        for table in tables.metadata.sorted_tables:
            if table is not tables.warehouse_version:
                connection.execute(sa.delete(table))
