"""Sensor `loaded_days_follow`: days loaded outside the job, such as in the UI, reach analysts too.

The job and the command build the rollups and publish themselves, so they leave it nothing to do. The sensor looks at
the warehouse only after a run has ended.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.remote_origin import CodeLocationOrigin
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

from pipelines import names
from pipelines.alive import close_dead_runs
from pipelines.asset_keys import asset_key, is_any_ours, is_ours
from pipelines.behind import behind
from pipelines.code_locations import register
from pipelines.failures import UNUSABLE_WAREHOUSE
from pipelines.launching import file_out_of_reach
from pipelines.pool import limit_the_pool
from pipelines.settings import Settings
from warehouse.tables import ROLLUPS

QUIET = timedelta(seconds=10)  # one backfill, or one command, may pause that long between two of its runs
_SLACK = timedelta(minutes=5)  # a run's record may be written some time after the run ended
_RECENT_RUNS = 100  # in an instance of several code locations, the last one may be another's
_OWN = "dagster/sensor_name"
_NO_KEY = (
    "This code location has no DEVIN_API_KEY, so its runs will fail: set it where its process starts, and restart that."
)
_UNFINISHED_BACKFILLS = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


def follow_sensor(settings: Settings, quiet: timedelta = QUIET) -> dg.SensorDefinition:
    """The sensor: after runs have ended and while none is running, it requests one run for what is behind the days.

    If that run fails, one more publishes what can be published without the failed rollup. There is no third try until
    another run has ended.
    """

    said: set[str] = set()  # once in each process that loads the code location

    @dg.sensor(
        name=names.follow(settings),
        job_name=names.job(settings),
        minimum_interval_seconds=10,  # so late is a killed run noticed
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Rebuilds the rollups, the snapshot and the report after days were loaded in the UI.",
    )
    def loaded_days_follow(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        limit_the_pool(context.instance, settings)
        found = _catch_up(context, settings, quiet)
        wrong = [] if settings.devin_api_key else [_NO_KEY]
        if location := context.code_location_origin:
            wrong += register(context.instance, settings, location.location_name, datetime.now(UTC))
        if unreachable := file_out_of_reach(context.instance, settings):
            wrong.append(unreachable)
        for sentence in wrong:
            if sentence not in said:
                context.log.warning(sentence)
                said.add(sentence)
        if wrong and found.skip_reason:
            reasons = [*wrong, found.skip_reason.skip_message or ""]
            found = found._replace(skip_reason=dg.SkipReason(" ".join(reasons)))
        return found

    return loaded_days_follow


def _catch_up(context: dg.SensorEvaluationContext, settings: Settings, quiet: timedelta) -> dg.SensorResult:
    """What one tick requests, or why it requests nothing."""
    try:
        close_dead_runs(context.instance)  # or they would appear to be in progress for ever
    except OSError as error:
        context.log.warning(f"Runs whose process was killed cannot be found: {error}")
    now = datetime.now(UTC)
    until = now - quiet
    since = datetime.fromisoformat(context.cursor) if context.cursor else None
    if since and since > now:
        since = None  # the clock was ahead, and runs would go unnoticed for as long as that
    location = context.code_location_origin
    if _is_busy(context.instance, settings, location):
        return dg.SensorResult(skip_reason="A run or a backfill is in progress.")
    ended = _ended(context.instance, settings, location, since)
    if any(_end(record) > until for record in ended):
        return dg.SensorResult(skip_reason="A run ended just now; another may follow at once.")
    if since and not ended:
        return dg.SensorResult(skip_reason="No run has ended.", cursor=until.isoformat())
    try:
        found = behind(settings)
    except UNUSABLE_WAREHOUSE as error:
        context.log.warning(str(error))
        return dg.SensorResult(skip_reason=str(error))  # the cursor stays, so the next tick looks again
    sensor = names.follow(settings)
    own = [record.dagster_run for record in ended if record.dagster_run.tags.get(_OWN) == sensor]
    rollups = {asset_key(settings, rollup.name) for rollup in ROLLUPS}
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
        run_key=ended[0].dagster_run.run_id if ended else None,
        asset_selection=[asset_key(settings, name) for name in wanted],
    )
    return dg.SensorResult(run_requests=[request], cursor=until.isoformat())


def unfinished_backfills(instance: dg.DagsterInstance, settings: Settings) -> list[str]:
    """The ids of the backfills of the UI that have not ended: the daemon has yet to launch runs of theirs."""
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=_UNFINISHED_BACKFILLS))
    return [backfill.backfill_id for backfill in backfills if is_any_ours(settings, backfill.asset_selection)]


def _is_busy(instance: dg.DagsterInstance, settings: Settings, location: CodeLocationOrigin | None) -> bool:
    runs = instance.get_run_records(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return bool(unfinished_backfills(instance, settings)) or any(
        is_ours(settings, record.dagster_run, location) for record in runs
    )


def _ended(
    instance: dg.DagsterInstance, settings: Settings, location: CodeLocationOrigin | None, since: datetime | None
) -> list[dg.RunRecord]:
    """The runs that ended after `since`, newest first; a last one, if there is any, if `since` is None."""
    ended = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_after=since - _SLACK if since else None)
    records = instance.get_run_records(ended, limit=None if since else _RECENT_RUNS)
    ours = [record for record in records if is_ours(settings, record.dagster_run, location)]
    return [record for record in ours if _end(record) > since] if since else ours[:1]


def _end(record: dg.RunRecord) -> datetime:
    return datetime.fromtimestamp(record.end_time or 0, UTC)
