"""Sensor `alerts`: one message to DEVIN_ALERT_WEBHOOK_URL when a problem begins, and one when it is resolved.

Problems are read from Dagster's own record of runs and checks. `resources.webhook` delivers the messages.
"""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster._core.remote_origin import CodeLocationOrigin
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from pydantic import BaseModel, Field

from pipelines import names
from pipelines.alive import KILLED
from pipelines.asset_keys import Key, is_from
from pipelines.code_locations import clashes
from pipelines.failures import failure_message, is_interrupt
from pipelines.partitions import format_days
from pipelines.produced import Piece, Produced, results_of
from pipelines.settings import Settings
from resources.webhook import URL_VARIABLE, Undelivered, as_text, send

# The maximum age of a failed run that no message was sent about yet: the machine was off, or alerts are new.
NEWS = timedelta(days=7)
# Dagster gives a tick one minute; a message may take ten seconds.
MOST_MESSAGES_A_TICK = 5
# For so long Dagster may take to start a killed run again before it counts as failed.
RETRY_PATIENCE = timedelta(minutes=10)
# How many results are searched for the one that turned a check red.
MOST_RESULTS = 100

_OF_FAILED_RUNS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong until it is fixed. `name` identifies it and is the same every night."""

    name: str
    since: datetime
    details: list[str]
    run_ids: list[str] = field(default_factory=list)


class Reported(BaseModel):
    """What is kept about a problem that was reported: when it began, and the failed runs behind it."""

    since: datetime
    run_ids: list[str]


class Memory(BaseModel):
    """What the sensor keeps from tick to tick: the open problems by name, and the messages not delivered yet."""

    open: dict[str, Reported] = Field(default={}, alias="told")  # the name in stored cursors
    unsent: list[str] = []


def alerts_sensor(
    assets: Sequence[dg.AssetsDefinition], checks: Sequence[dg.AssetChecksDefinition], settings: Settings
) -> dg.SensorDefinition:
    """The sensor that watches the runs of these assets, and these checks."""
    watched_assets = {key for asset in assets for key in asset.keys}
    watched_checks = {key for definition in [*assets, *checks] for key in definition.check_keys}

    @dg.sensor(
        name=names.alerts(settings),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Tells {URL_VARIABLE} when a run fails or a check turns red, and when that is resolved.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = Memory.model_validate_json(context.cursor) if context.cursor else Memory()
        now = datetime.now(UTC)
        known = [run_id for reported in memory.open.values() for run_id in reported.run_ids]
        watched = watched_assets | watched_checks
        failed = FailedRuns(context.instance, settings, watched, context.code_location_origin)
        problems = [*failed.problems(known, now), *red_checks(context.instance, watched_checks)]
        if mixed_up := clashes(context.instance, settings, now):
            problems.append(Problem("Code locations are not told apart", now, mixed_up))
        new = [problem for problem in problems if problem.name not in memory.open]
        resolved = memory.open.keys() - {problem.name for problem in problems}
        # Messages that cannot be sent now wait in the cursor, so that none is lost.
        memory.unsent += [
            *(_new_message(problem, settings) for problem in new),
            *(
                _resolved_message(_title(name, settings), reported.since, now)
                for name, reported in memory.open.items()
                if name in resolved
            ),
        ]
        memory.open = {
            problem.name: Reported(since=memory.open.get(problem.name, problem).since, run_ids=problem.run_ids)
            for problem in problems
        }
        outcome = _deliver(memory.unsent, context)
        return dg.SensorResult(
            skip_reason=f"Open problems: {', '.join(memory.open) or 'none'}. {outcome}",
            cursor=memory.model_dump_json(by_alias=True),
        )

    return alerts


def _deliver(unsent: list[str], context: dg.SensorEvaluationContext) -> str:
    """Send the oldest messages and remove them from the list. Returns a sentence about the outcome."""
    sent = 0
    while unsent and sent < MOST_MESSAGES_A_TICK:
        try:
            send(unsent[0])
        except Undelivered as error:
            outcome = f"Messages not delivered, and kept for the next tick: {len(unsent)}. Reason: {error}."
            context.log.warning(outcome)
            return outcome
        del unsent[0]
        sent += 1
    return f"Messages sent: {sent}."


def _title(name: str, settings: Settings) -> str:
    """The name of a problem after the enterprise's: several may use one webhook."""
    return f"{settings.devin_enterprise}: {name}" if settings.devin_enterprise else name


def _new_message(problem: Problem, settings: Settings) -> str:
    promise = "You will get one more message when this is resolved, and none in between."
    since = f"Since {_format_time(problem.since)}. {promise}"
    return as_text([_title(problem.name, settings), since, *problem.details])


def _resolved_message(name: str, since: datetime, now: datetime) -> str:
    return as_text([f"Resolved: {name}", f"It lasted from {_format_time(since)} to {_format_time(now)}."])


def _format_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class FailedRun:
    """A failed run with something still `missing`: planned by it, and produced by no run since."""

    run_id: str
    name: str
    ended: datetime
    days: list[str]
    missing: set[Piece]
    reasons: list[str]


@dataclass(frozen=True)
class FailedRuns:
    """The failed runs in `instance` of this code location that planned something in `watched`."""

    instance: dg.DagsterInstance
    settings: Settings
    watched: Collection[Key]
    location: CodeLocationOrigin | None

    def problems(self, known: Sequence[str], now: datetime) -> list[Problem]:
        """One problem for each step in which runs fail, however many do. `known` are ids of runs reported before.

        A failed run is a problem until everything it planned has been produced. Another run's success alone is not
        enough, since it may have been about other days.
        """
        found: dict[str, list[FailedRun]] = {}
        since: dict[str, datetime] = {}
        records = self._newest_first(known, now)
        produced = Produced(self.instance, self.settings, records)
        for run in filter(None, (self._failed_run(record, produced) for record in records)):
            since[run.name] = run.ended
            newer = found.setdefault(run.name, [])
            if run.missing.difference(*(later.missing for later in newer)):  # else newer runs lack all of it too
                newer.append(run)
        return [
            Problem(name, since[name], _details(runs, produced), [run.run_id for run in runs])
            for name, runs in found.items()
        ]

    def _newest_first(self, known: Sequence[str], now: datetime) -> list[dg.RunRecord]:
        failed = [dg.DagsterRunStatus.FAILURE]
        records = [*self.instance.get_run_records(dg.RunsFilter(statuses=failed, updated_after=now - NEWS))]
        if known:
            records += self.instance.get_run_records(dg.RunsFilter(statuses=failed, run_ids=known))
        ours = {
            record.storage_id: record
            for record in records
            if self._is_ours(record.dagster_run) and not self._is_retried(record, now)
        }
        return [ours[storage_id] for storage_id in sorted(ours, reverse=True)]

    def _is_ours(self, run: dg.DagsterRun) -> bool:
        return run.job_name in names.jobs(self.settings) and is_from(self.location, run)

    def _is_retried(self, record: dg.RunRecord, now: datetime) -> bool:
        """Whether Dagster runs it again by itself, because its process was killed: then that run's end counts."""
        run = record.dagster_run
        if run.remote_job_origin is None or run.tags.get(WILL_RETRY_TAG) != "true":
            return False
        if not (retry_id := run.tags.get(AUTO_RETRY_RUN_ID_TAG)):
            return _end(record) > now - RETRY_PATIENCE
        retry = self.instance.get_run_record_by_id(retry_id)
        if retry is None or retry.dagster_run.status is dg.DagsterRunStatus.FAILURE:
            return retry is not None and self._is_retried(retry, now)
        if retry.dagster_run.status is dg.DagsterRunStatus.CANCELED:
            return not _is_scheduled(run)  # the user who canceled it knows
        return not retry.dagster_run.is_finished

    def _failed_run(self, record: dg.RunRecord, produced: Produced) -> FailedRun | None:
        """The failed run of this record; None if everything it planned exists by now, or a user stopped it."""
        run = record.dagster_run
        planned: set[Piece] = set()
        failures: list[dg.DagsterEvent] = []
        is_scheduled = _is_scheduled(run)
        run_messages: list[str] = []
        for entry in self.instance.all_logs(run.run_id, of_type=_OF_FAILED_RUNS):
            event = entry.get_dagster_event()
            if event.is_step_failure and is_interrupt(event):
                if not is_scheduled:
                    return None  # the user who stopped it knows
            elif event.is_step_failure:
                failures.append(event)
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                planned.add((event.asset_check_planned_data.asset_check_key, ""))
            elif event.asset_key:
                planned.add((event.asset_key, event.partition or ""))
            elif event.event_specific_data is None:  # it was reported by another process, whose words may not say why
                run_messages += [KILLED, event.message or ""]
            else:
                run_messages.append(event.message or "")
        first_day = self.settings.devin_start_date.isoformat()
        wanted = {(key, day) for key, day in planned if key in self.watched and (not day or day >= first_day)}
        missing = wanted - produced.since(record, wanted)
        if not missing:
            return None
        kind = "Scheduled run" if is_scheduled else "Run"
        return FailedRun(
            run.run_id,
            f"{kind} failed in {failures[0].step_key}" if failures else f"{kind} broke off",
            _end(record),
            sorted(day for _, day in wanted if day),
            missing,
            [failure_message(event, run.run_id) for event in failures] or run_messages,
        )


def _is_scheduled(run: dg.DagsterRun) -> bool:
    return "dagster/schedule_name" in run.tags


def _end(record: dg.RunRecord) -> datetime:
    return record.create_timestamp if record.end_time is None else datetime.fromtimestamp(record.end_time, UTC)


def _details(runs: Sequence[FailedRun], produced: Produced) -> list[str]:
    """The lines about failed runs: the days, the command that loads them, and the reasons."""
    missing = {piece for run in runs for piece in run.missing}
    reasons = dict.fromkeys(reason for run in runs for reason in run.reasons)
    if days := sorted({day for _, day in missing if day}):
        is_again = not missing.isdisjoint(produced.last_read)
        listed = format_days([*map(date.fromisoformat, days)])
        return [f"Days: {listed}", _fixing_command(days, is_again=is_again), *reasons]
    # Everything is loaded; checks run only on days that are read again.
    is_again = any(isinstance(key, dg.AssetCheckKey) for key, _ in missing)
    return [_fixing_command(sorted(day for run in runs for day in run.days), is_again=is_again), *reasons]


def _fixing_command(days: Sequence[str], *, is_again: bool) -> str:
    what = f"{days[0]} {days[-1]}{' --refresh' if is_again else ''}" if days else "--missing"
    return f"To fix: devin-sessions backfill {what}"


def red_checks(instance: dg.DagsterInstance, checks: Collection[dg.AssetCheckKey]) -> list[Problem]:
    """The checks whose latest result is an error or a warning."""
    return [
        _red_check(list(itertools.takewhile(_is_red, results_of(instance, key, MOST_RESULTS))))
        for key in sorted(checks, key=dg.AssetCheckKey.to_user_string)
        if any(map(_is_red, results_of(instance, key, 1)))
    ]


def _red_check(streak: Sequence[AssetCheckExecutionRecord]) -> Problem:
    """The problem behind these red results of one check, given newest first."""
    key, evaluation = streak[0].key, streak[0].evaluation
    assert evaluation is not None, "it is a result"
    severity = "warning" if evaluation.severity == dg.AssetCheckSeverity.WARN else "error"
    description = evaluation.description or "The check gives no reason."
    more = [] if "devin-sessions" in description else ["To see what is wrong: devin-sessions status"]
    return Problem(
        f"Check {key.name} of {key.asset_key.to_user_string()}: {severity}",
        datetime.fromtimestamp(_time_of(streak[-1]), UTC),
        [description, *more],
    )


def _is_red(result: AssetCheckExecutionRecord) -> bool:
    return result.status == AssetCheckExecutionRecordStatus.FAILED


def _time_of(result: AssetCheckExecutionRecord) -> float:
    # The record's own timestamp is in whole seconds.
    return result.event.timestamp if result.event else result.create_timestamp
