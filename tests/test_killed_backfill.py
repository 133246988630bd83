"""A backfill that is killed, or runs at the same time as another: the same command completes it."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tests.support.command import devin_sessions, start
from tests.support.held import Held
from tests.support.published import snapshot_of, sums
from tests.support.waiting import wait_until
from tests.support.world import World


@pytest.mark.parametrize(
    ("warehouse_url", "how"),
    [("duckdb", signal.SIGKILL), ("duckdb", signal.SIGINT), ("postgresql", signal.SIGKILL)],
    indirect=["warehouse_url"],
)
def test_after_a_kill_the_same_command_continues_where_it_stopped(each_world: World, how: signal.Signals) -> None:
    world = each_world
    third_block = Held(world, datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=62))
    process = start("backfill", "2025-01-01", "2025-04-01")
    assert third_block.reached.wait(60)
    # The third block is requested only after the second is complete, so both are stored once a day of the second is.
    assert process.stdout is not None
    stored = [next(process.stdout), next(process.stdout)]
    assert "2025-03-03 stored" in stored[1]
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "62 of 91 days loaded" in out
        assert "Interrupted. Still to load: 2025-03-04…2025-04-01" in err
    assert world.cells() == world.truth("2025-01-01", "2025-03-03")

    world.source.heal()
    world.source.requests.clear()
    code, out, err = devin_sessions("backfill", "2025-01-01", "2025-04-01")
    assert code == 0, err
    assert "29 of 29 days loaded" in out
    assert min(q.start for q in world.asked() if q.start) == third_block.since, "stored days are not requested again"
    assert world.cells() == world.truth("2025-01-01", "2025-04-01")
    assert {row[0] for row in world.rows("select day from enterprise_sessions")} == {d for d, _ in world.cells()}
    with dg.DagsterInstance.get() as instance:
        ended = [run.status for run in instance.get_runs()]
    status = dg.DagsterRunStatus
    expected = status.CANCELED if how is signal.SIGINT else status.FAILURE
    assert ended == [status.SUCCESS, expected], "no run appears to run for ever"


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a full pipe: a process that writes to it blocks."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b" " * 4096)
        os.set_blocking(writing, True)
        yield writing
    finally:
        os.close(writing)
        os.close(reading)


def test_the_same_command_builds_the_rollups_and_the_snapshot_that_a_kill_prevented(each_world: World) -> None:
    each_world.run("2025-04-01", "2025-04-03")
    before = sums(each_world)
    with full_pipe() as blocked:
        # It blocks when it has stored the days and prints that; rollups and snapshot come after that.
        process = start("backfill", "2025-04-01", "2025-04-05", stdout=blocked)
        wait_until(lambda: len(each_world.cells()) == 25, "the days are stored")
        process.kill()
        process.communicate(timeout=60)
    now = sum(each_world.truth("2025-04-01", "2025-04-05").values())
    assert sums(each_world) == before | {"daily_sessions": now}

    each_world.source.requests.clear()
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert sums(each_world) == dict.fromkeys(before, now)
    assert each_world.source.requests == []


def test_after_a_kill_during_the_snapshot_the_old_one_is_whole_and_the_same_command_makes_the_new_one(
    world: World,
) -> None:
    world.run("2025-04-01", "2025-04-03")
    before = sums(world)
    process = start("backfill", "2025-04-01", "2025-04-05")
    # A pipe in place of the unfinished copy: once it has data, copying has begun, and it can't hold the whole copy.
    snapshot = snapshot_of(world)
    unfinished = snapshot.with_name(f".{snapshot.name}.unfinished")
    os.mkfifo(unfinished)
    reading = os.open(unfinished, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([reading], [], [], 60)[0], "the snapshot is copied"
        process.kill()
        process.communicate(timeout=60)
    finally:
        os.close(reading)
    unfinished.unlink()
    unfinished.write_bytes(b"a part")
    now = sum(world.truth("2025-04-01", "2025-04-05").values())
    assert sums(world) == {table: before[table] if table.startswith("published ") else now for table in before}

    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert sums(world) == dict.fromkeys(before, now)
    assert not unfinished.exists()


def test_two_backfills_at_once_both_succeed_and_store_nothing_twice(each_world: World) -> None:
    both = [start("backfill", "2025-01-01", "2025-02-15") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    assert each_world.cells() == each_world.truth("2025-01-01", "2025-02-15")
    assert set(sums(each_world).values()) == {sum(each_world.cells().values())}
