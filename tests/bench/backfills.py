"""Measures whole backfills: how long they take, how much memory, and what a killed one repeats."""

import random
import resource
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.calls import LATENCY
from tests.bench.processes import (
    Failed,
    Finished,
    backfill_arguments,
    checked,
    end_of_output,
    load,
    run,
    script,
    started,
)
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, describe, spread
from tests.bench.world import World

# The README: a killed load repeats at most the calls of one block of this many days.
BLOCK_DAYS = 31


def backfill(sizes: Sizes) -> list[Row]:
    """The whole command with its defaults, including the start of Python and Dagster, beside two scripts."""
    world = sizes.world(sizes.whole)
    loads = _whole_loads(sizes)
    seconds = {who: [run.seconds for run in runs] for who, runs in loads.items()}
    fastest = {who: min(of_runs) for who, of_runs in seconds.items()}
    what = f"whole devin-sessions backfill, {describe(world)}, 50 ms"
    with_list = f"{what}, with the list of sessions"
    return [
        checked(
            Row(
                f"{what}, s", "≤ 15", f"{fastest['ours']:.1f}", fastest["ours"] <= 15, [spread(seconds["ours"], ".1f")]
            ),
            loads["ours"],
        ),
        _beside(what, "asyncio and httpx script", 0.5, fastest["ours"] / fastest["script"], loads["script"]),
        checked(
            Row(
                f"{with_list}, s",
                "≤ 7.8",
                f"{fastest['ours, list']:.1f}",
                fastest["ours, list"] <= 7.8,
                [f"{spread(seconds['ours, list'], '.1f')}; {loads['ours, list'][0].seen.calls:,} calls"],
            ),
            loads["ours, list"],
        ),
        _beside(
            with_list,
            "script that pages through the list and proves nothing",
            None,
            fastest["ours, list"] / fastest["script, list"],
            loads["script, list"],
        ),
    ]


def _beside(what: str, script: str, most: float | None, ratio: float, runs: Sequence[Finished]) -> Row:
    """How long the command took in relation to a script."""
    seconds = [run.seconds for run in runs]
    note = f"script: {min(seconds):.1f} s, {spread(seconds, '.1f')}; {runs[0].seen.calls:,} calls"
    return checked(
        Row(
            f"{what} ÷ {script}",
            f"≤ {most:.2f}" if most else "",
            f"{ratio:.2f}",
            ratio <= most if most else None,
            [note],
        ),
        runs,
    )


def _whole_loads(sizes: Sizes) -> dict[str, list[Finished]]:
    """Loads by the command and by the scripts, in turn, so that all see the same noise."""
    world = sizes.world(sizes.whole)
    loads: dict[str, list[Finished]] = {"ours": [], "script": [], "ours, list": [], "script, list": []}
    with (
        Source(world, latency=LATENCY) as it,
        Source(world, latency=LATENCY, lists_sessions=True) as listing,
    ):
        for _ in range(sizes.times):
            loads["ours"].append(load(world, it))
            loads["script"].append(script(world, it))
            loads["ours, list"].append(load(world, listing))
            loads["script, list"].append(script(world, listing, "--list"))
    return loads


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
