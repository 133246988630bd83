"""Tables, views and whatever else others keep under the names that the warehouse needs: said, and left alone."""

from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from pipelines.asset_keys import PUBLISHED_SNAPSHOT
from pipelines.command import exit_codes
from pipelines.names import JOB
from resources.database import Database
from tests.support.command import Here
from tests.support.postgresql import PostgreSQL
from tests.support.shared import DATABASES, new_warehouse, rolled_back
from tests.support.world import World
from warehouse import migrations, tables
from warehouse.migrations import UnfitWarehouse

FIRST, LAST = "2025-01-01", "2025-01-02"
NAMES = [relation.name for relation in tables.RELATIONS]


@pytest.fixture(scope="module", params=DATABASES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A database for many tests, each of which leaves nothing in it."""
    if request.param == "duckdb":
        return Database(url=Database.url_of(tmp_path_factory.mktemp("others") / "others.duckdb"))
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return Database(url=server.database(unprivileged=True))


@pytest.fixture(scope="module", params=DATABASES)
def warehouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    return new_warehouse(request, tmp_path_factory)


def refusal(connection: sa.Connection) -> str:
    """Why a migration of this database is refused, in a word of its kind and its message."""
    with pytest.raises(UnfitWarehouse) as refused:
        migrations.migrate(connection)
    return str(refused.value)


@pytest.mark.parametrize("kind", ["table {} (mine text)", "table {} (day date)", "view {} as select 1 as mine"])
def test_each_name_is_refused_if_a_table_or_view_of_others_has_it(shared: Database, kind: str) -> None:
    with rolled_back(shared) as connection:
        for name in NAMES:
            what, _, _ = kind.partition(" ")
            connection.execute(sa.text(f"create {kind.format(name)}"))
            assert f"The database already holds {name}, which this job did not create" in refusal(connection), name
            assert "DEVIN_SCHEMA" in refusal(connection), name
            assert tables.present(connection) == {name}
            connection.execute(sa.text(f"drop {what} {name}"))


def test_all_names_at_once_are_listed(shared: Database) -> None:
    with rolled_back(shared) as connection:
        for name in NAMES:
            connection.execute(sa.text(f"create table {name} (version text)"))
        assert f"already holds {', '.join(sorted(NAMES))}, which" in refusal(connection)


def test_tables_of_others_under_all_names_of_the_first_version_are_no_warehouse(shared: Database) -> None:
    first = [name for name, table in tables.metadata.tables.items() if tables.facts(table).since == 1]
    with rolled_back(shared) as connection:
        for name in first:
            connection.execute(sa.text(f"create table {name} (day date, mine text)"))
        assert f"already holds {', '.join(sorted(first))}, which" in refusal(connection)
        assert migrations.version(connection) == 0


OTHER_VERSIONS = {
    "text": "table warehouse_version as select '2.1' as version",
    "a number that none has": "table warehouse_version as select 0 as version",
    "a plausible number": f"table warehouse_version as select {migrations.VERSION} as version",
    "an older number": "table warehouse_version as select 3 as version",
    "a later number": "table warehouse_version as select 999 as version",
    "no number": "table warehouse_version as select cast(null as integer) as version",
    "a fraction": "table warehouse_version as select 8.5 as version",
    "true": "table warehouse_version as select true as version",
    "several rows": "table warehouse_version as select 8 as version union all select 7",
    "no rows": "table warehouse_version (version integer)",
    "other columns": "table warehouse_version as select 1 as major, 2 as minor",
    "a view": "view warehouse_version as select 8 as version",
}


@pytest.mark.parametrize("created", OTHER_VERSIONS.values(), ids=OTHER_VERSIONS)
def test_a_version_of_something_else_is_not_taken_for_that_of_a_warehouse(shared: Database, created: str) -> None:
    with rolled_back(shared) as connection:
        connection.execute(sa.text(f"create {created}"))
        assert "already holds warehouse_version, which this job did not create" in refusal(connection)
        connection.execute(sa.text("create table daily_totals (mine text)"))
        assert "already holds daily_totals, warehouse_version, which" in refusal(connection)


def test_a_view_that_fails_when_it_is_read_is_refused(shared: Database) -> None:
    with rolled_back(shared) as connection:
        connection.execute(sa.text("create view warehouse_version as select cast('x' || now() as integer) as version"))
        assert "can't be read from warehouse_version" in refusal(connection)


@pytest.mark.parametrize(
    "created", ["sequence users", "type calendar as enum ('mine')", "index users on of_others (mine)"]
)
def test_on_postgresql_anything_else_with_a_name_is_in_the_way_too(postgresql: PostgreSQL, created: str) -> None:
    database = Database(url=postgresql.database())
    with rolled_back(database) as connection:
        connection.execute(sa.text("create table of_others (mine text)"))
        connection.execute(sa.text(f"create {created}"))
        assert f"already holds {created.split()[1]}, which" in refusal(connection)


def test_on_duckdb_a_name_is_taken_however_it_is_spelled(tmp_path: Path) -> None:
    database = Database(url=Database.url_of(tmp_path / "others.duckdb"))
    with rolled_back(database) as connection:
        connection.execute(sa.text('create table "Users" (mine text)'))
        connection.execute(sa.text('create view "WAREHOUSE_VERSION" as select 8 as version'))
        assert "already holds users, warehouse_version, which" in refusal(connection)


@pytest.mark.parametrize("name", ["users", "stale_days"])
def test_a_warehouse_that_lacks_one_of_its_tables_is_refused(warehouse: Database, name: str) -> None:
    with rolled_back(warehouse) as connection:
        connection.execute(sa.text(f"drop table {name} cascade"))
        assert f"The warehouse has version {migrations.VERSION}, but {name} of it is not there" in refusal(connection)


OF_OTHERS = {
    "users": "create table users as select 'kept' as mine",
    "warehouse_version": "create table warehouse_version as select '2.1' as version",
}


@pytest.mark.parametrize("name", OF_OTHERS)
def test_every_command_and_asset_refuses_a_database_with_tables_of_others(
    each_world: World, here: Here, name: str
) -> None:
    world = each_world
    with world.database.transaction() as connection:
        connection.execute(sa.text(OF_OTHERS[name]))
    before, sentence = world.rows(f"select * from {name}"), f"The database already holds {name}, which this job did not"
    for command in ("status", "status --json", f"backfill {FIRST} {LAST}", f"backfill {FIRST} {LAST} --dry-run"):
        code, _, err = here(*command.split())
        assert (code, sentence in " ".join(err.split())) == (exit_codes.WRONG_USE, True), command
    job = world.definitions.resolve_job_def(JOB)
    assets = ["organizations", "weekly_sessions"]
    if world.settings.published_snapshot:
        assets.append(PUBLISHED_SNAPSHOT)
        code, _, err = here("restore")
        assert (code, sentence in " ".join(err.split())) == (exit_codes.WRONG_USE, True)
    for asset in assets:
        selection = [dg.AssetKey(asset)]
        result = job.execute_in_process(instance=world.instance, asset_selection=selection, raise_on_error=False)
        assert sentence in world.failures(result), asset
    assert world.asked() == []
    assert world.rows(f"select * from {name}") == before
    with world.database.transaction(read_only=True) as connection:
        assert tables.present(connection) == {name}
