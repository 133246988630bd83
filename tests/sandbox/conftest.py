"""A sandbox per module, and one for tests that change it."""

from collections.abc import Iterator

import httpx
import pytest

from resources.sandbox.server import Sandbox
from tests.support.sandbox import NOW, client_of


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[Sandbox, httpx.Client]]:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        yield sandbox, client


@pytest.fixture
def sandbox(serving: tuple[Sandbox, httpx.Client]) -> Iterator[Sandbox]:
    yield serving[0]
    serving[0].heal()
    serving[0].requests.clear()


@pytest.fixture
def client(serving: tuple[Sandbox, httpx.Client]) -> httpx.Client:
    return serving[1]


@pytest.fixture
def sandbox_to_change() -> Iterator[tuple[Sandbox, httpx.Client]]:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        yield sandbox, client
