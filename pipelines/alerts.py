"""Sensor `alerts`: a message when a trouble begins and one when it is over, to DEVIN_ALERT_WEBHOOK_URL.

What is wrong is read from Dagster's own record of runs and checks. How a message travels is in `resources.webhook`.
"""

import itertools
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from pydantic import BaseModel

from pipelines.failures import UNUSABLE_WAREHOUSE, failure_message, is_interrupt
from pipelines.ledger import open_read_only
from pipelines.partitions import spelled
from pipelines.schedules import JOB
from pipelines.settings import Settings
from resources.database import Database
from resources.webhook import URL_VARIABLE, Undelivered, as_text, send
from warehouse import reads

# The second is Dagster's own, for what is materialized in its UI.
JOBS = (JOB, "__ASSET_JOB")
# How old a failed run may be that was not told of: where the machine was off, or alerts are new.
NEWS = timedelta(days=7)
# Dagster gives a tick a minute; a message may take ten seconds.
MOST_MESSAGES_A_TICK = 5
LOCK_TIMEOUT_SECONDS = 5.0
# So many results are looked through for when a check turned red.
MOST_RESULTS = 100

_OF_FAILED_RUNS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
}

Key = dg.AssetKey | dg.AssetCheckKey
Piece = tuple[Key, str]
"""Something that a run makes: a check's result, an asset, or one day of an asset. The text is the day or empty."""


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong until it is mended. `name` is what it is known by: the same every night."""

    name: str
    since: datetime
    said: list[str]
    run_ids: list[str] = field(default_factory=list)


class Told(BaseModel):
    """What is kept of a trouble that there was a message about: since when it is, and the failed runs behind it."""

    since: datetime
    run_ids: list[str]


class Memory(BaseModel):
    """What the sensor knows from tick to tick: the troubles there are, and the messages that nobody took yet."""

    told: dict[str, Told] = {}
    unsent: list[str] = []


def alerts_sensor(
    assets: Sequence[dg.AssetsDefinition], checks: Sequence[dg.AssetChecksDefinition], settings: Settings
) -> dg.SensorDefinition:
    """The sensor that watches the runs of these assets, and these checks."""
    watched_assets = {key for asset in assets for key in asset.keys}
    watched_checks = {key for definition in [*assets, *checks] for key in definition.check_keys}

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Tells {URL_VARIABLE} once of a failed run or a red check, and once when that is over.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = Memory.model_validate_json(context.cursor) if context.cursor else Memory()
        now = datetime.now(UTC)
        known = [run_id for told in memory.told.values() for run_id in told.run_ids]
        failed = FailedRuns(context.instance, settings, watched_assets | watched_checks)
        troubles = [*failed.troubles(known, now), *red_checks(context.instance, watched_checks)]
        begun = [trouble for trouble in troubles if trouble.name not in memory.told]
        over = memory.told.keys() - {trouble.name for trouble in troubles}
        # Messages that cannot be sent now wait in the cursor, so that none is lost.
        memory.unsent += [
            *map(_begun, begun),
            *(_over(name, told.since, now) for name, told in memory.told.items() if name in over),
        ]
        memory.told = {
            trouble.name: Told(since=memory.told.get(trouble.name, trouble).since, run_ids=trouble.run_ids)
            for trouble in troubles
        }
        said = _deliver(memory.unsent, context)
        return dg.SensorResult(
            skip_reason=f"Troubles: {', '.join(memory.told) or 'none'}. {said}", cursor=memory.model_dump_json()
        )

    return alerts


def _deliver(unsent: list[str], context: dg.SensorEvaluationContext) -> str:
    """Send the oldest messages and take them from the list. Says what came of it."""
    sent = 0
    while unsent and sent < MOST_MESSAGES_A_TICK:
        try:
            send(unsent[0])
        except Undelivered as error:
            said = f"Messages not delivered, and kept for the next tick: {len(unsent)}. The reason: {error}."
            context.log.warning(said)
            return said
        del unsent[0]
        sent += 1
    return f"Messages sent: {sent}."


def _begun(trouble: Trouble) -> str:
    promise = "There will be one more message, when this is over; none if it comes to more days."
    return as_text([trouble.name, f"Since {_spelled(trouble.since)}. {promise}", *trouble.said])


def _over(name: str, since: datetime, now: datetime) -> str:
    return as_text([f"Over: {name}", f"It lasted from {_spelled(since)} to {_spelled(now)}."])


def _spelled(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class FailedRun:
    """A failed run of which something is `missing`: it was to make it, and nobody has made it since."""

    run_id: str
    name: str
    ended: datetime
    days: list[str]
    missing: set[Piece]
    said: list[str]


@dataclass(frozen=True)
class FailedRuns:
    """The failed runs in `instance` that were to make something of `watched`."""

    instance: dg.DagsterInstance
    settings: Settings
    watched: Collection[Key]

    def troubles(self, known: Sequence[str], now: datetime) -> list[Trouble]:
        """One for each step in which runs fail, night after night. `known`: the ids of runs that were told of.

        A failed run is a trouble as long as anything that it was to make was not made since: that another run went
        well is not enough, as it may have been about other days.
        """
        found: dict[str, list[FailedRun]] = {}
        since: dict[str, datetime] = {}
        for run in filter(None, map(self._failed_run, self._newest_first(known, now))):
            since[run.name] = run.ended
            newer = found.setdefault(run.name, [])
            if run.missing.difference(*(later.missing for later in newer)):  # else they failed to make the same
                newer.append(run)
        return [
            Trouble(name, since[name], self._said(runs), [run.run_id for run in runs]) for name, runs in found.items()
        ]

    def _newest_first(self, known: Sequence[str], now: datetime) -> list[dg.RunRecord]:
        failed = [dg.DagsterRunStatus.FAILURE]
        records = [*self.instance.get_run_records(dg.RunsFilter(statuses=failed, updated_after=now - NEWS))]
        if known:
            records += self.instance.get_run_records(dg.RunsFilter(statuses=failed, run_ids=known))
        ours = {record.storage_id: record for record in records if record.dagster_run.job_name in JOBS}
        return [ours[storage_id] for storage_id in sorted(ours, reverse=True)]

    def _failed_run(self, record: dg.RunRecord) -> FailedRun | None:
        """What there is to say of a failed run; None if all that it was to make is there."""
        run = record.dagster_run
        began = record.start_time or record.create_timestamp.timestamp()
        planned: set[Piece] = set()
        failures: list[dg.DagsterEvent] = []
        is_scheduled = "dagster/schedule_name" in run.tags
        said: list[str] = []
        for entry in self.instance.all_logs(run.run_id, of_type=_OF_FAILED_RUNS):
            event = entry.get_dagster_event()
            if event.is_step_failure and is_interrupt(event):
                if not is_scheduled:
                    return None  # whoever stopped it knows
            elif event.is_step_failure:
                failures.append(event)
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                planned.add((event.asset_check_planned_data.asset_check_key, ""))
            elif event.asset_key:
                planned.add((event.asset_key, event.partition or ""))
            else:
                said.append(event.message or "")
        first_day = self.settings.devin_start_date.isoformat()
        wanted = {(key, day) for key, day in planned if key in self.watched and (not day or day >= first_day)}
        missing = wanted - self._made_since(began, wanted)
        if not missing:
            return None
        kind = "Scheduled run" if is_scheduled else "Run"
        return FailedRun(
            run.run_id,
            f"{kind} failed in {failures[0].step_key}" if failures else f"{kind} broke off",
            datetime.fromtimestamp(record.end_time or began, UTC),
            sorted(day for _, day in wanted if day),
            missing,
            [failure_message(event, run.run_id) for event in failures] or said,
        )

    def _made_since(self, moment: float, wanted: set[Piece]) -> set[Piece]:
        """What was made after `moment`, by whatever run; of other than `wanted`, not all."""
        made: set[Piece] = set()
        for key in {key for key, _ in wanted}:
            if isinstance(key, dg.AssetCheckKey):
                made |= {(key, "") for result in _results(self.instance, key, 1) if _at(result) > moment}
                continue
            latest = self.instance.get_latest_materialization_event(key)
            if latest and latest.timestamp > moment:
                earlier = dg.AssetRecordsFilter(asset_key=key, before_timestamp=moment)
                before = self.instance.fetch_materializations(earlier, limit=1).records
                cursor = before[0].storage_id if before else None
                made |= {(key, day) for day in ("", *self.instance.get_materialized_partitions(key, None, cursor))}
        if any(day for _, day in wanted - made):
            # What a killed run has stored, the warehouse alone knows.
            made |= {piece for piece, read_at in self._last_read.items() if read_at > moment}
        return made

    @cached_property
    def _last_read(self) -> dict[Piece, float]:
        """When each day in the warehouse was last read; empty if that cannot be looked into."""
        database = Database(url=self.settings.warehouse_url, lock_timeout_seconds=LOCK_TIMEOUT_SECONDS)
        found: dict[Piece, float] = {}
        with suppress(*UNUSABLE_WAREHOUSE), open_read_only(database) as connection:
            for dimension in self.settings.dimensions:
                key = dg.AssetKey(dimension.cells.name)
                read = reads.last_read(connection, dimension)
                found |= {(key, day.isoformat()): read_at.timestamp() for day, read_at in read.items()}
        return found

    def _said(self, runs: Sequence[FailedRun]) -> list[str]:
        """The lines about failed runs: the days, what makes up for them, and what the failures say."""
        missing = {piece for run in runs for piece in run.missing}
        said = dict.fromkeys(sentence for run in runs for sentence in run.said)
        if days := sorted({day for _, day in missing if day}):
            is_again = not missing.isdisjoint(self._last_read)
            return [f"Days: {spelled([*map(date.fromisoformat, days)])}", _command(days, is_again=is_again), *said]
        # Everything is loaded; checks are made only of what is read again.
        is_again = any(isinstance(key, dg.AssetCheckKey) for key, _ in missing)
        return [_command(sorted(day for run in runs for day in run.days), is_again=is_again), *said]


def _command(days: Sequence[str], *, is_again: bool) -> str:
    what = f"{days[0]} {days[-1]}{' --refresh' if is_again else ''}" if days else "--missing"
    return f"To mend: devin-sessions backfill {what}"


def red_checks(instance: dg.DagsterInstance, checks: Collection[dg.AssetCheckKey]) -> list[Trouble]:
    """The checks whose latest result is an error or a warning."""
    return [
        _red_check(list(itertools.takewhile(_is_red, _results(instance, key, MOST_RESULTS))))
        for key in sorted(checks, key=dg.AssetCheckKey.to_user_string)
        if any(map(_is_red, _results(instance, key, 1)))
    ]


def _red_check(streak: Sequence[AssetCheckExecutionRecord]) -> Trouble:
    """The trouble that these results of one check are about, the latest of them first."""
    key, evaluation = streak[0].key, streak[0].evaluation
    assert evaluation is not None, "it is a result"
    severity = "warning" if evaluation.severity == dg.AssetCheckSeverity.WARN else "error"
    said = evaluation.description or "It says no more."
    more = [] if "devin-sessions" in said else ["To see how things are: devin-sessions status"]
    return Trouble(
        f"Check {key.name} of {key.asset_key.to_user_string()}: {severity}",
        datetime.fromtimestamp(_at(streak[-1]), UTC),
        [said, *more],
    )


def _is_red(result: AssetCheckExecutionRecord) -> bool:
    return result.status == AssetCheckExecutionRecordStatus.FAILED


def _at(result: AssetCheckExecutionRecord) -> float:
    # The record's own time is in whole seconds.
    return result.event.timestamp if result.event else result.create_timestamp


def _results(instance: dg.DagsterInstance, key: dg.AssetCheckKey, most: int) -> Sequence[AssetCheckExecutionRecord]:
    """The latest results of a check, the newest first; not what is planned, under way or was skipped."""
    results = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    return instance.event_log_storage.get_asset_check_execution_history(key, most, status=results)
