"""Where the warehouse and the report are, and where the password of PostgreSQL may be."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.settings import PROJECT, Settings
from tests.support.variables import SECRET, load, refusal, warehouse_path


def test_a_relative_warehouse_starts_at_the_projects_folder_wherever_the_process_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(monkeypatch, warehouse_url="duckdb:///some/where.duckdb")
    assert warehouse_path(settings) == PROJECT / "some" / "where.duckdb"


def test_an_absolute_warehouse_and_one_in_the_home_folder_are_taken_as_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (f"duckdb:///{tmp_path}/a.duckdb", "duckdb:///~/a.duckdb"):
        assert warehouse_path(load(monkeypatch, warehouse_url=url)) == tmp_path / "a.duckdb"


def test_a_folder_is_no_warehouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = refusal(monkeypatch, warehouse_url=f"duckdb:///{tmp_path}")
    assert "(this is a folder; name a file in it)" in told


def test_a_path_that_no_disk_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(monkeypatch, warehouse_url=f"duckdb:///{'x' * 300}.duckdb")
    assert told.startswith("WAREHOUSE_URL='duckdb:///xxx")


def test_the_password_of_postgresql_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"postgresql+psycopg://writer:{SECRET}%40%2F@db.example.com:5433/sessions?sslmode=verify-full"
    settings = load(monkeypatch, warehouse_url=address)
    assert settings.warehouse_url == address.replace(f"{SECRET}%40%2F", "***")
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert os.environ["WAREHOUSE_URL"] == address
    assert settings.published_snapshot is None, "analysts ask the server"


@pytest.mark.parametrize(
    "address", ["postgresql+psycopg:///sessions?host=/run/postgresql", "postgresql+psycopg://h/db"]
)
def test_postgresql_without_a_password_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert sa.make_url(load(monkeypatch, warehouse_url=address).warehouse_url) == sa.make_url(address)


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_a_password_of_postgresql_has_one_place_and_anywhere_else_is_refused_unseen(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    told = refusal(monkeypatch, warehouse_url=f"postgresql+psycopg://writer@127.0.0.1/sessions?{name}={SECRET}")
    assert told.startswith("WAREHOUSE_URL='postgresql+psycopg://***@127.0.0.1/sessions?***' is refused (")
    assert SECRET not in told


def test_a_password_that_holds_an_at_sign_as_it_is_does_not_pass_for_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(monkeypatch, warehouse_url=f"postgresql+psycopg://writer:first@{SECRET}@127.0.0.1/sessions")
    assert told.startswith("WAREHOUSE_URL='postgresql+psycopg://***@127.0.0.1/sessions' is refused (")
    assert SECRET not in told


@pytest.mark.parametrize("address", ["postgresql+psycopg://127.0.0.1", "postgresql+psycopg://127.0.0.1/"])
def test_a_server_without_a_database_is_no_warehouse(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert "(it names no database)" in refusal(monkeypatch, warehouse_url=address)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_password_does_not_travel_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    told = refusal(monkeypatch, warehouse_url=f"postgresql+psycopg://writer:{SECRET}@db.example.com/db?sslmode={mode}")
    assert "would travel unencrypted: set sslmode to require or verify-full" in told
    assert SECRET not in told
    twice = f"postgresql+psycopg://writer:{SECRET}@db.example.com/db?sslmode=verify-full&sslmode={mode}"
    assert "would travel unencrypted" in refusal(monkeypatch, warehouse_url=twice)
    for here in ("127.0.0.1", "[::1]", "localhost"):
        load(monkeypatch, warehouse_url=f"postgresql+psycopg://writer:{SECRET}@{here}/db?sslmode={mode}")


def test_the_report_is_beside_the_warehouse_or_with_a_server_in_the_projects_data_or_where_it_is_wanted_or_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings.load().published_report == PROJECT / "data" / "published" / "report.html"
    beside = load(monkeypatch, warehouse_url=f"duckdb:///{tmp_path}/warehouse.duckdb").published_report
    assert beside == tmp_path / "published" / "report.html"
    server = load(monkeypatch, warehouse_url="postgresql+psycopg://127.0.0.1/sessions")
    assert server.published_report == PROJECT / "data" / "published" / "report.html"
    assert load(monkeypatch, devin_report_path="web/x.html").published_report == PROJECT / "web" / "x.html"
    assert load(monkeypatch, devin_report_path="off").published_report is None


def test_a_database_of_motherduck_is_taken_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, warehouse_url="duckdb:///md:sessions_2025")
    assert sa.make_url(settings.warehouse_url).database == "md:sessions_2025"
    assert settings.published_snapshot is None, "analysts ask MotherDuck"


@pytest.mark.parametrize(
    "address",
    [
        f"duckdb:///md:sessions?motherduck_token={SECRET}",
        f"duckdb:///md:sessions?token={SECRET}",
        "duckdb:///md:",
        "duckdb:///md:two words",
        "duckdb:///md:a/b",
    ],
)
def test_a_token_of_motherduck_in_the_address_is_refused_unseen_and_so_is_what_is_no_name(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    told = refusal(monkeypatch, warehouse_url=address)
    assert "(not the name of a database; the token belongs in the variable MOTHERDUCK_TOKEN)" in told
    assert SECRET not in told
