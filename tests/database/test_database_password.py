"""The PostgreSQL password is used, and never shown."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.definitions import definitions_for
from pipelines.loading.progress import Progress
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import WarehouseError
from tests.support.databases import PASSWORD, refusal
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def guarded(postgresql: PostgreSQL) -> Iterator[sa.URL]:
    """A database on a server that asks the user `writer` for PASSWORD; every other server and user needs none."""
    directory = tempfile.mkdtemp(prefix="postgresql-")
    server = PostgreSQL(directory)
    as_owner = server.database()
    url = sa.make_url(as_owner).set(username="writer")
    try:
        hba = Path(directory, "data", "pg_hba.conf")
        hba.write_text(f"local all writer scram-sha-256\n{hba.read_text()}")
        with Database(url=as_owner).transaction() as connection:
            connection.exec_driver_sql(f"create role writer login password '{PASSWORD}'")
            connection.exec_driver_sql("select pg_reload_conf()")
        wait_until(lambda: refusal(url), "a password is asked for")
        yield url
    finally:
        server.server.stop()
        shutil.rmtree(directory)


@pytest.fixture
def with_password(guarded: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a process whose WAREHOUSE_URL holds the password."""
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    monkeypatch.setenv("WAREHOUSE_URL", guarded.set(password=PASSWORD).render_as_string(hide_password=False))
    return Settings.load()


def test_the_password_in_the_environment_is_used_for_an_address_that_hides_it(with_password: Settings) -> None:
    database = Database(url=with_password.warehouse_url)
    assert "writer:***@" in database.url
    for read_only in (False, True):
        with database.transaction(read_only=read_only) as connection:
            assert connection.execute(sa.text("select current_user")).scalar_one() == "writer"


def test_a_password_in_the_address_itself_is_used_too(guarded: sa.URL) -> None:
    assert refusal(guarded.set(password=PASSWORD)) == ""


def test_the_password_is_never_shown(with_password: Settings) -> None:
    database = Database(url=with_password.warehouse_url)
    resources = definitions_for(with_password, Progress()).resources
    assert resources is not None
    shown = f"{with_password!r} {with_password.model_dump()} {database!r} {database} {database.name} {database.url} "
    shown += repr(resources)
    with pytest.raises(WarehouseError) as unusable, database.transaction() as connection:
        connection.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))
    with pytest.raises(sa.exc.DBAPIError) as refused, database.transaction() as connection:
        connection.execute(sa.text("select nothing"))
    shown += f"{unusable.value!r} {refused.value!r} {refused.value}"
    for secret in (PASSWORD, PASSWORD.replace("@", "%40").replace("/", "%2F")):
        assert secret not in shown


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("guess-81dc9bdb", "refuses user writer with this password. Check WAREHOUSE_URL."),
        (None, "no password supplied"),
    ],
    ids=["wrong", "none"],
)
def test_a_wrong_password_is_reported_with_the_user_and_the_variable_but_never_shown(
    guarded: sa.URL, monkeypatch: pytest.MonkeyPatch, password: str | None, sentence: str
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", guarded.set(password=password).render_as_string(hide_password=False))
    message = refusal(Settings.load().warehouse_url)
    assert sentence in message
    assert message.endswith("Check WAREHOUSE_URL.")
    assert "guess" not in message
