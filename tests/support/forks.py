"""The real `devin-sessions` command in a process of its own, forked from one that has already done the imports."""

import atexit
import faulthandler
import functools
import io
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
"""Starts processes that have already done the imports."""
# Between the first and the last: what a run imports only when it needs it.
FORKS.set_forkserver_preload(
    [
        "pipelines.command.main",
        *(f"pipelines.command.{name}" for name in ("dry_run", "probe", "query_output", "restore", "status")),
        *("anyio.streams.tls", "certifi", "duckdb_sqlalchemy", "fsspec.implementations.local", "psycopg"),
        *("pipelines.report.quality", "pyarrow.dataset", "upath.implementations.local", "uvicorn.loops.auto"),
        *(f"dagster._core.storage.{name}" for name in ("legacy_storage", "migration", "root", "runs", "schedules")),
        "tests.support.frozen",
        "tests.support.published_versions",
    ]
)
for name in ("COLUMNS", "LINES"):  # of no terminal: readline, which pytest imports, sets them for what is started
    os.unsetenv(name)

MOST_SECONDS = 180.0
"""How long a command that has a patience of a few seconds may take before it counts as one that never ends."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (minus the signal that ended it; None if it had to be killed) and its output.

    `errors` is what went to standard error, if that had a file of its own; else `output` has both.
    """

    code: int | None
    output: str
    errors: str
    seconds: float


class Command:
    """`devin-sessions` with these arguments, running. `environment` is all of its environment.

    Standard output goes to the file `output`, and so does standard error unless `errors` names another.
    """

    def __init__(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], output: Path, errors: Path | None = None
    ) -> None:
        self._output = output
        self._errors = errors
        self._began = time.monotonic()
        self._process: ForkServerProcess = FORKS.Process(
            target=_main, args=(arguments, dict(environment), output, errors)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def has_begun(self) -> bool:
        """Whether it is more than a fork."""
        return self._output.exists()

    @property
    def seconds(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self._began

    def is_running(self, for_seconds: float = 0.0) -> bool:
        """Wait up to this many seconds for its end; return whether it still runs."""
        self._process.join(for_seconds)
        return self._process.exitcode is None

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; return whether it was still running."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self._process.kill()

    def ended(self, within: float = MOST_SECONDS) -> Ended:
        """Wait for its end. After this many seconds it is killed, and has no exit code."""
        self._process.join(within)
        code = self._process.exitcode
        if code is None:
            self.send(signal.SIGUSR1)  # prints where each thread is
            self._process.join(1)
            self._process.kill()
            self._process.join()
        seconds = self.seconds
        self._process.close()
        return Ended(code, _text(self._output), _text(self._errors), seconds)


def _text(file: Path | None) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file and file.is_file() else ""


@functools.cache
def _empty_home() -> Path:
    """A Dagster home that was opened once and has no run: creating its files takes longer than loading some days."""
    home = Path(tempfile.mkdtemp(prefix="dagster-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    process = FORKS.Process(target=_open_home, args=(home,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return home


def _open_home(home: Path) -> None:
    os.environ["DAGSTER_HOME"] = str(home)
    from pipelines.command.dagster_home import open_instance

    with open_instance():
        pass


def make_home(home: Path) -> None:
    """Create a Dagster home that was opened before and has no run."""
    shutil.copytree(_empty_home(), home, symlinks=True)


def make_missing_home(arguments: tuple[str, ...]) -> None:
    """Make the one in DAGSTER_HOME if it does not exist and the command would make it, as `backfill` does."""
    home = Path(os.environ.get("DAGSTER_HOME", ""))
    if arguments[:1] == ("backfill",) and home.is_absolute() and home.parent.is_dir() and not home.exists():
        make_home(home)


def _main(arguments: tuple[str, ...], environment: Mapping[str, str], output: Path, errors: Path | None = None) -> None:
    # As a shell starts a command: without what the fork inherited.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = ["devin-sessions", *arguments]
    sink = _opened(output)
    for descriptor, end in ((os.open(os.devnull, os.O_RDONLY), 0), (sink, 1), (_opened(errors) if errors else sink, 2)):
        os.dup2(descriptor, end)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding=environment.get("PYTHONIOENCODING"))
    faulthandler.register(signal.SIGUSR1)
    from pipelines.__main__ import main

    main()


def _opened(file: Path) -> int:
    return os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
