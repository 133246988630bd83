"""Settings from environment variables, loaded or refused."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.settings import Settings, SettingsRefused

VARIABLES = [name.upper() for name in Settings.model_fields]
SECRET = "5e884898da28"


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name.upper(), value)
    return Settings.load()


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(SettingsRefused) as refused:
        load(monkeypatch, **variables)
    return str(refused.value)


def warehouse_path(settings: Settings) -> Path:
    return Path(str(sa.make_url(settings.warehouse_url).database))
