"""A backfill that is killed, or runs at the same time as another: the same command completes it."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from resources.sandbox.server import Sandbox
from tests.support.begun import begin, wait_until_shown
from tests.support.command import Here, command_here
from tests.support.forks import Command
from tests.support.held import Held
from tests.support.loads import fill, publish
from tests.support.published import snapshot_of, sums
from tests.support.waiting import wait_until
from tests.support.world import World


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return command_here(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("warehouse_url", "how"),
    [("duckdb", signal.SIGKILL), ("duckdb", signal.SIGINT), ("postgresql", signal.SIGKILL)],
    indirect=["warehouse_url"],
)
def test_after_a_kill_the_same_command_continues_where_it_stopped(
    each_world: World, here: Here, how: signal.Signals
) -> None:
    world = each_world
    second_block = Held(world, datetime(2025, 2, 1, tzinfo=UTC))
    command = begin(world, "backfill", "2025-01-01", "2025-02-04")
    assert second_block.reached.wait(60)
    wait_until_shown(world, "2025-01-31 stored")
    command.send(how)
    ended = command.ended()
    assert "Traceback" not in ended.errors
    if how is signal.SIGINT:
        assert ended.code == 130
        assert "31 of 35 days loaded" in ended.output
        assert "Interrupted. Still to load: 2025-02-01…2025-02-04" in ended.errors
    assert world.cells() == world.truth("2025-01-01", "2025-01-31")

    world.source.heal()
    world.source.requests.clear()
    code, out, err = here("backfill", "2025-01-01", "2025-02-04")
    assert code == 0, err
    assert "4 of 4 days loaded" in out
    assert min(q.start for q in world.asked() if q.start) == second_block.since, "stored days are not requested again"
    assert world.cells() == world.truth("2025-01-01", "2025-02-04")
    assert {row[0] for row in world.rows("select day from enterprise_sessions")} == {d for d, _ in world.cells()}
    with dg.DagsterInstance.get() as instance:
        statuses = [run.status for run in instance.get_runs()]
    status = dg.DagsterRunStatus
    expected = status.CANCELED if how is signal.SIGINT else status.FAILURE
    assert statuses == [status.SUCCESS, expected], "no run appears to run for ever"


@contextmanager
def full_pipe(path: Path) -> Iterator[None]:
    """A full pipe at this path: a process that writes to it blocks."""
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b" " * 4096)
        yield
    finally:
        os.close(writing)
        os.close(reading)


def test_the_same_command_builds_the_rollups_and_the_snapshot_that_a_kill_prevented(
    each_world: World, here: Here
) -> None:
    fill(each_world, "2025-04-01", "2025-04-03")
    publish(each_world)
    before = sums(each_world)
    blocked = each_world.directory / "blocked"
    with full_pipe(blocked):
        # It blocks when it has stored the days and prints that; rollups and snapshot come after that.
        command = begin(each_world, "backfill", "2025-04-01", "2025-04-05", output=blocked)
        wait_until(lambda: each_world.asked() and len(each_world.cells()) == 10, "the days are stored")
        command.kill()
        assert command.is_running(60) is False
    now = sum(each_world.truth("2025-04-01", "2025-04-05").values())
    assert sums(each_world) == before | {"daily_sessions": now}

    each_world.source.requests.clear()
    code, out, err = here("backfill", "2025-04-01", "2025-04-05")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert sums(each_world) == dict.fromkeys(before, now)
    assert each_world.source.requests == []


def test_after_a_kill_during_the_snapshot_the_old_one_is_whole_and_the_same_command_makes_the_new_one(
    world: World, here: Here
) -> None:
    fill(world, "2025-04-01", "2025-04-03")
    publish(world)
    before = sums(world)
    # A pipe in place of the unfinished copy: once it has data, copying has begun, and it can't hold the whole copy.
    snapshot = snapshot_of(world)
    unfinished = snapshot.with_name(f".{snapshot.name}.unfinished")
    os.mkfifo(unfinished)
    reading = os.open(unfinished, os.O_RDONLY | os.O_NONBLOCK)
    command = begin(world, "backfill", "2025-04-01", "2025-04-05")
    try:
        assert select.select([reading], [], [], 60)[0], "the snapshot is copied"
    finally:
        command.kill()
        command.ended()
        os.close(reading)
    unfinished.unlink()
    unfinished.write_bytes(b"a part")
    now = sum(world.truth("2025-04-01", "2025-04-05").values())
    assert sums(world) == {table: before[table] if table.startswith("published ") else now for table in before}

    code, out, err = here("backfill", "2025-04-01", "2025-04-05")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert sums(world) == dict.fromkeys(before, now)
    assert not unfinished.exists()


def test_two_backfills_at_once_both_succeed_and_store_nothing_twice(each_world: World) -> None:
    arguments = ("backfill", "2025-01-01", "2025-02-04", "--refresh")
    # Not `begin`: each of the two may be the one that creates Dagster's home.
    outputs = [each_world.directory / name for name in ("one", "other")]
    both = [Command(arguments, os.environ, output) for output in outputs]
    for ended in [command.ended(120) for command in both]:
        assert ended.code == 0, ended.output
        assert "35 of 35 days loaded" in ended.output
        assert "Traceback" not in ended.output
    assert each_world.cells() == each_world.truth("2025-01-01", "2025-02-04")
    assert set(sums(each_world).values()) == {sum(each_world.cells().values())}
