"""A v3 key in the environment, a sandbox per module, and either version in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.devin_key import KEY_VARIABLE
from resources.sandbox.server import Sandbox
from tests.support.dialects import KEY, NOW, V2, V3, Dialect


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    # Loading every root certificate takes longer than a request; an empty directory has none.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture(params=[V2, V3], ids=["v2", "v3"])
def dialect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Dialect:
    """Either version in turn, with its key set."""
    spoken: Dialect = request.param
    monkeypatch.setenv(KEY_VARIABLE, spoken.key)
    return spoken


@pytest.fixture(scope="module")
def serving() -> Iterator[Sandbox]:
    with Sandbox(clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(serving: Sandbox) -> Iterator[Sandbox]:
    yield serving
    serving.heal()
    serving.requests.clear()
