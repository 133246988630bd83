"""Measures the nightly run on top of a long history."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from resources.database import Database
from tests.bench import databases
from tests.bench.processes import Failed, end_of_output, started
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, spread
from tests.bench.world import World
from warehouse import tables


@dataclass(frozen=True)
class _Night:
    """One nightly run: seconds of the whole process and of publishing, and how many counts are wrong afterwards."""

    seconds: float
    publishing: float
    wrong: int

    @property
    def rest(self) -> float:
        """Seconds of everything but publishing."""
        return self.seconds - self.publishing


def nightly(sizes: Sizes) -> list[Row]:
    """One day of some organizations on top of a long history, and on top of nothing, in turn."""
    first_night = datetime.now(UTC).date() - timedelta(sizes.times)
    world = World(sizes.nightly, sizes.times, seed=sizes.seed, first_day=str(first_night))
    rows = []
    for kind in databases.DATABASES:
        history = databases.history(kind, sizes.history, sizes.times, sizes.seed)
        over, alone = [], []
        with Source(world, latency=0) as it:
            for day in world.dates:
                with databases.empty(kind) as database:
                    alone.append(_night(day, database.url, it))
                over.append(_night(day, history.url, it))
        what = f"nightly run, {sizes.nightly} orgs, over {history.cells:,} cells ÷ over none, {kind}"
        of_kind = [_nights(what, 1.25, [night.rest for night in over], [night.rest for night in alone])]
        if history.is_published:
            of_kind[0].what += ", without publishing"
            of_kind.append(_nights(what, 2.0, [night.seconds for night in over], [night.seconds for night in alone]))
            of_kind[1].notes.append(f"publishing the history, s: {spread([night.publishing for night in over])}")
        for row in of_kind:
            row.is_wrong = any(night.wrong for night in (*over, *alone))
        rows += of_kind
    return rows


def _night(day: date, url: str, it: Source) -> _Night:
    settings = {
        "WAREHOUSE_URL": url,
        "DEVIN_START_DATE": str(databases.FIRST_DAY),
        "DEVIN_ORG_IDS": ",".join(it.world.org_ids),
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        began = time.perf_counter()
        with started(["-m", "pipelines", "backfill", str(day), str(day)], directory, it.url, more=settings) as process:
            process.wait()
            seconds = time.perf_counter() - began
        if process.returncode:
            raise Failed(f"exit code {process.returncode}: {end_of_output(directory)}")
        publishing = _seconds_of_step(directory / "dagster", "published_snapshot")
    return _Night(seconds, publishing, _wrong_cells(url, day, it.world))


def _nights(what: str, limit: float, over: Sequence[float], alone: Sequence[float]) -> Row:
    ratio = statistics.median(over) / statistics.median(alone)
    notes = [f"over the history, s: {spread(over)}", f"over none, s: {spread(alone)}"]
    return Row(what, f"≤ {limit:.2f}", f"{ratio:.2f}", ratio <= limit, notes)


def _wrong_cells(url: str, day: date, world: World) -> int:
    """How many counts of this day are missing, extra or different from the world."""
    number = world.dates.index(day)
    true = {org_id: row[number] for org_id, row in zip(world.org_ids, world.counts, strict=True)}
    cells = tables.daily_sessions.c
    with Database(url=url).transaction(read_only=True) as connection:
        stored = connection.execute(sa.select(cells.org_id, cells.sessions_count).where(cells.day == day)).all()
    return len({id_ for id_, _ in {tuple(row) for row in stored} ^ true.items()})


def _seconds_of_step(dagster_home: Path, step: str) -> float:
    """Seconds that this step of the only run took, according to Dagster; 0 if the run has no such step."""
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        (run,) = instance.get_runs()
        of_step = instance.get_run_step_stats(run.run_id, [step])
        return sum(stats.end_time - stats.start_time for stats in of_step if stats.end_time and stats.start_time)
