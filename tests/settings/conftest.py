"""An environment in which no setting has a value."""

import pytest

from tests.support.variables import VARIABLES


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Empty, not unset: so a developer's own .env file fills in nothing.
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
