"""One run's load: blocks of days asked, checked and stored one after the other, and what came of each day."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
import sqlalchemy as sa
from anyio.from_thread import BlockingPortal
from resources.database import Database
from resources.devin_api import DevinAPI, DevinClient
from resources.devin_errors import ContractBroken, Rejected, Unavailable
from resources.event_log import BatchingSqliteEventLogStorage
from warehouse import migrations, reads, writes
from warehouse.tables import Counted
from warehouse.writes import Changes, StoredDay

from pipelines.failures import KNOWN
from pipelines.loading import collect, telemetry
from pipelines.loading.compatibility import refuse_other_days, refuse_other_version
from pipelines.loading.load_metrics import LoadMetrics
from pipelines.loading.progress import Progress, waits_logged
from pipelines.loading.workers import Workers
from pipelines.partitions import Day, as_days, closed_days, day_before, spelled
from pipelines.schedules import COMPLETE_BEFORE
from pipelines.settings import Settings

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
    load = Load(counted, partitions, context, settings, devin_api, database, progress)
    before = progress.metrics
    result = load.result

    def begin(connection: sa.Connection) -> tuple[list[str], set[date], dict[date, set[str]], dict[str, str]]:
        migrations.bring_forward(connection)
        refuse_other_days(reads.windows(connection, counted), partitions, settings)
        refuse_other_version(reads.api_versions(connection), devin_api.version_name, settings)
        writes.store_history(connection, settings.devin_start_date, closed_days(partitions)[-1])
        return (
            reads.latest_listed(connection, counted),
            reads.days_of_runs(connection, counted, earlier_tries),
            reads.missing_ids(connection, counted, [day.day for day in days], settings.chosen(counted)),
            reads.unavailable(connection, counted),
        )

    try:
        earlier_tries = _earlier_tries(context)
        ids, loaded, lacking, refused = database.write(begin)
        if not ids:
            raise dg.Failure(f"No {counted.noun} is known yet: materialize the asset {counted.listed.name} first.")
        complete_before = context.run.tags.get(COMPLETE_BEFORE, "")
        to_complete = {day for day in lacking if day in loaded or day.isoformat() < complete_before}
        load.run(days, ids, {day: lacking[day] for day in to_complete}, refused)
        problem = load.what_is_missing()
    except KNOWN as error:
        problem = str(error)
    except BaseException:  # an interrupt too: what is stored is stored
        load.record_stored_days()
        raise
    finally:
        load.record_contradictions()
        load.record_metrics(progress.metrics - before)
    if problem:
        load.record_stored_days()
        raise dg.Failure(problem, allow_retries=False)
    for day, metrics in result.stored.items():
        context.add_asset_metadata(metrics.as_fields_of_a_day(), partition_key=day.isoformat())
    return dg.MaterializeResult()


def _earlier_tries(context: dg.AssetExecutionContext) -> list[str]:
    """The runs of which this one is a re-execution. What they loaded is not asked again."""
    root = context.run.tags.get(_ROOT_RUN)
    if root is None:
        return []
    group = context.instance.get_runs(dg.RunsFilter(tags={_ROOT_RUN: root}))
    return [root, *(run.run_id for run in group)]


Wanted = dict[Day, Sequence[str]]
"""Who is to be counted on each day."""


@dataclass
class Load:
    """What is asked and stored, and the `result` of it, which the progress has too."""

    counted: Counted
    partitions: dg.DailyPartitionsDefinition
    context: dg.AssetExecutionContext
    settings: Settings
    devin_api: DevinAPI
    database: Database
    progress: Progress
    ids: Sequence[str] = ()
    _days: dict[date, StoredDay] = field(default_factory=dict)
    _read: dict[date, dict[str, int]] = field(default_factory=dict)
    _older: dict[date, set[str]] = field(default_factory=dict)
    _contradictions: dict[date, list[collect.Contradiction]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.result = self.progress.begin()

    def run(
        self, days: Sequence[Day], ids: Sequence[str], to_complete: Mapping[date, set[str]], refused: Collection[str]
    ) -> None:
        """Load `days`; those that could not be read whole, or were refused in part, get a second chance at the end.

        `ids` are all who are counted. On the days `to_complete` only those named there are asked, of whom the source
        has `refused` to count some before.
        """
        self.ids = ids
        for day, lacking in to_complete.items():
            self.result.lacks(day, lacking)
        wanted: Wanted = {day: sorted(to_complete.get(day.day, ids)) for day in days}
        self.result.found |= {day.day for day, wanted_ids in wanted.items() if not wanted_ids}
        wanted = {day: wanted_ids for day, wanted_ids in wanted.items() if wanted_ids}
        if not wanted:
            return
        self.progress.expect(sum(map(len, wanted.values())))
        is_differenced = self.settings.is_differenced(len(wanted))
        activity = self._recent_activity(next(iter(wanted)).day) if is_differenced else {}
        workers = Workers(self.settings.devin_max_connections)
        with (
            waits_logged(self.progress.calls, self.context.log.warning),
            self.devin_api.connected(self.progress.calls) as (client, portal),
            portal.wrap_async_context_manager(workers),
        ):
            asking = _Asking(
                self.counted, client, portal, workers, self.settings, self.progress, is_differenced, activity
            )
            some = {day: wanted_ids for day, wanted_ids in wanted.items() if day.day in to_complete}
            self._load(wanted | self._without_refused(some, refused, asking), asking)
            if self.result.missing:
                self.context.log.warning(f"Not read whole, asking again: {self.what_is_missing()}")
            again = {day: wanted_ids for day, wanted_ids in wanted.items() if day.day in self.result.missing}
            lacking_days = [day for day in wanted if day.day in self.result.lacking and day not in again]
            some = {day: sorted(self.result.lacking[day.day] - asking.refused) for day in lacking_days}
            again |= self._without_refused(some, {id_ for of_day in some.values() for id_ in of_day}, asking)
            self._load({day: again[day] for day in wanted if day in again}, asking)
            older = self._counted_earlier(wanted)
            self.progress.expect(sum(map(len, older.values())))
            self._load(
                self._without_refused(older, {id_ for of_day in older.values() for id_ in of_day}, asking), asking
            )

    def _counted_earlier(self, days: Iterable[Day]) -> Wanted:
        """Those that this run did not count on days whose counts exceed the total because of them.

        They are no longer listed or chosen, or were counted before the others, and have lost sessions since.
        """
        exceeding = [
            day
            for day in days
            if day.day in self._days
            and self._days[day.day].unattributed_count < 0
            and sum(self._read[day.day].values()) <= self._days[day.day].sessions_count
        ]
        if not exceeding:
            return {}
        stored = self.database.write(
            lambda connection: reads.counted_on(connection, self.counted, [day.day for day in exceeding])
        )
        self._older = {day.day: stored[day.day] - self._read[day.day].keys() for day in exceeding}
        return {day: sorted(self._older[day.day] - self.result.lacking.get(day.day, set())) for day in exceeding}

    def _without_refused(self, wanted: Wanted, refused: Collection[str], asking: "_Asking") -> Wanted:
        """`wanted` without those of the `refused` that the source still refuses, on the last day they are wanted.

        So one that is refused for good costs one question, and not two for each block.
        """
        last = {id_: day for day, ids in wanted.items() for id_ in ids if id_ in refused}
        still = asking.still_refused(last)
        asking.refused |= still.keys()
        if still:
            reasons = {id_: f"{last[id_].day}: {error}" for id_, error in still.items()}
            now = datetime.now(UTC)
            self.database.write(
                lambda connection: writes.store_availability(connection, self.counted, reasons, (), now)
            )
        return {day: [id_ for id_ in ids if id_ not in still] for day, ids in wanted.items()}

    def _recent_activity(self, before: date) -> dict[str, tuple[float, float]]:
        return self.database.write(
            lambda connection: reads.recent_activity(connection, self.counted, before - REMEMBERED, before)
        )

    def _load(self, wanted: Wanted, asking: "_Asking") -> None:
        """While one block is stored, the next is asked for its totals; more would be asked twice after a kill."""
        blocks = list(_blocks(wanted))
        if not blocks:
            return

        def start(block: _Block) -> _UnderWay:
            return asking.start(block, day_before(self.partitions, block.days[0]))

        under_way = start(blocks[0])
        for following in [*blocks[1:], None]:
            under_way.may_go_on()
            answers = under_way.answers.result()
            asking.remember(answers)
            if following:
                under_way = start(following)
            self._store(answers, asking.client.version.name)

    def _store(self, answers: Sequence[collect.DayAnswers], api_version: str) -> None:
        whole = [answer for answer in answers if answer.is_whole]
        now = datetime.now(UTC)
        read = {"api_version": api_version, "loaded_at": now, "run_id": self.context.run.run_id}
        for a in whole:
            refused_now = a.refused.keys() & set(self.ids)
            self.result.lacks(a.day.day, (self.result.lacking.get(a.day.day, set()) | refused_now) - a.counts.keys())
        totals = [
            {
                "day": a.day.day,
                "window_start": a.day.start,
                "window_end": a.day.end,
                "sessions_count": a.control_total,
                f"{self.counted.prefix}_expected": len(self.ids),
                f"{self.counted.prefix}_loaded": len(self.ids) - len(self.result.lacking.get(a.day.day, ())),
                **read,
            }
            for a in whole
        ]
        cells = [
            {"day": a.day.day, self.counted.id: id_, "sessions_count": n, "is_derived": id_ in a.derived, **read}
            for a in whole
            for id_, n in a.counts.items()
        ]
        contradictions = [
            {
                "day": a.day.day,
                self.counted.id: found.org_id,
                "first_day": found.first.day,
                "last_day": found.last.day,
                "block_sessions_count": found.in_one,
                "stored_sessions_count": found.by_day,
                "read_at": now,
                "run_id": read["run_id"],
            }
            for a in whole
            for found in a.contradictions
        ]
        refused = {id_: f"{a.day.day}: {error}" for a in whole for id_, error in a.refused.items()}
        answered = {id_ for a in whole for id_ in a.counts}

        def store(connection: sa.Connection) -> dict[date, StoredDay]:
            stored = writes.store_days(connection, self.counted, totals, cells, contradictions)
            writes.store_availability(connection, self.counted, refused, answered, now)
            return stored

        stored = self.database.write(store)
        self._days |= stored
        for a in answers:
            if not a.is_whole:
                self.result.missing[a.day.day] = a.failures[0]
                continue
            day = stored[a.day.day]
            self.result.store(
                a.day.day,
                LoadMetrics(
                    days=1,
                    sessions=day.sessions_count,
                    unattributed=day.unattributed_count,
                    cells=a.cells,
                    changes=day.changes,
                    calls=a.calls,
                ),
            )
            self._read.setdefault(a.day.day, {}).update(a.counts)
            self._contradictions[a.day.day] = a.contradictions
        self.progress.store(stored)
        changes = sum((day.changes for day in stored.values()), Changes())
        self.context.log.info(
            f"{answers[0].day.day} to {answers[-1].day.day}: {len(whole)} of {len(answers)} days stored, "
            f"{changes.inserted} cells new, {changes.changed} changed, {changes.unchanged} unchanged"
        )

    def record_stored_days(self) -> None:
        """Tell Dagster which days of a failing run are stored all the same: it then shows exactly the missing ones."""
        storage = self.context.instance.event_log_storage
        with storage.in_one_batch() if isinstance(storage, BatchingSqliteEventLogStorage) else nullcontext():
            for day, metrics in self.result.stored.items():
                self.context.log_event(
                    dg.AssetMaterialization(
                        asset_key=self.context.asset_key,
                        partition=day.isoformat(),
                        metadata=dict(metrics.as_fields_of_a_day()),
                    )
                )

    def record_contradictions(self) -> None:
        """Say where the source contradicts itself, as it stands after the last reading of each day."""
        for sentence in dict.fromkeys(
            _contradiction(found) for of_day in self._contradictions.values() for found in of_day
        ):
            self._record_contradiction(sentence)
        exceeding = {day for day, stored in self._days.items() if stored.unattributed_count < 0}
        older = {day: ids for day in exceeding if (ids := self._older.get(day, set()) - self._read[day].keys())}
        if older:
            self._record_contradiction(_outdated(self.counted, sorted(older), set[str]().union(*older.values())))
        if exceeding - older.keys():
            self._record_contradiction(_excess(self.counted, sorted(exceeding - older.keys())))

    def _record_contradiction(self, sentence: str) -> None:
        self.context.log.error(sentence)
        self.result.contradictions.append(sentence)

    def record_metrics(self, metrics: LoadMetrics) -> None:
        """Show the numbers of the load on the asset in Dagster: one event, whatever the number of days."""
        if not metrics.calls:
            return
        self.context.log_event(dg.AssetObservation(self.context.asset_key, metadata=metrics.as_fields()))
        if self.settings.otel_exporter_otlp_endpoint:
            try:
                telemetry.send(metrics, f"{self.counted.noun}s")
            except telemetry.NotSent as error:
                self.context.log.warning(str(error))
                self.result.warnings.append(str(error))

    def what_is_missing(self) -> str:
        """The missing days and why, a line per kind of failure; empty if none is missing."""
        if not self.result.missing:
            return ""
        reasons: dict[str, list[date]] = {}
        for day, error in self.result.missing.items():
            reasons.setdefault(type(error).__name__, []).append(day)
        lines = [f"{spelled(days)}: {self.result.missing[days[0]]}" for days in reasons.values()]
        return "\n".join([f"Not loaded: {spelled(sorted(self.result.missing))}. Everything else is stored.", *lines])


def _contradiction(found: collect.Contradiction) -> str:
    whose = f" of {found.org_id}" if found.org_id else ""
    return (
        f"The API contradicts itself: it counts {found.in_one:,} sessions{whose} from {found.first.day} to "
        f"{found.last.day} in one question, but {found.by_day:,} day by day, and did so twice. The counts are stored "
        "and marked as a contradiction in the view reconciliation. Run devin-sessions probe to find out why, such as a "
        "wrong DEVIN_WINDOW_END, then read the days again: "
        f"devin-sessions backfill {found.first.day} {found.last.day} --refresh"
    )


def _excess(counted: Counted, days: Sequence[date]) -> str:
    return (
        f"The API contradicts itself: on {spelled(days)} the {counted.noun}s add up to more sessions than its own "
        "total of the day. The counts are stored and marked as a contradiction in the view reconciliation. Run "
        "devin-sessions probe to find out why, then read the days again: "
        f"devin-sessions backfill {days[0]} {days[-1]} --refresh"
    )


def _outdated(counted: Counted, days: Sequence[date], ids: Collection[str]) -> str:
    return (
        f"On {spelled(days)} the {counted.noun}s add up to more sessions than the API's own total of the day. The "
        f"stored counts of {', '.join(sorted(ids))} are older than that total, and the API refuses to count them now, "
        "as it may after a deletion. They are kept, and the view reconciliation marks these days. If nothing was "
        "deleted, let the key count them, then read the days again: "
        f"devin-sessions backfill {days[0]} {days[-1]} --refresh"
    )


@dataclass(frozen=True)
class _Block:
    """Consecutive days on which the same ids are asked about."""

    days: list[Day]
    ids: Sequence[str]


@dataclass
class _Asking:
    """Asks one block at a time over an open client. `refused` are the ids that it asked about in vain for the load."""

    counted: Counted
    client: DevinClient
    portal: BlockingPortal
    workers: Workers
    settings: Settings
    progress: Progress
    is_differenced: bool
    activity: dict[str, tuple[float, float]]
    refused: set[str] = field(default_factory=set)

    def start(self, block: _Block, before: Day) -> "_UnderWay":
        """Begin to ask `block`; `before` is the day before it."""
        goes_on = asyncio.Event()
        answers = self.portal.start_task_soon(self._ask, block, before, goes_on)
        return _UnderWay(answers, partial(self.portal.start_task_soon, goes_on.set))

    def still_refused(self, last: Mapping[str, Day]) -> dict[str, Exception]:
        """The ids that the source still refuses to count on this day of each, and why."""
        return self.portal.call(self._still_refused, last)

    async def _still_refused(self, last: Mapping[str, Day]) -> dict[str, Exception]:
        async def refusal(id_: str, day: Day) -> Exception | None:
            try:
                await self._count(day.start, day.end, (id_,))
            except ERRORS.refusals as error:
                return error
            except ERRORS.passing:
                pass  # it is asked like any other, and fails its day if that goes on
            return None

        found = await asyncio.gather(*(refusal(id_, day) for id_, day in last.items()))
        return {id_: error for id_, error in zip(last, found, strict=True) if error}

    def remember(self, answers: Sequence[collect.DayAnswers]) -> None:
        """Take what each did in this block into account for the next."""
        for id_ in {id_ for a in answers for id_ in a.counts}:
            counts = [a.counts[id_] for a in answers if id_ in a.counts]
            days, sessions = self.activity.get(id_, (0.0, 0.0))
            self.activity[id_] = (days * FADING + len(counts), sessions * FADING + sum(counts))

    async def _count(self, start: datetime, end: datetime, ids: Sequence[str]) -> int:
        if self.counted.noun == "user":
            return await self.client.count(start, end, user_ids=ids)
        return await self.client.count(start, end, org_ids=ids)

    async def _ask(self, block: _Block, before: Day, goes_on: asyncio.Event) -> list[collect.DayAnswers]:
        if self.is_differenced:
            # Half a session more than was seen: never having seen one is no proof that none will come.
            expected = {i: (sessions + 0.5) / (days + 1) for i, (days, sessions) in self.activity.items() if days}
            ask: Callable[..., Coroutine[Any, Any, list[collect.DayAnswers]]] = partial(
                collect.differenced, expected=expected
            )
        else:
            ask = collect.direct
        return await ask(
            self._count,
            block.days,
            block.ids,
            before=before,
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


def _blocks(wanted: Wanted) -> Iterator[_Block]:
    """The days in blocks of consecutive ones on which the same are wanted."""
    block: _Block | None = None
    for day, ids in wanted.items():
        if not ids:
            continue
        if block and (len(block.days) == DAYS_PER_BLOCK or block.days[-1].end != day.start or block.ids != ids):
            yield block
            block = None
        block = block or _Block([], ids)
        block.days.append(day)
    if block:
        yield block
