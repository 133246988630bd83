"""What DEVIN_ENTERPRISE is the default of, and which names make no enterprise."""

from pathlib import Path

import pytest

from pipelines import names
from pipelines.settings import OTHERS_IN_HOME, Settings
from tests.support.variables import load, refusal

POSTGRESQL = "postgresql+psycopg://127.0.0.1/sessions"


def names_of(settings: Settings) -> list[str]:
    return [of(settings) for of in (names.job, names.schedule, names.follow, names.alerts, names.pool)]


def test_without_an_enterprise_every_name_and_place_is_what_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load(monkeypatch, devin_home=str(tmp_path))
    assert names_of(settings) == [
        "daily_refresh",
        "daily_refresh_schedule",
        "loaded_days_follow",
        "alerts",
        "devin_api",
    ]
    assert settings.devin_asset_prefix == ()
    assert settings.warehouse.path == tmp_path / "warehouse.duckdb"
    assert settings.published_report == tmp_path / "published" / "report.html"
    settings = load(monkeypatch, warehouse_url=POSTGRESQL)
    assert (settings.devin_schema, settings.warehouse.schema) == ("", "")
    assert settings.published_report == tmp_path / "published" / "report.html"


def test_an_enterprise_names_all_that_dagster_knows_and_has_a_directory_and_a_schema(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load(monkeypatch, devin_home=str(tmp_path), devin_enterprise="Acme")
    assert names_of(settings) == [
        "acme_daily_refresh",
        "acme_daily_refresh_schedule",
        "acme_loaded_days_follow",
        "acme_alerts",
        "devin_api_acme",
    ]
    assert settings.devin_asset_prefix == ("acme",)
    assert settings.warehouse.path == tmp_path / "acme" / "warehouse.duckdb"
    assert settings.published_snapshot == tmp_path / "acme" / "published" / "devin_sessions.duckdb"
    assert settings.published_report == tmp_path / "acme" / "published" / "report.html"
    motherduck = load(monkeypatch, warehouse_url="duckdb:///md:sessions")
    assert motherduck.asking_lock == tmp_path / "acme" / "warehouse.duckdb.asking"
    settings = load(monkeypatch, warehouse_url=POSTGRESQL)
    assert settings.warehouse.schema == "acme"
    assert settings.published_report == tmp_path / "acme" / "published" / "report.html"


def test_a_prefix_a_schema_and_a_warehouse_of_your_own_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(
        monkeypatch,
        devin_enterprise="acme",
        devin_asset_prefix="metrics/devin",
        devin_schema="sessions",
        warehouse_url=POSTGRESQL,
    )
    assert (settings.devin_asset_prefix, settings.warehouse.schema) == (("metrics", "devin"), "sessions")
    file = tmp_path / "own.duckdb"
    settings = load(monkeypatch, devin_schema="", warehouse_url=f"duckdb:///{file}")
    assert (settings.warehouse.path, settings.warehouse.schema) == (file, "")


@pytest.mark.parametrize("bad", ["../x", "a/b", "a-b", "a b", "größe", "ⅷ", "a" * 33, ".", "a.b"])
def test_a_name_that_would_not_do_for_a_job_or_a_directory_is_refused(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    message = refusal(monkeypatch, devin_enterprise=bad)
    assert f"DEVIN_ENTERPRISE={bad!r} is refused (" in message
    assert "Allowed: up to 32 letters, digits and underscores." in message
    assert message.count("\n") == 0, "what follows from it is not refused too"


@pytest.mark.parametrize("taken", sorted(OTHERS_IN_HOME))
def test_a_name_of_which_the_home_has_a_directory_already_is_refused(
    monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    message = refusal(monkeypatch, devin_enterprise=taken.upper())
    assert "(DEVIN_HOME keeps something else in a directory of this name)" in message


def test_blanks_alone_are_no_enterprise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, devin_enterprise="  ").devin_enterprise == ""


@pytest.mark.parametrize(
    ("enterprise", "why"),
    [
        ("Order", "a reserved word of SQL"),
        ("3m", "every query would have to put it in quotes"),
        ("pg_fans", "PostgreSQL keeps this name to itself"),
        ("Public", "a warehouse of no enterprise is usually there"),
    ],
)
def test_an_enterprise_whose_name_makes_no_schema_needs_one_on_postgresql_alone(
    monkeypatch: pytest.MonkeyPatch, enterprise: str, why: str
) -> None:
    assert load(monkeypatch, devin_enterprise=enterprise).warehouse.path.parent.name == enterprise.lower()
    message = refusal(monkeypatch, warehouse_url=POSTGRESQL)
    unset = f"DEVIN_SCHEMA='' is refused (unset, and DEVIN_ENTERPRISE={enterprise.lower()} can't be the schema: "
    assert message.startswith(unset)
    assert why in message
    assert load(monkeypatch, devin_schema="of_theirs").warehouse.schema == "of_theirs"
