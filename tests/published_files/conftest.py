"""Places to publish to: a directory and a bucket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.database import Database
from resources.sandbox.server import Sandbox
from tests.support.bucket import BucketServer, reached
from tests.support.loads import fill
from tests.support.world import World, new_world


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    server = BucketServer()
    yield server
    server.stop()


@pytest.fixture
def bucket(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder in an empty bucket."""
    with reached(bucket_server, monkeypatch) as address:
        yield address


@pytest.fixture(params=["directory", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to publish. A test that takes this runs once in a directory and once in a bucket."""
    if request.param == "directory":
        return f"{tmp_path}/shared"
    found: str = request.getfixturevalue("bucket")
    return found


@pytest.fixture
def filled(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A DuckDB warehouse with some days of two months."""
    with new_world(sandbox, tmp_path, monkeypatch, f"duckdb:///{tmp_path}/warehouse.duckdb") as world:
        fill(world, "2025-01-30", "2025-02-03")
        yield world.database


@pytest.fixture
def published_world(world: World, bucket: str) -> World:
    """A world that publishes to the bucket."""
    world.configure(devin_publish_url=bucket, devin_report_path=f"{world.directory}/report.html")
    return world
