"""One process at a time asks the API where processes can't share a pace: if the warehouse is DuckDB.

Each would keep to DEVIN_REQUESTS_PER_MINUTE, or to the rate that it has learned, and together they would exceed it.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from pipelines.loading.progress import Progress
from pipelines.settings import Settings
from resources.database_errors import WarehouseError
from resources.file_errors import obstacle
from resources.pace import USED


@contextmanager
def asking_alone(
    settings: Settings, who: str, say: Callable[[str], None], *, leaves_no_file: bool = False
) -> Iterator[None]:
    """Keep other processes from asking the API until the block ends, and wait for one that asks now.

    If there is one, `say` gets a sentence about it; others learn about this process as `who`. With `leaves_no_file`,
    nothing is created, since where no load has ever been, none is in progress. Raises WarehouseError.
    """
    path = settings.asking_lock
    lock = FileLock(path, mode=0o600) if path else None
    if path is None or lock is None or (leaves_no_file and not path.exists()):
        yield
        return
    try:
        since = _acquire(lock, path, say)
    except OSError as error:
        if leaves_no_file or not os.path.lexists(path):  # then the warehouse cannot be used either, and says why
            yield
            return
        found = obstacle(error, path)
        raise WarehouseError(
            f"Cannot lock {path}, so another process might ask the API at the same time: {found.why}. {found.fix} and "
            "run the same command again."
        ) from error
    try:
        _note(path, f"{who} (process {os.getpid()}, since {datetime.now(UTC):%H:%M:%S} UTC)")
        if per_minute := settings.devin_requests_per_minute:
            turn = 60 / USED / per_minute
            time.sleep(min(max(since + turn - time.time(), 0), turn))  # between two processes too
        yield
    finally:
        _note(path, f"{time.time()}")
        lock.release()


def run_asking_alone(
    context: dg.AssetExecutionContext, settings: Settings, progress: Progress
) -> AbstractContextManager[None]:
    """`asking_alone` for a run, whose log and progress tell for whom it waits."""

    def say(sentence: str) -> None:
        context.log.warning(sentence)
        progress.held_up(sentence)

    return asking_alone(settings, f"run {context.run.run_id[:8]}", say)


def _acquire(lock: FileLock, path: Path, say: Callable[[str], None]) -> float:
    """Acquire the lock. Returns when another process asked last, in seconds since the epoch; 0 if none ever did."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(
            f"Waiting for {_noted(path) or 'another process'}: it is asking the API, and with a warehouse in DuckDB, "
            "one process at a time may. This one begins as soon as that one has ended."
        )
        lock.acquire()
    try:
        return float(_noted(path) or 0)
    except ValueError:  # it was killed, so this is not known
        return time.time()


def _noted(path: Path) -> str:
    return path.read_text(errors="replace").strip()


def _note(path: Path, text: str) -> None:
    with suppress(OSError):  # a full disk: whoever waits is not told for whom
        path.write_text(text)
