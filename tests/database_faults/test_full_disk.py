"""What a full disk costs: one message, an exit code, nothing lost, nothing half-written.

Small disks are in-memory file systems. Where those may not be mounted, as in most containers, the tests that need one
are skipped.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipelines.command import exit_codes
from resources.database import Database
from resources.database_errors import WarehouseError
from tests.support.command import Here
from tests.support.disks import KB, Disk, disk_at
from tests.support.loads import fill, publish
from tests.support.published import has_no_temporary_files, snapshot_of, sums
from tests.support.servers import Server, as_administrator
from tests.support.world import World, total
from warehouse import migrations
from warehouse.snapshot import arrange


def test_a_block_that_does_not_fit_and_then_rollups_that_do_not_are_reported_and_written_by_the_same_command(
    world: World, here: Here, disk: Disk
) -> None:
    fill(world, "2025-04-01", "2025-04-03")
    publish(world)
    cells, before = world.cells(), sums(world)
    world.source.requests.clear()
    with disk.full(but_for=8 * KB):
        code, out, err = here("backfill", "2025-04-01", "2025-04-20")
    assert code == exit_codes.MISSING
    assert world.asked(), "the block was read"
    assert "0 of 17 days loaded" in out
    assert f"The disk of the warehouse {world.database.path} is full. What was being written is not stored" in err
    assert "Free some space and run the same command again." in err
    assert "Still to load: 2025-04-04…2025-04-20 (17 days)." in err
    assert (world.cells(), sums(world)) == (cells, before)

    with disk.full(but_for=640 * KB):
        code, out, err = here("backfill", "2025-04-01", "2025-04-20")
    assert world.cells() == world.truth("2025-04-01", "2025-04-20"), "what was stored is kept"
    now = total(world, "2025-04-01", "2025-04-20")
    for table, found in sums(world).items():
        is_published, is_rollup = table.startswith("published "), table != "daily_sessions"
        assert found == before[table] if is_published else found == now or (is_rollup and found == before[table]), table
    assert code == exit_codes.MISSING, err[:300]
    assert "17 of 17 days loaded" in out
    assert f"The disk of the warehouse {world.database.path} is full." in err

    code, out, err = here("backfill", "2025-04-01", "2025-04-20")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert sums(world) == dict.fromkeys(before, now)


def test_a_warehouse_that_does_not_fit_on_the_disk_is_created_by_the_same_command_once_there_is_room(
    world: World, here: Here, disk: Disk
) -> None:
    for but_for in (4 * KB, 64 * KB):
        with disk.full(but_for=but_for):
            code, _, err = here("backfill", "2025-04-01", "2025-04-03")
        assert code != 0
        assert "could not be created: its disk is full" in err or "is full" in err
    code, _, err = here("backfill", "2025-04-01", "2025-04-03")
    assert code == 0, err
    assert world.cells() == world.truth("2025-04-01", "2025-04-03")


def test_a_copy_without_room_for_the_checkpoint_is_reported_and_the_old_one_is_kept(
    tmp_path: Path,
) -> None:
    with disk_at(tmp_path / "disk") as disk:
        database, copy = Database(url=f"duckdb:///{disk.directory}/warehouse.duckdb"), disk.directory / "copy.duckdb"
        with database.transaction() as connection:
            connection.exec_driver_sql("create table numbers as select 1 as number")
        database.copy_to(copy)
        # As after a kill: stored, but only in the WAL beside the file.
        killed = (
            f"import duckdb, os; connection = duckdb.connect({str(database.path)!r}); "
            "connection.execute('insert into numbers select range from range(100)'); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", killed], check=True)
        with disk.full(), pytest.raises(WarehouseError, match=r"full|No space left") as unusable:
            database.copy_to(copy)
        assert "\n" not in str(unusable.value)
        for path, expected in ((copy, 1), (database.path, 101)):
            with duckdb.connect(str(path), read_only=True) as connection:
                assert connection.execute("select count(*) from numbers").fetchall() == [(expected,)]
        database.copy_to(copy)
        with duckdb.connect(str(copy), read_only=True) as connection:
            assert connection.execute("select count(*) from numbers").fetchall() == [(101,)]


def test_a_disk_with_room_for_a_copy_but_not_for_its_rows_in_order_keeps_the_old_snapshot(tmp_path: Path) -> None:
    database = Database(url=f"duckdb:///{tmp_path}/warehouse.duckdb")
    with database.transaction() as connection:
        migrations.migrate(connection)
    with disk_at(tmp_path / "disk") as disk:
        copy = disk.directory / "copy.duckdb"
        database.copy_to(copy, arrange)
        before = copy.read_bytes()
        with (
            disk.full(but_for=database.path.stat().st_size + 64 * KB),
            pytest.raises(
                WarehouseError, match=rf"The snapshot {copy} could not be written from a copy of the"
            ) as full,
        ):
            database.copy_to(copy, arrange)
        assert "is full" in str(full.value)
        assert [path.name for path in disk.directory.iterdir()] == [copy.name]
        assert copy.read_bytes() == before
        database.copy_to(copy, arrange)


def in_parquet(world: World) -> dict[str, int]:
    """The number of sessions in the Parquet files of each table that has to add up to daily_sessions."""
    directory = snapshot_of(world).parent / "parquet"
    found: dict[str, int] = {}
    for path in sorted(directory.rglob("*.parquet")):
        table = pq.read_table(path)
        if "sessions_count" in table.column_names:
            name = path.parent.name if path.parent != directory else path.stem
            found[name] = found.get(name, 0) + sum(table.column("sessions_count").to_pylist())
    return {name: found[name] for name in ("daily_sessions", "weekly_sessions", "enterprise_sessions")}


def test_a_snapshot_and_then_a_parquet_file_that_does_not_fit_is_reported_and_written_by_the_same_command(
    world: World,
    here: Here,
) -> None:
    published = world.directory / "published"
    with disk_at(published) as disk, disk_at(published / "parquet", "size=1m") as disk_of_parquet:
        fill(world, "2025-04-01", "2025-04-03")
        publish(world)
        before, parquet_before = sums(world), in_parquet(world)
        now = total(world, "2025-04-01", "2025-04-05")
        with disk.full(but_for=snapshot_of(world).stat().st_size // 2):
            code, out, err = here("backfill", "2025-04-01", "2025-04-05")
        assert code == exit_codes.MISSING
        assert "2 of 2 days loaded" in out
        assert f"The snapshot {snapshot_of(world)} could not be written: No space left on device." in err
        assert "The last one is kept." in err
        assert "run the same command again" in err
        assert sums(world) == {table: before[table] if table.startswith("published ") else now for table in before}
        assert has_no_temporary_files(published)

        with disk_of_parquet.full():
            code, out, err = here("backfill", "2025-04-01", "2025-04-05")
        assert code == exit_codes.MISSING
        assert "Nothing to do" in out
        assert f"The Parquet files beside {snapshot_of(world)} could not be written: No space left on device." in err
        assert "run the same command again" in err
        assert sums(world) == dict.fromkeys(before, now), "the snapshot is written"
        assert in_parquet(world) == parquet_before
        assert has_no_temporary_files(published)

        code, out, err = here("backfill", "2025-04-01", "2025-04-05")
        assert (code, err) == (0, "")
        assert in_parquet(world) == dict.fromkeys(parquet_before, now)


def test_a_block_that_does_not_fit_on_postgresqls_disk_is_reported_and_stored_by_the_same_command(
    world: World, here: Here, server: Server
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="tablespace-"))
    try:
        directory.chmod(0o755)
        with disk_at(directory, f"size=40m,uid={server.data.stat().st_uid},mode=0700") as disk:
            url = database_in_tablespace(server, directory)
            world.configure(warehouse_url=url)
            fill(world, "2025-04-01", "2025-04-03")
            publish(world)
            cells, before = world.cells(), sums(world)
            with disk.full():
                code, _, err = here("backfill", "2025-04-01", "2025-04-30")
            assert code == exit_codes.MISSING
            assert f"The disk of the warehouse {world.database.name} is full. What was being written is not" in err
            assert "Still to load: " in err
            assert cells.items() <= world.cells().items()
            loaded = {day for day, _ in world.cells()}
            assert len(world.cells()) == 5 * len(loaded), "no day is there in part"
            assert sums(world)["weekly_sessions"] in (before["weekly_sessions"], sum(world.cells().values()))

            code, _, err = here("backfill", "2025-04-01", "2025-04-30")
            assert code == 0, err
            assert world.cells() == world.truth("2025-04-01", "2025-04-30")
            assert set(sums(world).values()) == {total(world, "2025-04-01", "2025-04-30")}
            drop_tablespace(server, url)
    finally:
        directory.rmdir()


def database_in_tablespace(server: Server, directory: Path) -> str:
    url = sa.make_url(server.database())
    name = f"on_small_disk_{url.database}"
    for statement in (
        f"create tablespace small_disk location '{directory}'",
        f"create database {name} tablespace small_disk",
    ):
        as_administrator(url.render_as_string(hide_password=False), statement)
    return url.set(database=name).render_as_string(hide_password=False)


def drop_tablespace(server: Server, url: str) -> None:
    elsewhere = server.database()
    as_administrator(elsewhere, f"drop database {sa.make_url(url).database} with (force)")
    as_administrator(elsewhere, "drop tablespace small_disk")
