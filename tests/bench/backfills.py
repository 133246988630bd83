"""Measures whole backfills: how long they take, how much memory, and what a killed one repeats."""

import random
import resource
import signal
import tempfile
from pathlib import Path

from tests.bench.calls import LATENCY
from tests.bench.processes import Failed, Finished, backfill_arguments, checked, end_of_output, load, run, started
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, describe, spread
from tests.bench.world import World

# The README: a killed load repeats at most the calls of one block of this many days.
BLOCK_DAYS = 31


def backfill(sizes: Sizes) -> list[Row]:
    """The whole command with its defaults, including the start of Python and Dagster, beside the baseline."""
    world = sizes.world(sizes.whole)
    ours, theirs = _whole_loads(sizes)
    seconds, compared = [run.seconds for run in ours], [run.seconds for run in theirs]
    what = f"whole devin-sessions backfill, {describe(world)}, 50 ms"
    absolute = Row(f"{what}, s", "≤ 15", f"{min(seconds):.1f}", min(seconds) <= 15, [spread(seconds, ".1f")])
    ratio = min(seconds) / min(compared)
    relative = Row(
        f"{what} ÷ asyncio and httpx script",
        "≤ 0.50",
        f"{ratio:.2f}",
        ratio <= 0.5,
        [f"script: {min(compared):.1f} s, {spread(compared, '.1f')}; {theirs[0].seen.calls:,} calls"],
    )
    return [checked(absolute, ours), checked(relative, theirs)]


def _whole_loads(sizes: Sizes) -> tuple[list[Finished], list[Finished]]:
    """Backfills by the command and by the baseline, in turn, so that both see the same noise."""
    world = sizes.world(sizes.whole)
    ours, theirs = [], []
    with Source(world, latency=LATENCY) as it:
        for _ in range(sizes.times):
            ours.append(load(world, it))
            it.reset()
            with tempfile.TemporaryDirectory() as name:
                warehouse = str(Path(name) / "warehouse.duckdb")
                days = [str(world.dates[0]), str(world.dates[-1])]
                theirs.append(run(["-m", "tests.bench.baseline", it.url, *days, warehouse], Path(name), it))
    return ours, theirs


def memory(sizes: Sizes) -> list[Row]:
    """The command's peak memory, as reported by the kernel."""
    world = sizes.world(sizes.memory)
    # Until a child runs its own program it is a copy of this process, whose memory counts as its own.
    of_this = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with Source(world, latency=0) as it:
        run = load(world, it)
    row = Row(
        f"peak memory of devin-sessions backfill, {describe(world)}, MB",
        "≤ 500",
        f"{run.peak_mb:,.0f}" if run.peak_mb > of_this else f"below {of_this:,.0f}",
        run.peak_mb <= 500,
        [f"{run.seen.calls:,} calls in {run.seconds:.0f} s"],
    )
    return [checked(row, [run])]


def kill(sizes: Sizes) -> list[Row]:
    """The calls repeated when a load is killed at a random call and run again, relative to those of a block."""
    world = sizes.world(sizes.killed)
    dice = random.Random(sizes.seed)
    repeats, notes, runs = [], [], []
    with Source(world, latency=LATENCY) as it:
        undisturbed = load(world, it).seen.calls
        for _ in range(sizes.times):
            moment = dice.randrange(1, undisturbed)
            run = _killed_and_repeated(world, it, moment)
            repeats.append(run.seen.repeated)
            notes.append(
                f"killed at call {moment:,} of {undisturbed:,}: {run.seen.repeated:,} repeated, "
                f"{run.seen.calls - undisturbed:+,} calls in all"
            )
            runs.append(run)
    block = undisturbed * min(BLOCK_DAYS, world.days) / world.days
    ratio = max(repeats) / block
    row = Row(
        f"calls repeated after kill -9 ÷ calls of a block of {BLOCK_DAYS} days, {describe(world)}, worst",
        "≤ 1.00",
        f"{ratio:.2f}",
        ratio <= 1,
        notes,
    )
    return [checked(row, runs)]


def _killed_and_repeated(world: World, it: Source, moment: int) -> Finished:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        it.reset()
        with started(backfill_arguments(world), directory, it.url) as process:
            while not it.wait_for_calls(moment, timeout=5):
                if process.poll() is not None:
                    raise Failed(f"it ended before call {moment:,}: {end_of_output(directory)}")
            process.send_signal(signal.SIGKILL)
            process.wait()
        return run(backfill_arguments(world), directory, it)
