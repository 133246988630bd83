"""Running the job in this process, recorded in the Dagster instance like any other run."""

import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import dagster as dg

from pipelines.rollups import ROLLUPS
from pipelines.schedules import JOB, range_tags
from pipelines.settings import PROJECT

# The user's screen shows progress and sentences; Dagster's own log is in the instance and its UI.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Outcome:
    """How one run ended: what failed and which checks are red, as sentences."""

    run_id: str
    failures: list[str] = field(default_factory=list)
    red_checks: list[str] = field(default_factory=list)
    is_interrupted: bool = False


def dagster_home() -> Path:
    """The instance's folder: DAGSTER_HOME, else data/dagster. Made and given the project's dagster.yaml if need be."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(PROJECT / "data" / "dagster")))
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").symlink_to(PROJECT / "dagster.yaml")
    return home


def open_instance() -> dg.DagsterInstance:
    """The instance of `dagster_home`; a context manager."""
    dagster_home()
    return dg.DagsterInstance.get()


def run_range(definitions: dg.Definitions, instance: dg.DagsterInstance, first: date, last: date) -> Outcome:
    """One run of the job over the days `first` to `last`. If it stored only a part, the rollups still follow."""
    job = definitions.resolve_job_def(JOB)
    tags = range_tags(first.isoformat(), last.isoformat())
    result = job.execute_in_process(instance=instance, tags=tags, run_config=_QUIET, raise_on_error=False)
    outcome = Outcome(result.run_id)
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.error and failure.error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
                outcome.is_interrupted = True
                continue
            told = failure.user_failure_data.description if failure.user_failure_data else None
            error = failure.error.message.strip() if failure.error else "no reason given"
            outcome.failures.append(told or f"{event.step_key}: {error}")
    if outcome.failures and any(e.partition for e in result.get_asset_materialization_events()):
        # Dagster skips what is downstream of a failure, but what was stored should be in the rollups all the same.
        rollups = [asset.key for asset in ROLLUPS]
        job.execute_in_process(instance=instance, run_config=_QUIET, raise_on_error=False, asset_selection=rollups)
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            outcome.red_checks.append(check.description or check.check_name)
    return outcome
