"""Measures several runs at once with one key and one warehouse on PostgreSQL: whether they keep to one limit."""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.calls import LATENCY
from tests.bench.databases import cells_wrong, empty
from tests.bench.processes import Failed, end_of_output, started
from tests.bench.sizes import Sizes
from tests.bench.source import Counters, Source
from tests.bench.table import Row, describe
from tests.bench.world import World

RUNS = 4
CONNECTIONS = 16
PER_MINUTE = 600
PER_SECOND = 60


@dataclass(frozen=True)
class _Together:
    """What the source saw of runs that began together, and how many stored counts are wrong."""

    seconds: float
    seen: Counters
    wrong: int


def several(sizes: Sizes) -> list[Row]:
    """A limit that the settings state, and one that the source doesn't announce."""
    world = sizes.world(sizes.several)
    runs = f"{RUNS} runs at once, {describe(world)}"
    configured = _together(world, None, {"DEVIN_REQUESTS_PER_MINUTE": str(PER_MINUTE)})
    fullest = configured.seen.fullest_minute
    learned = _together(world, PER_SECOND, {})
    answered = learned.seen.calls - learned.seen.refused
    rate = answered / learned.seen.seconds
    return [
        Row(
            f"{runs}, R = {PER_MINUTE}/min: questions in the fullest 60 s",
            f"≤ {PER_MINUTE}, ≥ 570",
            f"{fullest:,}",
            570 <= fullest <= PER_MINUTE,
            [f"{configured.seen.calls:,} calls in {configured.seen.seconds:.1f} s"],
            is_wrong=configured.wrong > 0,
        ),
        Row(
            f"{runs}, source allows {PER_SECOND}/s unannounced: answers/s",
            "≥ 54",
            f"{rate:.1f}",
            rate >= 54,
            [f"{answered:,} answered calls in {learned.seen.seconds:.1f} s"],
            is_wrong=learned.wrong > 0,
        ),
        Row(f"{runs}, the same: 429s", "≤ 40", f"{learned.seen.refused}", learned.seen.refused <= 40),
    ]


def _together(world: World, limit: int | None, settings: dict[str, str]) -> _Together:
    with Source(world, latency=LATENCY, limit=limit) as it, empty("PostgreSQL") as database, ExitStack() as stack:
        more = {"WAREHOUSE_URL": database.url, "DEVIN_REPORT_PATH": "off", **settings}
        directories = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))) for _ in range(RUNS)]
        share, began = world.days // RUNS, time.perf_counter()
        running = []
        for n, directory in enumerate(directories):
            days = world.dates[n * share : (n + 1) * share]
            arguments = ["-m", "pipelines", "backfill", str(days[0]), str(days[-1])]
            running.append(stack.enter_context(started(arguments, directory, it.url, CONNECTIONS, more)))
        for process, directory in zip(running, directories, strict=True):
            if process.wait():
                raise Failed(f"exit code {process.returncode}: {end_of_output(directory)}")
        return _Together(time.perf_counter() - began, it.counters(), cells_wrong(database, world))
