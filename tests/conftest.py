"""Fixtures for tests that need an API, a warehouse and runs between them, all local and real."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.database import Database
from resources.sandbox.server import Sandbox
from tests.support.certificate import self_signed
from tests.support.postgresql import PostgreSQL
from tests.support.world import World, new_world
from warehouse import migrations


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=5) as source:
        yield source


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    folder = tempfile.mkdtemp(prefix="postgresql-")
    server = PostgreSQL(folder)
    server.disable_fsync()
    yield server
    server.server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its private key, in one PEM file."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    self_signed(path)
    return path


@pytest.fixture(params=["duckdb", "postgresql"])
def warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new warehouse. A test that takes this runs once on each database."""
    if request.param == "duckdb":
        yield f"duckdb:///{tmp_path}/warehouse.duckdb"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    url = server.database(unprivileged=True)
    yield url
    server.drop(url)


@pytest.fixture
def database(warehouse_url: str) -> Database:
    """A warehouse without rows."""
    database = Database(url=warehouse_url)
    with database.transaction() as connection:
        migrations.migrate(connection)
    return database


@pytest.fixture
def world(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world with DuckDB."""
    with new_world(sandbox, tmp_path, monkeypatch, f"duckdb:///{tmp_path}/warehouse.duckdb") as world:
        yield world


@pytest.fixture
def each_world(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str
) -> Iterator[World]:
    """A world with each database in turn. A test that takes this runs once on each."""
    with new_world(sandbox, tmp_path, monkeypatch, warehouse_url) as world:
        yield world
