"""Starts the `devin-sessions` command, in a process of its own or in this one, and returns what it prints."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command import cli
from pipelines.settings import PROJECT


def start(*arguments: str, cwd: Path = PROJECT, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", *arguments]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=stdout, stderr=subprocess.PIPE)


def devin_sessions(*arguments: str, cwd: Path = PROJECT) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command in a process of its own."""
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
