"""When it runs: the one job, and its one schedule."""

from datetime import datetime

import dagster as dg

from pipelines.partitions import closed_days
from pipelines.settings import Settings

JOB = "daily_refresh"
HOURS_AFTER_CLOSE, MINUTE = 2, 30


def range_tags(first: str, last: str) -> dict[str, str]:
    """The tags by which one run loads the days `first` to `last`, both included."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def daily_refresh_schedule(
    assets: list[dg.AssetsDefinition], partitions: dg.DailyPartitionsDefinition, settings: Settings
) -> dg.ScheduleDefinition:
    """The job over `assets`, 02:30 after each day has closed: the last DEVIN_LOOKBACK_DAYS days in one run."""
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*assets),
        description="Asks the source for the days of the run, stores and checks them, and rebuilds the rollups.",
    )
    again = settings.devin_lookback_days - 1

    @dg.schedule(
        job=job,
        cron_schedule=f"{MINUTE} {(settings.devin_day_start_hour + HOURS_AFTER_CLOSE) % 24} * * *",
        execution_timezone=settings.devin_timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Loads the day that closed last and reads the {again} before it again.",
    )
    def daily_refresh_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now: datetime = context.scheduled_execution_time
        days = [day.isoformat() for day in closed_days(partitions, now)[-settings.devin_lookback_days :]]
        if not days:
            return dg.SkipReason("No day since DEVIN_START_DATE is closed yet.")
        return dg.RunRequest(run_key=days[-1], tags=range_tags(days[0], days[-1]))

    return daily_refresh_schedule
