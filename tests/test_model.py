"""Any order of loads, changes at the API, refusals, kills and settings leaves the warehouse equal to a model.

The model is a few dictionaries: what each reading should have stored, and every change to it.
"""

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipelines.command import runs
from pipelines.command.restore import restore
from pipelines.definitions import definitions_for
from pipelines.loading.counted_ids import LIST_IS_WHOLE
from pipelines.loading.progress import Progress
from pipelines.names import JOB
from pipelines.schedules import range_tags
from pipelines.settings import Settings
from resources.database import Database
from resources.sandbox.contract import ORGANIZATIONS_PATH, SESSIONS_PATH
from resources.sandbox.faults import Fault
from resources.sandbox.logged_request import LoggedRequest
from tests.faults.cases import make_source
from tests.faults.oracle import Cell, Stored
from tests.support.examples import examples
from tests.support.forks import Command
from warehouse.dimensions import ORGANIZATIONS

DAYS = 14
STEPS = 10 if "EXAMPLES" in os.environ else 6  # `make proof` sets it

ranges_of_days = st.tuples(st.integers(0, DAYS - 1), st.integers(0, DAYS - 1)).map(sorted)
organizations = st.integers(0, 4)


class Warehouse(RuleBasedStateMachine):
    """A warehouse, its API, and what should be stored."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="model-")
        self.environment = pytest.MonkeyPatch()
        self.last = datetime.now(UTC).date() - timedelta(days=1)
        self.days = [self.last - timedelta(days=n) for n in reversed(range(DAYS))]
        self.source = make_source(seed=3, days=DAYS, organizations=5)
        self.source.start()
        self.ids = [organization.org_id for organization in self.source.organizations]
        self.listed = dict.fromkeys(self.ids[:3], "as it is")
        self.chosen: list[str] = []
        self.refused: dict[str, Fault] = {}
        self.cells: dict[Cell, int] = {}
        self.totals: dict[date, int] = {}
        self.published: dict[Cell, int] = {}
        self.restored: dict[Cell, int] = {}
        self.history: dict[Cell, list[tuple[int, int]]] = {}
        self.is_behind = False
        self.commands = 0
        self.source.fail(rewrite=self._listing, path=ORGANIZATIONS_PATH, times=None)
        for name in Settings.model_fields:
            self.environment.setenv(name.upper(), "")
        for name, value in {
            "DEVIN_API_URL": self.source.url,
            "DEVIN_API_KEY": self.source.api_key,
            "DEVIN_MAX_TRIES": "1",
            "DEVIN_START_DATE": f"{self.days[0]}",
            "DEVIN_REPORT_PATH": "off",
            "WAREHOUSE_URL": self.url,
            "DAGSTER_HOME": f"{self.directory.name}/dagster",
        }.items():
            self.environment.setenv(name, value)
        self.instance = dg.DagsterInstance.ephemeral()

    def teardown(self) -> None:
        self.instance.dispose()
        self.source.stop()
        self.environment.undo()
        self.directory.cleanup()

    @property
    def url(self) -> str:
        return f"duckdb:///{self.directory.name}/warehouse/warehouse.duckdb"

    def _listing(self, asked: LoggedRequest, page: Any) -> Any:
        created_at = "2020-01-01T00:00:00Z"  # so that one listed late is missing on every day
        items = [{"org_id": org_id, "org_name": name, "created_at": created_at} for org_id, name in self.listed.items()]
        return {**page, "items": items, "total": len(items)}

    def truth(self, day: date, org_id: str | None = None) -> int:
        """What the API counts now."""
        start = datetime.combine(day, time(), UTC)
        return self.source.truth(start, start + timedelta(days=1), None if org_id is None else [org_id])

    def _read(
        self, days: list[date], *, refresh: bool
    ) -> tuple[dict[Cell, int], dict[date, int], set[date], set[date]]:
        """What a load should store: cells, totals, the days read, and those days whose total may be the earlier one."""
        cells, totals, read, either = dict(self.cells), dict(self.totals), set(), set()
        wanted = self.chosen or list(self.listed)
        for day in days:
            ids = [id_ for id_ in wanted if refresh or day not in self.totals or (day, id_) not in self.cells]
            if not ids:
                continue
            if not refresh and day in self.totals and set(ids) <= self.refused.keys():
                either.add(day)  # the load may learn that they are still refused without a request for this day
            read.add(day)
            totals[day] = self.truth(day)
            cells |= {(day, id_): self.truth(day, id_) for id_ in ids if id_ not in self.refused}
        return cells, totals, read, either

    def _settle(self, cells: dict[Cell, int], totals: dict[date, int], read: Iterable[date]) -> set[date]:
        """Count cells again where they exceed a newer total; returns the days on which they still do."""
        exceeding = set()
        for day in read:
            of_day = {id_ for of, id_ in cells if of == day}
            if sum(cells[day, id_] for id_ in of_day) > totals[day]:
                cells |= {(day, id_): self.truth(day, id_) for id_ in of_day - self.refused.keys()}
                if sum(cells[day, id_] for id_ in of_day) > totals[day]:
                    exceeding.add(day)
        return exceeding

    def _become(self, cells: dict[Cell, int], totals: dict[date, int]) -> None:
        for key, count in cells.items():
            if self.cells.get(key, count) != count:
                self.history.setdefault(key, []).append((self.cells[key], count))
        self.cells, self.totals = cells, totals

    def stored(self) -> Stored:
        """What the warehouse holds now."""
        return Stored(self.url, Path(self.directory.name, "copy.duckdb"))

    @initialize()
    def first_load(self) -> None:
        """Start with a warehouse that exists."""
        self.load([2, 9], refresh=False, publishes=False)

    @rule(between=ranges_of_days, refresh=st.booleans(), publishes=st.booleans())
    def load(self, between: list[int], refresh: bool, publishes: bool) -> None:
        """Load days, with or without what is downstream of them."""
        days = self.days[between[0] : between[1] + 1]
        cells, totals, read, either = self._read(days, refresh=refresh)
        progress, settings = Progress(), Settings.load()
        definitions = definitions_for(settings, progress)
        if publishes:
            runs.run_days(definitions, self.instance, progress, settings, ORGANIZATIONS, days, refresh=refresh)
        else:
            complete_before = None if refresh else days[-1] + timedelta(days=1)
            listed, counts = (dg.AssetKey(table.name) for table in (ORGANIZATIONS.listed, ORGANIZATIONS.cells))
            definitions.resolve_job_def(JOB).get_subset(
                asset_selection={listed, counts},
                asset_check_selection={dg.AssetCheckKey(listed, LIST_IS_WHOLE)},  # what comes before the counts
            ).execute_in_process(
                instance=self.instance,
                tags=range_tags(f"{days[0]}", f"{days[-1]}", complete_before),
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=False,
            )
        self.is_behind = not publishes
        stored = self.stored()
        for day in either & stored.totals.keys():
            if stored.totals[day] == self.totals[day]:
                totals[day] = self.totals[day]
                read.remove(day)
        exceeding = self._settle(cells, totals, read)
        self._become(cells, totals)
        wanted = self.chosen or list(self.listed)
        # A count refused in a refresh stays as it was stored; that reading lacks it.
        lacking = {
            day for day in days for id_ in wanted if (day, id_) not in self.cells or (refresh and id_ in self.refused)
        }
        assert progress.result.lacking.keys() == lacking
        assert bool(progress.result.contradictions) == bool(exceeding)
        assert all("are older than that total" in sentence for sentence in progress.result.contradictions)
        if publishes:
            self.published = dict(self.cells)

    @rule(between=ranges_of_days, question=st.integers(1, 40), refresh=st.booleans())
    def kill_in_the_middle(self, between: list[int], question: int, refresh: bool) -> None:
        """A load in a separate process is killed at a request, or ends before it."""
        days = self.days[between[0] : between[1] + 1]
        cells, totals, read, _ = self._read(days, refresh=refresh)
        settled = dict(cells)
        self._settle(settled, totals, read)
        reached = threading.Event()
        asked = iter(range(1, 100_000))

        def is_it(_: LoggedRequest) -> bool:
            if next(asked) != question:
                return False
            reached.set()
            return True

        fault = self.source.fail(delay=60, when=is_it, path=SESSIONS_PATH, times=None)
        self.source.faults.insert(0, self.source.faults.pop())  # before refusals
        self.commands += 1
        arguments = ("backfill", f"{days[0]}", f"{days[-1]}", *["--refresh"] * refresh)
        command = Command(arguments, os.environ, Path(self.directory.name, f"output-{self.commands}"))
        while command.is_running(0.005) and not reached.is_set():
            pass
        command.kill()
        command.ended()
        fault.heal()
        stored = self.stored()
        self.is_behind = True
        # Each day is entirely old or entirely new, and cells older than their total may or may not be counted again.
        for to_be in (cells, settled):
            is_new = {
                day
                for day in days
                if day in totals and self._of(day, stored.cells, stored.totals) == self._of(day, to_be, totals)
            }
            became = self.cells | {(day, id_): n for (day, id_), n in to_be.items() if day in is_new}
            self._become(became, self.totals | {day: totals[day] for day in is_new})
        snapshot = Path(self.directory.name, "warehouse", "published", "devin_sessions.duckdb")
        if snapshot.exists():
            published = Stored(f"duckdb:///{snapshot}", Path(self.directory.name, "copy.duckdb")).cells
            assert published in (self.published, self.cells)
            self.published = published

    @staticmethod
    def _of(day: date, cells: dict[Cell, int], totals: dict[date, int]) -> object:
        return totals.get(day), {id_: n for (of_day, id_), n in cells.items() if of_day == day}

    @rule(between=ranges_of_days, number=organizations, count=st.integers(1, 9))
    def sessions_come_late(self, between: list[int], number: int, count: int) -> None:
        for day in self.days[between[0] : between[1] + 1]:
            self.source.add_sessions(self.ids[number], datetime.combine(day, time(12), UTC), count)

    @rule(between=ranges_of_days, number=organizations)
    def sessions_are_deleted(self, between: list[int], number: int) -> None:
        first, last = (datetime.combine(self.days[day], time(), UTC) for day in between)
        self.source.remove_sessions(self.ids[number], first, last + timedelta(hours=12))

    @rule(number=organizations, name=st.sampled_from(["one name", "another name", "=HYPERLINK()"]))
    def organization_is_new_or_renamed(self, number: int, name: str) -> None:
        self.listed[self.ids[number]] = name

    @precondition(lambda self: len(self.listed) > 1)
    @rule(number=organizations)
    def organization_is_gone(self, number: int) -> None:
        self.listed.pop(self.ids[number], None)

    @precondition(lambda self: not self.refused)
    @rule(number=organizations, status=st.sampled_from([403, 404, 410]))
    def organization_is_refused(self, number: int, status: int) -> None:
        id_ = self.ids[number]
        self.refused[id_] = self.source.fail(status=status, org_id=id_, path=SESSIONS_PATH, times=None)

    @precondition(lambda self: self.refused)
    @rule()
    def organization_is_allowed_again(self) -> None:
        for fault in self.refused.values():
            fault.heal()
        self.refused.clear()

    @rule(
        fetch=st.sampled_from(["auto", "direct", "differenced"]),
        lookback=st.sampled_from([1, 3, 30]),
        chosen=st.sets(organizations, max_size=3),
    )
    def settings_change(self, fetch: str, lookback: int, chosen: set[int]) -> None:
        self.chosen = [self.ids[number] for number in sorted(chosen)]
        self.environment.setenv("DEVIN_FETCH", fetch)
        self.environment.setenv("DEVIN_LOOKBACK_DAYS", f"{lookback}")
        self.environment.setenv("DEVIN_ORG_IDS", ",".join(self.chosen))

    @precondition(lambda self: self.is_behind)
    @rule()
    def publish(self) -> None:
        """Rebuild only the rollups and the snapshot."""
        settings = Settings.load()
        outcome = runs.run_downstream(definitions_for(settings, Progress()), self.instance, settings, ORGANIZATIONS)
        assert outcome.failures == []
        self.is_behind = False
        self.published = dict(self.cells)

    @precondition(lambda self: not self.is_behind and self.cells != self.restored)
    @rule()
    def warehouse_is_lost_and_restored(self) -> None:
        """Everything is published, so everything can be restored."""
        path = Database(url=Settings.load().warehouse_url).path
        path.write_bytes(b"")
        restore(Settings.load())
        for aside in path.parent.glob(f"{path.name}.damaged-*"):
            aside.unlink()
        self.restored = dict(self.cells)

    @invariant()
    def warehouse_is_the_model(self) -> None:
        stored = self.stored()
        assert stored.cells == self.cells
        assert stored.totals == self.totals
        assert stored.grid == self.cells
        assert stored.doubled == []
        changes: dict[Cell, list[tuple[int, int]]] = {}
        for day, org_id, before, after in stored.revisions:
            changes.setdefault((day, org_id), []).append((before, after))
        assert changes == self.history
        sums = Counter({day: 0 for day in self.totals})
        for (day, _), count in self.cells.items():
            sums[day] += count
        verdicts = {
            day: "proven" if total == sums[day] else "unattributed" if total > sums[day] else "contradiction"
            for day, total in self.totals.items()
        }
        assert {day: verdict for day, verdict in stored.verdicts.items() if verdict != "not loaded"} == verdicts
        # Rollups are sums, and the snapshot is what was published.
        if not self.is_behind and self.cells:
            assert stored.rollup_differences() == []
            snapshot = Path(self.directory.name, "warehouse", "published", "devin_sessions.duckdb")
            copy = Path(self.directory.name, "copy.duckdb")
            assert Stored(f"duckdb:///{snapshot}", copy).cells == self.published


def test_the_warehouse_equals_its_model_after_each_kind_of_event() -> None:
    """One sequence with every kind of event, so that a few random sequences are enough for the rest."""
    machine = Warehouse()
    whole = [0, DAYS - 1]
    try:
        # Each step changes the API or the settings, then the warehouse.
        steps: list[list[Callable[[], Any]]] = [
            [machine.first_load],
            [
                lambda: machine.sessions_come_late([3, 8], number=0, count=5),
                lambda: machine.sessions_are_deleted([4, 6], number=1),
                lambda: machine.organization_is_refused(number=2, status=403),
                lambda: machine.load(whole, refresh=False, publishes=False),
            ],
            [
                lambda: machine.organization_is_new_or_renamed(number=3, name="one name"),
                lambda: machine.load(whole, refresh=True, publishes=False),
            ],
            [
                lambda: machine.sessions_come_late(whole, number=2, count=2),
                machine.organization_is_allowed_again,
                lambda: machine.load(whole, refresh=False, publishes=True),
            ],
            [
                lambda: machine.sessions_are_deleted([1, 12], number=3),
                lambda: machine.kill_in_the_middle(whole, question=20, refresh=True),
            ],
            [machine.publish],
            [machine.warehouse_is_lost_and_restored],
            [
                lambda: machine.settings_change("direct", lookback=1, chosen={1, 4}),
                lambda: machine.sessions_come_late(whole, number=4, count=3),
                lambda: machine.load([10, 11], refresh=True, publishes=False),
            ],
            [
                lambda: machine.settings_change("differenced", lookback=30, chosen=set()),
                lambda: machine.organization_is_gone(number=0),
                lambda: machine.load(whole, refresh=True, publishes=True),
            ],
        ]
        for step in steps:
            for event in step:
                event()
            machine.warehouse_is_the_model()
        assert machine.history
    finally:
        machine.teardown()


def test_the_warehouse_equals_its_model_after_any_sequence_of_events() -> None:
    run_state_machine_as_test(
        Warehouse,
        settings=examples(
            2,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
