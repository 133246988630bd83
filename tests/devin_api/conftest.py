"""For the tests of the client: a key in the environment, and a sandbox per module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.devin_key import KEY_VARIABLE, URL_VARIABLE
from resources.sandbox.server import Sandbox
from tests.support.client import KEY, NOW


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(URL_VARIABLE, "")
    # Loading every root certificate takes longer than a request.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture(scope="module")
def serving() -> Iterator[Sandbox]:
    with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(serving: Sandbox) -> Iterator[Sandbox]:
    yield serving
    serving.heal()
    serving.requests.clear()
