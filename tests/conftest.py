"""Fixtures for tests that need an API, a warehouse and runs between them, all local and real."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.database import Database
from resources.sandbox.server import Sandbox
from tests.support.certificate import self_signed
from tests.support.command import Here, command_here
from tests.support.postgresql import PostgreSQL
from tests.support.receiver import Receiver
from tests.support.warehouse import migrated
from tests.support.world import World, new_world

_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 4 * 1024**3
_LONGEST = ("test_webserver.py", "test_follow.py", "test_kubernetes.py")


def pytest_configure() -> None:
    """Keep temporary files in memory if the machine has room: on a disk, tests wait for it half of their time."""
    if "TMPDIR" not in os.environ and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES:
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None  # where it may have looked before


def pytest_xdist_auto_num_workers() -> int:
    """Two workers per core: tests wait for servers, processes and clocks."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that none of them is the last to end."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=5) as source:
        yield source


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    directory = tempfile.mkdtemp(prefix="postgresql-")
    server = PostgreSQL(directory)
    server.disable_fsync()
    yield server
    server.server.stop()
    shutil.rmtree(directory)


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
    return migrated(Database(url=warehouse_url))


@pytest.fixture
def world(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world with DuckDB."""
    with new_world(sandbox, tmp_path, monkeypatch, f"duckdb:///{tmp_path}/warehouse.duckdb") as world:
        yield world


@pytest.fixture
def here(world: World, capsys: pytest.CaptureFixture[str]) -> Here:
    """`devin-sessions` in this process, with the settings of `world`."""
    return command_here(capsys, world.environment)


@pytest.fixture
def each_world(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str
) -> Iterator[World]:
    """A world with each database in turn. A test that takes this runs once on each."""
    with new_world(sandbox, tmp_path, monkeypatch, warehouse_url) as world:
        yield world


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook that keeps what it is sent."""
    receiver = Receiver()
    receiver.start()
    yield receiver
    receiver.unplug()
