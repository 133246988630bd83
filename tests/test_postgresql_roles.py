"""docs/postgresql-roles.sql on a real server: the writer loads, the analyst reads everything and changes nothing."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.home import PROJECT
from pipelines.ledger import open_read_only
from resources.database import Database
from tests.support.postgresql import PostgreSQL
from tests.support.rows import NOW, reading, store
from tests.support.warehouse import rebuild, tables_since
from warehouse import migrations, tables, writes
from warehouse.dimensions import ORGANIZATIONS, USERS
from warehouse.migrations import UnfitWarehouse
from warehouse.writes import Entry

SCRIPT = PROJECT / "docs" / "postgresql-roles.sql"
WRITER, ANALYST = "devin_writer", "devin_analyst"
OPERATOR = "Night operator"  # which may do on every table what it is granted
ROLES = WRITER, OPERATOR, ANALYST
DAYS = [date(2025, 1, 1) + timedelta(days=n) for n in range(10)]
BOOKKEEPING = {relation.name for relation in tables.RELATIONS if tables.facts(relation).kind == "bookkeeping table"}
BOOKKEEPING.add("api_pace")
FOR_ANALYSTS = sorted({relation.name for relation in tables.RELATIONS} - BOOKKEEPING)


def run_script(url: str, prefix: str = "devin", before: str = "") -> None:
    """As a client does that only knows SQL: one text, in one transaction."""
    with Database(url=url).transaction() as connection:
        script = before + SCRIPT.read_text(encoding="utf-8").replace("devin_", f"{prefix}_")
        connection.connection.cursor().execute(script)


def as_role(url: str, role: str, schema: str = "") -> Database:
    """The warehouse as one of the roles uses it. This server trusts every local connection."""
    return Database(url=sa.make_url(url).set(username=role).render_as_string(hide_password=False), schema=schema)


def load(writer: Database, count: int = 3) -> None:
    """What runs do: migrate the warehouse, store what was listed and counted, and build the rollups."""
    with writer.transaction() as connection:
        migrations.migrate(connection)
        found = [Entry("a", "A")]
        writes.store_listed(connection, ORGANIZATIONS, found, NOW)
        writes.store_listed(connection, USERS, [Entry("u")], NOW)
        writes.store_availability(connection, ORGANIZATIONS, {}, {"a"}, NOW)
        writes.store_day_boundary(connection, "UTC", 0)
        writes.store_expected_days(connection, DAYS[0], DAYS[-1])
        for dimension, id_ in ((ORGANIZATIONS, "a"), (USERS, "u")):
            store(connection, *(reading(day, count, {id_: count}) for day in DAYS), of=dimension)
        for table in tables.ROLLUPS:
            rebuild(connection, table.name)


@pytest.fixture(scope="module")
def url(postgresql: PostgreSQL) -> str:
    """A database in which the superuser has run the script and the writer has filled the warehouse.

    The tests share it: whatever they try to change is refused, or undone by the test.
    """
    url = postgresql.database()
    run_script(url)
    load(as_role(url, WRITER))
    load(as_role(url, WRITER), count=4)
    return url


@pytest.fixture
def analyst(url: str) -> Database:
    """The warehouse as the analyst sees it."""
    return as_role(url, ANALYST)


def refused(database: Database, statement: str) -> str:
    """The database's reason for refusing this statement to this role; fails the test if it does not."""
    engine = sa.create_engine(database.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with pytest.raises(sa.exc.DBAPIError) as error, engine.connect() as connection:
        connection.exec_driver_sql(statement)
    return str(error.value.orig)


def counts(database: Database) -> Mapping[str, int]:
    """The number of rows that each table and view has for this role, without the tables that only the job needs."""
    with database.transaction(read_only=True) as connection:
        return {name: connection.execute(sa.text(f"select count(*) from {name}")).scalar_one() for name in FOR_ANALYSTS}


def attributes(url: str) -> list[tuple[Any, ...]]:
    with Database(url=url).transaction(read_only=True) as connection:
        found = connection.execute(
            sa.text(
                "select rolname, rolcanlogin, rolpassword is null, rolsuper, rolcreatedb, rolcreaterole, "
                "rolreplication, rolbypassrls from pg_authid where rolname like 'devin%' order by rolname"
            )
        )
        return [tuple(row) for row in found]


def test_the_roles_may_log_in_and_have_neither_a_password_nor_any_server_privilege(url: str) -> None:
    nothing_more = (False,) * 5
    assert attributes(url) == [(ANALYST, True, True, *nothing_more), (WRITER, True, True, *nothing_more)]
    with Database(url=url).transaction(read_only=True) as connection:
        members = connection.execute(
            sa.text("select roleid::regrole::text, member::regrole::text from pg_auth_members")
        ).all()
    assert not [row for row in members if "devin" in f"{row[0]} {row[1]}"], "no role is left a member of either"


def test_the_script_has_no_password_and_no_psql_commands() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    assert code.count("password") == code.count("password null") == 2
    assert not [line for line in code.splitlines() if line.lstrip().startswith("\\")]
    assert "%" not in code, "some clients read it as a parameter"


def test_the_script_can_be_run_again_with_tables_in_place_and_in_a_second_database(
    url: str, analyst: Database, postgresql: PostgreSQL
) -> None:
    before = counts(analyst)
    run_script(url)
    assert counts(analyst) == before
    second = postgresql.database()
    run_script(second)
    load(as_role(second, WRITER))
    assert counts(as_role(second, ANALYST))["daily_sessions"] == len(DAYS)


def test_in_a_shared_database_the_script_gives_the_roles_one_schema_and_leaves_the_rest_alone(
    postgresql: PostgreSQL,
) -> None:
    url = postgresql.database()
    with Database(url=url).transaction() as connection:
        connection.execute(sa.text("create table of_others as select 1 as one"))
    lines = [line.removeprefix("--").strip() for line in SCRIPT.read_text(encoding="utf-8").splitlines()]
    chosen = next(line for line in lines if line.startswith("set devin.schema"))
    before = permissions_of(url)
    for _ in range(2):
        run_script(url, before=chosen)
        load(as_role(url, WRITER, "metrics"))
    assert permissions_of(url) == before
    analyst = as_role(url, ANALYST, "metrics")
    assert counts(analyst) == counts(as_role(url, WRITER, "metrics"))
    assert counts(analyst)["daily_sessions"] == len(DAYS)
    for role in (WRITER, ANALYST):
        assert "permission denied" in refused(as_role(url, role), "select * from of_others")
    assert "permission denied" in refused(analyst, "delete from metrics.daily_sessions")
    assert "permission denied" in refused(analyst, "create table metrics.mine (n integer)")


def permissions_of(url: str) -> list[Any]:
    """What everybody may do with the database and its `public`."""
    asked = (
        "select has_database_privilege('public', current_database(), 'connect'), "
        "has_database_privilege('public', current_database(), 'temporary'), nspacl::text, relacl::text "
        "from pg_namespace inner join pg_class on relnamespace = pg_namespace.oid where relname = 'of_others'"
    )
    with Database(url=url).transaction(read_only=True) as connection:
        return [tuple(row) for row in connection.execute(sa.text(asked))]


def test_a_warehouse_filled_by_another_user_can_be_read_at_once_and_handed_over_as_the_script_says(
    postgresql: PostgreSQL,
) -> None:
    url = postgresql.database()
    load(Database(url=url))
    run_script(url)
    assert counts(as_role(url, ANALYST))["daily_sessions"] == len(DAYS)
    assert "permission denied" in refused(as_role(url, WRITER), "delete from daily_sessions")
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("--   select"))
    with Database(url=url).transaction() as connection:
        hand_over = " ".join(line.removeprefix("--").strip() for line in lines[begin : begin + 2])
        for statement in connection.scalars(sa.text(hand_over.replace("::", r"\:\:"))).all():
            connection.execute(sa.text(statement))
    load(as_role(url, WRITER), count=7)
    assert counts(as_role(url, ANALYST))["session_revisions"] == len(DAYS)


def test_the_writer_creates_the_warehouse_and_owns_what_it_created(url: str) -> None:
    with Database(url=url).transaction(read_only=True) as connection:
        owners = connection.execute(
            sa.text(
                "select distinct relowner::regrole::text from pg_class "
                "where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
            )
        )
        assert owners.scalars().all() == [WRITER]


def test_the_analyst_reads_and_lists_every_table_and_view_but_those_that_only_the_job_needs(
    url: str, analyst: Database
) -> None:
    read = counts(analyst)
    assert read == counts(as_role(url, WRITER))
    empty = {"contradictions", "user_contradictions", "unattributed_sessions", "user_unattributed_sessions"}
    assert {name for name, number in read.items() if not number} == empty
    with analyst.transaction(read_only=True) as connection:
        listed = sa.text("select table_name from information_schema.tables where table_schema = 'public'")
        assert set(connection.scalars(listed)) == set(FOR_ANALYSTS)
    for name in BOOKKEEPING:
        assert f"permission denied for table {name}" in refused(analyst, f"select * from {name}")
    why = r"can't be read from warehouse_version \(permission denied .*as the writer of docs/postgresql-roles.sql"
    with pytest.raises(UnfitWarehouse, match=why), open_read_only(analyst):
        pass


def test_an_upgrade_takes_the_bookkeeping_tables_from_those_who_only_read_them(postgresql: PostgreSQL) -> None:
    url = postgresql.database()
    run_script(url)
    load(as_role(url, WRITER))
    of_an_older_release = [
        f"grant select on all tables in schema public to {ANALYST}, public",
        f'grant select, insert on all tables in schema public to "{OPERATOR}"',
        f"update warehouse_version set version = {migrations.VERSION - 1}",
        *(f"drop table {name}" for name in tables_since(migrations.VERSION)),
    ]
    with Database(url=url).transaction() as connection:
        connection.execute(sa.text(f'create role "{OPERATOR}"'))
        for statement in of_an_older_release:
            connection.execute(sa.text(statement))
    load(as_role(url, WRITER))
    with Database(url=url).transaction() as connection:
        allowed = sa.text(
            "select relname from pg_class where relname = any(:names) and has_table_privilege(:role, oid, 'select')"
        )
        names = list(BOOKKEEPING)
        roles = {role: {*connection.scalars(allowed, {"names": names, "role": role})} for role in ROLES}
        connection.execute(sa.text(f'drop owned by "{OPERATOR}"; drop role "{OPERATOR}"'))
    assert roles == {WRITER: BOOKKEEPING, OPERATOR: BOOKKEEPING, ANALYST: set()}
    assert counts(as_role(url, ANALYST)) == counts(as_role(url, WRITER))


def test_the_analyst_reads_what_the_writer_creates_or_recreates_later(url: str, analyst: Database) -> None:
    with as_role(url, WRITER).transaction() as connection:
        connection.execute(sa.text("create table made_later as select 1 as one"))
        connection.execute(sa.text("create view seen_later as select one + 1 as two from made_later"))
        connection.execute(sa.text("drop view organization_days, reconciliation"))
        tables.create(connection)
    try:
        with analyst.transaction(read_only=True) as connection:
            assert connection.execute(sa.text("select one, two from made_later cross join seen_later")).one() == (1, 2)
        assert counts(analyst)["reconciliation"] == len(DAYS)
    finally:
        with as_role(url, WRITER).transaction() as connection:
            connection.execute(sa.text("drop table made_later cascade"))


CHANGES = [
    "insert into {table} select * from {table}",
    "update {table} set {column} = {column}",
    "delete from {table}",
    "truncate {table}",
    "drop table {table}",
    "alter table {table} add column mine integer",
    "comment on table {table} is 'mine'",
    "create index on {table} ({column})",
    "do $$ begin lock table {table} in exclusive mode; end $$",
    "select * from {table} for update",
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.partition(" {")[0])
def test_the_analyst_cannot_change_any_table(analyst: Database, change: str) -> None:
    before = counts(analyst)
    for table in tables.metadata.sorted_tables:
        reason = refused(analyst, change.format(table=table.name, column=table.columns[0].name))
        assert "permission denied" in reason or "must be owner" in reason
    assert counts(analyst) == before


def test_the_analyst_cannot_grant_access_to_others(url: str, analyst: Database) -> None:
    def permissions() -> list[tuple[Any, ...]]:
        with Database(url=url).transaction(read_only=True) as connection:
            of_relations = sa.text("select relname, relacl::text from pg_class where relacl is not null order by 1")
            return [tuple(row) for row in connection.execute(of_relations)]

    before = permissions()
    with analyst.transaction() as connection:
        connection.execute(sa.text("grant select, insert on daily_sessions to public"))  # PostgreSQL only warns
    assert permissions() == before


@pytest.mark.parametrize("change", ["drop view {}", "create or replace view {} as select 1 as day", "delete from {}"])
def test_the_analyst_cannot_change_any_view(analyst: Database, change: str) -> None:
    for view in sorted(tables.views.tables):
        reason = refused(analyst, change.format(view))
        assert any(why in reason for why in ("permission denied", "must be owner", "cannot delete from view")), view


@pytest.mark.parametrize(
    "statement",
    [
        "create table mine (n integer)",
        "create table mine as select * from daily_sessions",
        "create temporary table mine (n integer)",
        "create view mine as select * from daily_sessions",
        "create schema mine",
        "create sequence mine",
        "create function mine() returns integer language sql as 'select 1'",
        "create database mine",
        "copy daily_sessions to '/tmp/stolen.csv'",
        "copy daily_sessions to program 'cat'",
        "copy daily_sessions from '/tmp/forged.csv'",
        "select pg_read_file('/etc/passwd')",
        "select rolpassword from pg_authid",
    ],
)
def test_the_analyst_cannot_create_anything_or_reach_any_file(analyst: Database, statement: str) -> None:
    assert "permission denied" in refused(analyst, statement)


@pytest.mark.parametrize("role", [WRITER, ANALYST])
@pytest.mark.parametrize(
    "statement",
    [
        "create role mine",
        "alter role {other} superuser",
        "alter role {other} password 'mine'",
        "alter role {role} superuser",
        "alter role {role} createrole createdb",
        "drop role {other}",
        "grant {other} to {role}",
        "set role {other}",
        "set role postgres",
        "set session authorization {other}",
        "reassign owned by {other} to {role}",
        "alter default privileges for role {other} grant all on tables to {role}",
    ],
)
def test_neither_role_can_change_or_become_another(url: str, role: str, statement: str) -> None:
    other = ANALYST if role == WRITER else WRITER
    before = attributes(url)
    reason = refused(as_role(url, role), statement.format(role=role, other=other))
    assert any(why in reason for why in ("permission denied", "must be", "must have")), reason
    assert attributes(url) == before


@pytest.mark.parametrize("privilege", ["connect", "temporary", "create"])
def test_any_other_role_has_no_access_to_the_database(url: str, privilege: str) -> None:
    with Database(url=url).transaction() as connection:
        connection.execute(sa.text("create role somebody"))
        asked = sa.text(f"select has_database_privilege('somebody', current_database(), '{privilege}')")
        assert connection.execute(asked).scalar_one() is False
        in_schema = sa.text("select has_schema_privilege('somebody', 'public', 'usage, create')")
        assert connection.execute(in_schema).scalar_one() is False
        connection.execute(sa.text("drop role somebody"))


def test_a_database_owner_that_may_create_roles_can_run_the_script_too(postgresql: PostgreSQL) -> None:
    url = postgresql.database()
    name = sa.make_url(url).database
    with Database(url=url).transaction() as connection:
        connection.execute(sa.text("create role administrator login createrole"))
        connection.execute(sa.text(f"alter database {name} owner to administrator"))
    run_script(as_role(url, "administrator").url, prefix="other")
    load(as_role(url, "other_writer"))
    assert counts(as_role(url, "other_analyst"))["daily_sessions"] == len(DAYS)
    assert "permission denied" in refused(as_role(url, "other_analyst"), "delete from daily_sessions")


def test_the_analyst_sees_the_values_that_the_writer_stored(analyst: Database) -> None:
    with analyst.transaction(read_only=True) as connection:
        row = connection.execute(sa.text("select * from daily_sessions where day = date '2025-01-01'")).one()
    assert (row.org_id, row.sessions_count, row.loaded_at) == ("a", 4, datetime(2025, 3, 1, 2, 30, tzinfo=UTC))
