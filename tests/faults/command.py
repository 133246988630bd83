"""The real `devin-sessions` command as a process of its own, forked from one that has the imports behind it."""

import atexit
import faulthandler
import functools
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

_FORKS = multiprocessing.get_context("forkserver")
# The latter ones are what a first run would import.
_FORKS.set_forkserver_preload(
    ["pipelines.command.cli", "duckdb_sqlalchemy", "psycopg", "pyarrow.dataset", "dagster._core.storage.runs", "upath"]
)

MOST_SECONDS = 60.0
"""A command that is told to be patient for a few seconds and takes longer than this does not end."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (minus the signal that ended it; None if it was stopped), and its output."""

    code: int | None
    output: str
    seconds: float


class Command:
    """`devin-sessions` with these arguments, under way. `environment` is all that it has; its output goes to a file."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], output: Path) -> None:
        self._output = output
        self._began = time.monotonic()
        self._process: ForkServerProcess = _FORKS.Process(target=_main, args=(arguments, dict(environment), output))
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
        """Whether it still runs after so many seconds, which are waited for."""
        self._process.join(for_seconds)
        return self._process.exitcode is None

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; whether it was still running."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self._process.kill()

    def ended(self, within: float = MOST_SECONDS) -> Ended:
        """Wait for its end. It is killed after so many seconds, and has no exit code then."""
        self._process.join(within)
        code = self._process.exitcode
        if code is None:
            self.send(signal.SIGUSR1)  # says where each thread stands
            self._process.join(1)
            self._process.kill()
            self._process.join()
        seconds = self.seconds
        self._process.close()
        said = self._output.read_text(errors="replace") if self._output.exists() else ""
        return Ended(code, said, seconds)


@functools.cache
def _empty_home() -> Path:
    """A Dagster home that was opened once and has no run: to make its databases takes longer than to load some days."""
    home = Path(tempfile.mkdtemp(prefix="fault-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    process = _FORKS.Process(target=_open_home, args=(home,))
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
    """Make an empty Dagster home."""
    shutil.copytree(_empty_home(), home, symlinks=True)


def _main(arguments: tuple[str, ...], environment: Mapping[str, str], output: Path) -> None:
    # As a shell starts a command: what the fork inherited is not what this is about.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["devin-sessions", *arguments]
    said = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, end in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(descriptor, end)
    faulthandler.register(signal.SIGUSR1)
    from pipelines.__main__ import main

    main()
