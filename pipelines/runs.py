"""Running the job in this process, recorded in the Dagster instance like any other run."""

import contextlib
import errno
import os
import shutil
import socket
import sqlite3
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.utils import make_new_run_id
from dagster_shared.check import CheckError
from filelock import FileLock

from pipelines import interrupts
from pipelines.progress import Progress
from pipelines.publish import PUBLISHED_SNAPSHOT
from pipelines.report import ACTIVITY_REPORT
from pipelines.rollups import ROLLUPS
from pipelines.schedules import JOB, range_tags
from pipelines.settings import PROJECT
from resources.event_log import BatchingSqliteEventLogStorage
from warehouse.tables import ORGANIZATIONS, Counted

# The user's screen shows progress and sentences; Dagster's own log is in the instance and its UI.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

_PRINTS_ITSELF = {
    "compute_logs": {
        "module": NoOpComputeLogManager.__module__,
        "class": NoOpComputeLogManager.__name__,
    }
}

_SECONDS_LOCKED = 10.0

_HOST, _PID = "devin-sessions/host", "devin-sessions/process"


class HomeUnusable(Exception):
    """Dagster's record of runs, in DAGSTER_HOME, can't be used. The message is for the user."""


# What comes out of Dagster when its files can't be read or written; what an asset raises is in the run's events.
_OF_ITS_FILES = (OSError, sqlite3.Error, sa.exc.DBAPIError)
_OF_ITS_CONFIGURATION = (
    yaml.YAMLError,
    UnicodeDecodeError,
    CheckError,
    dg.DagsterInvalidConfigError,
    dg.DagsterInvariantViolationError,
)


_INTERRUPTS = (dg.DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__)


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
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")  # only then does Dagster store events in batches
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = home / "dagster.yaml"
        is_dangling = configuration.is_symlink() and not configuration.exists()
        if is_dangling or (configuration.is_file() and not configuration.stat().st_size):
            configuration.unlink()  # Dagster would take its own defaults, telemetry among them
        with contextlib.suppress(FileExistsError):  # by an earlier start, or by one at the same time
            configuration.symlink_to(PROJECT / "dagster.yaml")
    except OSError as error:
        raise HomeUnusable(
            f"DAGSTER_HOME={home} can't be the folder of Dagster's record of runs: {error.strerror}. Name a folder in "
            "which you may write, or none: then it is data/dagster."
        ) from error
    return home


def home_is_there() -> bool:
    """Whether anything was ever run: what only looks makes no instance. Raises HomeUnusable."""
    with using_the_record():
        return _home().is_dir()


def _home() -> Path:
    home = Path(os.environ.get("DAGSTER_HOME") or PROJECT / "data" / "dagster")
    if not home.is_absolute():
        raise HomeUnusable(f"DAGSTER_HOME={home} is refused: Dagster wants a whole path, such as {Path.cwd() / home}.")
    return home


@contextlib.contextmanager
def open_instance(*, for_the_ui: bool = False) -> Iterator[dg.DagsterInstance]:
    """The instance of `dagster_home`, all of whose files can be read. Raises HomeUnusable.

    Unless it is `for_the_ui`, runs of this process print where the process does: to capture what a step prints, Dagster
    points the process's own output at a file, so that no progress is seen, and starts two processes that an interrupt
    ends with a traceback.
    """
    with contextlib.ExitStack() as stack:
        # Dagster makes its tables when it first opens the folder, and fails if another process does so at that moment.
        with using_the_record(), FileLock(dagster_home() / "opening.lock"):
            try:
                reference = InstanceRef.from_dir(str(_home()), overrides={} if for_the_ui else _PRINTS_ITSELF)
                instance = stack.enter_context(dg.DagsterInstance.from_ref(reference))
            except _OF_ITS_CONFIGURATION as error:
                raise HomeUnusable(
                    f"Dagster's configuration {_home() / 'dagster.yaml'} can't be used: {_in_one_line(error)}. This is "
                    "about the record of runs, not about the warehouse. Fix that file, or delete it: the next command "
                    "links the project's own in its place."
                ) from error
            instance.get_runs(limit=1)
            instance.all_instigator_state()
            instance.get_latest_materialization_event(PUBLISHED_SNAPSHOT)
        yield instance


@contextlib.contextmanager
def using_the_record() -> Iterator[None]:
    """For what reads or writes Dagster's record of runs. Raises HomeUnusable for what is wrong with its files."""
    try:
        yield
    except _OF_ITS_FILES as error:
        home = _home()
        raise HomeUnusable(
            f"Dagster's record of runs in {home} can't be used: {_in_one_line(error)}. The warehouse is not concerned: "
            f"what is stored there is kept. {_advice(error, home)} Then run the same command again."
        ) from error


_LEAST_ROOM = 64 * 1024  # bytes: SQLite asks for 32 KB at a time


def _advice(error: Exception, home: Path) -> str:
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF  # what is above says more of the same
    number = original.errno if isinstance(original, OSError) else 0
    # SQLite tells of a full disk as of any other trouble where it shares memory through a file.
    is_full = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(home).free < _LEAST_ROOM
    if is_full or code == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: make room."
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "Another process keeps it locked: end it, or wait for it."
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Fix the permissions of that directory and of the files in it, or set DAGSTER_HOME to another."
    return f"If its files are damaged, move them aside (mv {home} {home}.damaged), which costs the list of past runs."


def _in_one_line(error: Exception) -> str:
    said = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else str(error)
    return textwrap.shorten(said, 300, placeholder=" …").rstrip(".") or type(error).__name__


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
    try:
        with using_the_record():
            if isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage):
                instance.event_log_storage.check_writable(_SECONDS_LOCKED)
            _close_dead_runs(instance)
    except HomeUnusable as error:
        return Outcome([str(error)])
    downstream = _downstream(definitions, counted)
    selection = [dg.AssetKey(counted.listed.name), dg.AssetKey(counted.cells.name), *downstream]
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
    outcome = Outcome(is_interrupted=bool(interrupts.received()))
    if outcome.is_interrupted:
        return outcome
    run_id = make_new_run_id()
    # Dagster books a run as failed that is interrupted, unless that was asked for.
    instance.add_event_listener(run_id, lambda entry: _ask_to_cancel(instance, entry))
    try:
        with using_the_record():
            result = definitions.resolve_job_def(JOB).execute_in_process(
                instance=instance,
                run_id=run_id,
                run_config=_QUIET,
                raise_on_error=False,
                **options | {"tags": options.get("tags", {}) | _this_process()},
            )
    except HomeUnusable as error:
        return Outcome([str(error)])
    for event in result.all_events:
        if event.is_step_failure:
            if is_interrupt(event):
                outcome.is_interrupted = True
                continue
            outcome.failures.append(failure_told(event, result.run_id))
            outcome.failed.add(dg.AssetKey(event.step_key or ""))
    for check in result.get_asset_check_evaluations():
        outcome.checks[check.asset_check_key] = check
    outcome.is_interrupted |= not result.success and bool(interrupts.received())
    if outcome.is_interrupted:
        with using_the_record():
            _book_as_canceled(instance, run_id)
    return outcome


def _ask_to_cancel(instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> None:
    event = entry.dagster_event
    if event and event.is_step_failure and is_interrupt(event):
        run = instance.get_run_by_id(entry.run_id)
        if run and run.status is dg.DagsterRunStatus.STARTED:
            instance.report_run_canceling(run, "Interrupted on the terminal.")


def _book_as_canceled(instance: dg.DagsterInstance, run_id: str) -> None:
    """For an interrupt between two steps."""
    run = instance.get_run_by_id(run_id)
    if run and run.status not in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS):
        instance.report_run_canceled(run, "Interrupted on the terminal. What it had stored is kept.")


def checks_told(outcomes: Iterable[Outcome], severity: dg.AssetCheckSeverity) -> list[str]:
    """What the checks say that did not hold when they were last looked at in these runs, if they are so severe."""
    last = {key: check for outcome in outcomes for key, check in outcome.checks.items()}
    failed = [check for check in last.values() if not check.passed and check.severity is severity]
    return list(dict.fromkeys(check.description or check.check_name for check in failed))


def is_interrupt(event: dg.DagsterEvent) -> bool:
    """Whether a step failed only because somebody stopped it."""
    error = event.step_failure_data.error
    return error is not None and error.cls_name in _INTERRUPTS


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
    begun = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=begun, tags=here)):
        try:
            os.kill(int(run.tags[_PID]), 0)
        except ProcessLookupError:
            instance.report_run_failed(run, "The process of this run was killed. What it had stored is kept.")
        except PermissionError:
            continue
