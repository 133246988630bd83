"""An environment in which every setting is empty."""

import pytest

from tests.support.variables import VARIABLES


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Empty rather than unset, so that a developer's own `.env` fills in nothing.
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
