"""Dagster's record of runs, in DAGSTER_HOME: where it is, how to open it, and what to do if it can't be used."""

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

from pipelines.home import home as data_home
from resources.event_batches import store_in_batches
from resources.file_errors import UNKNOWN_FIX, Obstacle, forbidden_in, obstacle
from resources.files import replacing

_NO_OUTPUT_CAPTURE = {
    "compute_logs": {
        "module": NoOpComputeLogManager.__module__,
        "class": NoOpComputeLogManager.__name__,
    }
}


class HomeUnusable(Exception):
    """Dagster's record of runs, in DAGSTER_HOME, can't be used. The message is for the user."""


# What Dagster raises if its files can't be read or written; what an asset raises is in the run's events.
_FILE_ERRORS = (OSError, sqlite3.Error, sa.exc.DBAPIError)
_CONFIGURATION_ERRORS = (
    yaml.YAMLError,
    UnicodeDecodeError,
    CheckError,
    dg.DagsterInvalidConfigError,
    dg.DagsterInvariantViolationError,
)


CONFIGURATION, WORKSPACE = "dagster.yaml", "workspace.yaml"
_OURS = b"# Written by devin-sessions"
_OURS_WHEN_LINKED = b"# Configures this project's Dagster instance"  # a release of before linked its own file


def dagster_home() -> Path:
    """The instance's directory, created if it doesn't exist: DAGSTER_HOME, by default `dagster` in the home.

    Raises HomeUnusable.
    """
    home = _home()
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    store_in_batches()
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        found = obstacle(error, home)
        raise HomeUnusable(
            f"DAGSTER_HOME={home} cannot hold Dagster's record of runs: {found.why}. {found.fix}, or set DAGSTER_HOME "
            "to a directory you can write to."
        ) from error
    return home


def home_exists() -> bool:
    """Whether anything was ever run, so that commands which only read create no instance. Raises HomeUnusable."""
    return os.path.lexists(_home())


def _home() -> Path:
    named = os.environ.get("DAGSTER_HOME")
    home = Path(os.path.expanduser(named)) if named else data_home() / "dagster"  # noqa: PTH111 pathlib raises for an unknown user
    if not str(home).isprintable():
        raise HomeUnusable(f"DAGSTER_HOME={str(home)!r} is refused: it contains a character that is not visible.")
    if not home.is_absolute():
        raise HomeUnusable(
            f"DAGSTER_HOME={home} is refused: Dagster needs an absolute path, such as {Path.cwd() / home}."
        )
    return home


def _place(name: str, home: Path) -> None:
    """Copy the project's own file into the home, unless there is one that the user made."""
    path, ours = home / name, Path(__file__).with_name(name).read_bytes()
    # If it were missing or empty, Dagster would use its own defaults, which include telemetry.
    present = path.read_bytes() if path.exists() else b""
    is_ours = not present or present.startswith(_OURS) or (path.is_symlink() and present.startswith(_OURS_WHEN_LINKED))
    if is_ours and (present != ours or path.is_symlink()):
        with replacing(path) as file:
            file.write(ours)


@contextlib.contextmanager
def open_instance(*, for_the_ui: bool = False) -> Iterator[dg.DagsterInstance]:
    """The instance in `dagster_home`, with all its files readable. Raises HomeUnusable.

    Unless `for_the_ui`, Dagster doesn't capture what steps print. To capture it, Dagster redirects this process's
    output to a file, which would hide the progress, and starts two processes that end with a traceback when
    interrupted.
    """
    with contextlib.ExitStack() as stack:
        # Dagster creates its tables when it first opens the directory, and fails if another process does so meanwhile.
        with using_run_record(), FileLock(dagster_home() / "opening.lock"):
            for name in (CONFIGURATION, WORKSPACE):
                _place(name, _home())
            try:
                reference = InstanceRef.from_dir(str(_home()), overrides={} if for_the_ui else _NO_OUTPUT_CAPTURE)
                instance = stack.enter_context(dg.DagsterInstance.from_ref(reference))
            except _CONFIGURATION_ERRORS as error:
                raise HomeUnusable(
                    f"Dagster's configuration {_home() / CONFIGURATION} can't be used: {_in_one_line(error)}. This "
                    "affects the record of runs, not the warehouse. Fix that file, or delete it: the next command "
                    "will put the project's own in its place."
                ) from error
            instance.get_runs(limit=1)
            instance.all_instigator_state()
            instance.get_latest_materialization_event(dg.AssetKey("any"))
        yield instance


@contextlib.contextmanager
def using_run_record() -> Iterator[None]:
    """Wraps reads and writes of Dagster's record of runs. Raises HomeUnusable if its files can't be used."""
    try:
        yield
    except _FILE_ERRORS as error:
        home = _home()
        found = _obstacle(error, home)
        raise HomeUnusable(
            f"Dagster's record of runs in {home} can't be used: {found.why}. The warehouse is not affected: "
            f"what is stored there is kept. {found.fix}. Then run the same command again."
        ) from error


_LEAST_FREE_BYTES = 64 * 1024  # SQLite allocates 32 KB at a time


def _obstacle(error: Exception, home: Path) -> Obstacle:
    """What keeps the files in the home from being used."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF  # the primary code; the higher bits only refine it
    why = _in_one_line(error)
    # For its shared memory file, SQLite reports a full disk as a general I/O error.
    is_full = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(home).free < _LEAST_FREE_BYTES
    number = original.errno if isinstance(original, OSError) else 0
    if is_full or code == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT):
        return Obstacle(why, "The disk is full: free some space")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Obstacle(why, "Another process has it locked: stop it, or wait for it")
    is_forbidden = code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN)
    file_error = original if isinstance(original, OSError) else forbidden_in(home) if is_forbidden else None
    if file_error and (found := obstacle(file_error, home)).fix != UNKNOWN_FIX:
        return Obstacle(found.why, f"{found.fix}, or set DAGSTER_HOME to another directory")
    aside = f"If its files are damaged, move them aside (mv {home} {home}.damaged); the list of past runs is then lost"
    return Obstacle(why, aside)


def _in_one_line(error: Exception) -> str:
    text = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else str(error)
    return textwrap.shorten(text, 300, placeholder=" …").rstrip(".") or type(error).__name__
