"""Where the warehouse and the report are, and where the PostgreSQL password may be."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.home import PROJECT
from pipelines.settings import Settings
from tests.support.variables import SECRET, load, refusal, warehouse_path


def test_a_relative_warehouse_path_starts_in_the_projects_directory_whatever_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(monkeypatch, warehouse_url="duckdb:///some/where.duckdb")
    assert warehouse_path(settings) == PROJECT / "some" / "where.duckdb"


def test_an_absolute_warehouse_path_and_one_in_the_home_directory_are_used_as_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (f"duckdb:///{tmp_path}/a.duckdb", "duckdb:///~/a.duckdb"):
        assert warehouse_path(load(monkeypatch, warehouse_url=url)) == tmp_path / "a.duckdb"


def test_a_directory_is_refused_as_a_warehouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = refusal(monkeypatch, warehouse_url=f"duckdb:///{tmp_path}")
    assert "(this is a directory; give a file in it)" in message


def test_a_path_that_no_disk_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, warehouse_url=f"duckdb:///{'x' * 300}.duckdb")
    assert message.startswith("WAREHOUSE_URL='duckdb:///xxx")


def test_the_postgresql_password_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"postgresql+psycopg://writer:{SECRET}%40%2F@db.example.com:5433/sessions?sslmode=verify-full"
    settings = load(monkeypatch, warehouse_url=address)
    assert settings.warehouse_url == address.replace(f"{SECRET}%40%2F", "***")
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert os.environ["WAREHOUSE_URL"] == address
    assert settings.published_snapshot is None, "analysts query the server"


@pytest.mark.parametrize(
    "address", ["postgresql+psycopg:///sessions?host=/run/postgresql", "postgresql+psycopg://h/db"]
)
def test_a_postgresql_address_without_a_password_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert sa.make_url(load(monkeypatch, warehouse_url=address).warehouse_url) == sa.make_url(address)


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_a_postgresql_password_among_the_options_is_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    message = refusal(monkeypatch, warehouse_url=f"postgresql+psycopg://writer@127.0.0.1/sessions?{name}={SECRET}")
    assert message.startswith("WAREHOUSE_URL='postgresql+psycopg://***@127.0.0.1/sessions?***' is refused (")
    assert SECRET not in message


def test_a_password_with_an_unescaped_at_sign_is_not_taken_for_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, warehouse_url=f"postgresql+psycopg://writer:first@{SECRET}@127.0.0.1/sessions")
    assert message.startswith("WAREHOUSE_URL='postgresql+psycopg://***@127.0.0.1/sessions' is refused (")
    assert SECRET not in message


@pytest.mark.parametrize("address", ["postgresql+psycopg://127.0.0.1", "postgresql+psycopg://127.0.0.1/"])
def test_a_server_without_a_database_is_refused_as_a_warehouse(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert "(the name of the database is missing)" in refusal(monkeypatch, warehouse_url=address)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_password_is_never_sent_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    message = refusal(
        monkeypatch, warehouse_url=f"postgresql+psycopg://writer:{SECRET}@db.example.com/db?sslmode={mode}"
    )
    assert "would travel unencrypted: set sslmode to require or verify-full" in message
    assert SECRET not in message
    twice = f"postgresql+psycopg://writer:{SECRET}@db.example.com/db?sslmode=verify-full&sslmode={mode}"
    assert "would travel unencrypted" in refusal(monkeypatch, warehouse_url=twice)
    for here in ("127.0.0.1", "[::1]", "localhost"):
        load(monkeypatch, warehouse_url=f"postgresql+psycopg://writer:{SECRET}@{here}/db?sslmode={mode}")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Metrics", "every query would have to put it in quotes"),
        ("devin-metrics", "every query would have to put it in quotes"),
        ("1st", "every query would have to put it in quotes"),
        ("größe", "every query would have to put it in quotes"),
        ('a"; drop schema public', "every query would have to put it in quotes"),
        ("a" * 64, "PostgreSQL would cut it off after 63 characters"),
        ("pg_temp", "PostgreSQL keeps this name to itself"),
        ("information_schema", "PostgreSQL keeps this name to itself"),
        ("order", "a reserved word of SQL, which every query would have to put in quotes; if there is such a schema, "),
    ],
)
def test_the_name_of_a_schema_that_needs_quotes_or_is_not_for_users_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    message = refusal(monkeypatch, warehouse_url="postgresql+psycopg://127.0.0.1/sessions", devin_schema=name)
    assert message.startswith(f"DEVIN_SCHEMA={name!r} is refused (")
    assert why in message


@pytest.mark.parametrize("warehouse_url", ["", "duckdb:///a.duckdb", "duckdb:///md:sessions"])
def test_a_schema_is_only_for_a_warehouse_on_postgresql(monkeypatch: pytest.MonkeyPatch, warehouse_url: str) -> None:
    message = refusal(monkeypatch, warehouse_url=warehouse_url, devin_schema="metrics")
    assert "DEVIN_SCHEMA='metrics' is refused (the warehouse in WAREHOUSE_URL is not on PostgreSQL)" in message
    there = load(monkeypatch, warehouse_url="postgresql+psycopg://127.0.0.1/sessions", devin_schema="metrics")
    assert there.warehouse.schema == "metrics"


def test_the_report_is_next_to_the_warehouse_or_in_the_projects_data_directory_or_where_the_setting_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings.load().published_report == PROJECT / "data" / "published" / "report.html"
    beside = load(monkeypatch, warehouse_url=f"duckdb:///{tmp_path}/warehouse.duckdb").published_report
    assert beside == tmp_path / "published" / "report.html"
    server = load(monkeypatch, warehouse_url="postgresql+psycopg://127.0.0.1/sessions")
    assert server.published_report == PROJECT / "data" / "published" / "report.html"
    assert load(monkeypatch, devin_report_path="web/x.html").published_report == PROJECT / "web" / "x.html"
    assert load(monkeypatch, devin_report_path="off").published_report is None


def test_a_motherduck_database_is_given_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, warehouse_url="duckdb:///md:sessions_2025")
    assert sa.make_url(settings.warehouse_url).database == "md:sessions_2025"
    assert settings.published_snapshot is None, "analysts query MotherDuck"


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
def test_a_motherduck_token_in_the_address_or_an_invalid_name_is_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    message = refusal(monkeypatch, warehouse_url=address)
    assert "(not the name of a database; the token belongs in MOTHERDUCK_TOKEN)" in message
    assert SECRET not in message
