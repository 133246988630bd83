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
from resources.intact import Reader
from tests.support.command import Here
from tests.support.forks import Command
from tests.support.loads import fill, publish
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
    """The files of three weeks that are loaded and published."""
    directory = tmp_path_factory.mktemp("three-weeks")
    with template_world(directory) as world:
        fill(world, FIRST, LAST)
        publish(world)
    return directory


@pytest.fixture
def loaded(world: World, three_weeks: Path) -> World:
    """A world of its own with those files."""
    shutil.copytree(three_weeks, world.directory, dirs_exist_ok=True)
    return world


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


def test_damage_of_every_kind_is_found(three_weeks: Path, tmp_path: Path) -> None:
    with Reader() as reader:
        for name, spoil in {"none": Path.touch, **DAMAGE}.items():
            if name != "gone":
                path = tmp_path / f"{name}.duckdb"
                shutil.copy(three_weeks / "warehouse.duckdb", path)
                spoil(path)
                assert bool(reader.read(path, with_keys=True).why) == (name != "none"), name


@pytest.mark.parametrize("damage", ["its counts", "gone"])
def test_a_restored_warehouse_is_what_it_was_before_the_damage_and_loads_further_days(
    loaded: World, here: Here, damage: str
) -> None:
    path = loaded.database.path
    before, mode = all_of(path), path.stat().st_mode
    DAMAGE[damage](path)
    damaged = path.read_bytes() if path.exists() else None
    code, out, err = here("restore")
    assert (code, err) == (0, "")
    assert f"Restored the warehouse {path} from " in out
    assert all_of(path) == before
    assert path.stat().st_mode == mode
    assert [file.read_bytes() for file in asides(loaded)] == ([damaged] if damaged is not None else [])
    if damage == "its counts":
        assert loaded.load("2025-02-11", "2025-02-12", judged=False).success
        assert loaded.cells() == loaded.truth(FIRST, "2025-02-12")


@pytest.mark.parametrize("damage", ["its keys", "a rollup"])
def test_days_read_after_the_copy_are_kept_if_only_keys_or_rollups_are_damaged(
    loaded: World, here: Here, damage: str
) -> None:
    path = loaded.database.path
    fill(loaded, "2025-02-11", "2025-02-12")
    before = all_of(path)
    DAMAGE[damage](path)
    damaged = path.read_bytes()
    code, out, err = here("restore")
    assert (code, err) == (0, "")
    assert "from its own rows, as of" in out
    assert all_of(path) == before
    assert [file.read_bytes() for file in asides(loaded)] == [damaged]
    assert loaded.load("2025-02-13", "2025-02-13", judged=False).success
    assert loaded.cells() == loaded.truth(FIRST, "2025-02-13")


def test_days_read_after_the_copy_are_listed_with_the_command_that_reads_them(loaded: World, here: Here) -> None:
    fill(loaded, "2025-02-11", "2025-02-12")
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


def test_a_file_from_before_a_table_was_renamed_becomes_a_current_warehouse(loaded: World, here: Here) -> None:
    path = loaded.database.path
    before = all_of(path)
    calendar = tables.select(tables.calendar).replace("expected_days", "history")
    with duckdb.connect(str(path)) as connection:
        drop_newer_than(4, connection)
        connection.execute("alter table expected_days rename to history")
        connection.execute(f"create or replace view calendar as {calendar}")
        connection.execute("update warehouse_version set version = 4")
    before["day_boundary"] = []  # the next load records it
    spoil_keys(path)
    code, out, err = here("restore")
    assert (code, err) == (0, "")
    assert f"Restored the warehouse {path} from its own rows" in out
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


def test_a_restored_file_that_cannot_be_read_replaces_nothing(
    loaded: World, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = loaded.database.path
    damage_rows(path, CELLS)
    damaged = path.read_bytes()
    monkeypatch.setattr("pipelines.command.restore.Database", OnFailingDisk)
    code, out, err = here("restore")
    assert (code, out) == (exit_codes.MISSING, "")
    assert "The restored file can't be read (IO Error: Corrupt database file" in " ".join(err.split())
    assert path.read_bytes() == damaged
    assert asides(loaded) == [] and not list(loaded.directory.glob(".restoring-*"))


def end_of_a_page(file: Path) -> int:
    """Where the last page of the first column ends: pages have checksums. Without rows, somewhere in the footer."""
    groups = pq.read_metadata(file)
    if not groups.num_rows:
        return file.stat().st_size // 3
    column = groups.row_group(0).column(0)
    first = column.dictionary_page_offset or column.data_page_offset
    return int(first + column.total_compressed_size - 1)


def damage_everything(world: World, names: list[str], copy_of: str | None) -> None:
    """Empty the warehouse, damage this table of its copy or else empty that too, and damage these Parquet files."""
    blank(world.database.path)
    if copy_of:
        damage_rows(snapshot_of(world), copy_of)
    else:
        blank(snapshot_of(world))
    for name in names:
        file = month_of(world, name) if name[0] == "2" else parquet_of(world) / f"{name}.parquet"
        flip_a_bit(file, end_of_a_page(file))


@pytest.mark.parametrize(
    ("copy_of", "names", "is_lost"),
    [
        (None, ["organizations", "session_revisions", "2025-01"], True),
        (None, ["daily_totals", "2025-02"], True),
        ("daily_totals", ["organizations", "session_revisions"], False),
        ("daily_totals", ["2025-01", "2025-02"], False),
        ("daily_totals", ["daily_totals"], True),
        (CELLS, ["organizations", "session_revisions", "daily_totals"], False),
        (CELLS, ["2025-01"], True),
    ],
)
def test_what_cannot_be_restored_is_reported_and_none_of_its_days_is_there_in_part_until_a_backfill_loads_it(
    loaded: World, here: Here, copy_of: str | None, names: list[str], is_lost: bool
) -> None:
    damage_everything(loaded, names, copy_of)
    code, out, err = here("restore")
    truth = loaded.truth(FIRST, LAST)
    assert code == (exit_codes.MISSING if is_lost else 0), (out, err)
    assert ("Could not be recovered: " in err) == is_lost
    assert {name for name in names if name in err} == set(names if is_lost else [])
    cells = loaded.cells()
    assert cells.items() <= truth.items()
    assert {day for day, _ in cells} == {day for (day,) in loaded.rows("select day from daily_totals")}
    assert len(cells) == 5 * len({day for day, _ in cells}), "no day is there in part"
    assert is_lost or cells == truth
    if is_lost and "organizations" in names:  # some days are gone
        assert loaded.load(FIRST, LAST, date(2025, 2, 11), judged=False).success
        assert loaded.cells() == truth
    elif copy_of is None or names == ["organizations", "session_revisions"]:  # all days are gone, and none
        code, _, err = here("backfill", FIRST, LAST)
        assert (code, err) == (0, "")
        assert loaded.cells() == truth
        assert len(set(sums(loaded).values())) == 1, "and everything is published again"


def test_a_copy_from_an_older_release_is_migrated(world: World, here: Here) -> None:
    snapshot_of(world).parent.mkdir()
    with gzip.open(PROJECT / "tests" / "warehouse_v1" / "warehouse.duckdb.gz") as old:
        snapshot_of(world).write_bytes(old.read())
    before = relations(snapshot_of(world))
    code, _, err = here("restore")
    assert (code, err) == (0, "")
    after = relations(world.database.path)
    assert [row[:-1] for row in after["daily_sessions"]] == before["daily_sessions"] != []
    assert {(row[3], row[-1]) for row in after["daily_sessions"]} == {(False, "asked"), (True, "derived")}
    for table in ("daily_totals", "weekly_sessions", "enterprise_sessions"):
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
    assert here("backfill", FIRST, LAST)[0] == 0
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
