"""A damaged warehouse is rebuilt from its own rows, the snapshot, the Parquet files, or a combination of them."""

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipelines.command import exit_codes
from pipelines.home import PROJECT
from resources.database import Database
from tests.support.command import Here, command_here, devin_sessions
from tests.support.forks import Command
from tests.support.postgresql import PostgreSQL
from tests.support.processes import another_process
from tests.support.published import (
    BLOCK,
    CELLS,
    HEADER,
    damage_rows,
    flip_a_bit,
    month_of,
    parquet_of,
    relations,
    snapshot_of,
    sums,
)
from tests.support.world import World, template_world
from warehouse import tables

FIRST, LAST = "2025-01-20", "2025-02-10"


def spoil_keys(path: Path) -> None:
    """Flip one bit in each block that contains only keys: neither rows nor metadata."""
    with duckdb.connect(str(path), read_only=True) as connection:
        used = {block for (block,) in connection.execute("select block_id from pragma_metadata_info()").fetchall()}
        for (table,) in connection.execute("select table_name from duckdb_tables()").fetchall():
            rows = connection.execute("select block_id, additional_block_ids from pragma_storage_info(?)", [table])
            for block, more in rows.fetchall():
                used |= {block, *(more or [])}
    for block in range((path.stat().st_size - HEADER) // BLOCK):
        if block not in used:
            flip_a_bit(path, HEADER + block * BLOCK + 100)


def asides(world: World) -> list[Path]:
    return sorted(world.directory.glob("warehouse.duckdb.damaged-*[0-9]"))


def all_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table and view except the stale days."""
    found: dict[str, list[tuple[object, ...]]] = {**relations(path)}
    found.pop("stale_days", None)
    return found


def blank(path: Path) -> None:
    path.write_bytes(b"")


@pytest.fixture(scope="module")
def three_weeks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a load of three weeks, published."""
    directory = tmp_path_factory.mktemp("three-weeks")
    with template_world(directory) as world:
        assert world.run(FIRST, LAST).success
    return directory


@pytest.fixture
def loaded(world: World, three_weeks: Path) -> World:
    """A world of its own with those files."""
    shutil.copytree(three_weeks, world.directory, dirs_exist_ok=True)
    return world


@pytest.fixture
def here(world: World, capsys: pytest.CaptureFixture[str]) -> Here:
    return command_here(capsys, world.environment)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "its header": lambda path: flip_a_bit(path, 100),
    "its counts": lambda path: damage_rows(path, CELLS),
    "a rollup": lambda path: damage_rows(path, "weekly_sessions"),
    "its keys": spoil_keys,
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": blank,
    "of another kind": lambda path: path.write_bytes(b"day,count\n" * 9999),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE)
def test_a_restored_warehouse_is_what_it_was_before_the_damage(
    loaded: World, here: Here, spoil: Callable[[Path], None]
) -> None:
    path = loaded.database.path
    before, mode = all_of(path), path.stat().st_mode
    spoil(path)
    damaged = path.read_bytes() if path.exists() else None
    code, out, err = here("restore")
    assert (code, err) == (0, "")
    assert f"Restored the warehouse {path} from " in out
    assert all_of(path) == before
    assert path.stat().st_mode == mode
    assert [file.read_bytes() for file in asides(loaded)] == ([damaged] if damaged is not None else [])


@pytest.mark.parametrize("damage", ["its counts", "its keys"])
def test_a_warehouse_restored_from_its_copy_or_its_own_rows_loads_further_days(
    loaded: World, here: Here, damage: str
) -> None:
    DAMAGE[damage](loaded.database.path)
    assert here("restore")[0] == 0
    code, out, err = devin_sessions("backfill", FIRST, "2025-02-12")
    assert (code, err) == (0, "")
    assert "2 of 2 days loaded" in out
    assert loaded.cells() == loaded.truth(FIRST, "2025-02-12")
    assert len(set(sums(loaded).values())) == 1


def test_days_read_after_the_copy_are_kept_if_only_keys_or_rollups_are_damaged(loaded: World, here: Here) -> None:
    path = loaded.database.path
    assert loaded.load("2025-02-11", "2025-02-12").success
    spoil_keys(path)
    code, out, _ = here("restore")
    assert code == 0
    assert "from its own rows, as of" in out
    assert loaded.cells() == loaded.truth(FIRST, "2025-02-12")


def test_days_read_after_the_copy_are_listed_with_the_command_that_reads_them(loaded: World, here: Here) -> None:
    assert loaded.load("2025-02-11", "2025-02-12").success
    blank(loaded.database.path)
    code, out, _ = here("restore")
    assert (code, "from the published copy, as of" in out) == (0, True)
    assert "To read the last ones again: devin-sessions backfill " in out
    assert "2025-02-11…" in out and "To load: devin-sessions backfill --missing" in out
    assert loaded.cells() == loaded.truth(FIRST, LAST)


def drop_newer_than(version: int, connection: duckdb.DuckDBPyConnection, bookkeeping: str = "") -> None:
    """Drop what later releases added, except for a table that had another name."""
    newer = [each for each in tables.RELATIONS if tables.facts(each).since > version]
    for relation in sorted(newer, key=lambda each: tables.facts(each).kind != "view"):
        kind = tables.facts(relation).kind
        if relation is not tables.expected_days:
            prefix = bookkeeping if kind == "bookkeeping table" else ""
            connection.execute(f"drop {'view' if kind == 'view' else 'table'} {prefix}{relation.name}")


@pytest.mark.parametrize("spoil", [blank, spoil_keys], ids=["from the copy", "from its own rows"])
def test_files_from_before_a_table_was_renamed_become_a_current_warehouse(
    loaded: World, here: Here, spoil: Callable[[Path], None]
) -> None:
    path = loaded.database.path
    before = all_of(path)
    calendar = tables.select(tables.calendar).replace("expected_days", "history")
    with duckdb.connect(str(path)) as connection:
        drop_newer_than(4, connection)
        connection.execute("alter table expected_days rename to history")
        connection.execute(f"create or replace view calendar as {calendar}")
        connection.execute("update warehouse_version set version = 4")
    before["day_boundary"] = []  # the next load records it
    shutil.copy(path, snapshot_of(loaded))  # as that release published it
    spoil(path)
    code, out, err = here("restore")
    assert (code, err) == (0, "")
    assert f"Restored the warehouse {path} from " in out
    assert all_of(path) == before


def test_a_snapshot_of_an_earlier_release_with_its_bookkeeping_apart_becomes_a_current_warehouse(
    loaded: World, here: Here
) -> None:
    path = loaded.database.path
    before = all_of(path)
    with duckdb.connect(str(snapshot_of(loaded))) as connection:
        connection.execute("update bookkeeping.warehouse_version set version = 5")
        drop_newer_than(5, connection, bookkeeping="bookkeeping.")
    before["day_boundary"] = []  # the next load records it
    blank(path)
    code, out, _ = here("restore")
    assert (code, "from the published copy" in out) == (0, True)
    assert all_of(path) == before


def test_without_a_copy_the_warehouse_is_restored_from_parquet(loaded: World, here: Here) -> None:
    before = all_of(loaded.database.path)
    loaded.database.path.unlink()
    blank(snapshot_of(loaded))
    code, out, err = here("restore")
    assert (code, err) == (0, "")
    assert "from the Parquet files, as of" in out
    assert all_of(loaded.database.path) == before


def test_parquet_files_of_a_release_that_published_less_are_restored_with_what_follows_from_them(
    loaded: World, here: Here
) -> None:
    path = loaded.database.path
    before = all_of(path)
    for file in (path, snapshot_of(loaded)):
        blank(file)
    for name in ("day_boundary", "expected_days", "warehouse_version"):
        (parquet_of(loaded) / f"{name}.parquet").unlink()
    organizations = parquet_of(loaded) / "organizations.parquet"
    pq.write_table(pq.read_table(organizations).drop_columns("is_listed"), organizations)
    code, out, err = here("restore")
    assert (code, err) == (0, ""), out
    after = all_of(path)
    assert (after["day_boundary"], after["expected_days"]) == ([], [(date(2025, 1, 20), date(2025, 2, 10))])
    assert after["warehouse_version"] == before["warehouse_version"]
    assert after["organizations"] == before["organizations"], "all of them are on the latest list"


def test_parquet_files_of_a_later_release_are_refused(loaded: World, here: Here) -> None:
    for file in (loaded.database.path, snapshot_of(loaded)):
        blank(file)
    of_later = pa.table({"version": pa.array([99], pa.int32())})
    pq.write_table(of_later, parquet_of(loaded) / "warehouse_version.parquet")
    code, _, err = here("restore")
    assert code == exit_codes.WRONG_USE
    assert "The warehouse has version 99" in " ".join(err.split())
    assert loaded.database.path.read_bytes() == b""


@dataclass(frozen=True)
class OnFailingDisk(Database):
    """A database whose file has a block that doesn't read as it was written, once it is complete."""

    @contextmanager
    def transaction(self, *, read_only: bool = False, alone: bool = True) -> Iterator[sa.Connection]:
        with super().transaction(read_only=read_only, alone=alone) as connection:
            yield connection
        if not read_only:
            damage_rows(self.path, CELLS)


@pytest.mark.parametrize("damage", ["its counts", "a rollup", "gone"])
def test_a_restored_file_that_cannot_be_read_replaces_nothing(
    loaded: World, here: Here, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = loaded.database.path
    before = all_of(path)
    DAMAGE[damage](path)
    damaged = path.read_bytes() if path.exists() else None
    with monkeypatch.context() as failing:
        failing.setattr("pipelines.command.restore.Database", OnFailingDisk)
        code, out, err = here("restore")
    assert (code, out) == (exit_codes.MISSING, "")
    assert "The restored file can't be read (IO Error: Corrupt database file" in " ".join(err.split())
    assert (path.read_bytes() if path.exists() else None) == damaged
    assert asides(loaded) == [] and not list(loaded.directory.glob(".restoring-*"))
    assert here("restore")[0] == 0
    assert all_of(path) == before


def damage_everything(world: World, name: str, copy_of: str | None) -> None:
    """Empty the warehouse, damage this table of its copy or else empty that too, and damage this Parquet file."""
    blank(world.database.path)
    if copy_of:
        damage_rows(snapshot_of(world), copy_of)
    else:
        blank(snapshot_of(world))
    file = month_of(world, name) if name[0] == "2" else parquet_of(world) / f"{name}.parquet"
    # Into a page, which has a checksum, and not between two: this small file has many.
    flip_a_bit(file, file.stat().st_size // (4 if name == "organizations" else 3))


@pytest.mark.parametrize("name", ["organizations", "daily_totals", "session_revisions", "2025-01", "2025-02"])
@pytest.mark.parametrize("copy_of", [None, "daily_totals", CELLS])
def test_what_cannot_be_restored_is_reported_and_none_of_its_days_is_there_in_part(
    loaded: World, here: Here, name: str, copy_of: str | None
) -> None:
    damage_everything(loaded, name, copy_of)
    code, out, err = here("restore")
    truth = loaded.truth(FIRST, LAST)
    is_lost = copy_of is None or (copy_of == CELLS) == (name[0] == "2") == (name != copy_of)
    if copy_of == "daily_totals":
        is_lost = name == "daily_totals"
    assert code == (exit_codes.MISSING if is_lost else 0), (out, err)
    assert ("Could not be recovered: " in err and name in err) == is_lost
    cells = loaded.cells()
    assert cells.items() <= truth.items()
    assert {day for day, _ in cells} == {day for (day,) in loaded.rows("select day from daily_totals")}
    assert len(cells) == 5 * len({day for day, _ in cells}), "no day is there in part"
    assert is_lost or cells == truth


@pytest.mark.parametrize(
    ("name", "copy_of"),
    [("organizations", None), ("daily_totals", None), ("2025-01", CELLS), ("organizations", CELLS)],
)
def test_the_next_backfill_loads_the_days_that_were_not_restored_and_publishes_everything_again(
    loaded: World, here: Here, name: str, copy_of: str | None
) -> None:
    damage_everything(loaded, name, copy_of)
    here("restore")
    code, _, err = devin_sessions("backfill", FIRST, LAST)
    assert (code, err) == (0, "")
    assert loaded.cells() == loaded.truth(FIRST, LAST)
    assert len(set(sums(loaded).values())) == 1


def test_a_copy_from_an_older_release_is_migrated(world: World, here: Here) -> None:
    snapshot_of(world).parent.mkdir()
    with gzip.open(PROJECT / "tests" / "warehouse_v1" / "warehouse.duckdb.gz") as old:
        snapshot_of(world).write_bytes(old.read())
    before = relations(snapshot_of(world))
    code, _, err = here("restore")
    assert (code, err) == (0, "")
    after = relations(world.database.path)
    for table in ("daily_sessions", "daily_totals", "weekly_sessions", "enterprise_sessions"):
        assert after[table] == before[table] != []
    assert after["session_grid"] != []


def test_an_intact_warehouse_is_left_alone_and_a_damaged_copy_set_aside(loaded: World, here: Here) -> None:
    before = loaded.database.path.read_bytes()
    damage_rows(snapshot_of(loaded), CELLS)
    code, out, _ = here("restore")
    assert code == 0
    assert "Nothing to restore: all of the warehouse" in out
    assert "The published copy is damaged (IO Error: Corrupt database file" in out
    assert loaded.database.path.read_bytes() == before
    assert devin_sessions("backfill", FIRST, LAST)[0] == 0
    assert all_of(snapshot_of(loaded)) == all_of(loaded.database.path)


def test_if_nothing_is_published_nothing_is_changed(loaded: World, here: Here) -> None:
    blank(loaded.database.path)
    shutil.rmtree(snapshot_of(loaded).parent)
    code, _, err = here("restore")
    assert code == exit_codes.MISSING
    assert "can't be restored" in err and "devin-sessions backfill --missing" in err
    assert loaded.database.path.read_bytes() == b""
    assert asides(loaded) == []


@dataclass(frozen=True)
class Impatient(Database):
    """A database whose lock is waited for only briefly."""

    lock_timeout_seconds: float = 0.2


def test_a_restore_waits_for_a_run_that_has_the_file_open_and_then_reports_it(loaded: World, here: Here) -> None:
    path = loaded.database.path
    shutil.rmtree(snapshot_of(loaded).parent)  # a file that is locked must not be taken for one that is damaged
    loaded.environment.setattr("pipelines.settings.Database", Impatient)
    with another_process() as other:
        assert other.open(path) == "done"
        code, _, err = here("restore")
    assert code == exit_codes.MISSING
    assert f"The warehouse {path} is locked by another process, and still was after 0.2 s" in err


def test_a_restore_that_was_killed_between_its_last_steps_is_completed_by_the_next(loaded: World, here: Here) -> None:
    path = loaded.database.path
    before = all_of(path)
    spoil_keys(path)
    killed = path.with_name(f"{path.name}.damaged-20250101T000000")
    killed.hardlink_to(path)  # all that it had done, except the last step
    code, _, err = here("restore")
    assert (code, err) == (0, "")
    assert all_of(path) == before
    assert len(asides(loaded)) == 1 and not killed.exists()


def test_a_restore_that_is_killed_leaves_the_old_file_or_the_new(loaded: World, here: Here) -> None:
    path = loaded.database.path
    before = all_of(path)
    damage_rows(path, CELLS)
    damaged = path.read_bytes()
    command = Command(("restore",), os.environ, loaded.directory / "output")
    while not list(loaded.directory.glob(".restoring-*/new.duckdb")) and command.is_running(0.001):
        pass
    command.kill()
    command.ended()
    assert path.read_bytes() == damaged or all_of(path) == before
    code, _, err = here("restore")
    assert (code, err) == (0, "")
    assert all_of(path) == before


def test_a_warehouse_on_a_server_is_restored_from_its_own_backup(
    world: World, here: Here, postgresql: PostgreSQL
) -> None:
    world.configure(warehouse_url=postgresql.database())
    code, _, err = here("restore")
    assert code == exit_codes.MISSING
    assert "is on a server. Restore it from your own backup, such as one made with pg_dump" in err


def test_query_and_backfill_report_a_damaged_file_and_the_command_that_restores_it(loaded: World, here: Here) -> None:
    damage_rows(loaded.database.path, CELLS)
    damage_rows(snapshot_of(loaded), CELLS)
    for path, command in (
        (snapshot_of(loaded), ["query", "select sum(sessions_count) from daily_sessions"]),
        (loaded.database.path, ["backfill", FIRST, LAST, "--refresh"]),
    ):
        code, _, err = here(*command)
        assert code == exit_codes.MISSING
        assert f"The DuckDB file {path} is damaged (IO Error: Corrupt database file" in err
        assert "devin-sessions restore" in err
