"""Measures the CPU and the memory of a first night, and the CPU of each further call."""

import statistics
import tempfile
from pathlib import Path

from tests.bench.processes import checked, load, measured
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, spread
from tests.bench.world import World

_TIMES = 5  # as many as a quiet machine needs for a median that repeats


def night(sizes: Sizes) -> list[Row]:
    """One day of many organizations in a new home, beside a bare Dagster run, in turn."""
    times = 1 if sizes.times == 1 else _TIMES
    world = World(sizes.nightly, 1, seed=sizes.seed)
    runs, bare = [], []
    with Source(world, latency=0) as it:
        for _ in range(times):
            with tempfile.TemporaryDirectory() as name:
                bare.append(measured(["-m", "tests.bench.bare_run"], Path(name), it.url).cpu_seconds)
            runs.append(load(world, it, more={"DEVIN_FETCH": "direct"}))
    cpu, peaks = [run.cpu_seconds for run in runs], [run.peak_mb for run in runs]
    ratio = statistics.median(mine / other for mine, other in zip(cpu, bare, strict=True))
    what = f"first night, {sizes.nightly} orgs"
    return [
        checked(
            Row(
                f"{what}: CPU ÷ CPU of a Dagster run of one empty asset",
                "≤ 1.50",
                f"{ratio:.2f}",
                ratio <= 1.5,
                [f"CPU s: {spread(cpu)}", f"of a bare run: {spread(bare)}"],
            ),
            runs,
        ),
        Row(f"{what}: peak memory, MB", "≤ 220", f"{statistics.median(peaks):.0f}", statistics.median(peaks) <= 220),
        *(_per_call(sizes, times, way) for way in ("direct", "differenced")),
    ]


def _per_call(sizes: Sizes, times: int, way: str) -> Row:
    """The slope between a short and a long load of the same organizations."""
    orgs, days = sizes.whole
    slopes, runs = [], []
    short, long = World(orgs, days // 15, seed=sizes.seed), World(orgs, days, seed=sizes.seed)
    for _ in range(times):
        ends = []
        for world in (short, long):
            with Source(world, latency=0) as it:
                ends.append(load(world, it, more={"DEVIN_FETCH": way}))
        runs += ends
        calls = ends[1].seen.calls - ends[0].seen.calls
        slopes.append((ends[1].cpu_seconds - ends[0].cpu_seconds) / calls * 1000)
    slope = statistics.median(slopes)
    what = f"CPU for each call after the first {runs[0].seen.calls:,}, {way}, {orgs} orgs, ms"
    return checked(Row(what, "≤ 1.00", f"{slope:.2f}", slope <= 1, [spread(slopes)]), runs)
