"""Running the job in this process, recorded in the Dagster instance like any other run."""

import contextlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import FileLock

from pipelines.progress import Progress
from pipelines.publish import PUBLISHED_SNAPSHOT
from pipelines.report import ACTIVITY_REPORT
from pipelines.rollups import ROLLUPS
from pipelines.schedules import JOB, range_tags
from pipelines.settings import PROJECT
from warehouse.tables import ORGANIZATIONS, Counted

# The user's screen shows progress and sentences; Dagster's own log is in the instance and its UI.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

_HOST, _PID = "devin-sessions/host", "devin-sessions/process"


class HomeUnusable(Exception):
    """DAGSTER_HOME is no folder that Dagster can keep its record of runs in. The message is for the user."""


@dataclass
class Outcome:
    """How one run ended: what failed, as sentences and as assets, and what its checks found."""

    failures: list[str] = field(default_factory=list)
    checks: dict[dg.AssetCheckKey, dg.AssetCheckEvaluation] = field(default_factory=dict)
    failed: set[dg.AssetKey] = field(default_factory=set)
    is_interrupted: bool = False


def dagster_home() -> Path:
    """The instance's folder: DAGSTER_HOME, else data/dagster. Made and given the project's dagster.yaml if need be.

    Raises HomeUnusable.
    """
    home = _home()
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")  # only then does Dagster store events in batches
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):  # by an earlier start, or by one at the same time
            (home / "dagster.yaml").symlink_to(PROJECT / "dagster.yaml")
    except OSError as error:
        raise HomeUnusable(
            f"DAGSTER_HOME={home} can't be the folder of Dagster's record of runs: {error.strerror}. Name a folder in "
            "which you may write, or none: then it is data/dagster."
        ) from error
    return home


def home_is_there() -> bool:
    """Whether anything was ever run: what only looks makes no instance. Raises HomeUnusable."""
    return _home().is_dir()


def _home() -> Path:
    home = Path(os.environ.get("DAGSTER_HOME") or PROJECT / "data" / "dagster")
    if not home.is_absolute():
        raise HomeUnusable(f"DAGSTER_HOME={home} is refused: Dagster wants a whole path, such as {Path.cwd() / home}.")
    return home


def open_instance() -> dg.DagsterInstance:
    """The instance of `dagster_home`; a context manager."""
    # Dagster makes its tables when it first opens the folder, and fails if another process does so at that moment.
    with FileLock(dagster_home() / "opening.lock"):
        return dg.DagsterInstance.get()


def run_range(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    progress: Progress,
    counted: Counted,
    first: date,
    last: date,
    *,
    refresh: bool = False,
) -> Outcome:
    """One run of the job's assets about `counted` over the days `first` to `last`.

    Unless it is to `refresh`, days that are loaded already are only asked for what they lack. If it stored only a part,
    what is downstream still follows. `progress` is the one of the definitions.
    """
    downstream = _downstream(definitions, counted)
    selection = [dg.AssetKey(counted.listed.name), dg.AssetKey(counted.cells.name), *downstream]
    _close_dead_runs(instance)
    stored_before = len(progress.stored)
    complete_before = None if refresh else last + timedelta(days=1)
    tags = range_tags(first.isoformat(), last.isoformat(), complete_before)
    outcome = _run(definitions, instance, tags=tags, asset_selection=selection)
    if outcome.failures and len(progress.stored) > stored_before:
        # Dagster skips what is downstream of a failure, but what was stored should be in the rollups all the same.
        outcome.failures += run_downstream(definitions, instance, counted).failures
    return outcome


def run_downstream(definitions: dg.Definitions, instance: dg.DagsterInstance, counted: Counted) -> Outcome:
    """One run of the rollups, the snapshot and the report alone.

    If a rollup fails, the others and what is published follow all the same, in a run of their own.
    """
    selection = _downstream(definitions, counted)
    outcome = _run(definitions, instance, asset_selection=selection) if selection else Outcome()
    published = [key for key in selection if key in (PUBLISHED_SNAPSHOT, ACTIVITY_REPORT)]
    if outcome.failures and outcome.failed.isdisjoint(published) and published:
        outcome.failures += _run(definitions, instance, asset_selection=published).failures
    return outcome


def _downstream(definitions: dg.Definitions, counted: Counted) -> list[dg.AssetKey]:
    rollups = [asset.key for asset in ROLLUPS] if counted is ORGANIZATIONS else []
    there = definitions.resolve_asset_graph().get_all_asset_keys()
    return [*rollups, *(key for key in (PUBLISHED_SNAPSHOT, ACTIVITY_REPORT) if key in there)]


def _run(definitions: dg.Definitions, instance: dg.DagsterInstance, **options: Any) -> Outcome:
    result = definitions.resolve_job_def(JOB).execute_in_process(
        instance=instance,
        run_config=_QUIET,
        raise_on_error=False,
        **options | {"tags": options.get("tags", {}) | _this_process()},
    )
    outcome = Outcome()
    for event in result.all_events:
        if event.is_step_failure:
            if is_interrupt(event):
                outcome.is_interrupted = True
                continue
            outcome.failures.append(failure_told(event, result.run_id))
            outcome.failed.add(dg.AssetKey(event.step_key or ""))
    for check in result.get_asset_check_evaluations():
        outcome.checks[check.asset_check_key] = check
    return outcome


def checks_told(outcomes: Iterable[Outcome], severity: dg.AssetCheckSeverity) -> list[str]:
    """What the checks say that did not hold when they were last looked at in these runs, if they are so severe."""
    last = {key: check for outcome in outcomes for key, check in outcome.checks.items()}
    failed = [check for check in last.values() if not check.passed and check.severity is severity]
    return list(dict.fromkeys(check.description or check.check_name for check in failed))


def is_interrupt(event: dg.DagsterEvent) -> bool:
    """Whether a step failed only because somebody stopped it."""
    error = event.step_failure_data.error
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def failure_told(event: dg.DagsterEvent, run_id: str) -> str:
    """What a step's failure says to the user."""
    failure = event.step_failure_data
    told = failure.user_failure_data.description if failure.user_failure_data else None
    error = failure.error and (failure.error.cause or failure.error)  # Dagster wraps what a step raised
    why = error.message.strip() if error else "no reason given"
    return told or f"{event.step_key}: {why} (details: run {run_id} in Dagster)"


def _this_process() -> dict[str, str]:
    return {_HOST: socket.gethostname(), _PID: str(os.getpid())}


def _close_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs as failed whose process on this machine is gone: nobody else will, and they would seem to go on."""
    here = {_HOST: socket.gethostname()}
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags=here)):
        try:
            os.kill(int(run.tags[_PID]), 0)
        except ProcessLookupError:
            instance.report_run_failed(run, "The process of this run was killed. What it had stored is kept.")
        except PermissionError:
            continue
