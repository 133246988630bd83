"""What holds in a transaction on PostgreSQL, whatever the server, the role or the address preset."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from resources import database_session
from resources.database import Database
from tests.support.databases import numbers, refusal, with_numbers
from tests.support.postgresql import PostgreSQL
from tests.support.servers import as_administrator
from tests.support.world import World

PRESETS = {
    "timezone": "'America/New_York'",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "'sql_standard'",
    "standard_conforming_strings": "off",
    "bytea_output": "'escape'",
    "extra_float_digits": "-15",
    "client_encoding": "'latin1'",
    "statement_timeout": "'200ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'200ms'",
    "default_transaction_isolation": "'serializable'",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "synchronous_commit": "off",
}


@pytest.fixture
def awkward(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of a database that presets everything otherwise, as a role that only owns it."""
    url = postgresql.database(unprivileged=True)
    administrator = sa.make_url(url).set(username="postgres").render_as_string(hide_password=False)
    for name, value in PRESETS.items():
        as_administrator(administrator, f"alter database {sa.make_url(url).database} set {name} = {value}")
    yield url
    postgresql.drop(url)


def test_a_job_stores_the_truth_whatever_the_server_presets(world: World, awkward: str) -> None:
    world.configure(warehouse_url=awkward)
    name = world.source.organizations[0].org_name
    result = world.run("2025-04-01", "2025-04-03")
    assert result.success, world.failures(result)
    assert world.cells() == world.truth("2025-04-01", "2025-04-03")
    windows = world.rows("select window_start, window_end from daily_totals order by day")
    assert windows[0] == (datetime(2025, 4, 1, tzinfo=UTC), datetime(2025, 4, 2, tzinfo=UTC))
    assert (name,) in world.rows("select org_name from organizations")
    assert world.rows("select cast(window_start as text) from daily_totals order by day limit 1") == [
        ("2025-04-01 00:00:00+00",)
    ]


def test_writers_have_the_limits_of_the_job_and_readers_keep_their_own(awkward: str) -> None:
    database = Database(url=awkward, lock_timeout_seconds=7)
    shown = "select name, setting from pg_settings where name like '%timeout' or name = 'transaction_isolation'"
    for read_only in (False, True):
        with database.transaction(read_only=read_only) as connection:
            found = {name: setting for name, setting in connection.execute(sa.text(shown))}
        assert found["lock_timeout"] == "7000"
        assert found["transaction_isolation"] == ("repeatable read" if read_only else "read committed")
        assert found["statement_timeout"] == ("200" if read_only else "0")
        assert found["idle_in_transaction_session_timeout"] == ("200" if read_only else "0")


def test_nothing_that_a_pooler_does_not_take_is_sent_at_the_start_of_a_connection(postgresql: PostgreSQL) -> None:
    started_with = sa.text("select name from pg_settings where source = 'client'")
    with Database(url=postgresql.database()).transaction() as connection:
        assert {*connection.scalars(started_with)} == {"application_name", "client_encoding"}


def test_what_is_set_ends_with_the_transaction_so_that_a_pooler_passes_a_clean_connection_on(
    postgresql: PostgreSQL,
) -> None:
    ours = "select name from pg_settings where source = 'session' and name <> 'transaction_isolation'"
    with Database(url=postgresql.database()).transaction() as connection:
        assert {*connection.scalars(sa.text(ours))} >= {"TimeZone", "lock_timeout"}
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.commit()  # as at the end of the block
        assert driver_connection.execute(ours).fetchall() == []
        driver_connection.commit()


def test_what_a_reader_has_prepared_is_in_no_other_reader_s_way_behind_a_pooler(postgresql: PostgreSQL) -> None:
    url = sa.make_url(postgresql.database())
    engine = sa.create_engine(url, connect_args=database_session.options(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.execute("prepare _pg3_0 as select 1")  # as the reader before has called it
        driver_connection.commit()
        database_session.prepare(connection, lock_timeout="1000", read_only=True)
        assert connection.scalar(sa.text("select 2")) == 2


@pytest.mark.parametrize("how", ["address", "PGOPTIONS"])
def test_a_search_path_that_is_asked_for_decides_where_tables_are(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    url = postgresql.database()
    as_administrator(url, "create schema metrics")
    if how == "address":
        url = sa.make_url(url).update_query_dict({"options": "-csearch_path=metrics"}).render_as_string(False)
    else:
        monkeypatch.setenv("PGOPTIONS", "-c search_path=metrics")
    database = with_numbers(Database(url=url))
    assert numbers(database) == [1]
    with database.transaction(read_only=True) as connection:
        where = sa.text("select table_schema from information_schema.tables where table_name = 'numbers'")
        assert connection.scalars(where).all() == ["metrics"]


def test_a_limit_that_is_asked_for_is_kept(postgresql: PostgreSQL) -> None:
    options = {"options": "-c statement_timeout=12345 --lock-timeout=678", "application_name": "mine"}
    url = sa.make_url(postgresql.database()).update_query_dict(options).render_as_string(False)
    with Database(url=url).transaction() as connection:
        shown = "select setting from pg_settings where name in ('statement_timeout', 'lock_timeout') order by name"
        assert connection.scalars(sa.text(shown)).all() == ["678", "12345"]
        assert connection.scalar(sa.text("show application_name")) == "mine"


@pytest.mark.parametrize("name", ["timezone", "DateStyle", "default_transaction_isolation", "client_encoding"])
def test_what_the_job_has_to_set_itself_cannot_be_asked_for(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    url = postgresql.database()
    monkeypatch.setenv("PGOPTIONS", f"-c {name}=x")
    message = refusal(url)
    assert message == f"WAREHOUSE_URL or PGOPTIONS sets {name.lower()}, which the job sets itself: remove it."


def test_a_database_that_cannot_hold_every_name_is_refused_with_what_to_create(postgresql: PostgreSQL) -> None:
    url = sa.make_url(postgresql.database())
    create = "create database {} encoding '{}' template template0 lc_collate 'C' lc_ctype 'C'"
    as_administrator(url.render_as_string(False), create.format(f"{url.database}_latin", "LATIN1"))
    message = refusal(url.set(database=f"{url.database}_latin"))
    assert "has the encoding LATIN1, which can't hold every organization's name" in message
    assert "encoding 'UTF8' template template0" in message
    as_administrator(url.render_as_string(False), create.format(f"{url.database}_ascii", "SQL_ASCII"))
    ascii_ = with_numbers(Database(url=url.set(database=f"{url.database}_ascii").render_as_string(False)))
    with ascii_.transaction() as connection:
        connection.execute(sa.text("create table names (name text)"))
        connection.execute(sa.text("insert into names values (:name)"), {"name": "東京"})
        assert connection.scalar(sa.text("select name from names")) == "東京"
