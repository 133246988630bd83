"""The `devin-sessions` command in the test's own process, which costs a fraction of a process of its own."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.command import cli
from tests.support.forks import make_home

Here = Callable[..., tuple[int, str, str]]
"""Takes the command's arguments; returns its exit code, standard output and standard error."""


def command_here(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> Here:
    """Runs commands in this process. Signals, exit handlers and what a process inherits need one of its own."""

    def run(*arguments: str) -> tuple[int, str, str]:
        for name in ("DAGSTER_DISABLE_TELEMETRY", "DAGSTER_EVENT_BATCH_SIZE"):
            environment.setenv(name, "")  # so that what the command sets is undone after the test
            environment.delenv(name)
        home = Path(os.environ.get("DAGSTER_HOME", ""))
        if arguments[:1] == ("backfill",) and home.is_absolute() and home.parent.is_dir() and not home.exists():
            make_home(home)
        environment.setattr(sys, "argv", ["devin-sessions", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err, shown.err
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), shown.out, shown.err

    return run
