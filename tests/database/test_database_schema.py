"""A warehouse in a schema of its own, in a PostgreSQL database that others use too."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from resources.database import Database
from resources.database_errors import WarehouseError
from resources.database_schema import check_schema
from resources.sandbox.server import Sandbox
from tests.support.command import Here, command_here
from tests.support.databases import as_superuser, is_blocking_a_writer, numbers, refusal, with_numbers
from tests.support.postgresql import PostgreSQL
from tests.support.servers import as_administrator
from tests.support.warehouse import comments
from tests.support.world import World
from warehouse import migrations, tables
from warehouse.pace_table import api_pace

FIRST, LAST = "2025-04-01", "2025-04-03"
NOT_OURS = [
    "create table public.daily_sessions (mine text)",
    "insert into public.daily_sessions values ('kept')",
    "create table public.warehouse_version (version integer)",
    "insert into public.warehouse_version values (999)",
    "create view public.calendar as select 'mine' as day",
]


@pytest.fixture
def shared(postgresql: PostgreSQL) -> Iterator[str]:
    """A database whose `public` holds what others made, under the names of our tables, as a role that only owns it."""
    url = postgresql.database(unprivileged=True)
    for statement in NOT_OURS:
        as_administrator(as_superuser(url), statement)
    yield url
    postgresql.drop(url)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return command_here(capsys, monkeypatch)


def relations(url: str) -> dict[str, set[str]]:
    """The tables and views of each schema, also temporary ones."""
    found: dict[str, set[str]] = {}
    with Database(url=as_superuser(url)).transaction(read_only=True) as connection:
        rows = connection.execute(
            sa.text(
                "select nspname, relname from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace "
                "where relkind in ('r', 'v') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast')"
            )
        )
        for schema, name in rows:
            found.setdefault(schema, set()).add(name)
    return found


OURS = {api_pace.name, *(relation.name for relation in tables.RELATIONS)}


@pytest.mark.parametrize("preset", ["", "public", "elsewhere"])
def test_two_enterprises_in_one_database_do_not_disturb_each_other_or_what_others_keep_there(
    world: World, shared: str, preset: str
) -> None:
    if preset:
        as_administrator(as_superuser(shared), f"alter role {sa.make_url(shared).username} set search_path = {preset}")
    world.configure(warehouse_url=shared, devin_schema="first_enterprise")
    result = world.run(FIRST, LAST)
    assert result.success, world.failures(result)
    first = world.truth(FIRST, LAST)
    with Sandbox(organizations=3, seed=7) as other:
        world.configure(devin_api_url=other.url, devin_api_key=other.api_key, devin_schema="second_enterprise")
        result = world.run(FIRST, LAST)
        assert result.success, world.failures(result)
        second = {
            (day.day, o.org_id): other.truth(day.start, day.end, [o.org_id])
            for day in world.days(FIRST, LAST)
            for o in other.organizations
        }
    assert world.cells() == second
    names = {"daily_sessions", "warehouse_version", "calendar"}
    assert relations(shared) == {"public": names, "first_enterprise": OURS, "second_enterprise": OURS}
    with Database(url=as_superuser(shared)).transaction(read_only=True) as connection:
        assert connection.scalars(sa.text("select mine from public.daily_sessions")).all() == ["kept"]
    as_administrator(shared, "drop schema second_enterprise cascade")
    world.configure(devin_schema="first_enterprise")
    assert world.cells() == first
    assert len(world.rows("select * from reconciliation where verdict = 'proven'")) == 3
    with world.database.transaction(read_only=True) as connection:
        assert comments(connection)["daily_sessions", None] == tables.daily_sessions.comment


def test_the_command_follows_the_schema(world: World, shared: str, here: Here) -> None:
    world.configure(warehouse_url=shared, devin_schema="metrics", devin_start_date=FIRST)
    code, out, err = here("status")
    assert code == 1 and "To load: devin-sessions backfill 2025-04-01" in out, "nothing of the others' tables is read"
    code, _, err = here("backfill", FIRST, LAST)
    assert code == 0, err
    code, out, err = here("query", "--csv", "select count(distinct day) as days from daily_sessions")
    assert (code, out) == (0, "days\n3\n"), err
    code, out, _ = here("status")
    assert "To load: devin-sessions backfill 2025-04-04" in out
    assert relations(shared)["metrics"] == OURS


def test_reading_creates_no_schema(shared: str) -> None:
    with Database(url=shared, schema="metrics").transaction(read_only=True) as connection:
        assert migrations.version(connection) == 0
    assert relations(shared).keys() == {"public"}
    with Database(url=shared).transaction(read_only=True) as connection:
        assert not connection.scalar(sa.text("select exists (select from pg_namespace where nspname = 'metrics')"))


def test_writers_of_one_schema_wait_for_each_other_and_those_of_two_do_not(postgresql: PostgreSQL) -> None:
    url = postgresql.database()
    one, two = Database(url=url, schema="one"), Database(url=url, schema="two", lock_patience_seconds=0.2)
    with one.transaction(), two.transaction() as connection:
        assert not is_blocking_a_writer(connection)
    by_search_path = sa.make_url(url).update_query_dict({"options": "-csearch_path=one"})
    with one.transaction(), pytest.raises(WarehouseError, match="is locked"):
        same = Database(url=by_search_path.render_as_string(hide_password=False), lock_patience_seconds=0.2)
        with same.transaction():
            pass


def test_a_user_who_may_not_create_the_schema_is_told_what_an_administrator_types(
    postgresql: PostgreSQL, shared: str
) -> None:
    writer = sa.make_url(postgresql.database(unprivileged=True)).username
    url = sa.make_url(shared).set(username=writer).render_as_string(hide_password=False)
    database = Database(url=url, schema="order")
    with pytest.raises(WarehouseError) as refused, database.transaction():
        pass
    statement = f'create schema "order" authorization {writer};'
    assert f"user {writer} may not create its schema" in str(refused.value)
    assert statement in str(refused.value)
    as_administrator(as_superuser(shared), statement)
    assert numbers(with_numbers(database)) == [1]
    assert relations(shared)["order"] == {"numbers"}


@pytest.mark.parametrize("read_only", [True, False])
def test_a_user_who_may_not_use_the_schema_is_told_what_its_owner_types(
    postgresql: PostgreSQL, shared: str, *, read_only: bool
) -> None:
    with_numbers(Database(url=shared, schema="metrics"))
    other = sa.make_url(postgresql.database(unprivileged=True)).username
    database = Database(url=sa.make_url(shared).set(username=other).render_as_string(False), schema="metrics")
    with pytest.raises(WarehouseError) as refused, database.transaction(read_only=read_only):
        pass
    _, _, rest = str(refused.value).partition("The schema's owner can type: ")
    as_administrator(shared, rest.partition(" Then run")[0])
    with database.transaction(read_only=read_only) as connection:
        assert connection.scalar(sa.text("select current_schema()")) == "metrics"


def test_every_name_that_the_server_would_want_in_quotes_is_refused(postgresql: PostgreSQL) -> None:
    with Database(url=postgresql.database()).transaction(read_only=True) as connection:
        reserved = "select word from pg_get_keywords() where catcode in ('R', 'T')"
        words = connection.scalars(sa.text(reserved)).all()
    assert {"user", "order", "lateral", "tablesample"} <= {*words}
    for word in words:
        with pytest.raises(ValueError, match=f'reserved word of SQL.*alter schema "{word}" rename to {word}_metrics'):
            check_schema(word)
    for name in ("metrics", "devin", "user_metrics", "public", "day", "name"):
        assert check_schema(name) == name


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ('-csearch_path="two", public', '"two", public'),
        ('-c search_path=two, "Other one" -c statement_timeout=5000', 'two, "Other one"'),
        (r'-csearch_path="two",\ public -c jit=off', '"two", public'),
        ("--search-path=other  --jit=off", "other"),
    ],
)
def test_a_search_path_is_shown_as_it_was_written(options: str, shown: str) -> None:
    url = sa.make_url("postgresql+psycopg://host/database").update_query_dict({"options": options})
    with pytest.raises(WarehouseError) as refused, Database(url=f"{url}", schema="two").transaction():
        pass
    assert f"sets search_path to {shown}, but DEVIN_SCHEMA is two: remove one" in str(refused.value)


@pytest.mark.parametrize("how", ["address", "PGOPTIONS"])
def test_a_search_path_that_contradicts_the_schema_is_refused(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    url = sa.make_url(postgresql.database())
    options = r"-c search_path=metrics,\ public"
    if how == "address":
        url = url.update_query_dict({"options": options})
    else:
        monkeypatch.setenv("PGOPTIONS", options)
    address = url.render_as_string(hide_password=False)
    with pytest.raises(WarehouseError) as refused, Database(url=address, schema="metrics").transaction():
        pass
    assert str(refused.value) == (
        "WAREHOUSE_URL or PGOPTIONS sets search_path to metrics, public, but DEVIN_SCHEMA is metrics: remove one of "
        "them."
    )
    same = address.replace("%2C%5C+public", "").replace("%2C%5C%20public", "").replace(r",\ public", "")
    monkeypatch.setenv("PGOPTIONS", options.partition(",")[0])
    assert numbers(with_numbers(Database(url=same, schema="metrics"))) == [1]


def test_a_schema_of_any_name_that_a_search_path_asks_for_is_found_again(postgresql: PostgreSQL) -> None:
    url = postgresql.database()
    as_administrator(url, 'create schema "My-Metrics"')
    asking = sa.make_url(url).update_query_dict({"options": '-csearch_path="My-Metrics"'})
    database = Database(url=asking.render_as_string(hide_password=False))
    for _ in range(2):
        with database.transaction() as connection:
            migrations.migrate(connection)
    assert relations(url) == {"My-Metrics": OURS}
    assert refusal(url) == ""
