"""Runs of the job in this process, recorded in the Dagster instance like any other run."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

import dagster as dg
from dagster._core.utils import make_new_run_id

from pipelines import names
from pipelines.alive import close_dead_runs, marked_as_alive
from pipelines.asset_keys import PUBLISHED, Key
from pipelines.command import interrupts
from pipelines.command.dagster_home import HomeUnusable, using_run_record
from pipelines.failures import failure_message, is_interrupt, must_be_fixed
from pipelines.loading.progress import Progress
from pipelines.partitions import parts
from pipelines.schedules import range_tags, shares, split
from pipelines.settings import Settings
from resources.event_log import BatchingSqliteEventLogStorage
from warehouse.dimensions import Dimension

# Keeps Dagster's log off the user's screen; it is in the instance and the UI.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

_LOCK_TIMEOUT_SECONDS = 10.0


@dataclass
class Outcome:
    """How one run ended: failures as messages, the steps that failed or succeeded, the results of its checks.

    must_be_fixed: someone has to fix what a message says before the same run can succeed.
    """

    failures: list[str] = field(default_factory=list)
    checks: dict[dg.AssetCheckKey, dg.AssetCheckEvaluation] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)
    must_be_fixed: bool = False
    is_interrupted: bool = False


def run_days(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    progress: Progress,
    settings: Settings,
    dimension: Dimension,
    days: Iterable[date],
    *,
    refresh: bool = False,
) -> list[Outcome]:
    """Run the job's assets about `dimension` for `days`, in one run for each DEVIN_DAYS_PER_RUN of them.

    The first run lists who is counted, each loads its days, and the last updates what is downstream. A failure ends
    that, but the assets downstream are still updated if any day was stored. Unless `refresh`, days that are already
    loaded are read only for their missing counts. `progress` is the one in the definitions.
    """
    try:
        with using_run_record():
            if isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage):
                instance.event_log_storage.check_writable(_LOCK_TIMEOUT_SECONDS)
            close_dead_runs(instance)
    except HomeUnusable as error:
        return [Outcome([str(error)])]
    keys = _keys(definitions)
    selected = {keys[dimension.listed.name], keys[dimension.cells.name], *_downstream(definitions, dimension)}
    spans = parts(days, settings.devin_days_per_run)
    loads_before = len(progress.results)
    outcomes: list[Outcome] = []
    for (first, last), share in zip(
        spans, shares(selected | _checks_of(definitions, selected), settings, len(spans)), strict=True
    ):
        complete_before = None if refresh else last + timedelta(days=1)
        tags = range_tags(first.isoformat(), last.isoformat(), complete_before)
        outcomes.append(_run(definitions, instance, settings, share, tags=tags))
        if outcomes[-1].failures or outcomes[-1].is_interrupted:
            break
    if outcomes[-1].failures and any(result.stored for result in progress.results[loads_before:]):
        # Dagster skips what is downstream of a failure, but the days that were stored belong in the rollups.
        outcomes.append(run_downstream(definitions, instance, settings, dimension))
    return outcomes


def run_listing(
    definitions: dg.Definitions, instance: dg.DagsterInstance, settings: Settings, dimension: Dimension
) -> Outcome:
    """Run only the asset that lists who is counted."""
    listed = _keys(definitions)[dimension.listed.name]
    return _run(definitions, instance, settings, {listed, *_checks_of(definitions, [listed])})


def run_downstream(
    definitions: dg.Definitions, instance: dg.DagsterInstance, settings: Settings, dimension: Dimension
) -> Outcome:
    """Run only the rollups and what is published.

    If a rollup fails, what is published is still updated, in a run of its own.
    """
    selection = _downstream(definitions, dimension)
    outcome = _run(definitions, instance, settings, selection) if selection else Outcome()
    published = [key for key in selection if key.path[-1] in PUBLISHED]
    if published and outcome.failures and outcome.failed.isdisjoint(key.to_python_identifier() for key in published):
        again = _run(definitions, instance, settings, published)
        outcome.failures += again.failures
        outcome.succeeded |= again.succeeded
    return outcome


def _downstream(definitions: dg.Definitions, dimension: Dimension) -> list[dg.AssetKey]:
    keys = _keys(definitions)
    downstream = [*(rollup.name for rollup in dimension.rollups), *PUBLISHED]
    return [keys[name] for name in downstream if name in keys]


def _keys(definitions: dg.Definitions) -> dict[str, dg.AssetKey]:
    """The assets' keys by their names, which a prefix may precede."""
    return {key.path[-1]: key for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def _checks_of(definitions: dg.Definitions, assets: Collection[dg.AssetKey]) -> set[dg.AssetCheckKey]:
    return {key for key in definitions.resolve_asset_graph().asset_check_keys if key.asset_key in assets}


def _run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    settings: Settings,
    keys: Collection[Key],
    tags: dict[str, str] | None = None,
) -> Outcome:
    """Run these assets and checks of the job."""
    outcome = Outcome(is_interrupted=bool(interrupts.received()))
    if outcome.is_interrupted:
        return outcome
    assets, checks = split(keys)
    job = definitions.resolve_job_def(names.job(settings))
    if {*checks} != _checks_of(definitions, assets):
        # With a selection of assets, Dagster would add all their checks.
        job = job.get_subset(asset_selection={*assets}, asset_check_selection={*checks})
        assets = []
    run_id = make_new_run_id()
    # Dagster records an interrupted run as failed, unless its cancellation was requested.
    instance.add_event_listener(run_id, lambda entry: _request_cancellation(instance, entry))
    try:
        with using_run_record(), marked_as_alive(instance, run_id):
            result = job.execute_in_process(
                instance=instance,
                run_id=run_id,
                run_config=_QUIET,
                raise_on_error=False,
                asset_selection=assets,
                tags=tags,
            )
    except HomeUnusable as error:
        return Outcome([str(error)])
    for event in result.all_events:
        if event.is_step_success:
            outcome.succeeded.add(event.step_key or "")
        if event.is_step_failure:
            if is_interrupt(event):
                outcome.is_interrupted = True
                continue
            outcome.failures.append(failure_message(event, result.run_id))
            outcome.failed.add(event.step_key or "")
            outcome.must_be_fixed |= must_be_fixed(event)
    for check in result.get_asset_check_evaluations():
        outcome.checks[check.asset_check_key] = check
    outcome.is_interrupted |= not result.success and bool(interrupts.received())
    if outcome.is_interrupted:
        with using_run_record():
            _record_as_canceled(instance, run_id)
    return outcome


def _request_cancellation(instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> None:
    event = entry.dagster_event
    if event and event.is_step_failure and is_interrupt(event):
        run = instance.get_run_by_id(entry.run_id)
        if run and run.status is dg.DagsterRunStatus.STARTED:
            instance.report_run_canceling(run, "Interrupted on the terminal.")


def _record_as_canceled(instance: dg.DagsterInstance, run_id: str) -> None:
    """Record the run as canceled if the interrupt came between two steps."""
    run = instance.get_run_by_id(run_id)
    if run and run.status not in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS):
        instance.report_run_canceled(run, "Interrupted on the terminal. What it stored is kept.")


def failed_checks(outcomes: Iterable[Outcome], severity: dg.AssetCheckSeverity) -> list[str]:
    """The descriptions of the checks of this severity whose last evaluation in these runs failed, each once."""
    last = {key: check for outcome in outcomes for key, check in outcome.checks.items()}
    failed = [check for check in last.values() if not check.passed and check.severity is severity]
    return list(dict.fromkeys(check.description or check.check_name for check in failed))
