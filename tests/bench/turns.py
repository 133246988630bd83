"""Measures how runs and commands that ask at the same time keep to one limit, with a warehouse in DuckDB."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb

from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.bench import ui_runs
from tests.bench.processes import Failed, end_of_output, started
from tests.bench.sizes import Sizes
from tests.bench.table import Row
from tests.support import ui as dagster_ui

PER_MINUTE = 600
ORGANIZATIONS, DAYS = 8, 20
RANGES = [date(2025, month, 1) for month in (2, 4, 6)]
COMMAND = date(2025, 8, 1)


def turns(sizes: Sizes) -> list[Row]:
    """Three ranges that are launched in the UI of a stock install, and a command beside them."""
    asked: list[float] = []

    def log(request: LoggedRequest) -> bool:
        asked.append(time.monotonic())
        return False  # the fault itself never strikes

    with tempfile.TemporaryDirectory() as name, Sandbox(organizations=ORGANIZATIONS, seed=sizes.seed) as source:
        source.fail(status=500, when=log, times=None)
        directory = Path(name)
        settings = {
            "DEVIN_API_URL": source.url,
            "DEVIN_API_KEY": source.api_key,
            "DEVIN_HOME": name,
            "WAREHOUSE_URL": f"duckdb:///{name}/warehouse.duckdb",
            "DAGSTER_HOME": f"{name}/dagster",
            "DEVIN_START_DATE": "2025-01-01",
            "DEVIN_CATCH_UP_DAYS": "0",
            "DEVIN_FETCH": "direct",
            "DEVIN_REQUESTS_PER_MINUTE": f"{PER_MINUTE}",
        }
        with dagster_ui.dagster_ui(settings, subprocess.DEVNULL) as url:
            launched = [ui_runs.launch(url, first, _last(first)) for first in RANGES]
            arguments = ["-m", "pipelines", "backfill", f"{COMMAND}", f"{_last(COMMAND)}"]
            with started(arguments, directory, source.url, more=settings) as process:
                process.wait(ui_runs.PATIENCE_SECONDS)
            ui_runs.wait_until_loaded(url, launched)
        if "days loaded" not in end_of_output(directory):
            raise Failed(end_of_output(directory))
        wrong = _wrong(directory, source)
    what = f"3 ranges in the UI and a command, DuckDB, R = {PER_MINUTE}/min: questions in the fullest"
    gaps = sorted(later - earlier for earlier, later in pairwise(asked))[-4:]
    notes = [
        f"{len(asked):,} in {asked[-1] - asked[0]:.0f} s; longest pauses, s: {', '.join(f'{g:.1f}' for g in gaps)}"
    ]
    rows = [
        Row(f"{what} {seconds} s", f"≤ {limit}", f"{most}", most <= limit, notes)
        for seconds, limit in ((1, PER_MINUTE // 60), (60, PER_MINUTE))
        for most in [_fullest(asked, seconds)]
    ]
    rows[0].is_wrong = wrong > 0
    return rows


def _last(first: date) -> date:
    return first + timedelta(days=DAYS - 1)


def _fullest(moments: Sequence[float], seconds: float) -> int:
    """How many of these moments, in order, are within so many seconds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def _wrong(directory: Path, source: Sandbox) -> int:
    """How many days are missing, or have another sum than the source says."""
    with duckdb.connect(str(directory / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.execute("select day, sum(sessions_count) from daily_sessions group by day").fetchall()
    midnights = [
        datetime(first.year, first.month, first.day, tzinfo=UTC) + timedelta(days=number)
        for first in (*RANGES, COMMAND)
        for number in range(DAYS)
    ]
    true = {start.date(): source.truth(start, start + timedelta(days=1)) for start in midnights}
    return len({day for day, _ in {(day, int(total)) for day, total in rows} ^ true.items()})
