"""One case's sandbox, warehouse and Dagster home, and the oracle, which compares what is stored with the truth.

It reads the warehouse with its own SQL instead of the product's code.
"""

import os
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any, Literal

import duckdb
import sqlalchemy as sa

from resources.sandbox.server import Sandbox
from tests.faults.table import Verdict
from tests.support.forks import Command, Ended

DatabaseName = Literal["duckdb", "postgresql"]
Cell = tuple[date, str]

IMPATIENT = {"DEVIN_MAX_TRIES": "2", "DEVIN_TIMEOUT_SECONDS": "5", "DEVIN_PATIENCE_SECONDS": "3"}
"""Settings with which the command gives up on a permanent failure within seconds."""

# Captures the line after the indented ones: the exception.
_TRACEBACK = re.compile(r"^(?:Traceback|Exception ignored).*\n(?:[ \t].*\n|\n)*(.*)", re.MULTILINE)


class Stored:
    """What a warehouse holds about organizations, at the time of construction.

    Empty if there is no warehouse, or if it cannot be opened; `unreadable` then has the reason.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        self.cells: dict[Cell, int] = {}
        self.totals: dict[date, int] = {}
        self.verdicts: dict[date, str] = {}
        self.revisions: list[tuple[date, str, int, int]] = []
        self.rollups: dict[str, list[tuple[Any, ...]]] = {}
        self.grid: dict[Cell, int] = {}
        self.doubled: list[str] = []
        self.unreadable = ""
        path = sa.make_url(url).database
        if url.startswith("duckdb") and not (path and Path(path).exists()):
            return
        if url.startswith("duckdb"):
            # A copy, so that nothing is left open or locked here for the next command to run into.
            shutil.copyfile(str(path), scratch)
            wal = Path(f"{path}.wal")
            copied_wal = Path(f"{scratch}.wal")
            copied_wal.unlink(missing_ok=True)
            if wal.exists():
                shutil.copyfile(wal, copied_wal)
            url = f"duckdb:///{scratch}"
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        try:
            connection = engine.connect()
        except sa.exc.OperationalError as error:
            self.unreadable = str(error.orig)
            return
        with connection:
            there = set(connection.scalars(sa.text("select table_name from information_schema.tables")))
            if "reconciliation" in there:
                self._read(connection)

    def _read(self, connection: sa.Connection) -> None:
        def rows(sql: str) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.execute(sa.text(sql))]

        cells = [((day, org), n) for day, org, n in rows("select day, org_id, sessions_count from daily_sessions")]
        totals = rows("select day, sessions_count from daily_totals")
        self.doubled += [f"cell {key} is stored {n} times" for key, n in Counter(k for k, _ in cells).items() if n > 1]
        self.doubled += [
            f"total of {key} is stored {n} times" for key, n in Counter(d for d, _ in totals).items() if n > 1
        ]
        self.cells, self.totals = dict(cells), {day: count for day, count in totals}
        self.verdicts = {day: verdict for day, verdict in rows("select day, verdict from reconciliation")}
        self.revisions = [
            (day, org, before, after)
            for day, org, before, after in rows(
                "select day, org_id, previous_count, new_count from session_revisions order by revised_at"
            )
        ]
        self.rollups = {
            "weekly_sessions": rows("select week, org_id, sessions_count, days_loaded from weekly_sessions"),
            "monthly_sessions": rows("select month, org_id, sessions_count, days_loaded from monthly_sessions"),
            "enterprise_sessions": rows("select day, sessions_count, active_orgs from enterprise_sessions"),
        }
        grid = rows("select day, org_id, sessions_count from session_grid where sessions_count is not null")
        self.grid = {(day, org): n for day, org, n in grid}

    def reports(self, day: date) -> bool:
        """Whether the warehouse itself reports that the day's counts don't add up."""
        return self.verdicts.get(day) in ("contradiction", "unattributed")

    def rollup_differences(self) -> list[str]:
        """A sentence for each rollup that isn't the sum of the stored cells and totals."""

        def summed(first_day: Callable[[date], date]) -> list[tuple[Any, ...]]:
            sums: dict[tuple[date, str], list[int]] = defaultdict(list)
            for (day, org), count in self.cells.items():
                sums[first_day(day), org].append(count)
            return [(*key, sum(counts), len(counts)) for key, counts in sums.items()]

        active = Counter(day for (day, _), count in self.cells.items() if count)
        expected = {
            "weekly_sessions": summed(lambda day: day - timedelta(days=day.weekday())),
            "monthly_sessions": summed(lambda day: day.replace(day=1)),
            "enterprise_sessions": [(day, count, active[day]) for day, count in self.totals.items()],
        }
        return [
            f"{name} is not the sum of what is stored: {len(set(there) ^ set(expected[name]))} rows differ"
            for name, there in self.rollups.items()
            if Counter(there) != Counter(expected[name])
        ]

    def revision_differences(self) -> list[str]:
        """A sentence for each revision that doesn't lead, step by step, to the stored cells."""
        found = []
        last: dict[Cell, int] = {}
        for day, org, before, after in self.revisions:
            if before == after:
                found.append(f"revision of {day} {org} without a change")
            if last.get((day, org), before) != before:
                found.append(
                    f"revision of {day} {org} starts at {before}, but the previous one ended at {last[day, org]}"
                )
            last[day, org] = after
        found += [
            f"revisions of {key} end at {count}, but {self.cells.get(key)} is stored"
            for key, count in last.items()
            if self.cells.get(key) != count
        ]
        return found


class Stage:
    """Everything that one case uses, and in `verdict` what the oracle has found so far."""

    def __init__(
        self,
        verdict: Verdict,
        source: Sandbox,
        directory: Path,
        warehouse_url: str,
        days: int,
        settings: Mapping[str, str],
        version: Literal["v2", "v3"] = "v2",
    ) -> None:
        self.verdict, self.source, self.directory, self.warehouse_url = verdict, source, directory, warehouse_url
        self.version = version
        self.last = datetime.now(UTC).date() - timedelta(days=1)
        self.first = self.last - timedelta(days=days - 1)
        self.days = [self.first + timedelta(days=n) for n in range(days)]
        self.unlisted: set[str] = set()
        """Organizations that the API omits from its list: they may be missing on days whose verdict is unattributed."""
        self._earlier: list[dict[Cell, int]] = []
        self._settings = dict(settings)
        self._commands = 0
        self._began = time.monotonic()

    def environment(self, *, is_impatient: bool) -> dict[str, str]:
        """The whole environment of a command."""
        key = self.source.service_key if self.version == "v3" else self.source.api_key
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "DEVIN_API_URL": self.source.url,
            "DEVIN_API_KEY": key,
            "WAREHOUSE_URL": self.warehouse_url,
            "DAGSTER_HOME": str(self.directory / "dagster"),
            "DEVIN_START_DATE": f"{self.first}",
            "DEVIN_REPORT_PATH": "off",
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            **(IMPATIENT if is_impatient else {}),
            **self._settings,
        }

    def start(self, *arguments: str, is_impatient: bool = True, **variables: str) -> Command:
        """Start a command with extra environment `variables`, named in lower case."""
        self._commands += 1
        environment = self.environment(is_impatient=is_impatient)
        environment |= {name.upper(): value for name, value in variables.items()}
        return Command(arguments, environment, self.directory / f"output-{self._commands}")

    def sibling(self) -> "Stage":
        """A stage with the same sandbox but a separate warehouse and home, for a load that is not judged."""
        directory = self.directory / "sibling"
        directory.mkdir()
        url = f"duckdb:///{directory}/warehouse.duckdb"
        verdict = Verdict(self.verdict.family, self.verdict.name)
        return Stage(verdict, self.source, directory, url, len(self.days), self._settings, self.version)

    def wait_for_signal_handlers(self, command: Command) -> None:
        """Wait until the command has opened its output, and with that reset its signal handlers."""
        while not command.has_begun and command.is_running(0.005):
            pass

    def end(self, command: Command, what: str) -> Ended:
        """Wait for a command to end, and record in the verdict any traceback, or that it didn't end."""
        ended = command.ended()
        self.verdict.tracebacks += [
            f"{what}: {found[1][:200]}{ended.output[-600:]!r}" for found in _TRACEBACK.finditer(ended.output)
        ]
        if ended.code is None:
            where = ended.output[max(0, ended.output.rfind("Current thread")) :][:800]
            self.verdict.silent.append(f"{what} had not ended after {ended.seconds:.0f} s: {where}")
        return ended

    def run(self, *arguments: str, is_impatient: bool = True, **variables: str) -> Ended:
        """Run a command to its end."""
        return self.end(self.start(*arguments, is_impatient=is_impatient, **variables), arguments[0])

    @property
    def backfill(self) -> tuple[str, ...]:
        """The command that every case runs, without options."""
        return ("backfill", f"{self.first}", f"{self.last}")

    def truth(self) -> dict[Cell, int]:
        """Every cell, as the sandbox has it now."""
        return {
            (day, organization.org_id): self._count(day, [organization.org_id])
            for day in self.days
            for organization in self.source.organizations
        }

    def remember_truth(self) -> None:
        """Accept the current truth later too. Call this before changing it: it may have been read already."""
        self._earlier.append(self.truth())

    def forget_truths(self) -> None:
        """Accept only the current truth from now on."""
        self._earlier.clear()

    def _was_true(self, stored: Stored, key: Cell) -> bool:
        return any(truth[key] == stored.cells[key] for truth in self._earlier)

    def _total_was_true(self, stored: Stored, day: date) -> bool:
        return any(sum(n for (d, _), n in truth.items() if d == day) == stored.totals[day] for truth in self._earlier)

    def _count(self, day: date, org_ids: list[str] | None = None) -> int:
        start = datetime.combine(day, time_of_day(), UTC)
        return self.source.truth(start, start + timedelta(days=1), org_ids)

    def stored(self) -> Stored:
        """What the warehouse holds now."""
        return Stored(self.warehouse_url, self.directory / "copy.duckdb")

    def is_readable(self) -> bool:
        """Whether every stored cell can be read and is true."""
        try:
            return self.stored().cells == self.truth()
        except (sa.exc.DBAPIError, duckdb.Error):
            return False

    def judge(self, ended: Ended) -> None:
        """Judge a command that met a fault: what it stored, its exit code, and what `status` reports."""
        status = self.run("status", is_impatient=False)
        found, stored = self.verdict, self.stored()
        cells, totals = self.truth(), {day: self._count(day) for day in self.days}
        missing = [
            (day, org)
            for day, org in cells
            if (day, org) not in stored.cells and not (org in self.unlisted and stored.reports(day))
        ]
        incorrect = [
            f"{day} {org}: {stored.cells[day, org]} is stored, but {count} is true"
            for (day, org), count in cells.items()
            if stored.cells.get((day, org), count) != count
            and not stored.reports(day)
            and not self._was_true(stored, (day, org))
        ]
        incorrect += [
            f"{day}: the total {stored.totals[day]} is stored, but {count} is true"
            for day, count in totals.items()
            if stored.totals.get(day, count) != count
            and not stored.reports(day)
            and not self._total_was_true(stored, day)
        ]
        found.wrong += incorrect
        found.doubled += stored.doubled + stored.revision_differences()
        contradicted = [day for day, verdict in stored.verdicts.items() if verdict == "contradiction"]
        odd = [f"{len(missing)} cells are missing"] * bool(missing) + [
            f"{day} is contradicted" for day in contradicted[:1]
        ]
        odd += incorrect[:1]
        if ended.code == 0:
            found.lost += [f"{day} {org} is not stored after exit code 0" for day, org in missing]
            found.silent += [f"backfill: exit code 0, but {what}" for what in odd]
        if status.code == 0:
            found.silent += [f"status: exit code 0, but {what}" for what in odd]

    def judge_healed(self, *options: str) -> None:
        """Judge a repeat of the command without the fault: it must load everything, once and correctly."""
        ended = self.run(*self.backfill, *options, is_impatient=False)
        self.judge(ended)
        found, stored, truth = self.verdict, self.stored(), self.truth()
        if ended.code != 0:
            found.lost.append(f"exit code {ended.code} after healing: {ended.output[-300:]!r}")
        found.lost += [
            f"{day} {org} is not stored after healing" for day, org in truth if (day, org) not in stored.cells
        ]
        found.wrong += [
            f"{day} {org}: {stored.cells[day, org]} is stored after healing, but {count} is true"
            for (day, org), count in truth.items()
            if stored.cells.get((day, org), count) != count
        ]
        found.wrong += stored.rollup_differences()
        found.wrong += ["session_grid differs from daily_sessions"] * (stored.grid != stored.cells)
        found.wrong += [
            f"{day}: the verdict after healing is {stored.verdicts.get(day)}"
            for day in self.days
            if day in stored.totals and stored.verdicts.get(day) != "proven"
        ]
        found.wrong += self.published_differences(stored)

    def published_differences(self, stored: Stored) -> list[str]:
        """A sentence for each published copy, the snapshot and the Parquet files, that differs from what is stored."""
        if not self.warehouse_url.startswith("duckdb"):
            return []
        directory = Path(str(sa.make_url(self.warehouse_url).database)).parent / "published"
        snapshot = directory / "devin_sessions.duckdb"
        if not snapshot.exists():
            return ["there is no snapshot"]
        found = []
        if Stored(f"duckdb:///{snapshot}", self.directory / "copy.duckdb").cells != stored.cells:
            found.append("the snapshot differs from the warehouse")
        with duckdb.connect() as connection:
            files = f"{directory}/parquet/daily_sessions/**/*.parquet"
            try:
                rows = connection.execute("select day, org_id, sessions_count from read_parquet(?)", [files]).fetchall()
            except duckdb.Error as error:
                return [*found, f"the Parquet files cannot be read: {error}"]
        if {(day, org): count for day, org, count in rows} != stored.cells or len(rows) != len(stored.cells):
            found.append("the Parquet files differ from the warehouse")
        return found

    def close(self) -> None:
        """Record the calls and seconds that the case took."""
        self.verdict.calls = len(self.source.requests)
        self.verdict.seconds = time.monotonic() - self._began
