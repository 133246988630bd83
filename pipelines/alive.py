"""Which runs have a process: each run keeps a file locked, so that runs whose process was killed can be closed.

A process id would not do: in the next container it belongs to another process. A run that appears to run for ever would
keep the pool of those who ask the API, and all later runs would stay queued.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

MARKS = "alive"
"""The directory of their files, in DAGSTER_HOME."""
KILLED = "The process of this run was killed. What it stored is kept."


@contextmanager
def marked_as_alive(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep this run marked as alive until the block ends, or this process does. Raises OSError."""
    directory = Path(instance.root_directory) / MARKS
    directory.mkdir(exist_ok=True, mode=0o700)
    mark = FileLock(directory / run_id)
    with _between_marks(directory):
        mark.acquire()
    try:
        yield
    finally:
        with _between_marks(directory):
            Path(mark.lock_file).unlink(missing_ok=True)
            mark.release()


def _between_marks(directory: Path) -> FileLock:
    """Held while a mark is made, removed or looked for, since between its creation and its lock it looks dead."""
    return FileLock(directory.with_name(f"{directory.name}.lock"))


def is_killed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process of this run is gone although the run has not ended; changes nothing."""
    mark = Path(instance.root_directory) / MARKS / run.run_id
    if run.is_finished or not mark.exists():
        return False
    try:
        with _between_marks(mark.parent), FileLock(mark, timeout=0):
            return mark.exists()
    except (Timeout, OSError):  # it is alive, or nobody can tell
        return False


def close_dead_runs(instance: dg.DagsterInstance) -> None:
    """Record runs as failed whose process is gone. Raises OSError."""
    directory = Path(instance.root_directory) / MARKS
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    with _between_marks(directory):
        for path in directory.iterdir():
            try:
                with FileLock(path, timeout=0):
                    run = instance.get_run_by_id(path.name)
                    if run and not run.is_finished:
                        instance.report_run_failed(run, KILLED)
                    path.unlink()
            except (Timeout, PermissionError):  # it is alive, or another user's
                continue
