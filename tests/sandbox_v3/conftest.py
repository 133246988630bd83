"""A sandbox per module, with clients for v3 and v2."""

from collections.abc import Iterator

import httpx
import pytest

from resources.sandbox.server import Sandbox
from tests.support import sandbox as v2
from tests.support.sandbox import NOW
from tests.support.sandbox_v3 import client_of


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[Sandbox, httpx.Client, httpx.Client]]:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client, v2.client_of(sandbox) as older:
        yield sandbox, client, older


@pytest.fixture
def sandbox(serving: tuple[Sandbox, httpx.Client, httpx.Client]) -> Iterator[Sandbox]:
    yield serving[0]
    serving[0].heal()
    serving[0].requests.clear()


@pytest.fixture
def client(serving: tuple[Sandbox, httpx.Client, httpx.Client]) -> httpx.Client:
    return serving[1]
