"""Warehouses of older releases are migrated completely or not at all; newer ones are refused.

warehouse_v1/ contains what the first release (commit 2575627) loaded from the sandbox in three runs: 40 days of 5
organizations, one of which the API refuses in February. Both files have the same rows.
"""

import gzip
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.command import exit_codes
from resources.database import Database
from tests.support.command import devin_sessions, in_this_process
from tests.support.postgresql import PostgreSQL
from tests.support.warehouse import comments, everything, rebuild, rebuild_all, rows_of, select_over_all_time
from tests.support.world import World
from warehouse import migrations, snapshot, tables
from warehouse.migrations import NamesTaken, NewerWarehouse

VERSION_1 = Path(__file__).with_name("warehouse_v1")
FACTS = ("organizations", "daily_sessions", "daily_totals")
ROLLUPS_OF_VERSION_1 = [table.name for table in tables.ROLLUPS if tables.facts(table).since == 1]
TABLES_OF_VERSION_1 = {*FACTS, *ROLLUPS_OF_VERSION_1}
FIRST, LAST = "2025-01-01", "2025-02-09"


def fill_with_version_1(url: str) -> None:
    """Fill the new warehouse at `url` with what the first release left behind."""
    database = Database(url=url)
    if database.is_file:
        database.path.write_bytes(gzip.decompress((VERSION_1 / "warehouse.duckdb.gz").read_bytes()))
    else:
        with database.transaction() as connection:
            connection.connection.cursor().execute((VERSION_1 / "postgresql.sql").read_text(encoding="utf-8"))


@pytest.fixture
def old(warehouse_url: str) -> Database:
    """A warehouse of version 1."""
    fill_with_version_1(warehouse_url)
    return Database(url=warehouse_url)


@pytest.fixture
def old_world(each_world: World, old: Database) -> World:
    """A world whose warehouse has version 1."""
    assert sa.make_url(each_world.database.url).database == sa.make_url(old.url).database
    return each_world


def become_newer(database: Database) -> None:
    """Let the warehouse be one that a later release has written."""
    with database.transaction() as connection:
        migrations.migrate(connection)
        connection.execute(sa.text("update warehouse_version set version = 99"))


def present(database: Database) -> set[str]:
    with database.transaction(read_only=True) as connection:
        return tables.present(connection)


def rows(database: Database, *names: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of these tables, whatever their columns."""
    with database.transaction(read_only=True) as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(sa.text(f"select * from {name}"))), key=repr)
            for name in names
        }


def layout(database: Database) -> dict[str, Any]:
    """Columns, keys, checks and comments of everything, as the database reports them."""
    columns = (
        "select table_name, column_name, data_type, is_nullable, "
        "row_number() over (partition by table_name order by ordinal_position) as position "
        "from information_schema.columns where table_schema = current_schema() order by all"
    )
    constraints = "select table_name, constraint_type, constraint_text from duckdb_constraints() order by all"
    if not database.is_duckdb:
        columns = columns.replace("order by all", "order by 1, 5")
        constraints = (
            "select conrelid::regclass::text, contype, pg_get_constraintdef(oid) from pg_constraint "
            "where connamespace = current_schema()::regnamespace order by 1, 2, 3"
        )
    with database.transaction(read_only=True) as connection:
        return {
            "columns": [tuple(row) for row in connection.execute(sa.text(columns))],
            "constraints": [tuple(row) for row in connection.execute(sa.text(constraints))],
            "comments": comments(connection),
        }


def with_how(cells: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of daily_sessions of a release up to version 8, as a migration completes them."""
    return sorted(((*row, "derived" if row[3] else "asked") for row in cells), key=repr)


def migrate(database: Database) -> None:
    with database.transaction() as connection:
        migrations.migrate(connection)


@contextmanager
def statements(database: Database) -> Iterator[tuple[sa.Connection, list[str]]]:
    """A transaction, and the statements that are executed in it."""
    executed: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)

    with database.transaction() as connection:
        sa.event.listen(connection, "before_cursor_execute", record)
        yield connection, executed


# From version 1


def test_the_two_stored_warehouses_hold_the_same_rows(postgresql: PostgreSQL, tmp_path: Path) -> None:
    urls = [f"duckdb:///{tmp_path}/warehouse.duckdb", postgresql.database()]
    for url in urls:
        fill_with_version_1(url)
    on_duckdb, on_postgresql = (rows(Database(url=url), *TABLES_OF_VERSION_1) for url in urls)
    assert on_duckdb == on_postgresql
    counts = {name: len(of_table) for name, of_table in on_duckdb.items()}
    assert counts == {
        "organizations": 5,
        "daily_sessions": 191,
        "daily_totals": 40,
        "weekly_sessions": 29,
        "monthly_sessions": 9,
        "enterprise_sessions": 40,
    }


def test_an_old_warehouse_has_version_1_and_an_empty_one_version_0(old: Database, tmp_path: Path) -> None:
    assert present(old) == TABLES_OF_VERSION_1
    with old.transaction() as connection:
        assert migrations.version(connection) == 1
        migrations.migrate(connection)
        assert migrations.version(connection) == migrations.VERSION
    with Database(url=f"duckdb:///{tmp_path}/new.duckdb").transaction() as connection:
        assert migrations.version(connection) == 0


def test_a_migration_loses_no_row_and_adds_what_version_1_lacked(old: Database) -> None:
    before = rows(old, *TABLES_OF_VERSION_1)
    migrate(old)
    after = rows(old, *TABLES_OF_VERSION_1)
    latest = max(seen_at for _, _, _, _, seen_at, *_ in before["organizations"])
    assert after.pop("organizations") == [(*row, row[4] == latest, None) for row in before.pop("organizations")]
    assert after.pop("daily_sessions") == with_how(before.pop("daily_sessions"))
    assert after == before
    every = {relation.name for relation in (*tables.metadata.sorted_tables, *tables.views.sorted_tables)}
    assert present(old) == every | (set() if old.is_duckdb else {"api_pace"})
    with old.transaction(read_only=True) as connection:
        now = everything(connection)
    assert now["warehouse_version"] == [(migrations.VERSION,)]
    days = [day for day, *_ in now["daily_totals"]]
    assert now["stale_days"] == [(name, day) for name in sorted(t.name for t in tables.ROLLUPS) for day in days]
    assert now["expected_days"] == [(days[0], days[-1])], "the calendar immediately shows what is loaded"
    empty = {
        "session_revisions",
        "contradictions",
        "unattributed_sessions",
        *(name for name in every if name.startswith("user")),
    }
    assert {name for name in empty if now[name]} == set()


def test_a_migrated_warehouse_has_the_same_layout_as_a_new_one(
    old: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    migrate(old)
    new = f"duckdb:///{tmp_path}/new.duckdb"
    if not old.is_duckdb:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        new = server.database()
    migrate(Database(url=new))
    assert layout(old) == layout(Database(url=new))


def test_rollups_rebuilt_after_a_migration_are_the_same_as_before(old: Database) -> None:
    before = rows(old, *ROLLUPS_OF_VERSION_1)
    migrate(old)
    with old.transaction() as connection:
        rebuilt = {table.name: rebuild(connection, table.name) for table in tables.ROLLUPS}
        assert rows_of(connection, tables.stale_days) == []
    assert {name: rebuilt[name] for name in before} == {name: len(of_table) for name, of_table in before.items()}
    assert rows(old, *ROLLUPS_OF_VERSION_1) == before


def test_what_analysts_created_beside_the_tables_stays(old: Database) -> None:
    with old.transaction() as connection:
        connection.execute(sa.text("create table notes as select 'mine' as note"))
        connection.execute(sa.text("create view busy as select * from daily_sessions where sessions_count > 100"))
    before = rows(old, "notes", "busy")
    assert before["busy"]
    migrate(old)
    if old.is_duckdb:  # its "*" takes in new columns
        before["busy"] = with_how(before["busy"])
    assert rows(old, "notes", "busy") == before


TAKEN = ["calendar", "organization_days", "reconciliation", "session_grid", "stale_days", "users"]


@pytest.mark.parametrize("views", [TAKEN[::2], TAKEN[1::2]], ids=" ".join)
def test_tables_and_views_of_others_with_these_names_are_reported_and_left_as_they_are(
    old: Database, views: list[str]
) -> None:
    kinds = {name: "view" if name in views else "table" for name in TAKEN}
    with old.transaction() as connection:
        for name, kind in kinds.items():
            connection.execute(sa.text(f"create {kind} {name} as select 1 as mine"))
    before, laid_out = rows(old, *TABLES_OF_VERSION_1, *TAKEN), layout(old)
    with pytest.raises(NamesTaken, match=rf"already holds {', '.join(TAKEN)},.*Rename them, or set WAREHOUSE_URL"):
        migrate(old)
    assert rows(old, *TABLES_OF_VERSION_1, *TAKEN) == before
    assert layout(old) == laid_out
    with old.transaction() as connection:
        assert migrations.version(connection) == 1
        for name, kind in kinds.items():
            connection.execute(sa.text(f"drop {kind} {name}"))
    migrate(old)
    with old.transaction(read_only=True) as connection:
        assert migrations.version(connection) == migrations.VERSION


def test_a_backfill_into_a_database_with_other_tables_of_these_names_says_so(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with world.database.transaction() as connection:
        connection.execute(sa.text("create table users (name text)"))
        connection.execute(sa.text("create view calendar as select 1 as mine"))
    code, shown = in_this_process(capsys, world.environment, "backfill", FIRST, FIRST)
    assert code in (exit_codes.MISSING, exit_codes.WRONG_USE)
    assert "The database already holds calendar, users, which this job did not create" in " ".join(shown.split())
    assert "Traceback" not in shown
    assert world.rows("select * from calendar") == [(1,)]


def test_an_error_in_the_middle_rolls_the_whole_migration_back(old: Database) -> None:
    with old.transaction() as connection:  # which the migration reads after it has created tables
        connection.execute(sa.text("alter table daily_totals rename column sessions_count to another"))
    before, laid_out = rows(old, *TABLES_OF_VERSION_1), layout(old)
    with pytest.raises(sa.exc.DBAPIError):
        migrate(old)
    assert rows(old, *TABLES_OF_VERSION_1) == before
    assert layout(old) == laid_out
    with old.transaction() as connection:
        assert migrations.version(connection) == 1
        connection.execute(sa.text("alter table daily_totals rename column another to sessions_count"))
    migrate(old)
    with old.transaction(read_only=True) as connection:
        assert migrations.version(connection) == migrations.VERSION


def test_a_migration_is_part_of_the_callers_transaction(old: Database) -> None:
    before, laid_out = rows(old, *TABLES_OF_VERSION_1), layout(old)
    with pytest.raises(KeyboardInterrupt), old.transaction() as connection:
        migrations.migrate(connection)
        raise KeyboardInterrupt
    assert (rows(old, *TABLES_OF_VERSION_1), layout(old)) == (before, laid_out)


def test_a_second_migration_only_reads(old: Database) -> None:
    migrate(old)
    with old.transaction(read_only=True) as connection:
        before = everything(connection)
    with statements(old) as (connection, executed):
        migrations.migrate(connection)
    assert 1 <= len(executed) <= 3, executed
    assert {statement.split()[0].lower() for statement in executed} == {"select"}
    with old.transaction(read_only=True) as connection:
        assert everything(connection) == before


def test_a_new_warehouse_has_the_current_version_and_no_stale_days(warehouse_url: str) -> None:
    database = Database(url=warehouse_url)
    migrate(database)
    with database.transaction(read_only=True) as connection:
        filled = {name: rows for name, rows in everything(connection).items() if rows}
    assert filled == {"warehouse_version": [(migrations.VERSION,)]}


@pytest.mark.parametrize("version", [0, 1], ids=["new", "old"])
def test_several_first_starts_at_once_create_one_warehouse(postgresql: PostgreSQL, version: int) -> None:
    url = postgresql.database()
    if version:
        fill_with_version_1(url)
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(migrate, [Database(url=url)] * 4))
    with Database(url=url).transaction(read_only=True) as connection:
        assert rows_of(connection, tables.warehouse_version) == [(migrations.VERSION,)]
        assert len(rows_of(connection, tables.daily_totals)) == (40 if version else 0)


# From a published snapshot


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)  # only a file is published
def test_a_snapshot_in_the_place_of_a_warehouse_becomes_one_and_loses_no_row(old: Database) -> None:
    migrate(old)
    laid_out = layout(old)
    with old.transaction(read_only=True) as connection:
        before = everything(connection)
    copy = old.path.with_name("copy.duckdb")
    old.copy_to(copy, snapshot.arrange)
    copy.replace(old.path)
    assert layout(old) != laid_out
    migrate(old)
    with old.transaction(read_only=True) as connection:
        assert everything(connection) == before
        assert not snapshot.is_snapshot(connection)
    assert layout(old) == laid_out


# From version 2

SESSION_GRID_OF_VERSION_2 = """
    create or replace view session_grid as
    select calendar.day, organizations.org_id, organizations.org_name, daily_sessions.sessions_count
    from calendar
    cross join organizations
    left join daily_sessions on calendar.day = daily_sessions.day and organizations.org_id = daily_sessions.org_id
"""


def views(connection: sa.Connection) -> dict[str, str]:
    """The definition of each view in the database."""
    names = [view.name for view in tables.views.sorted_tables if view.name in tables.present(connection)]
    return {name: sa.inspect(connection).get_view_definition(name) or "" for name in names}


RECONCILIATION_OF_VERSION_3 = """
    create view reconciliation as
    select calendar.day, daily_totals.sessions_count as control_total, daily_totals.orgs_sessions_count,
        daily_totals.unattributed_count, daily_totals.orgs_expected, daily_totals.orgs_loaded, daily_totals.loaded_at,
        'proven' as verdict
    from calendar left join daily_totals on calendar.day = daily_totals.day
"""


def take_back_to(version: int, connection: sa.Connection) -> None:
    """Change a current warehouse to the layout of version 2 or of a later one."""
    connection.execute(sa.text(f"update warehouse_version set version = {version}"))
    newer = {relation for relation in tables.RELATIONS if tables.facts(relation).since > version}
    newer_views = {relation for relation in newer if tables.facts(relation).kind == "view"}
    for view in newer_views:
        connection.execute(sa.text(f"drop view {view.name}"))
    if version < 4:
        connection.execute(sa.text("drop view reconciliation"))
    for table in newer - newer_views - {tables.expected_days}:  # which had another name
        connection.execute(sa.text(f"drop table {table.name}"))
    if version < 5:
        connection.execute(sa.text("alter table expected_days rename to history"))
        calendar = tables.select(tables.calendar).replace("expected_days", "history")
        connection.execute(sa.text(f"create or replace view calendar as {calendar}"))
    for listed in ("organizations", "users"):
        if version < 8:
            connection.execute(sa.text(f"alter table {listed} drop column is_chosen"))
        if version < 4:
            connection.execute(sa.text(f"alter table {listed} drop column is_listed"))
    for cells in ("daily_sessions", "user_daily_sessions") if version < 9 else ():
        connection.execute(sa.text(f"alter table {cells} drop column how"))
    if version < 4:
        connection.execute(sa.text(RECONCILIATION_OF_VERSION_3))
    if version == 2:
        connection.execute(sa.text(SESSION_GRID_OF_VERSION_2))


def test_warehouses_of_later_versions_get_what_they_lack_and_keep_every_row(old: Database) -> None:
    migrate(old)
    laid_out = layout(old)
    with old.transaction(read_only=True) as connection:
        current, before = views(connection), everything(connection)
    for version in range(2, migrations.VERSION):
        with old.transaction() as connection:
            take_back_to(version, connection)
            assert (views(connection) == current) == (version >= 6)
        migrate(old)
        with old.transaction(read_only=True) as connection:
            assert views(connection) == current, version
            assert everything(connection) == before, version
        assert layout(old) == laid_out, version


def test_a_table_of_others_with_a_name_that_a_later_version_introduced_is_reported(old: Database) -> None:
    migrate(old)
    with old.transaction() as connection:
        take_back_to(4, connection)
        connection.execute(sa.text("create table expected_days as select 1 as mine"))
    before = rows(old, "history", "expected_days")
    with pytest.raises(NamesTaken, match="already holds expected_days,"):
        migrate(old)
    assert rows(old, "history", "expected_days") == before


def test_days_with_a_count_too_large_to_sum_are_to_be_loaded_again(old: Database) -> None:
    with old.transaction() as connection:
        for change in (
            "update daily_totals set sessions_count = 9223372036854775807 where day = '2025-01-05'",
            "update daily_sessions set sessions_count = 1000000000001 where day = '2025-01-07'",
            "update daily_totals set sessions_count = 1000000000000 where day = '2025-01-09'",
        ):
            connection.execute(sa.text(change))
    migrate(old)
    left = rows(old, "daily_totals", "daily_sessions", "stale_days")
    for name in ("daily_totals", "daily_sessions"):
        days = {row[0].day for row in left[name] if row[0].month == 1}
        assert days == set(range(1, 32)) - {5, 7}, name
    with old.transaction() as connection:
        rebuild_all(connection)
        for table in tables.ROLLUPS:
            assert rows_of(connection, table) == select_over_all_time(connection, table.name)


# Without a new version


def test_comments_that_a_release_words_anew_reach_an_existing_warehouse_with_the_next_run(each_world: World) -> None:
    database = each_world.database
    migrate(database)
    laid_out = layout(database)
    with database.transaction() as connection:
        connection.execute(sa.text("comment on table daily_totals is 'as an earlier release put it'"))
        connection.execute(sa.text("comment on view calendar is null"))
        connection.execute(sa.text("comment on column organizations.org_name is null"))
    assert layout(database) != laid_out
    assert each_world.load(FIRST, FIRST, judged=False).success
    assert layout(database) == laid_out
    with statements(database) as (connection, executed):
        tables.describe_changed(connection)
    assert [statement.split()[0] for statement in executed] == ["select"], "nothing differs any more"


def test_a_writer_who_does_not_own_the_tables_leaves_their_comments_alone(postgresql: PostgreSQL) -> None:
    url = postgresql.database()
    migrate(Database(url=url))
    with Database(url=url).transaction() as connection:
        connection.execute(sa.text("comment on table daily_totals is 'as an earlier release put it'"))
    of_database = sa.make_url(url).set(username=sa.make_url(url).database)  # the role that owns the database alone
    with Database(url=of_database.render_as_string(hide_password=False)).transaction() as connection:
        tables.describe_changed(connection)
        assert comments(connection)["daily_totals", None] == "as an earlier release put it"


# From a later version


def test_a_newer_warehouse_is_refused_with_both_versions_and_left_as_it_is(warehouse_url: str) -> None:
    newer = Database(url=warehouse_url)
    become_newer(newer)
    before = layout(newer)
    with (
        pytest.raises(NewerWarehouse, match=rf"\bversion 99\b.*\bup to {migrations.VERSION}\b.*WAREHOUSE_URL"),
        newer.transaction() as connection,
    ):
        migrations.migrate(connection)
    assert layout(newer) == before
    assert rows(newer, "warehouse_version") == {"warehouse_version": [(99,)]}


def test_the_commands_and_a_run_refuse_a_newer_warehouse_with_a_message(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    become_newer(world.database)
    for command in (["status"], ["status", "--json"], ["backfill", FIRST, LAST]):
        code, shown = in_this_process(capsys, world.environment, *command)
        assert code == exit_codes.WRONG_USE, command
        message = " ".join(shown.split())
        assert f"The warehouse has version 99, but this release supports versions up to {migrations.VERSION}" in message
        assert world.source.requests == [], command
    result = world.run(FIRST, FIRST)
    assert not result.success
    assert "The warehouse has version 99" in world.failures(result)
    assert world.asked() == []


# Through the command


def test_status_says_that_the_next_backfill_migrates_an_old_warehouse_and_changes_nothing(
    old_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    laid_out = layout(old_world.database)
    code, shown = in_this_process(capsys, old_world.environment, "status")
    assert code == exit_codes.MISSING
    assert "older release. The next backfill migrates it." in " ".join(shown.split())
    assert layout(old_world.database) == laid_out


def test_a_backfill_with_nothing_to_load_migrates_an_old_warehouse(world: World) -> None:
    fill_with_version_1(world.database.url)
    before = rows(world.database, "daily_sessions", "daily_totals")
    code, out, err = devin_sessions("backfill", FIRST, "2025-01-31")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert world.source.requests == []
    before["daily_sessions"] = with_how(before["daily_sessions"])
    assert rows(world.database, "daily_sessions", "daily_totals") == before
    with world.database.transaction(read_only=True) as connection:
        assert migrations.version(connection) == migrations.VERSION
        assert rows_of(connection, tables.stale_days) == [], "the rollups have taken everything in"
    assert world.rows("select count(*) from reconciliation where verdict <> 'not loaded'") == [(40,)]


def test_a_load_of_more_days_continues_where_the_old_release_stopped(old_world: World) -> None:
    before = with_how(rows(old_world.database, "daily_sessions")["daily_sessions"])
    result = old_world.load(FIRST, "2025-02-11", complete_before=date(2025, 2, 12), judged=False)
    assert result.success, old_world.failures(result)
    assert old_world.progress.metrics.days == 11, "nine of them lacked the organization that the API refused"
    after = rows(old_world.database, "daily_sessions", "daily_totals")
    assert set(after["daily_sessions"]) >= set(before)
    assert (len(after["daily_totals"]), len(after["daily_sessions"])) == (42, 191 + 9 + 10)
    with old_world.database.transaction() as connection:
        rebuild_all(connection)
        for table in tables.ROLLUPS:
            assert rows_of(connection, table) == select_over_all_time(connection, table.name)
    verdicts = old_world.rows("select verdict, count(*) from reconciliation where day <= '2025-02-12' group by 1")
    assert dict(verdicts) == {"proven": 42, "not loaded": 1}
