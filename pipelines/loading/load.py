"""One run's load: blocks of days are fetched, checked and stored one after the other. Keeps what became of each day."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial

import dagster as dg
import sqlalchemy as sa

from pipelines.failures import KNOWN, failure_of
from pipelines.loading import contradiction_messages
from pipelines.loading.answers import Contradiction, DayAnswers
from pipelines.loading.asking import run_asking_alone
from pipelines.loading.block_size import Wanted
from pipelines.loading.fetching import BlockFetcher
from pipelines.loading.load_metrics import LoadMetrics
from pipelines.loading.naming import name_unattributed
from pipelines.loading.open_days import ClockAhead, refuse_open_days
from pipelines.loading.progress import Progress, log_waits
from pipelines.loading.readings import as_reading
from pipelines.loading.recording import record_metrics, record_stored_days
from pipelines.loading.stored_before import StoredBefore, begin, expect_closed_days
from pipelines.loading.workers import Workers
from pipelines.partitions import Day, as_days, day_before
from pipelines.schedules import COMPLETE_BEFORE, earlier_runs_of
from pipelines.settings import Settings
from resources.database import Database
from resources.devin_api import DevinAPI
from warehouse import reads, writes
from warehouse.dimensions import Dimension
from warehouse.writes import Changes, StoredDay

REMEMBERED = timedelta(days=93)  # see fetching.FADING


def load_partitions(
    dimension: Dimension,
    partitions: dg.DailyPartitionsDefinition,
    context: dg.AssetExecutionContext,
    settings: Settings,
    devin_api: DevinAPI,
    database: Database,
    progress: Progress,
) -> dg.MaterializeResult[None]:
    """Load the days of a run of the asset that fills `dimension.cells`. Each is stored whole or not at all.

    Raises dg.Failure, after everything else is stored, if days are missing or an error ended the load.
    """
    days = as_days(partitions, context.partition_keys)
    load = Load(dimension, partitions, context, settings, devin_api, database, progress)
    before = progress.metrics
    failure: dg.Failure | None = None

    try:
        earlier_runs = earlier_runs_of(context)
        with run_asking_alone(context, settings, progress):
            stored = database.write(
                lambda connection: begin(
                    connection,
                    dimension,
                    settings,
                    api_version=devin_api.version_name,
                    days=days,
                    earlier_runs=earlier_runs,
                    now=progress.calls.clock.now(),
                )
            )
            if not stored.ids:
                listed = dimension.listed.name
                raise dg.Failure(f"No {dimension.noun} is known yet: materialize the asset {listed} first.")
            load.run(days, stored, stored.to_complete(context.run.tags.get(COMPLETE_BEFORE, "")))
        if problem := load.result.describe_missing():
            failure = dg.Failure(problem, allow_retries=False)
    except KNOWN as error:
        if isinstance(error, ClockAhead):  # days that are over by this machine's clock were expected
            database.write(lambda connection: expect_closed_days(connection, settings, progress.calls.clock.now()))
        failure = failure_of(error)
    except BaseException:  # an interrupt too: its stored days must show in Dagster
        record_stored_days(context, load.result)
        raise
    finally:
        load.record_contradictions()
        record_metrics(context, settings, dimension, progress.metrics - before, load.result)
    if failure:
        record_stored_days(context, load.result)
        raise failure
    for day, metrics in load.result.stored.items():
        context.add_asset_metadata(metrics.as_fields_of_a_day(), partition_key=day.isoformat())
    return dg.MaterializeResult()


@dataclass
class Load:
    """Fetches and stores the days of one run. The progress shares its `result`."""

    dimension: Dimension
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
    _contradictions: dict[date, list[Contradiction]] = field(default_factory=dict)
    _listed: set[date] = field(default_factory=set)
    _forgotten: set[date] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.result = self.progress.begin()

    def run(self, days: Sequence[Day], stored: StoredBefore, to_complete: Mapping[date, set[str]]) -> None:
        """Load `days`. Those that fail, or on which ids are refused, are retried at the end.

        On the days in `to_complete`, only the ids given there are read.
        """
        self.ids = stored.ids
        for day, lacking in to_complete.items():
            self.result.set_lacking(day, lacking)
        wanted = stored.wanted(days, to_complete)
        self.result.found |= {day.day for day, wanted_ids in wanted.items() if not wanted_ids}
        wanted = {day: wanted_ids for day, wanted_ids in wanted.items() if wanted_ids}
        if not wanted:
            return
        self.progress.expect(sum(map(len, wanted.values())))
        strategy = self.settings.strategy(len(wanted))
        activity = self._recent_activity(next(iter(wanted)).day) if strategy != "direct" else {}
        workers = Workers(self.settings.devin_max_connections)
        with (
            log_waits(self.progress.calls, self.context.log.warning),
            self.devin_api.connected(self.progress.calls) as (client, portal),
            portal.wrap_async_context_manager(workers),
        ):
            fetcher = BlockFetcher(
                self.dimension, client, portal, workers, self.settings, self.progress, strategy, activity
            )
            some = {day: wanted_ids for day, wanted_ids in wanted.items() if day.day in stored.moved}
            no_longer = stored.no_longer_counted
            wanted |= self._without_refused(some, no_longer, fetcher)
            if unknown := sorted(no_longer & fetcher.refused):
                self.context.log.warning(
                    f"The API refuses to count {', '.join(unknown)}. Their counts of days whose windows have moved are "
                    "dropped; their sessions on these days are unattributed."
                )
            some = {day: wanted_ids for day, wanted_ids in wanted.items() if day.day in to_complete}
            self._load(wanted | self._without_refused(some, stored.refused, fetcher), fetcher)
            if fetcher.list.why_not:
                self.context.log.warning(fetcher.list.why_not)
                self.result.warnings.append(fetcher.list.why_not)
            if self.result.missing:
                self.context.log.warning(f"Retrying incomplete days. {self.result.describe_missing()}")
            lost = self.result.missing.keys() | self._forgotten
            again = {day: wanted_ids for day, wanted_ids in wanted.items() if day.day in lost}
            lacking_days = [day for day in wanted if day.day in self.result.lacking and day not in again]
            some = {day: sorted(self.result.lacking[day.day] - fetcher.refused) for day in lacking_days}
            again |= self._without_refused(some, {id_ for of_day in some.values() for id_ in of_day}, fetcher)
            self._load({day: again[day] for day in wanted if day in again}, fetcher)
            older = self._counted_earlier(wanted)
            self.progress.expect(sum(map(len, older.values())))
            self._load(
                self._without_refused(older, {id_ for of_day in older.values() for id_ in of_day}, fetcher), fetcher
            )
            if self.settings.devin_fetch == "auto" and not self.settings.chosen(self.dimension):
                some_left = {day for day, stored in self._days.items() if stored.unattributed_count > 0}
                days = [day for day in wanted if day.day in some_left]
                name_unattributed(days, fetcher, self.database, self.context)

    def _counted_earlier(self, days: Iterable[Day]) -> Wanted:
        """The ids whose counts from earlier runs make a day exceed its total.

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
            lambda connection: reads.counted_on(connection, self.dimension, [day.day for day in exceeding]),
            alone=False,
        )
        self._older = {day.day: stored[day.day] - self._read[day.day].keys() for day in exceeding}
        return {day: sorted(self._older[day.day] - self.result.lacking.get(day.day, set())) for day in exceeding}

    def _without_refused(self, wanted: Wanted, refused: Collection[str], fetcher: BlockFetcher) -> Wanted:
        """`wanted` without those `refused` ids that the API still refuses to count on the last day they are wanted.

        An id that is refused for good thus costs one question per run, instead of two per block.
        """
        last = {id_: day for day, ids in wanted.items() for id_ in ids if id_ in refused and not day.is_skipped}
        still = fetcher.still_refused(last)
        fetcher.refused |= still.keys()
        if still:
            reasons = {id_: f"{last[id_].day}: {error}" for id_, error in still.items()}
            now = self.progress.calls.clock.now()
            self.database.write(
                lambda connection: writes.store_availability(connection, self.dimension, reasons, (), now)
            )
        return {day: [id_ for id_ in ids if id_ not in still] for day, ids in wanted.items()}

    def _recent_activity(self, before: date) -> dict[str, tuple[float, float]]:
        return self.database.write(
            lambda connection: reads.recent_activity(connection, self.dimension, before - REMEMBERED, before),
            alone=False,
        )

    def _load(self, wanted: Wanted, fetcher: BlockFetcher) -> None:
        """Store each block before more is fetched than a kill may lose."""
        refuse_open_days(wanted, self.progress.calls.clock)
        skipped = [
            DayAnswers(day, 0, dict.fromkeys(ids, 0), dict.fromkeys(ids, "derived"))
            for day, ids in wanted.items()
            if ids and day.is_skipped
        ]
        if skipped:  # there is nothing to ask
            self._store(skipped, fetcher.client.version.name)
        asked = {day: ids for day, ids in wanted.items() if not day.is_skipped}
        for answers in fetcher.fetch(asked, lambda day: day_before(self.partitions, day)):
            refuse_open_days(wanted, self.progress.calls.clock)
            if fetcher.list.misplaces:
                self._forget_listed_days()
            self._store(answers, fetcher.client.version.name)

    def _forget_listed_days(self) -> None:
        """Take back what the list of sessions said before it was seen to misplace some: these days are asked again.

        Until then they are missing, so that the next run asks for them if this one is killed.
        """
        days = self._listed - self._forgotten
        if days:
            self.database.write(lambda connection: writes.forget_days(connection, self.dimension, sorted(days)))
            self._forgotten |= days
            for known in (self._days, self._read, self._contradictions, self.result.stored):
                for day in days:
                    known.pop(day, None)
            self.progress.expect(len(days) * len(self.ids))

    def _store(self, answers: Sequence[DayAnswers], api_version: str) -> None:
        whole = [answer for answer in answers if answer.is_whole]
        for a in whole:
            refused_now = a.refused.keys() & set(self.ids)
            lacking = (self.result.lacking.get(a.day.day, set()) | refused_now) - a.counts.keys()
            self.result.set_lacking(a.day.day, lacking)
        read = partial(as_reading, expected=len(self.ids), service_users=self.progress.listed_days.service_users)
        readings = [read(a, lacking=len(self.result.lacking.get(a.day.day, ()))) for a in whole]
        provenance = writes.Provenance(api_version, self.progress.calls.clock.now(), self.context.run.run_id)
        refused = {id_: f"{a.day.day}: {error}" for a in whole for id_, error in a.refused.items()}
        answered = {id_ for a in whole for id_ in a.counts}

        def store(connection: sa.Connection) -> dict[date, StoredDay]:
            lock = partial(self.database.lock_days, connection)
            stored = writes.store_days(connection, self.dimension, readings, provenance, lock)
            writes.store_availability(connection, self.dimension, refused, answered, provenance.loaded_at)
            return stored

        stored = self.database.write(store, alone=False)
        for a in answers:
            self._record_day(a, stored.get(a.day.day))
        self.progress.stored(stored)
        changes = sum((day.changes for day in stored.values()), Changes())
        self.context.log.info(
            f"{answers[0].day.day} to {answers[-1].day.day}: {len(whole)} of {len(answers)} days stored, "
            f"{changes.inserted} {self.dimension.cells_noun} new, {changes.changed} changed, "
            f"{changes.unchanged} unchanged"
        )

    def _record_day(self, answer: DayAnswers, stored: StoredDay | None) -> None:
        """Keep what became of a day; `stored` is None if it could not be read completely."""
        day = answer.day.day
        if stored is None:
            self.result.missing[day] = answer.failures[0]
            return
        self._days[day] = stored
        self.result.record(
            day,
            LoadMetrics(
                days=1,
                sessions=stored.sessions_count,
                unattributed=stored.unattributed_count,
                cells=answer.cells,
                changes=stored.changes,
                calls=answer.calls,
            ),
        )
        self._read.setdefault(day, {}).update(answer.counts)
        self._listed |= {day} if answer.known_by("listed") else set()
        self._contradictions[day] = answer.contradictions

    def record_contradictions(self) -> None:
        """Report where the API contradicts itself after the last reading of each day."""
        found = [contradiction for of_day in self._contradictions.values() for contradiction in of_day]
        exceeding = {day for day, stored in self._days.items() if stored.unattributed_count < 0}
        older = {day: ids for day in exceeding if (ids := self._older.get(day, set()) - self._read[day].keys())}
        for sentence in contradiction_messages.sentences(self.dimension, found, exceeding, older):
            self.context.log.error(sentence)
            self.result.contradictions.append(sentence)
