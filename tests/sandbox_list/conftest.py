"""A sandbox per module, read in each version. Lies and the log end with the test."""

from collections.abc import Iterator

import pytest

from resources.sandbox.contract import Version
from resources.sandbox.server import Sandbox
from tests.support.sandbox import NOW
from tests.support.session_list import Reader, reader_of


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[Sandbox, dict[Version, Reader]]]:
    with (
        Sandbox(organizations=6, memberless=0.2, clock=lambda: NOW) as sandbox,
        reader_of(sandbox, "v2") as v2,
        reader_of(sandbox, "v3") as v3,
    ):
        yield sandbox, {"v2": v2, "v3": v3}


@pytest.fixture
def sandbox(serving: tuple[Sandbox, dict[Version, Reader]]) -> Iterator[Sandbox]:
    yield serving[0]
    serving[0].heal()
    serving[0].requests.clear()


@pytest.fixture(params=["v2", "v3"])
def reader(request: pytest.FixtureRequest, serving: tuple[Sandbox, dict[Version, Reader]]) -> Reader:
    version: Version = request.param
    return serving[1][version]
