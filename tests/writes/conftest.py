"""A transaction on each database, and a warehouse for many transactions."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import sqlalchemy as sa

from resources.database import Database


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.transaction() as connection:
        yield connection


@pytest.fixture
def open_database(database: Database) -> Iterator[Database]:
    """The warehouse, held open so that a DuckDB file isn't opened and checkpointed for each of many transactions."""
    with database.transaction() if database.is_duckdb else nullcontext():
        yield database
