"""Measures what is lost when the process of one of several runs is killed, with a warehouse on PostgreSQL."""

import math
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from pipelines.loading.block_size import DAYS_PER_BLOCK
from pipelines.names import POOL
from resources.database import Database
from tests.bench import ui_runs
from tests.bench.calls import LATENCY
from tests.bench.databases import cells_wrong, empty
from tests.bench.processes import Failed, environment
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, describe, screen
from tests.bench.world import World
from tests.support import ui as dagster_ui
from warehouse import tables

RUNS = 4
COUNTED = (tables.daily_sessions, tables.daily_totals)


@dataclass(frozen=True)
class _Round:
    """What became of runs of which one may have been killed: `seconds` passed until it was started again."""

    wrong: int
    repeated: int
    calls: int
    seconds: float = 0.0


def kills(sizes: Sizes) -> list[Row]:
    """kill -9 of the process of one of several runs, each time at another moment and of another run."""
    world = sizes.world(sizes.runs_killed)
    dice = random.Random(sizes.seed)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        Source(world, latency=LATENCY) as it,
        empty("PostgreSQL") as database,
    ):
        more = {
            "DEVIN_HOME": name,
            "WAREHOUSE_URL": database.url,
            "DEVIN_START_DATE": f"{world.dates[0]}",
            "DEVIN_REPORT_PATH": "off",
            "DEVIN_FETCH": "direct",  # every block costs the same
            "DEVIN_CATCH_UP_DAYS": "0",
        }
        settings = environment(Path(name), it.url, more=more)
        with (
            dagster_ui.dagster_ui(settings, subprocess.DEVNULL) as url,
            dg.DagsterInstance.from_config(settings["DAGSTER_HOME"]) as instance,
        ):
            instance.event_log_storage.set_concurrency_slots(POOL, RUNS)
            together = _Together(world, it, database, url, Path(instance.root_directory))
            undisturbed = together.load()
            found = [together.load(dice) for _ in range(sizes.kills)]
    what = f"kill -9 of one of {RUNS} runs, {describe(world)}, worst of {sizes.kills} moments"
    wrong = max(one.wrong for one in [undisturbed, *found])
    block = undisturbed.calls / RUNS / math.ceil(world.days / RUNS / DAYS_PER_BLOCK)
    repeated = max(one.repeated - undisturbed.repeated for one in found) / block
    seconds = max(one.seconds for one in found)
    notes = [f"{one.repeated:,} calls repeated, started again after {one.seconds:.0f} s" for one in found]
    return [
        Row(f"{what}: cells lost, doubled or wrong", "0", f"{wrong}", wrong == 0, notes, is_wrong=wrong > 0),
        # A block, and the totals of the next, which are asked while it is stored.
        Row(f"{what}: calls repeated ÷ calls of a block", "≤ 1.12", f"{repeated:.2f}", repeated <= 1.12),
        Row(f"{what}: seconds until it was started again", "≤ 30", f"{seconds:.0f}", seconds <= 30),
    ]


@dataclass
class _Together:
    """Several runs that are launched at once in a UI, and load the whole world."""

    world: World
    source: Source
    database: Database
    url: str
    home: Path
    calls: int = 0

    def load(self, dice: random.Random | None = None) -> _Round:
        """Load the world into empty tables. With dice, kill one of the runs once it has been asking for a while."""
        with self.database.transaction() as connection:
            for table in COUNTED:
                connection.execute(sa.delete(table))
        self.source.reset()
        share = self.world.days // RUNS
        days = [self.world.dates[n * share : (n + 1) * share] for n in range(RUNS)]
        launched = [ui_runs.launch(self.url, of_run[0], of_run[-1]) for of_run in days]
        seconds = self._kill_one(launched, dice) if dice else 0.0
        ui_runs.wait_until_loaded(self.url, launched)
        seen = self.source.counters()
        self.calls = self.calls or seen.calls
        return _Round(cells_wrong(self.database, self.world), seen.repeated, seen.calls, seconds)

    def _kill_one(self, launched: Sequence[str], dice: random.Random) -> float:
        """Kill one of the runs that ask at a random moment. Returns the seconds until it was started again."""
        moment = dice.randrange(1, self.calls)
        while not self.source.wait_for_calls(moment, timeout=5):
            pass
        processes = dagster_ui.processes_of_runs(self.home)
        asking = [run_id for run_id in launched if run_id in processes]
        if not asking:
            raise Failed(f"no run asks at call {moment:,} of {self.calls:,}")
        run_id = dice.choice(asking)
        os.kill(processes[run_id], signal.SIGKILL)
        killed_at = time.time()
        screen.print(f"  killed run {run_id[:8]} at call {moment:,} of {self.calls:,}", style="dim")
        until = killed_at + ui_runs.PATIENCE_SECONDS
        while time.time() < until:
            for run in ui_runs.runs(self.url):
                if run["parentRunId"] == run_id and run["startTime"]:
                    return float(run["startTime"]) - killed_at
            time.sleep(0.5)  # each look costs the UI some CPU, which the runs need
        raise Failed(f"run {run_id[:8]} was not started again")
