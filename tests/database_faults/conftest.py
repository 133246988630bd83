"""A PostgreSQL server that a test may stop and start."""

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.support.postgresql import PostgreSQL
from tests.support.servers import Server


@pytest.fixture(scope="module")
def server(postgresql: PostgreSQL) -> Iterator[Server]:
    """A server of these tests alone, after the one that all share: the first decides where servers keep their lock."""
    folder = tempfile.mkdtemp(prefix="postgresql-")
    server = Server(folder)
    yield server
    server.control("stop", "-m", "immediate")
    shutil.rmtree(folder)
