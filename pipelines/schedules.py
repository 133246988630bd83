"""The job and its schedule."""

from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from functools import partial

import dagster as dg
from dagster._utils.schedules import get_next_cron_tick

from pipelines import names
from pipelines.asset_keys import Key, asset_key
from pipelines.failures import UNUSABLE_WAREHOUSE
from pipelines.ledger import missing_days, read
from pipelines.partitions import closed_days, parts, ranges
from pipelines.settings import Settings
from resources.database import Database

HOURS_AFTER_CLOSE, MINUTE = 2, 30


_ROOT_RUN = "dagster/root_run_id"
COMPLETE_BEFORE = "devin-sessions/complete-before"
"""A run's tag: days before this date that are already loaded are read only for their missing counts."""


def range_tags(first: str, last: str, complete_before: date | None = None) -> dict[str, str]:
    """The tags that make one run load the days `first` to `last`, both included."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return tags if complete_before is None else tags | {COMPLETE_BEFORE: complete_before.isoformat()}


def earlier_runs_of(context: dg.AssetExecutionContext) -> list[str]:
    """The ids of the runs that this one re-executes. Days that they loaded are not read again."""
    root = context.run.tags.get(_ROOT_RUN)
    if root is None:
        return []
    group = context.instance.get_runs(dg.RunsFilter(tags={_ROOT_RUN: root}))
    return [root, *(run.run_id for run in group)]


def cron(settings: Settings) -> str:
    """The schedule's cron expression, in DEVIN_TIMEZONE."""
    return f"{MINUTE} {(settings.devin_day_start_hour + HOURS_AFTER_CLOSE) % 24} * * *"


def next_tick(settings: Settings, since: datetime) -> datetime:
    """The next scheduled start at `since` or later, in DEVIN_TIMEZONE; clock changes are taken into account."""
    return get_next_cron_tick(cron(settings), since, settings.devin_timezone)


def shares(keys: Collection[Key], settings: Settings, runs: int) -> list[set[Key]]:
    """What of `keys` each of several runs over parts of the days updates.

    The first one lists who is counted, each loads its days, and the last one does all the rest.
    """
    listed = {asset_key(settings, dimension.listed.name) for dimension in settings.dimensions}
    counts = {asset_key(settings, dimension.cells.name) for dimension in settings.dimensions}
    of_listed = {key for key in keys if (key.asset_key if isinstance(key, dg.AssetCheckKey) else key) in listed}
    first, each, last = of_listed, counts.intersection(keys), {*keys} - of_listed - counts
    return [(first if n == 0 else set()) | each | (last if n == runs - 1 else set()) for n in range(runs)]


def split(keys: Iterable[Key]) -> tuple[list[dg.AssetKey], list[dg.AssetCheckKey]]:
    """The assets and the checks among `keys`."""
    assets = sorted(key for key in keys if isinstance(key, dg.AssetKey))
    return assets, sorted((key for key in keys if isinstance(key, dg.AssetCheckKey)), key=str)


def daily_refresh_schedule(
    assets: Sequence[dg.AssetsDefinition],
    checks: Sequence[dg.AssetChecksDefinition],
    partitions: dg.DailyPartitionsDefinition,
    settings: Settings,
) -> dg.ScheduleDefinition:
    """The schedule of the job over `assets`: two and a half hours after each day has closed.

    It loads the last DEVIN_LOOKBACK_DAYS days, and those of the last DEVIN_CATCH_UP_DAYS that are not loaded. Those
    that don't adjoin the look-back have runs of their own, so that what fails there holds up nothing else. Of several
    runs, the first lists who is counted, and the last does everything but load.
    """
    job = dg.define_asset_job(
        names.job(settings),
        selection=dg.AssetSelection.assets(*assets),
        description="Loads the run's days from the API, stores and checks them, and rebuilds the rollups.",
    )
    again = settings.devin_lookback_days - 1
    keys: set[Key] = {key for asset in assets for key in asset.keys}
    keys |= {key for definition in [*assets, *checks] for key in definition.check_keys}

    @dg.schedule(
        name=names.schedule(settings),
        job=job,
        cron_schedule=cron(settings),
        execution_timezone=settings.devin_timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Loads the latest closed day, reads the {again} before it again, and loads days that were missed.",
    )
    def daily_refresh_schedule(
        context: dg.ScheduleEvaluationContext, database: dg.ResourceParam[Database]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now: datetime = context.scheduled_execution_time
        closed = closed_days(partitions, now)
        if not closed:
            return dg.SkipReason("No day since DEVIN_START_DATE is closed yet.")
        days = set(read_again := closed[-settings.devin_lookback_days :])
        caught_up = closed[-settings.devin_catch_up_days :] if settings.devin_catch_up_days else []
        try:
            for dimension in settings.dimensions:
                days.update(
                    read(database, partial(missing_days, settings=settings, dimension=dimension, days=caught_up))
                )
        except UNUSABLE_WAREHOUSE as error:
            # The run will migrate it, or fail and say why; a failed tick would leave no trace among the runs.
            context.log.warning(str(error))
        latest_range = ranges(days)[-1]
        longest = settings.devin_days_per_run
        spans = [
            *parts((day for day in days if day < latest_range[0]), longest),
            *parts((day for day in days if day >= latest_range[0]), longest),
        ]
        requests = []
        for (first, last), share in zip(spans, shares(keys, settings, len(spans)), strict=True):
            of_assets, of_checks = split(share)
            requests.append(
                dg.RunRequest(
                    run_key=f"{closed[-1]}/{first}",
                    tags=range_tags(first.isoformat(), last.isoformat(), complete_before=read_again[0]),
                    asset_selection=None if share == keys else of_assets,
                    asset_check_keys=None if share == keys else of_checks,
                )
            )
        return requests

    return daily_refresh_schedule
