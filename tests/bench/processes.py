"""Runs the processes that the benchmark measures, and checks what they stored."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
from dotenv import dotenv_values

from tests.bench.source import KEY, PROJECT, Counters, Source
from tests.bench.table import Row
from tests.bench.world import World


@dataclass(frozen=True)
class Usage:
    """What a process took, as measured from outside; its CPU includes that of its children."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Finished(Usage):
    """A process of the project that ended."""

    seen: Counters
    wrong: int
    """Stored counts that are missing, extra or different from the world."""


class Failed(Exception):
    """A measured process did not do its job."""


def environment(
    directory: Path, url: str, connections: int | None = None, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """This process's environment without the user's settings, plus what the measurement needs."""
    names = {*dotenv_values(PROJECT / ".env"), *(name for name in os.environ if name.startswith("DEVIN_"))}
    return {
        **os.environ,
        **dict.fromkeys(names, ""),
        "DEVIN_API_URL": url,
        "DEVIN_API_KEY": KEY,
        "WAREHOUSE_URL": f"duckdb:///{directory}/warehouse.duckdb",
        "DAGSTER_HOME": str(directory / "dagster"),
        "DEVIN_MAX_CONNECTIONS": str(connections or ""),
        **(more or {}),
    }


def backfill_arguments(world: World) -> list[str]:
    """The arguments of Python for a backfill of the whole world."""
    return ["-m", "pipelines", "backfill", str(world.dates[0]), str(world.dates[-1])]


@contextmanager
def started(
    arguments: Sequence[str],
    directory: Path,
    url: str,
    connections: int | None = None,
    more: Mapping[str, str] | None = None,
) -> "Iterator[subprocess.Popen[bytes]]":
    """A Python process of the project, killed when the block ends if still running. Its output goes to `directory`."""
    with (directory / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=environment(directory, url, connections, more),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def measured(
    arguments: Sequence[str],
    directory: Path,
    url: str,
    connections: int | None = None,
    more: Mapping[str, str] | None = None,
) -> Usage:
    """Run a Python process to its end. Raises Failed unless it exits with 0."""
    began = time.perf_counter()
    with started(arguments, directory, url, connections, more) as process:
        # wait4 returns the usage of this child; getrusage would return the maximum over all children.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"exit code {process.returncode}: {end_of_output(directory)}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run(
    arguments: Sequence[str],
    directory: Path,
    source: Source,
    connections: int | None = None,
    more: Mapping[str, str] | None = None,
) -> Finished:
    """Run a process to its end, and compare what it stored with the world. Raises Failed unless it exits with 0.

    `seen` counts from the source's last reset.
    """
    usage = measured(arguments, directory, source.url, connections, more)
    return Finished(
        usage.seconds, usage.cpu_seconds, usage.peak_mb, source.counters(), _cells_wrong(directory, source.world)
    )


def load(
    world: World, source: Source, connections: int | None = None, more: Mapping[str, str] | None = None
) -> Finished:
    """Backfill the whole world into a new warehouse with the command, by default with its default connections."""
    source.reset()
    with tempfile.TemporaryDirectory() as name:
        return run(backfill_arguments(world), Path(name), source, connections, more)


def script(world: World, source: Source, *options: str) -> Finished:
    """Load the whole world into a new warehouse with the script in `baseline`."""
    source.reset()
    days = [str(world.dates[0]), str(world.dates[-1])]
    with tempfile.TemporaryDirectory() as name:
        arguments = ["-m", "tests.bench.baseline", source.url, *days, f"{name}/warehouse.duckdb", *options]
        return run(arguments, Path(name), source)


def end_of_output(directory: Path) -> str:
    """The end of what the process of this directory printed."""
    return (directory / "output.txt").read_text(errors="replace").strip()[-1500:]


def _cells_wrong(directory: Path, world: World) -> int:
    """How many cells and daily totals are missing from the warehouse, extra, or different from the world."""
    with duckdb.connect(str(directory / "warehouse.duckdb"), read_only=True) as connection:
        cells = connection.execute("select day, org_id, sessions_count from daily_sessions").fetchall()
        totals = connection.execute("select day, sessions_count from daily_totals").fetchall()
    stored = {(day, org_id): count for day, org_id, count in cells}
    true_totals = {day: sum(row[n] for row in world.counts) for n, day in enumerate(world.dates)}
    differing = dict(totals).items() ^ true_totals.items()
    return (
        len({key for key, _ in stored.items() ^ world.cells.items()})
        + len({day for day, _ in differing})
        + len(cells)
        - len(stored)
    )


def checked(row: Row, runs: Sequence[Finished]) -> Row:
    """The row, marked as wrong if a run stored a wrong count."""
    wrong = max(run.wrong for run in runs)
    return replace(row, is_wrong=True, notes=[*row.notes, f"{wrong:,} stored counts are wrong"]) if wrong else row
