"""What can go wrong around a database, with real faults: one message, an exit code, nothing lost or half-written.

Read-only disks are in-memory file systems. Where those may not be mounted, as in most containers, the tests that need
one are skipped.
"""

import json
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from pipelines.command import dagster_home, exit_codes
from pipelines.home import PROJECT
from pipelines.names import JOB
from pipelines.schedules import range_tags
from resources.database import Database
from resources.database_errors import WarehouseError
from resources.sandbox.logged_request import LoggedRequest
from tests.support.begun import begin, wait_until_shown
from tests.support.command import Here, in_this_process
from tests.support.disks import Disk, disk_at
from tests.support.loads import fill, publish
from tests.support.ports import free_port
from tests.support.published import files_of, has_no_temporary_files, in_snapshot, snapshot_of, sums
from tests.support.servers import Server, as_administrator
from tests.support.waiting import wait_until
from tests.support.world import World, total

# Nothing can be written


def test_a_copy_to_a_read_only_disk_is_reported_and_the_old_one_is_kept(tmp_path: Path) -> None:
    database = Database(url=f"duckdb:///{tmp_path}/warehouse.duckdb")
    with disk_at(tmp_path / "disk") as disk:
        copy = disk.directory / "copy.duckdb"
        for number in (1, 2):
            with database.transaction() as connection:
                connection.exec_driver_sql(f"create table numbers_{number} (number integer)")
            if number == 1:
                database.copy_to(copy)
        before = copy.read_bytes()
        with disk.read_only(), pytest.raises(WarehouseError) as unusable:
            database.copy_to(copy)
        assert f"The snapshot {copy} could not be written: Read-only file system. The last one" in str(unusable.value)
        assert copy.read_bytes() == before


def test_a_warehouse_on_a_read_only_disk_can_be_read_and_a_backfill_says_why_it_cannot_write(
    world: World, here: Here, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(world, "2025-04-01", "2025-04-03")
    publish(world)
    kept = {path: path.read_bytes() for path in disk.directory.rglob("*") if path.is_file()}
    with disk.read_only():
        code, shown = in_this_process(capsys, world.environment, "query", "select count(*) from daily_sessions")
        assert (code, "15" in shown) == (0, True)
        code, shown = in_this_process(capsys, world.environment, "status")
        assert (code, "3 of" in shown) == (exit_codes.MISSING, True)
        code, _, err = here("backfill", "2025-04-01", "2025-04-05")
        assert code == exit_codes.WRONG_USE
        assert f"The warehouse {world.database.path} cannot be opened: " in err
        assert "Read-only file system" in err
    assert {path: path.read_bytes() for path in disk.directory.rglob("*") if path.is_file()} == kept


def test_a_warehouse_that_cannot_be_created_is_reported(world: World, here: Here, disk: Disk) -> None:
    with disk.read_only():
        code, out, err = here("backfill", "2025-04-01", "2025-04-02")
    assert code == exit_codes.MISSING
    assert f"The warehouse {world.database.path} cannot be opened: " in err
    assert "Read-only file system" in err
    assert "0 of 2 days loaded" in out
    assert "Still to load: 2025-04-01…2025-04-02" in err
    assert list(disk.directory.iterdir()) == []


def test_a_directory_without_permission_is_reported(world: World, here: Here) -> None:
    # Root may write everywhere, but nobody can in /proc.
    directory = Path("/proc/self") if os.geteuid() == 0 else world.directory / "locked"
    if os.geteuid():
        directory.mkdir()
        directory.chmod(stat.S_IRUSR | stat.S_IXUSR)
    world.configure(warehouse_url=f"duckdb:///{directory}/data/warehouse.duckdb")
    code, _, err = here("backfill", "2025-04-01", "2025-04-02")
    assert code == exit_codes.MISSING
    assert f"Cannot create directory {directory}/data: " in err
    assert "or set WAREHOUSE_URL to another path, and run the same command again." in err


def test_a_damaged_snapshot_is_reported_and_regenerated_by_the_same_command_once_it_is_moved_away(
    world: World, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(world, "2025-04-01", "2025-04-02")
    publish(world)
    snapshot_of(world).write_bytes(snapshot_of(world).read_bytes()[:5000])
    code, shown = in_this_process(capsys, world.environment, "query", "select count(*) from daily_sessions")
    assert code == exit_codes.MISSING
    assert str(snapshot_of(world)) in shown
    snapshot_of(world).rename(world.directory / "moved away")
    code, _, err = here("backfill", "2025-04-01", "2025-04-02")
    assert (code, err) == (0, "")
    assert in_snapshot(world, "select count(*) from daily_sessions") == [(10,)]


# PostgreSQL


class Gate:
    """Holds back every request about `since` or later until it is opened."""

    def __init__(self, world: World, since: datetime) -> None:
        self.since = since
        self.reached, self.opened = threading.Event(), threading.Event()
        world.source.fail(status=500, when=self.holds_up, times=None)

    def holds_up(self, asked: LoggedRequest) -> bool:
        if asked.start is not None and asked.start >= self.since:
            self.reached.set()
            assert self.opened.wait(60)
        return False


def test_a_server_restart_in_the_middle_of_a_block_costs_one_retry(world: World, server: Server) -> None:
    world.configure(warehouse_url=server.database())
    second_block = Gate(world, datetime(2025, 2, 1, tzinfo=UTC))
    command = begin(world, "backfill", "2025-01-01", "2025-02-04")
    assert second_block.reached.wait(60)
    wait_until_shown(world, "2025-01-31 stored")
    engine = sa.create_engine(world.settings.warehouse_url, poolclass=sa.NullPool)
    waits = (
        "select exists (select from pg_locks where not granted and relation = 'daily_totals'::regclass "
        "and database = (select oid from pg_database where datname = current_database()))"
    )
    connection = engine.connect()
    # The counts of the second block are written; its control totals wait here.
    connection.exec_driver_sql("lock table daily_totals in exclusive mode")
    second_block.opened.set()
    wait_until(lambda: connection.exec_driver_sql(waits).scalar_one(), "the second block is half-written")
    server.control("restart", "-m", "immediate")
    connection.invalidate()
    connection.close()
    ended = command.ended()
    assert (ended.code, ended.errors) == (0, "")
    assert "35 of 35 days loaded" in ended.output
    assert world.cells() == world.truth("2025-01-01", "2025-02-04")
    assert world.rows("select count(*) from daily_totals") == [(35,)]


@pytest.mark.parametrize("where", ["postgresql+psycopg://writer@127.0.0.1:{port}/sessions", "duckdb:///md:sessions"])
def test_a_server_that_is_down_is_reported(world: World, capsys: pytest.CaptureFixture[str], where: str) -> None:
    port = free_port()
    # DuckDB downloads its MotherDuck extension: the proxy makes that unreachable too.
    world.configure(
        warehouse_url=where.format(port=port), http_proxy=f"http://127.0.0.1:{port}", home=str(world.directory)
    )
    for command in (["status"], ["query", "select 1"], ["backfill", "2025-04-01", "2025-04-02"]):
        code, shown = in_this_process(capsys, world.environment, *command)
        assert code == exit_codes.WRONG_USE
        assert "The warehouse " in shown and " cannot be opened: " in shown
        assert shown.rstrip().endswith("Check WAREHOUSE_URL.")
        assert shown.count("\n") == 1, "one sentence"
    assert world.source.requests == []


def test_a_user_who_may_not_create_tables_is_reported(world: World, here: Here, server: Server) -> None:
    url = sa.make_url(server.database())
    as_administrator(url.render_as_string(hide_password=False), "create role visitor login")
    world.configure(warehouse_url=url.set(username="visitor").render_as_string(hide_password=False))
    code, _, err = here("backfill", "2025-04-01", "2025-04-02")
    assert code in (exit_codes.MISSING, exit_codes.WRONG_USE)
    assert "permission denied for schema public" in err
    assert "visitor" in err
    world.configure(warehouse_url=url.render_as_string(hide_password=False))
    fill(world, "2025-04-01", "2025-04-02")
    world.configure(warehouse_url=url.set(username="visitor").render_as_string(hide_password=False))
    for command in (["status"], ["backfill", "2025-04-01", "2025-04-02"], ["query", "select * from daily_sessions"]):
        code, _, err = here(*command)
        assert code in (exit_codes.MISSING, exit_codes.WRONG_USE)
        message = " ".join(err.split())
        assert "permission denied for table" in message, "hidden, not missing"


def test_a_read_only_server_is_reported_and_can_be_read(
    world: World, here: Here, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    # As on a replica, or where the administrator has stopped all writes.
    url = server.database(unprivileged=True)
    world.configure(warehouse_url=url)
    fill(world, "2025-04-01", "2025-04-02")
    as_administrator(url, f"alter database {sa.make_url(url).database} set default_transaction_read_only = on")
    code, shown = in_this_process(
        capsys, world.environment, "query", "select count(*) as n from daily_sessions", "--csv"
    )
    assert (code, shown) == (0, "n\n10\n")
    code, _, err = here("backfill", "2025-04-01", "2025-04-03")
    assert code in (exit_codes.MISSING, exit_codes.WRONG_USE)
    assert "accepts no writes" in " ".join(err.split())
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")


# Two runs at once


def test_a_run_that_dagsters_own_command_starts_beside_a_backfill_succeeds_and_counts_nothing_twice(
    world: World,
) -> None:
    with dagster_home.open_instance():
        pass
    tags = json.dumps(range_tags("2025-04-01", "2025-04-10"))
    dagster = Path(sys.executable).parent / "dagster"
    command = [str(dagster), "job", "execute", "-m", "pipelines.definitions", "-j", JOB, "--tags", tags]
    with subprocess.Popen(command, cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        wait_until(lambda: world.source.requests, "the run loads")
        ended = begin(world, "backfill", "2025-04-01", "2025-04-10", "--refresh").ended()
        said, _ = run.communicate(timeout=120)
    assert (run.returncode, ended.code) == (0, 0), said[-3000:] + ended.errors
    with dg.DagsterInstance.get() as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 2
    assert world.cells() == world.truth("2025-04-01", "2025-04-10")
    assert set(sums(world).values()) == {total(world, "2025-04-01", "2025-04-10")}
    assert files_of(world)
    assert has_no_temporary_files(world.directory / "published")
