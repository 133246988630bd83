"""Starts the `devin-sessions` command, in a process of its own or in this one, and returns what it prints."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pipelines.command import main
from pipelines.home import PROJECT
from tests.support.forks import Command, make_missing_home


def start(
    *arguments: str, cwd: Path = PROJECT, stdout: int = subprocess.PIPE, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", *arguments]
    environment = {**os.environ, **(variables or {})}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, stdout=stdout, stderr=subprocess.PIPE)


def devin_sessions(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command in a forked process of its own."""
    make_missing_home(arguments)
    with tempfile.TemporaryDirectory(prefix="devin-sessions-") as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        ended = Command(arguments, os.environ, out, err).ended(within=120)
    assert "Traceback" not in ended.errors, ended.errors
    assert ended.code is not None, f"had not ended after {ended.seconds:.0f} s: {ended.errors}"
    return ended.code, ended.output, ended.errors


def started(*arguments: str, cwd: Path = PROJECT, **variables: str) -> tuple[int, str, str]:
    """The same of a command that is started from nothing, as a shell does it, with these variables set."""
    process = start(*arguments, cwd=cwd, variables=variables)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def in_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Exit code and everything shown, for commands that run nothing."""
    code, out, err = _run_here(capsys, monkeypatch, arguments)
    return code, out + err


Here = Callable[..., tuple[int, str, str]]
"""Takes the command's arguments; returns its exit code, standard output and standard error."""


def command_here(capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> Here:
    """Runs commands in this process, which costs a fraction of a process of their own.

    Signals, exit handlers and what a process inherits need one of its own.
    """

    def run(*arguments: str) -> tuple[int, str, str]:
        for name in ("DAGSTER_DISABLE_TELEMETRY", "DAGSTER_EVENT_BATCH_SIZE"):
            environment.setenv(name, "")  # so that what the command sets is undone after the test
            environment.delenv(name)
        make_missing_home(arguments)
        capsys.readouterr()
        code, out, err = _run_here(capsys, environment, arguments)
        assert "Traceback" not in err, err
        return code, out, err

    return run


def _run_here(
    capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> tuple[int, str, str]:
    environment.setattr(sys, "argv", ["devin-sessions", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    shown = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0), shown.out, shown.err


def copy_of_the_project(directory: Path) -> Path:
    """The code in a directory of its own, so that its data/ and .env are not this checkout's."""
    for name in ("pipelines", "resources", "warehouse"):
        shutil.copytree(PROJECT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", directory)
    return directory
