"""What analysts read: a snapshot and Parquet files that real runs replace while other processes read them."""

import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipelines.asset_keys import PUBLISHED_SNAPSHOT
from pipelines.names import JOB
from tests.support.analyst import analyst
from tests.support.command import in_this_process
from tests.support.loads import fill
from tests.support.published import CELLS, damage_rows, flip_a_bit, month_of, parquet_of, relations, snapshot_of
from tests.support.world import World, template_world
from warehouse import tables
from warehouse.snapshot import BOOKKEEPING

FIRST, LAST = "2025-01-30", "2025-03-02"
MONTHS = ["2025-01", "2025-02", "2025-03"]


def publish(world: World) -> dg.ExecuteInProcessResult:
    """Run the last asset alone."""
    return world.definitions.resolve_job_def(JOB).execute_in_process(
        instance=world.instance,
        asset_selection=[dg.AssetKey(PUBLISHED_SNAPSHOT)],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata that the run recorded for the snapshot."""
    (event,) = result.asset_materializations_for_node(PUBLISHED_SNAPSHOT)
    return {name: value.value for name, value in event.metadata.items()}


def comments(database: Path) -> set[tuple[str, ...]]:
    """The comment of every table, view and column."""
    with duckdb.connect(str(database), read_only=True) as connection:
        found = connection.execute(
            "select table_name, '', comment from duckdb_tables() union all "
            "select view_name, '', comment from duckdb_views() where not internal union all "
            "select table_name, column_name, comment from duckdb_columns() where not internal"
        ).fetchall()
    return set(found)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def identity(path: Path) -> tuple[int, int, int]:
    """Differs after a file was written or replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def files_in(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Every file in the directory and below it, hidden ones too, by its relative path."""
    return {str(path.relative_to(directory)): identity(path) for path in directory.rglob("*") if path.is_file()}


def rows_in(path: Path) -> list[tuple[Any, ...]]:
    """The rows of a Parquet file, in its order."""
    with duckdb.connect() as connection:
        connection.execute("set time zone 'UTC'")
        return connection.read_parquet(str(path)).fetchall()


def rows_in_utc(database: Path, table: str) -> list[tuple[Any, ...]]:
    """The rows of a table in a snapshot, in its order."""
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute(f"set time zone 'UTC'; set search_path = 'main,{BOOKKEEPING}'")
        return connection.table(table).fetchall()


def one_file_tables() -> set[str]:
    """The tables that become one file each: all but the counts and the list of days that the next run empties."""
    return set(tables.metadata.tables) - {tables.stale_days.name, CELLS, tables.user_daily_sessions.name}


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Let this process write no file longer than `size`, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The files of a run from FIRST to LAST without a umask, and the metadata that it recorded."""
    directory = tmp_path_factory.mktemp("first-run")
    with template_world(directory) as world:
        before = os.umask(0)
        try:
            result = world.run(FIRST, LAST)
        finally:
            os.umask(before)
        assert result.success, world.failures(result)
        assert metadata_of(result)["snapshot"] == str(snapshot_of(world))
    return directory, metadata_of(result)


@pytest.fixture
def published(world: World, first_run: tuple[Path, dict[str, Any]]) -> World:
    """A world of its own with those files."""
    shutil.copytree(first_run[0], world.directory, dirs_exist_ok=True)
    return world


# The snapshot


def test_the_snapshot_holds_everything_in_the_warehouse_and_only_its_owner_may_read_it(
    published: World, first_run: tuple[Path, dict[str, Any]]
) -> None:
    world = published
    snapshot = snapshot_of(world)
    assert snapshot == world.database.path.parent / "published" / "devin_sessions.duckdb"
    held = relations(snapshot)
    assert set(held) == {*tables.metadata.tables, *tables.views.tables}
    assert held == relations(world.database.path)
    assert len(held[CELLS]) == 32 * 5
    assert held["session_grid"]
    assert not held["stale_days"], "the rollups are in it as they are after the run"
    assert comments(snapshot) == comments(world.database.path)
    assert all(comment for _, _, comment in comments(snapshot))
    assert mode(snapshot) == 0o600
    assert {mode(path) for path in parquet_of(world).rglob("*.parquet")} == {0o600}
    assert first_run[1]["megabytes"] == round(snapshot.stat().st_size / 1e6, 1)


def test_the_rows_of_every_table_are_in_the_order_of_its_key_in_the_snapshot_and_in_parquet(published: World) -> None:
    world = published
    world.configure(devin_user_ids="discover")
    fill(world, "2025-03-03", "2025-03-05")
    fill(world, "2025-02-10", "2025-02-12")
    with world.database.transaction() as connection:  # restated and contradicted in an order of its own
        for day in ("2025-03-01", "2025-02-01", "2025-02-20"):
            for values in ("'2025-03-01', null", "'2025-02-01', 'b'", "'2025-02-01', 'a'"):
                connection.exec_driver_sql(
                    f"insert into contradictions select {values}, '{day}', '{day}', 1, 2, current_timestamp, 'run'"
                )
    assert publish(world).success
    with duckdb.connect(str(snapshot_of(world)), read_only=True) as connection:
        for name, table in tables.metadata.tables.items():
            key = ", ".join(tables.key(table)) or "all"
            stored = f"{BOOKKEEPING}.{name}" if tables.facts(table).kind == "bookkeeping table" else name
            rows = connection.sql(f"from {stored}").fetchall()
            assert rows == connection.sql(f"from {stored} order by {key}").fetchall(), name
            if (file := parquet_of(world) / f"{name}.parquet").exists():
                assert rows_in(file) == rows_in_utc(snapshot_of(world), name), name
    assert rows_in(parquet_of(world) / "contradictions.parquet")


def test_who_lists_the_tables_of_the_snapshot_sees_those_for_analysts_and_none_for_bookkeeping(
    published: World,
) -> None:
    for_analysts = {r.name for r in tables.RELATIONS if tables.facts(r).kind != "bookkeeping table"}
    with duckdb.connect(str(snapshot_of(published)), read_only=True) as connection:
        assert {name for (name,) in connection.sql("show tables").fetchall()} == for_analysts
        days = connection.sql("select count(*) from calendar").fetchall()
    with published.database.transaction(read_only=True) as connection:
        assert connection.execute(sa.text("select count(*) from calendar")).all() == days


def test_query_still_finds_the_bookkeeping_tables_by_their_names(
    published: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stale_days", "expected_days", "warehouse_version"):
        sql = f"select count(*) as found from {name}"
        code, shown = in_this_process(capsys, published.environment, "query", "--csv", sql)
        assert (code, shown.split()) == (0, ["found", "0" if name == "stale_days" else "1"])


def test_what_others_made_in_the_warehouse_is_in_the_snapshot_too(published: World) -> None:
    world = published
    with world.database.transaction() as connection:
        for statement in (
            "create table notes as select 2 as n union all select 1",
            "create view busy as select * from daily_sessions where sessions_count > 100",
            "create schema other",
            "create table other.daily_totals as select 'theirs' as mine",
        ):
            connection.exec_driver_sql(statement)
    result = publish(world)
    assert result.success, world.failures(result)
    held = relations(snapshot_of(world), "notes", "busy")
    assert (held["notes"], held["busy"]) == ([(1,), (2,)], relations(world.database.path, "busy")["busy"])
    with duckdb.connect(str(snapshot_of(world)), read_only=True) as connection:
        assert connection.sql("from other.daily_totals").fetchall() == [("theirs",)]


def test_a_reader_with_the_old_snapshot_open_keeps_it_and_blocks_no_run_that_replaces_it(published: World) -> None:
    world, snapshot = published, snapshot_of(published)
    days = "select count(*), cast(max(day) as text) from daily_totals"
    sessions = "select sum(sessions_count) from daily_sessions"
    inode = snapshot.stat().st_ino
    with analyst(snapshot) as other:
        before = other.sees(sessions)
        assert other.sees(days) == [[32, LAST]]
        fill(world, "2025-03-03", "2025-03-04")
        assert publish(world).success
        assert other.sees(days) == [[32, LAST]]
        assert other.sees(sessions) == before
        other.reopens()
        assert other.sees(days) == [[34, "2025-03-04"]]
        assert other.sees(sessions) == [[sum(world.truth(FIRST, "2025-03-04").values())]]
    assert snapshot.stat().st_ino != inode, "it was replaced as a whole"
    assert relations(snapshot) == relations(world.database.path)
    assert {path.name for path in snapshot.parent.rglob("*")} == {
        "devin_sessions.duckdb",
        "parquet",
        CELLS,
        *(f"{month}.parquet" for month in MONTHS),
        "SHA256SUMS",
        *(f"{name}.parquet" for name in one_file_tables()),
    }, "and nothing unfinished is left"


# Parquet


def test_parquet_has_one_file_per_month_of_counts_and_one_per_other_table(
    published: World, first_run: tuple[Path, dict[str, Any]]
) -> None:
    world = published
    directory = parquet_of(world)
    months = [f"{CELLS}/{month}.parquet" for month in MONTHS]
    assert set(files_in(directory)) == {*months, "SHA256SUMS", *(f"{name}.parquet" for name in one_file_tables())}
    assert first_run[1]["parquet_files_written"] == len(files_in(directory)) - 1, "the list of checksums is not one"
    held = relations(snapshot_of(world), CELLS, *one_file_tables())
    for month in MONTHS:
        of_month = [row for row in held[CELLS] if row[0].isoformat().startswith(month)]
        assert of_month
        assert rows_in(month_of(world, month)) == of_month
    for name in one_file_tables():
        assert sorted(rows_in(directory / f"{name}.parquet"), key=repr) == sorted(held[name], key=repr)
    assert rows_in(directory / CELLS / "*.parquet") == held[CELLS], "one pattern reads them all"


def test_the_types_in_parquet_are_those_of_the_tables(published: World) -> None:
    world = published
    at = pa.timestamp("us", tz="UTC")
    of_cells = pq.read_schema(month_of(world, "2025-02"))
    assert {field.name: field.type for field in of_cells} == {
        "day": pa.date32(),
        "org_id": pa.string(),
        "sessions_count": pa.int64(),
        "is_derived": pa.bool_(),
        "api_version": pa.string(),
        "loaded_at": at,
        "run_id": pa.string(),
        "how": pa.string(),
    }
    of_enterprise = pq.read_schema(parquet_of(world) / "enterprise_sessions.parquet")
    assert of_enterprise.field("week_over_week_change").type == pa.float64()
    of_totals = pq.read_schema(parquet_of(world) / "daily_totals.parquet")
    assert (of_totals.field("window_start").type, of_totals.field("orgs_loaded").type) == (at, pa.int32())
    starts = pq.read_table(parquet_of(world) / "daily_totals.parquet", columns=["window_start"])[0].to_pylist()
    assert starts[0] == datetime(2025, 1, 30, tzinfo=UTC)


def test_only_months_whose_counts_changed_are_written_again_with_their_permissions(published: World) -> None:
    world = published
    opened = [snapshot_of(world), month_of(world, "2025-01"), parquet_of(world) / "weekly_sessions.parquet"]
    for path in opened:
        path.chmod(0o644)
    were = [identity(path) for path in opened]
    before = files_in(parquet_of(world) / CELLS)
    org_id = world.source.organizations[1].org_id
    world.source.add_sessions(org_id, datetime(2025, 1, 31, 12, tzinfo=UTC), count=7)
    fill(world, FIRST, "2025-03-03")
    result = publish(world)
    after = files_in(parquet_of(world) / CELLS)
    assert {name for name in after if after[name] != before[name]} == {"2025-01.parquet", "2025-03.parquet"}, (
        "an old day of January changed, March has a new day, and February was read again without a change"
    )
    assert (metadata_of(result)["parquet_files_unchanged"], metadata_of(result)["parquet_files_written"]) == (
        1,
        2 + len(one_file_tables()),
    )
    expected = world.truth("2025-01-30", "2025-01-31")
    assert {(day, id_): n for day, id_, n, *_ in rows_in(month_of(world, "2025-01"))} == expected
    assert all(identity(path) != was for path, was in zip(opened, were, strict=True))
    assert {mode(path) for path in opened} == {0o644}
    assert mode(month_of(world, "2025-03")) == 0o600


def test_a_count_that_moves_to_another_day_of_the_month_is_a_change(published: World) -> None:
    world = published
    before = identity(month_of(world, "2025-02"))
    with world.database.transaction() as connection:
        connection.exec_driver_sql(
            "update daily_sessions set loaded_at = loaded_at + interval 1 second, "
            "sessions_count = sessions_count + case when day = '2025-02-03' then 1 else -1 end "
            "where day in ('2025-02-03', '2025-02-04') and org_id in "
            "(select min(org_id) from daily_sessions where day = '2025-02-04' and sessions_count > 0)"
        )
    assert publish(world).success
    assert identity(month_of(world, "2025-02")) != before
    moved = rows_in(month_of(world, "2025-02"))
    assert moved == [row for row in relations(world.database.path, CELLS)[CELLS] if f"{row[0]:%Y-%m}" == "2025-02"]
    assert {(day, id_): n for day, id_, n, *_ in moved} != world.truth("2025-02-01", "2025-02-28")


@pytest.mark.parametrize("table", [CELLS, "organizations", "monthly_sessions"])
def test_a_damaged_warehouse_is_not_published_over_the_last_good_copy(published: World, table: str) -> None:
    world = published
    snapshot = snapshot_of(world)
    before = snapshot.read_bytes()
    damage_rows(world.database.path, table)
    result = publish(world)
    assert not result.success
    message = world.failures(result)
    assert f"The warehouse file {world.database.path} is damaged (IO Error: Corrupt database file: " in message
    assert f"The last published copy, {snapshot}, is kept." in message
    assert message.endswith("devin-sessions restore")
    assert snapshot.read_bytes() == before
    assert {path.name for path in snapshot.parent.iterdir()} == {snapshot.name, "parquet"}


def test_a_month_with_a_damaged_byte_is_written_again(published: World) -> None:
    world = published
    good = {month_of(world, month): month_of(world, month).read_bytes() for month in MONTHS}
    for (path, content), at in zip(good.items(), (0, 0.5, 1), strict=True):
        flip_a_bit(path, int(at * (len(content) - 1)))
    assert metadata_of(publish(world))["parquet_files_unchanged"] == 0
    assert {path: path.read_bytes() for path in good} == good
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=parquet_of(world), check=False)
    assert sums.returncode == 0
    assert metadata_of(publish(world))["parquet_files_unchanged"] == len(MONTHS)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"2025-01": b"", "2025-02": b"day,org_id\n", "2025-03": None},
        {"2025-01": b"PAR1 and no more", "2025-02": b"PAR1" + b"\xff" * 64 + (64).to_bytes(4, "little") + b"PAR1"},
    ],
    ids=["empty, of another kind, lost", "cut off and meaningless"],
)
def test_damaged_and_lost_parquet_files_are_replaced(published: World, spoiled: dict[str, bytes | None]) -> None:
    world = published
    before = files_in(parquet_of(world) / CELLS)
    good = {month: rows_in(month_of(world, month)) for month in spoiled}
    for month, content in spoiled.items():
        for path in (month_of(world, month), parquet_of(world) / "organizations.parquet"):
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
    result = publish(world)
    assert result.success, world.failures(result)
    assert {month: rows_in(month_of(world, month)) for month in spoiled} == good
    after = files_in(parquet_of(world) / CELLS)
    assert {name for name in after if after[name] != before[name]} == {f"{month}.parquet" for month in spoiled}
    assert len(rows_in(parquet_of(world) / "organizations.parquet")) == 5


def test_counts_per_user_are_published_only_if_users_are_counted(published: World) -> None:
    world = published
    assert not (parquet_of(world) / "user_daily_sessions").exists()
    world.configure(devin_user_ids="discover")
    fill(world, "2025-01-31", "2025-02-01")
    result = publish(world)
    assert result.success, world.failures(result)
    held = relations(snapshot_of(world), "user_daily_sessions", "user_daily_totals")
    assert {path.stem: rows_in(path) for path in (parquet_of(world) / "user_daily_sessions").iterdir()} == {
        month: [row for row in held["user_daily_sessions"] if row[0] == day]
        for month, day in (("2025-01", date(2025, 1, 31)), ("2025-02", date(2025, 2, 1)))
    }
    assert len(rows_in(parquet_of(world) / "users.parquet")) == len(world.source.members)
    assert rows_in(parquet_of(world) / "user_daily_totals.parquet") == held["user_daily_totals"]


# What goes wrong


def test_a_copy_that_fails_leaves_the_old_one_and_says_what_to_do(published: World) -> None:
    world = published
    snapshot = snapshot_of(world)
    before = files_in(snapshot.parent)
    with world.database.transaction() as connection:
        connection.exec_driver_sql("delete from session_revisions")
    with no_file_beyond(snapshot.stat().st_size // 2):
        result = publish(world)
    assert not result.success
    (failed,) = result.get_step_failure_events()
    assert failed.step_failure_data.error and failed.step_failure_data.error.cls_name == dg.Failure.__name__
    assert world.failures(result) == (
        f"The snapshot {snapshot} could not be written: File too large. The last one is kept. "
        "Fix that (disk full? permissions?) and run the same command again."
    )
    assert files_in(snapshot.parent) == before, "and nothing unfinished next to it"
    assert publish(world).success
    assert relations(snapshot) == relations(world.database.path)


def test_a_directory_at_the_snapshots_path_fails_the_run_after_everything_is_stored(world: World) -> None:
    snapshot = snapshot_of(world)
    (snapshot / "other").mkdir(parents=True)
    result = world.run("2025-02-01", "2025-02-02")
    assert not result.success
    assert f"The snapshot {snapshot} could not be written: " in world.failures(result)
    assert world.cells() == world.truth("2025-02-01", "2025-02-02")
    assert [path.name for path in snapshot.parent.iterdir()] == [snapshot.name]
    assert [path.name for path in snapshot.iterdir()] == ["other"]


def test_a_file_at_the_published_directorys_path_is_reported(published: World) -> None:
    world, snapshot = published, snapshot_of(published)
    shutil.rmtree(snapshot.parent)
    snapshot.parent.write_text("not a directory")
    result = publish(world)
    assert f"The snapshot {snapshot} could not be written: " in world.failures(result)
    assert snapshot.parent.read_text() == "not a directory"


def test_parquet_files_that_cannot_be_written_fail_the_run_and_the_snapshot_is_new(published: World) -> None:
    world = published
    in_the_way = parquet_of(world) / "monthly_sessions.parquet"
    in_the_way.unlink()
    in_the_way.mkdir()
    with world.database.transaction() as connection:
        connection.exec_driver_sql("delete from session_revisions")
    result = publish(world)
    assert not result.success
    assert f"The Parquet files beside {snapshot_of(world)} could not be written: " in world.failures(result)
    assert relations(snapshot_of(world)) == relations(world.database.path)
    assert not [name for name in files_in(parquet_of(world)) if "/." in f"/{name}"], "nothing unfinished"
    in_the_way.rmdir()
    assert publish(world).success
    assert sorted(rows_in(in_the_way)) == relations(snapshot_of(world), "monthly_sessions")["monthly_sessions"]


# Elsewhere


def test_on_a_server_there_is_nothing_to_publish(world: World) -> None:
    world.configure(warehouse_url="postgresql+psycopg://writer@127.0.0.1/sessions")
    assert dg.AssetKey(PUBLISHED_SNAPSHOT) not in world.definitions.resolve_asset_graph().get_all_asset_keys()
    assert world.settings.published_snapshot is None
