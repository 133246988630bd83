"""Dagster's record of runs, in DAGSTER_HOME: where it is, how it is opened, and what to do when it can't be used."""

import contextlib
import errno
import os
import shutil
import sqlite3
import textwrap
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster_shared.check import CheckError
from filelock import FileLock

from pipelines.assets.published_snapshot import PUBLISHED_SNAPSHOT
from pipelines.settings import PROJECT

_PRINTS_ITSELF = {
    "compute_logs": {
        "module": NoOpComputeLogManager.__module__,
        "class": NoOpComputeLogManager.__name__,
    }
}


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
