"""One run's load: blocks of days asked, checked and stored one after the other, and what came of each day."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
import sqlalchemy as sa
from anyio.from_thread import BlockingPortal

from pipelines import collect, telemetry
from pipelines.compatibility import Incompatible, refuse_other_days, refuse_other_version
from pipelines.numbers import Numbers
from pipelines.partitions import Day, as_days, closed_days, spelled
from pipelines.progress import Progress
from pipelines.settings import Settings
from resources.database import Database, WarehouseUnusable
from resources.devin_api import ContractBroken, DevinAPI, DevinAPIError, DevinClient, Rejected, Unavailable
from resources.event_log import BatchingSqliteEventLogStorage
from warehouse import migrations, reads, writes
from warehouse.migrations import UnfitWarehouse
from warehouse.tables import Counted
from warehouse.writes import Changes

DAYS_PER_BLOCK = 31
ERRORS = collect.Errors(refusals=(Rejected,), passing=(Unavailable, ContractBroken))
# What somebody did lately says how likely quiet is; older days count less with each block.
REMEMBERED = timedelta(days=93)
FADING = 0.7

_ROOT_RUN = "dagster/root_run_id"


def load_partitions(
    counted: Counted,
    partitions: dg.DailyPartitionsDefinition,
    context: dg.AssetExecutionContext,
    settings: Settings,
    devin_api: DevinAPI,
    database: Database,
    progress: Progress,
) -> dg.MaterializeResult[None]:
    """What a run of the partitioned asset of `counted.cells` does: load the run's days, each whole or not at all."""
    days = as_days(partitions, context.partition_keys)
    load = Load(counted, context, settings, devin_api, database, progress)
    before = Numbers.of(progress)

    def begin(connection: sa.Connection) -> tuple[list[str], set[date]]:
        migrations.bring_forward(connection)
        refuse_other_days(reads.windows(connection, counted), partitions, settings)
        refuse_other_version(reads.api_versions(connection), devin_api.version_name, settings)
        writes.store_history(connection, settings.devin_start_date, closed_days(partitions)[-1])
        return reads.latest_listed(connection, counted), reads.days_of_runs(connection, counted, earlier_tries)

    try:
        earlier_tries = _earlier_tries(context)
        ids, loaded = database.write(begin)
        if not ids:
            raise dg.Failure(f"No {counted.noun} is known yet: materialize the asset {counted.listed.name} first.")
        days = [day for day in days if day.day not in loaded]
        if days:
            load.run(days, ids)
        problem = load.what_is_missing()
    except (DevinAPIError, WarehouseUnusable, Incompatible, UnfitWarehouse) as error:
        problem = str(error)
    except BaseException:  # an interrupt too: what is stored is stored
        load.record_stored_days()
        raise
    finally:
        load.record_numbers(Numbers.of(progress) - before)
    if problem:
        load.record_stored_days()
        raise dg.Failure(problem, allow_retries=False)
    for day, metadata in load.stored.items():
        context.add_asset_metadata(metadata, partition_key=day.isoformat())
    return dg.MaterializeResult()


def _earlier_tries(context: dg.AssetExecutionContext) -> list[str]:
    """The runs of which this one is a re-execution. What they loaded is not asked again."""
    root = context.run.tags.get(_ROOT_RUN)
    if root is None:
        return []
    group = context.instance.get_runs(dg.RunsFilter(tags={_ROOT_RUN: root}))
    return [root, *(run.run_id for run in group)]


@dataclass
class Load:
    """What is asked and stored, and what came of it: `stored` days and their numbers, `missing` ones and the reason."""

    counted: Counted
    context: dg.AssetExecutionContext
    settings: Settings
    devin_api: DevinAPI
    database: Database
    progress: Progress
    stored: dict[date, dict[str, float]] = field(default_factory=dict)
    missing: dict[date, Exception] = field(default_factory=dict)

    def run(self, days: Sequence[Day], ids: Sequence[str]) -> None:
        """Load `days`; those that could not be read whole get a second chance at the end."""
        self.progress.expect(len(days) * len(ids))
        activity = self._recent_activity(days[0].day) if self.settings.is_differenced(len(days)) else {}
        workers = collect.Workers(self.settings.devin_max_connections)
        with (
            self.devin_api.connected(self.progress.calls) as (client, portal),
            portal.wrap_async_context_manager(workers),
        ):
            asking = _Asking(self.counted, client, portal, workers, self.settings, self.progress, ids, activity)
            self._load(days, asking)
            again = [day for day in days if day.day in self.missing]
            if again:
                self.context.log.warning(f"Not read whole, asking again: {self.what_is_missing()}")
                self._load(again, asking)

    def _recent_activity(self, before: date) -> dict[str, tuple[float, float]]:
        return self.database.write(
            lambda connection: reads.recent_activity(connection, self.counted, before - REMEMBERED, before)
        )

    def _load(self, days: Sequence[Day], asking: "_Asking") -> None:
        """While one block is stored, the next is asked for its totals; more would be asked twice after a kill."""
        blocks = list(_blocks(days))
        under_way = asking.start(blocks[0], len(days))
        for following in [*blocks[1:], None]:
            under_way.may_go_on()
            answers = under_way.answers.result()
            asking.remember(answers)
            if following:
                under_way = asking.start(following, len(days))
            self._store(answers, len(asking.ids), asking.client.version.name)

    def _store(self, answers: Sequence[collect.DayAnswers], expected: int, api_version: str) -> None:
        whole = [answer for answer in answers if answer.is_whole]
        now = datetime.now(UTC)
        read = {"api_version": api_version, "loaded_at": now, "run_id": self.context.run.run_id}
        totals = [
            {
                "day": a.day.day,
                "window_start": a.day.start,
                "window_end": a.day.end,
                "sessions_count": a.control_total,
                f"{self.counted.prefix}_expected": expected,
                f"{self.counted.prefix}_loaded": len(a.counts),
                **read,
            }
            for a in whole
        ]
        cells = [
            {"day": a.day.day, self.counted.id: id_, "sessions_count": n, "is_derived": id_ in a.derived, **read}
            for a in whole
            for id_, n in a.counts.items()
        ]
        refused = {id_: f"{a.day.day}: {error}" for a in whole for id_, error in a.refused.items()}
        answered = {id_ for a in whole for id_ in a.counts}

        def store(connection: sa.Connection) -> dict[date, writes.StoredDay]:
            stored = writes.store_days(connection, self.counted, totals, cells)
            writes.store_availability(connection, self.counted, refused, answered, now)
            return stored

        stored = self.database.write(store)
        self.missing = {day: e for day, e in self.missing.items() if day not in stored}
        self.missing |= {a.day.day: a.failures[0] for a in answers if not a.is_whole}
        for a in whole:
            day, known = stored[a.day.day], a.cells
            self.stored[a.day.day] = {
                "sessions_count": day.sessions_count,
                "unattributed_count": day.unattributed_count,
                "calls": round(a.calls, 2),
                "cells_asked": known.asked,
                "cells_derived": known.derived,
                "cells_proven_zero": known.proven_zero,
                "rows_inserted": day.changes.inserted,
                "rows_changed": day.changes.changed,
                "rows_unchanged": day.changes.unchanged,
            }
        self.progress.store(stored, sum((a.cells for a in whole), collect.Cells()), refused)
        changes = sum((day.changes for day in stored.values()), Changes())
        self.context.log.info(
            f"{answers[0].day.day} to {answers[-1].day.day}: {len(whole)} of {len(answers)} days stored, "
            f"{changes.inserted} cells new, {changes.changed} changed, {changes.unchanged} unchanged"
        )

    def record_stored_days(self) -> None:
        """Tell Dagster which days of a failing run are stored all the same: it then shows exactly the missing ones."""
        storage = self.context.instance.event_log_storage
        with storage.in_one_batch() if isinstance(storage, BatchingSqliteEventLogStorage) else nullcontext():
            for day, metadata in self.stored.items():
                self.context.log_event(
                    dg.AssetMaterialization(
                        asset_key=self.context.asset_key, partition=day.isoformat(), metadata=dict(metadata)
                    )
                )

    def record_numbers(self, numbers: Numbers) -> None:
        """Show the numbers of the load on the asset in Dagster: one event, whatever the number of days."""
        if not numbers.calls:
            return
        self.context.log_event(dg.AssetObservation(self.context.asset_key, metadata=numbers.fields()))
        if self.settings.otel_exporter_otlp_endpoint:
            problem = telemetry.send(numbers, f"{self.counted.noun}s")
            if problem:
                self.context.log.warning(problem)
                self.progress.warnings.append(problem)

    def what_is_missing(self) -> str:
        """The missing days and why, a line per kind of failure; empty if none is missing."""
        if not self.missing:
            return ""
        reasons: dict[str, list[date]] = {}
        for day, error in self.missing.items():
            reasons.setdefault(type(error).__name__, []).append(day)
        lines = [f"{spelled(days)}: {self.missing[days[0]]}" for days in reasons.values()]
        return "\n".join([f"Not loaded: {spelled(sorted(self.missing))}. Everything else is stored.", *lines])


@dataclass
class _Asking:
    """Asks one block at a time over an open client, in the way that DEVIN_FETCH says."""

    counted: Counted
    client: DevinClient
    portal: BlockingPortal
    workers: collect.Workers
    settings: Settings
    progress: Progress
    ids: Sequence[str]
    activity: dict[str, tuple[float, float]]

    def start(self, block: Sequence[Day], days_in_all: int) -> "_UnderWay":
        """Begin to ask `block`, a part of a load of so many days."""
        goes_on = asyncio.Event()
        answers = self.portal.start_task_soon(self._ask, block, self.settings.is_differenced(days_in_all), goes_on)
        return _UnderWay(answers, partial(self.portal.start_task_soon, goes_on.set))

    def remember(self, answers: Sequence[collect.DayAnswers]) -> None:
        """Take what each did in this block into account for the next."""
        for id_ in self.ids:
            counts = [a.counts[id_] for a in answers if id_ in a.counts]
            days, sessions = self.activity.get(id_, (0.0, 0.0))
            self.activity[id_] = (days * FADING + len(counts), sessions * FADING + sum(counts))

    async def _ask(
        self, block: Sequence[Day], is_differenced: bool, goes_on: asyncio.Event
    ) -> list[collect.DayAnswers]:
        async def count(start: datetime, end: datetime, ids: Sequence[str]) -> int:
            if self.counted.noun == "user":
                return await self.client.count(start, end, user_ids=ids)
            return await self.client.count(start, end, org_ids=ids)

        if is_differenced:
            # Half a session more than was seen: never having seen one is no proof that none will come.
            expected = {i: (sessions + 0.5) / (days + 1) for i, (days, sessions) in self.activity.items() if days}
            ask: Callable[..., Coroutine[Any, Any, list[collect.DayAnswers]]] = partial(
                collect.differenced, expected=expected
            )
        else:
            ask = collect.direct
        return await ask(
            count,
            block,
            self.ids,
            workers=self.workers,
            errors=ERRORS,
            answered=self.progress.answered,
            may_go_on=goes_on.wait,
        )


@dataclass
class _UnderWay:
    """A block that is being asked: its answers when they are there, and leave to ask more than its totals."""

    answers: Future[list[collect.DayAnswers]]
    may_go_on: Callable[[], object]


def _blocks(days: Sequence[Day]) -> Iterator[list[Day]]:
    """`days` in blocks of consecutive ones."""
    block: list[Day] = []
    for day in days:
        if block and (len(block) == DAYS_PER_BLOCK or block[-1].end != day.start):
            yield block
            block = []
        block.append(day)
    if block:
        yield block
