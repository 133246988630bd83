"""What Dagster's record has of this project's runs: the last ones, and those that have not ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

from pipelines import names
from pipelines.alive import is_killed
from pipelines.asset_keys import ACTIVITY_REPORT, PUBLISHED_FILES, PUBLISHED_SNAPSHOT, is_any_ours, is_ours
from pipelines.partitions import format_days
from pipelines.settings import Settings
from warehouse import tables

RUNS_SHOWN = 5
_RUNS_READ = 50
_NOT_QUEUED = [status for status in dg.DagsterRunStatus if status is not dg.DagsterRunStatus.QUEUED]


@dataclass(frozen=True)
class Run:
    """One run of the job, or of its assets in the UI: when it started (UTC), its days, how it ended, how long it took.

    `rebuilt` says what a run updates that loads no days. `outcome` is Dagster's word, or "killed" until Dagster knows.
    """

    started_at: datetime | None
    days: str
    rebuilt: str
    outcome: str
    seconds: float | None

    @property
    def has_ended(self) -> bool:
        return self.outcome in [status.value.lower() for status in FINISHED_STATUSES]


def last_runs(instance: dg.DagsterInstance, settings: Settings) -> list[Run]:
    """The last runs, newest first, without those that are queued: a backfill in the UI queues any number of them."""
    return list(islice(_runs(instance, settings, _NOT_QUEUED, _RUNS_READ), RUNS_SHOWN))


def queued_runs(instance: dg.DagsterInstance, settings: Settings) -> list[Run]:
    """The runs that wait until others have ended, newest first."""
    return list(_runs(instance, settings, [dg.DagsterRunStatus.QUEUED]))


def unfinished_runs(instance: dg.DagsterInstance, settings: Settings) -> list[Run]:
    """The runs that have not ended and were not killed, newest first, queued ones included."""
    return [run for run in _runs(instance, settings, NOT_FINISHED_STATUSES) if run.outcome != "killed"]


def what_of(runs: Sequence[Run]) -> str:
    """The days of these runs, and what those update that load no days."""
    days: set[date] = set()
    for run in runs:
        if run.days:
            first, last = (date.fromisoformat(run.days.split("…")[end]) for end in (0, -1))
            days.update(first + timedelta(number) for number in range((last - first).days + 1))
    return ", ".join(
        [*([format_days(sorted(days))] if days else []), *dict.fromkeys(run.rebuilt for run in runs if run.rebuilt)]
    )


def _runs(
    instance: dg.DagsterInstance,
    settings: Settings,
    statuses: Sequence[dg.DagsterRunStatus],
    limit: int | None = None,
) -> Iterator[Run]:
    records = [
        record
        for job in names.jobs(settings)
        for record in instance.get_run_records(dg.RunsFilter(job_name=job, statuses=statuses), limit)
    ]
    for record in sorted(records, key=lambda record: record.storage_id, reverse=True):
        if not _is_ours(instance, record.dagster_run, settings):
            continue
        tags = record.dagster_run.tags
        day = tags.get("dagster/partition", "")
        first, last = (tags.get(f"dagster/asset_partition_range_{end}", day) for end in ("start", "end"))
        started_at = datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None
        seconds = record.end_time - record.start_time if record.start_time and record.end_time else None
        killed = is_killed(instance, record.dagster_run)
        outcome = "killed" if killed else record.dagster_run.status.value.lower()
        days = f"{first}…{last}" if first != last else first
        yield Run(started_at, days, "" if days else _rebuilt(record.dagster_run), outcome, seconds)


def _is_ours(instance: dg.DagsterInstance, run: dg.DagsterRun, settings: Settings) -> bool:
    """Whether the run is about this project's assets: another code location may have a job of the same name."""
    of_type = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED}
    records = instance.get_records_for_run(run.run_id, of_type=of_type, limit=1).records
    for planned in (record.event_log_entry.get_dagster_event() for record in records):
        key = planned.asset_key or planned.asset_check_planned_data.asset_key
        return is_any_ours(settings, [key])
    return is_ours(settings, run)


_WORDS = {
    **{rollup.name: "rollups" for rollup in tables.ROLLUPS},
    PUBLISHED_SNAPSHOT: "snapshot",
    PUBLISHED_FILES: "published files",
    ACTIVITY_REPORT: "report",
}


def _rebuilt(run: dg.DagsterRun) -> str:
    """The assets that this run is about, the rollups by one word."""
    chosen = {key.path[-1] for key in run.asset_selection or ()}
    shown = [word for name, word in _WORDS.items() if name in chosen] + sorted(chosen - _WORDS.keys())
    return ", ".join(dict.fromkeys(shown)) or "every asset"
