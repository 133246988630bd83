"""Sensor `loaded_days_follow`: days that were loaded by another run than the job's own reach analysts too.

The job and the command build what follows themselves, so there is nothing left for it after those. It looks at the
warehouse only when a run has ended.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

from pipelines.behind import behind
from pipelines.failures import UNUSABLE_WAREHOUSE
from pipelines.schedules import JOB
from pipelines.settings import Settings
from warehouse.tables import ROLLUPS

SENSOR = "loaded_days_follow"
QUIET = timedelta(seconds=10)  # between the runs of one backfill, or of one command, there may be none for a moment
_SLACK = timedelta(minutes=5)  # a run's record may be written later than the run ended
_OWN = "dagster/sensor_name"
_UNFINISHED_BACKFILLS = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


def follow_sensor(settings: Settings, quiet: timedelta = QUIET) -> dg.SensorDefinition:
    """The sensor: when runs have ended and none is under way, one run for whatever is older than the stored days.

    If that run fails, one more publishes what can be published without the rollup that failed. Nothing is tried a third
    time until another run has ended.
    """

    @dg.sensor(
        name=SENSOR,
        job_name=JOB,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Brings rollups, snapshot and report up to the stored days, after a load in the UI too.",
    )
    def loaded_days_follow(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        until = datetime.now(UTC) - quiet
        since = datetime.fromisoformat(context.cursor) if context.cursor else None
        if _is_busy(context.instance):
            return dg.SensorResult(skip_reason="A run or a backfill is under way.")
        ended = _ended(context.instance, since)
        if any(_end(record) > until for record in ended):
            return dg.SensorResult(skip_reason="A run has ended just now; the next may follow at once.")
        if since and not ended:
            return dg.SensorResult(skip_reason="No run has ended.", cursor=until.isoformat())
        try:
            found = behind(settings)
        except UNUSABLE_WAREHOUSE as error:
            context.log.warning(str(error))
            return dg.SensorResult(skip_reason=str(error))  # and looked at again, since the cursor stays
        own = [record.dagster_run for record in ended if record.dagster_run.tags.get(_OWN) == SENSOR]
        rollups = {dg.AssetKey(rollup.name) for rollup in ROLLUPS}
        if not since or len(own) < len(ended):
            wanted = found.assets
        elif any(rollups & set(run.asset_selection or ()) for run in own):
            wanted = found.published
        else:
            wanted = []
        if not wanted:
            still = f"Still behind: {', '.join(found.assets)}." if found.assets else "Nothing is behind."
            return dg.SensorResult(skip_reason=still, cursor=until.isoformat())
        request = dg.RunRequest(
            run_key=ended[0].dagster_run.run_id if ended else None, asset_selection=[*map(dg.AssetKey, wanted)]
        )
        return dg.SensorResult(run_requests=[request], cursor=until.isoformat())

    return loaded_days_follow


def _is_busy(instance: dg.DagsterInstance) -> bool:
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=_UNFINISHED_BACKFILLS), limit=1)
    return bool(backfills or instance.get_run_records(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES), limit=1))


def _ended(instance: dg.DagsterInstance, since: datetime | None) -> list[dg.RunRecord]:
    """The runs that ended after `since`, or the last one; the newest first."""
    if since is None:
        return [*instance.get_run_records(dg.RunsFilter(statuses=FINISHED_STATUSES), limit=1)]
    updated = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_after=since - _SLACK)
    return [record for record in instance.get_run_records(updated) if _end(record) > since]


def _end(record: dg.RunRecord) -> datetime:
    return datetime.fromtimestamp(record.end_time or 0, UTC)
