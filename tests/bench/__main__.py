"""Measures what the project promises of its speed, and prints one table.

    python -m tests.bench [--quick] [--seed N] [NAME …]

Times depend on the machine, so they decide nothing: the exit code is 1 only if a row crashed or a stored count
is wrong.
"""

import argparse
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
from dotenv import dotenv_values
from rich.console import Console
from rich.table import Table

from tests.bench.source import KEY, Counters, Source, World

PROJECT = Path(__file__).resolve().parents[2]
CONNECTIONS = 16
LATENCY = 0.05
# The README: of a killed load, at most one block of so many days is asked twice.
BLOCK_DAYS = 31

screen = Console(stderr=True)


@dataclass(frozen=True)
class Sizes:
    """How much is asked. The targets are meant for the full sizes."""

    seed: int
    ratio: tuple[int, int] = (60, 365)
    whole: tuple[int, int] = (20, 365)
    memory: tuple[int, int] = (1000, 365)
    killed: tuple[int, int] = (20, 365)
    requests: int = 4000
    upserted: tuple[int, int] = (1000, 100)
    by_row: int = 1000
    history: int = 10_000_000
    nightly: int = 500
    shown: tuple[int, int] = (200, 16)
    times: int = 3

    def world(self, orgs_and_days: tuple[int, int], nonzero: float = 1 / 3) -> World:
        """The world of one measurement."""
        orgs, days = orgs_and_days
        return World(orgs, days, nonzero, self.seed)

    @classmethod
    def quick(cls, seed: int) -> "Sizes":
        """Small sizes, measured once: to see that everything works."""
        small = (10, 93)
        return cls(
            seed,
            ratio=(20, 93),
            whole=small,
            memory=(100, 93),
            killed=small,
            requests=1000,
            upserted=(100, 31),
            by_row=100,
            history=100_000,
            nightly=20,
            shown=(30, 5),
            times=1,
        )


@dataclass
class Row:
    """One line of the table. `is_met` is None where the target has no meaning."""

    what: str
    to_reach: str
    measured: str
    is_met: bool | None
    notes: list[str] = field(default_factory=list)
    is_wrong: bool = False


@dataclass
class Finished:
    """A process that came to its end, seen from outside."""

    seconds: float
    peak_mb: float
    seen: Counters
    wrong: int


class Failed(Exception):
    """A measured process did not do what it was started for."""


# --- processes ---


def _environment(
    folder: Path, url: str, connections: int | None, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """This process's environment, in which nothing of a user's settings is left but what the measurement needs."""
    names = {*dotenv_values(PROJECT / ".env"), *(name for name in os.environ if name.startswith("DEVIN_"))}
    return {
        **os.environ,
        **dict.fromkeys(names, ""),
        "DEVIN_API_URL": url,
        "DEVIN_API_KEY": KEY,
        "WAREHOUSE_URL": f"duckdb:///{folder}/warehouse.duckdb",
        "DAGSTER_HOME": str(folder / "dagster"),
        "DEVIN_MAX_CONNECTIONS": str(connections or ""),
        **(more or {}),
    }


def _backfill(world: World) -> list[str]:
    return ["-m", "pipelines", "backfill", str(world.dates[0]), str(world.dates[-1])]


@contextmanager
def _started(
    arguments: Sequence[str],
    folder: Path,
    url: str,
    connections: int | None = None,
    more: Mapping[str, str] | None = None,
) -> "Iterator[subprocess.Popen[bytes]]":
    """A Python process of the project, killed at the end if it still runs. Its output is in a file in `folder`."""
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=_environment(folder, url, connections, more),
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


def _run(arguments: Sequence[str], folder: Path, source: Source, connections: int | None = None) -> Finished:
    """Run to the end, and compare what is stored then with the world. Raises Failed if the exit code is not 0.

    What the source has seen is counted from its last reset on.
    """
    began = time.perf_counter()
    with _started(arguments, folder, source.url, connections) as process:
        # wait4 tells the usage of this one child, where getrusage would give the largest of all.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"exit code {process.returncode}: {_tail(folder)}")
    return Finished(seconds, usage.ru_maxrss / 1024, source.counters(), _cells_wrong(folder, source.world))


def _load(world: World, source: Source, connections: int | None = None) -> Finished:
    """A whole backfill of the world into a new warehouse, by the command; with its default of connections if None."""
    source.reset()
    with tempfile.TemporaryDirectory() as name:
        return _run(_backfill(world), Path(name), source, connections)


def _tail(folder: Path) -> str:
    return (folder / "output.txt").read_text(errors="replace").strip()[-1500:]


def _cells_wrong(folder: Path, world: World) -> int:
    """How many cells and days' totals are missing in the warehouse, not in the world, or of another count."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
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


def _ask(kind: str, source: Source, connections: int, requests: int) -> tuple[float, float]:
    """Requests per second as the source saw them, and the client's CPU in ms a request."""
    source.reset()
    arguments = ["-m", "tests.bench.client", kind, source.url, str(connections), str(requests), *source.world.org_ids]
    with tempfile.TemporaryDirectory() as name:
        with _started(arguments, Path(name), source.url) as process:
            process.wait()
        if process.returncode:
            raise Failed(f"exit code {process.returncode}: {_tail(Path(name))}")
        cpu_seconds = float(_tail(Path(name)))
    seen = source.counters()
    if seen.session_calls != requests:
        raise Failed(f"{seen.session_calls} requests arrived instead of {requests}")
    return requests / seen.seconds, cpu_seconds / requests * 1000


# --- wording ---


def _shape(world: World) -> str:
    shares = {1 / 3: "1/3", 1 / 8: "1/8"}
    return f"{world.orgs:,} orgs, {world.days} days, {shares[world.nonzero]} non-zero"


def _cells(world: World) -> int:
    return world.orgs * world.days


def _spread(values: Sequence[float], form: str = ".2f") -> str:
    if len(values) == 1:
        return f"once, {values[0]:{form}}"
    return f"median {statistics.median(values):{form}}, all " + ", ".join(f"{v:{form}}" for v in values)


def _judged(row: Row, runs: Sequence[Finished]) -> Row:
    """The row, marked wrong if a run stored anything wrong."""
    wrong = max(run.wrong for run in runs)
    return replace(row, is_wrong=True, notes=[*row.notes, f"{wrong:,} stored counts are wrong"]) if wrong else row


# --- the rows ---


def source(sizes: Sizes) -> list[Row]:
    """The stand-in itself, over bare sockets: it must not be what limits the others."""
    requests = sizes.requests * 5
    wall, of_core = [], []
    with Source(sizes.world((20, 365)), latency=0) as it:
        for _ in range(sizes.times):
            wall.append(_ask("bare", it, 64, requests)[0])
            of_core.append(requests / it.counters().cpu_seconds)
    return [
        Row(
            "the stand-in alone, requests per second of one core",
            "≥ 3,000",
            f"{max(of_core):,.0f}",
            max(of_core) >= 3000,
            [_spread(of_core, ",.0f"), f"64 bare connections saw {_spread(wall, ',.0f')} requests/s"],
        )
    ]


def calls(sizes: Sizes) -> list[Row]:
    """How many questions a cell costs. Calls of every kind count, the list of organizations included."""
    rows = []
    for nonzero, limit in ((1 / 3, 0.60), (1 / 8, 0.36)):
        world = sizes.world(sizes.ratio, nonzero)
        with Source(world, latency=0) as it:
            run = _load(world, it)
        ratio = run.seen.calls / _cells(world)
        row = Row(
            f"calls ÷ cells, {_shape(world)}",
            f"≤ {limit:.2f}",
            f"{ratio:.3f}",
            ratio <= limit,
            [f"{run.seen.calls:,} calls, {_cells(world):,} cells, {run.seen.repeated:,} asked twice"],
        )
        rows.append(_judged(row, [run]))
    return rows


def _whole_loads(sizes: Sizes) -> tuple[list[Finished], list[Finished]]:
    """Backfills by the command and by the baseline, in turn, so that both meet the same noise."""
    world = sizes.world(sizes.whole)
    ours, theirs = [], []
    with Source(world, latency=LATENCY) as it:
        for _ in range(sizes.times):
            ours.append(_load(world, it))
            it.reset()
            with tempfile.TemporaryDirectory() as name:
                warehouse = str(Path(name) / "warehouse.duckdb")
                days = [str(world.dates[0]), str(world.dates[-1])]
                theirs.append(_run(["-m", "tests.bench.baseline", it.url, *days, warehouse], Path(name), it))
    return ours, theirs


def asking(sizes: Sizes) -> list[Row]:
    """How well the connections are kept busy, from the first question about sessions to the last answer."""
    world = sizes.world(sizes.whole)
    with Source(world, latency=LATENCY) as it:
        runs = [_load(world, it, CONNECTIONS) for _ in range(sizes.times)]
    ratios = [run.seen.seconds / (run.seen.session_calls * LATENCY / CONNECTIONS) for run in runs]
    row = Row(
        f"time of asking ÷ (calls · latency ÷ connections), {_shape(world)}, {CONNECTIONS} connections, 50 ms",
        "≤ 1.30",
        f"{min(ratios):.2f}",
        min(ratios) <= 1.3,
        [
            _spread(ratios),
            f"{runs[0].seen.session_calls:,} calls in {min(run.seen.seconds for run in runs):.1f} s",
        ],
    )
    return [_judged(row, runs)]


def client(sizes: Sizes) -> list[Row]:
    """The two clients in turn, without latency: with it, waiting would hide what the faster one saves in CPU."""
    rates: dict[str, list[float]] = {"devin": [], "httpx": []}
    cpu: dict[str, list[float]] = {"devin": [], "httpx": []}
    with Source(sizes.world((20, 365)), latency=0) as it:
        for _ in range(sizes.times):
            for kind in rates:
                rate, spent = _ask(kind, it, 64, sizes.requests)
                rates[kind].append(rate)
                cpu[kind].append(spent)
    ratio = statistics.median(rates["devin"]) / statistics.median(rates["httpx"])
    return [
        Row(
            "requests/s of DevinClient ÷ of a plain httpx.AsyncClient, 64 connections, no latency (CPU alone)",
            "≥ 4.0",
            f"{ratio:.1f}",
            ratio >= 4,
            [
                f"{name}: {_spread(rates[kind], ',.0f')} requests/s; {statistics.median(cpu[kind]):.2f} ms CPU each"
                for kind, name in (("devin", "DevinClient"), ("httpx", "httpx"))
            ],
        )
    ]


def backfill(sizes: Sizes) -> list[Row]:
    """The whole command with its defaults, start of Python and Dagster included, beside the baseline."""
    world = sizes.world(sizes.whole)
    ours, theirs = _whole_loads(sizes)
    seconds, compared = [run.seconds for run in ours], [run.seconds for run in theirs]
    what = f"whole devin-sessions backfill, {_shape(world)}, 50 ms"
    absolute = Row(f"{what}, s", "≤ 15", f"{min(seconds):.1f}", min(seconds) <= 15, [_spread(seconds, ".1f")])
    ratio = min(seconds) / min(compared)
    relative = Row(
        f"{what} ÷ asyncio and httpx script",
        "≤ 0.50",
        f"{ratio:.2f}",
        ratio <= 0.5,
        [f"script: {min(compared):.1f} s, {_spread(compared, '.1f')}; {theirs[0].seen.calls:,} calls"],
    )
    return [_judged(absolute, ours), _judged(relative, theirs)]


def limit(sizes: Sizes) -> list[Row]:
    """A source that lets 200 requests a second through, which the job is not told."""
    allowed = 200
    world = sizes.world(sizes.ratio, 1 / 8)
    with Source(world, latency=LATENCY, limit=allowed) as it:
        run = _load(world, it)
    useful = run.seen.session_calls - run.seen.refused
    ratio = run.seen.seconds / (useful / allowed)
    refused = run.seen.refused / run.seen.calls
    what = f"source limited to {allowed}/s, {_shape(world)}"
    return [
        _judged(Row(f"{what}: counts that are wrong", "0", f"{run.wrong:,}", run.wrong == 0), [run]),
        Row(
            f"{what}: time ÷ (answered calls ÷ limit)",
            "≤ 1.25",
            f"{ratio:.2f}",
            ratio <= 1.25,
            [f"{useful:,} answered calls in {run.seen.seconds:.1f} s"],
        ),
        Row(f"{what}: 429s ÷ calls", "≤ 5 %", f"{refused:.1%}", refused <= 0.05, [f"{run.seen.refused:,} of them"]),
    ]


def memory(sizes: Sizes) -> list[Row]:
    """The most memory that the command ever held, as the kernel counted it."""
    world = sizes.world(sizes.memory)
    # Until a child runs its own program it is a copy of this process, whose memory counts as the child's.
    of_this = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with Source(world, latency=0) as it:
        run = _load(world, it)
    row = Row(
        f"peak memory of devin-sessions backfill, {_shape(world)}, MB",
        "≤ 500",
        f"{run.peak_mb:,.0f}" if run.peak_mb > of_this else f"below {of_this:,.0f}",
        run.peak_mb <= 500,
        [f"{run.seen.calls:,} calls in {run.seconds:.0f} s"],
    )
    return [_judged(row, [run])]


def kill(sizes: Sizes) -> list[Row]:
    """kill -9 at a random call, then the same command again: what is asked twice, in calls of one block."""
    world = sizes.world(sizes.killed)
    dice = random.Random(sizes.seed)
    repeats, notes, runs = [], [], []
    with Source(world, latency=LATENCY) as it:
        undisturbed = _load(world, it).seen.calls
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
        f"calls repeated after kill -9 ÷ calls of a block of {BLOCK_DAYS} days, {_shape(world)}, worst",
        "≤ 1.00",
        f"{ratio:.2f}",
        ratio <= 1,
        notes,
    )
    return [_judged(row, runs)]


def _killed_and_repeated(world: World, it: Source, moment: int) -> Finished:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        it.reset()
        with _started(_backfill(world), folder, it.url) as process:
            while not it.wait_for_calls(moment, timeout=5):
                if process.poll() is not None:
                    raise Failed(f"it ended before call {moment:,}: {_tail(folder)}")
            process.send_signal(signal.SIGKILL)
            process.wait()
        return _run(_backfill(world), folder, it)


def upsert(sizes: Sizes) -> list[Row]:
    """Many cells in one write, then the same once more, beside a statement for each row."""
    from tests.bench import warehouse  # here: see nightly

    orgs, days = sizes.upserted
    cells = f"{orgs * days:,} cells"
    rows = []
    for kind, share in (("DuckDB", 100), ("PostgreSQL", 10)):
        runs = [warehouse.upsert(kind, orgs, days, sizes.by_row) for _ in range(sizes.times)]
        first, again, by_row, at_once = (
            statistics.median(values)
            for values in zip(*((r.first, r.again, r.by_row, r.at_once) for r in runs), strict=True)
        )
        written = max(run.rows_written for run in runs)
        compared = Row(
            f"upsert of {cells} ÷ a statement a row, {kind}",
            f"≤ 1/{share}",
            f"1/{by_row / first:.0f}",
            by_row / first >= share,
            [
                f"{first:.2f} s; {_spread([run.first for run in runs])}",
                f"a statement a row {by_row:.1f} s, scaled from {sizes.by_row:,} rows; "
                f"{_spread([run.by_row for run in runs], '.1f')}; in one call of executemany {at_once:.1f} s",
            ],
        )
        reread = Row(
            f"re-read of {cells} that are unchanged ÷ the first load, {kind}",
            "≤ 1.00",
            f"{again / first:.2f}",
            again / first <= 1,
            [f"{again:.2f} s; {_spread([run.again for run in runs])}", f"{written:,} rows written"],
            is_wrong=written > 0,
        )
        rows += [compared, reread]
    return rows


@dataclass(frozen=True)
class _Night:
    """One nightly run: seconds of the whole process, those in which it published, and counts that are wrong then."""

    seconds: float
    publishing: float
    wrong: int

    @property
    def rest(self) -> float:
        """Seconds of all but publishing."""
        return self.seconds - self.publishing


def nightly(sizes: Sizes) -> list[Row]:
    """One day of some organizations on top of a long history of many, beside the same on top of nothing, in turn."""
    from tests.bench import warehouse  # here: it brings what no other row needs, and memory counts

    first_night = datetime.now(UTC).date() - timedelta(sizes.times)
    world = World(sizes.nightly, sizes.times, seed=sizes.seed, first_day=str(first_night))
    rows = []
    for kind in warehouse.DATABASES:
        history = warehouse.history(kind, sizes.history, sizes.times, sizes.seed)
        over, alone = [], []
        with Source(world, latency=0) as it:
            for day in world.dates:
                with warehouse.empty(kind) as database:
                    alone.append(_night(day, database.url, it))
                over.append(_night(day, history.url, it))
        what = f"nightly run, {sizes.nightly} orgs, over {history.cells:,} cells ÷ over none, {kind}"
        of_kind = [_nights(what, 1.25, [night.rest for night in over], [night.rest for night in alone])]
        if history.is_published:
            of_kind[0].what += ", without publishing"
            of_kind.append(_nights(what, 2.0, [night.seconds for night in over], [night.seconds for night in alone]))
            of_kind[1].notes.append(f"publishing the history, s: {_spread([night.publishing for night in over])}")
        for row in of_kind:
            row.is_wrong = any(night.wrong for night in (*over, *alone))
        rows += of_kind
    return rows


def _night(day: date, url: str, it: Source) -> _Night:
    from tests.bench import warehouse  # here: see nightly

    settings = {
        "WAREHOUSE_URL": url,
        "DEVIN_START_DATE": str(warehouse.FIRST_DAY),
        "DEVIN_ORG_IDS": ",".join(it.world.org_ids),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        with _started(["-m", "pipelines", "backfill", str(day), str(day)], folder, it.url, more=settings) as process:
            process.wait()
            seconds = time.perf_counter() - began
        if process.returncode:
            raise Failed(f"exit code {process.returncode}: {_tail(folder)}")
        publishing = warehouse.seconds_of_step(folder / "dagster", "published_snapshot")
    return _Night(seconds, publishing, warehouse.wrong_cells(url, day, it.world))


def _nights(what: str, limit: float, over: Sequence[float], alone: Sequence[float]) -> Row:
    ratio = statistics.median(over) / statistics.median(alone)
    notes = [f"over the history, s: {_spread(over)}", f"over none, s: {_spread(alone)}"]
    return Row(what, f"≤ {limit:.2f}", f"{ratio:.2f}", ratio <= limit, notes)


def analysts(sizes: Sizes) -> list[Row]:
    """What analysts ask of the snapshot of a long history, each from opening it to the last row."""
    from tests.bench import warehouse  # here: see nightly

    history = warehouse.history("DuckDB", sizes.history, sizes.times, sizes.seed)
    seconds = {
        question: statistics.median(warehouse.answered(history.snapshot, sql) for _ in range(sizes.times))
        for question, sql in warehouse.questions(PROJECT / "docs" / "sql.md").items()
    }
    slowest = max(seconds.values())
    notes = [f"{took:.2f} s: {question}" for question, took in sorted(seconds.items(), key=lambda item: -item[1])]
    what = f"slowest question of an analyst, {history.cells:,} cells, DuckDB, s"
    return [Row(what, "≤ 1.0", f"{slowest:.2f}", slowest <= 1, notes)]


def ui(sizes: Sizes) -> list[Row]:
    """From `devin-sessions ui`, which is `make dev`, to what a person sees in the browser, over the demo."""
    from tests.support import ui  # here: it brings a browser, and the job itself
    from tests.support.browser import chromium

    days, organizations = sizes.shown
    over_the_demo = ui.load_the_demo(days, organizations)
    shown = {
        "the graph": ui.see_the_graph,
        "its boxes, green": ui.see_it_near,
        "a description beside it": ui.see_the_description,
        "plots by day": ui.see_the_plots,
        "five green checks": ui.see_the_checks,
    }
    seconds: dict[str, list[float]] = {}
    for _ in range(sizes.times):
        with chromium() as browser:
            page = ui.patient_page(browser, width=2400, height=1200)
            began = time.perf_counter()
            with ui.dagster_ui(over_the_demo, subprocess.DEVNULL) as url:
                for what, see in shown.items():
                    see(page, url)
                    seconds.setdefault(what, []).append(time.perf_counter() - began)
    last = statistics.median(list(seconds.values())[-1])
    notes = [f"{what}: {_spread(took, '.1f')}" for what, took in seconds.items()]
    return [
        Row(f"from devin-sessions ui to all that it shows of {days} days, s", "≤ 20", f"{last:.1f}", last <= 20, notes)
    ]


ROWS: dict[str, Callable[[Sizes], list[Row]]] = {
    row.__name__: row
    for row in (source, calls, asking, client, backfill, limit, memory, kill, upsert, nightly, analysts, ui)
}


def _measured(name: str, sizes: Sizes) -> tuple[list[Row], bool]:
    """The rows, and whether they are sound: no crash, nothing wrong in a warehouse."""
    began = time.monotonic()
    try:
        rows = ROWS[name](sizes)
    except Exception as error:
        screen.print(f"{name} failed:", style="red")
        screen.print(traceback.format_exc(), markup=False, highlight=False)
        return [Row(name, "", f"crashed: {type(error).__name__}", None, is_wrong=True)], False
    screen.print(f"{name}: {time.monotonic() - began:.0f} s", style="dim")
    return rows, not any(row.is_wrong for row in rows)


def _show(rows: Sequence[Row]) -> None:
    table = Table("what", "to reach", "measured")
    for row in rows:
        style = "red" if row.is_wrong else {True: "green", False: "yellow", None: ""}[row.is_met]
        table.add_row(row.what, row.to_reach, row.measured, style=style)
        for note in row.notes:
            table.add_row(f"  {note}", "", "", style="dim")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the promises of speed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ROWS)}; all, if none is given")
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes, once each; the targets are for the full ones"
    )
    parser.add_argument("--seed", type=int, default=1, help="for the world, and for the moments of killing")
    told = parser.parse_args()
    unknown = set(told.names) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    sizes = Sizes.quick(told.seed) if told.quick else Sizes(told.seed)
    results = [_measured(name, sizes) for name in told.names or ROWS]
    _show([row for rows, _ in results for row in rows])
    return 0 if all(is_sound for _, is_sound in results) else 1


if __name__ == "__main__":
    sys.exit(main())
