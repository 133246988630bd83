"""Databases with one table of one row."""

from pathlib import Path

import pytest

from resources.database import Database
from tests.support.databases import database_at, with_numbers
from tests.support.postgresql import PostgreSQL


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A DuckDB file with one table of one row."""
    return with_numbers(database_at(tmp_path / "data" / "warehouse.duckdb"))


@pytest.fixture
def on_postgresql(postgresql: PostgreSQL) -> Database:
    """A PostgreSQL database with one table of one row."""
    return with_numbers(Database(url=postgresql.database()))


@pytest.fixture
def each_database(warehouse_url: str) -> Database:
    """A database of each kind in turn, with one table of one row."""
    return with_numbers(Database(url=warehouse_url))
