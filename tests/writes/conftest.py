"""A transaction on each database, and a warehouse for many transactions."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import sqlalchemy as sa

from resources.database import Database
from tests.support.shared import DATABASES, empty, new_warehouse, rolled_back


@pytest.fixture(scope="session", params=DATABASES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A warehouse that every test leaves without rows."""
    return new_warehouse(request, tmp_path_factory)


@pytest.fixture
def connection(shared: Database) -> Iterator[sa.Connection]:
    with rolled_back(shared) as connection:
        yield connection


@pytest.fixture
def database(shared: Database) -> Iterator[Database]:
    yield shared
    empty(shared)


@pytest.fixture
def open_database(database: Database) -> Iterator[Database]:
    """The warehouse, held open so that a DuckDB file isn't opened and checkpointed for each of many transactions."""
    with database.transaction() if database.is_duckdb else nullcontext():
        yield database
