"""Starts the `devin-sessions` command, in a process of its own or in this one, and returns what it prints."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.command import cli
from pipelines.settings import PROJECT
from tests.support.forks import Command, make_home


def start(*arguments: str, cwd: Path = PROJECT, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", *arguments]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=stdout, stderr=subprocess.PIPE)


def devin_sessions(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command in a forked process of its own."""
    home = Path(os.environ.get("DAGSTER_HOME", ""))
    if arguments[:1] == ("backfill",) and home.is_absolute() and home.parent.is_dir() and not home.exists():
        make_home(home)
    with tempfile.TemporaryDirectory(prefix="devin-sessions-") as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        ended = Command(arguments, os.environ, out, err).ended(within=120)
    assert "Traceback" not in ended.errors, ended.errors
    assert ended.code is not None, f"had not ended after {ended.seconds:.0f} s: {ended.errors}"
    return ended.code, ended.output, ended.errors


def started(*arguments: str, cwd: Path = PROJECT) -> tuple[int, str, str]:
    """The same of a command that is started from nothing, as a shell does it."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def in_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Exit code and everything shown, for commands that run nothing."""
    monkeypatch.setattr(sys, "argv", ["devin-sessions", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0), shown.out + shown.err


def copy_of_the_project(folder: Path) -> Path:
    """The code in a folder of its own, so that its data/ and .env are not this checkout's."""
    for name in ("pipelines", "resources", "warehouse"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, folder)
    return folder
