"""A PostgreSQL server that a test may stop and start, and a small disk."""

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.support.command import Here, command_here
from tests.support.disks import Disk, disk_at
from tests.support.postgresql import PostgreSQL
from tests.support.servers import Server
from tests.support.world import World


@pytest.fixture(scope="module")
def server(postgresql: PostgreSQL) -> Iterator[Server]:
    """A server for these tests alone, started after the shared one: the first decides where servers keep their lock."""
    directory = tempfile.mkdtemp(prefix="postgresql-")
    server = Server(directory)
    yield server
    server.control("stop", "-m", "immediate")
    shutil.rmtree(directory)


@pytest.fixture
def here(world: World, capsys: pytest.CaptureFixture[str]) -> Here:
    return command_here(capsys, world.environment)


@pytest.fixture
def disk(world: World) -> Iterator[Disk]:
    """A small disk with the warehouse and everything published."""
    with disk_at(world.directory / "disk") as disk:
        world.configure(warehouse_url=f"duckdb:///{disk.directory}/warehouse.duckdb")
        yield disk
