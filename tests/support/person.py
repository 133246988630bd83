"""A person with a shell in a copy of the project, who types the commands from the pages."""

import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import tenacity
from dotenv import dotenv_values

from pipelines.home import PROJECT
from pipelines.settings import Settings
from tests.support.forks import Command
from tests.support.ports import free_port
from tests.support.typed import Part

PATIENCE = 240.0
"""Seconds that a command may take on the slowest machine before a test says that it never ends."""

PORTS = {"ui": "3000", "demo": "3000", "sandbox": "8787"}
"""The default port of each command."""

OTHER_PORTS = """import sys

is_the_command = sys.argv[0].endswith("/devin-sessions") or (sys.argv[0] == "-m" and "pipelines" in sys.orig_argv)
port = {ports}.get("".join(sys.argv[1:2])) if is_the_command else None
if port:
    sys.argv[2:2] = ["--port", port]
"""
"""A sitecustomize that moves the commands off the default ports, which may be taken. A port typed later wins."""


ASKS = re.compile(r"([A-Z_]+=\S+ +)*(as_service |\S*/)?devin-sessions (probe|query(?! (--csv|-o))|restore|status)\b.*")
"""The commands that are run in a forked process, unless a test says otherwise. The others start from nothing."""


def copy_project(directory: Path) -> None:
    """Copy what git would clone, plus new files, as they are after the first `make`."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if (PROJECT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, directory / name)
    # Links in a separate directory, so that nothing done to it, even an installation, changes the real one.
    (directory / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        (directory / ".venv" / entry.name).symlink_to(entry)
    for stamp in ("locked", "installed", "ready"):
        (directory / ".venv" / stamp).unlink(missing_ok=True)
        (directory / ".venv" / stamp).touch()


def patiently(**options: Any) -> tenacity.Retrying:
    return tenacity.Retrying(
        wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(PATIENCE), reraise=True, **options
    )


@dataclass
class Running:
    """A command that runs until it is stopped."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, is_so: Callable[[], Any]) -> Any:
        """The first truthy result of `is_so`. Fails if the command ends first."""

        def ask() -> Any:
            assert self.process.poll() is None, self.output
            return is_so()

        return patiently(
            retry=tenacity.retry_if_exception_type(httpx.TransportError)
            | tenacity.retry_if_result(lambda answer: not answer)
        )(ask)


@dataclass
class Person:
    """Has a shell, an empty home and a copy of the project, and reads what commands print."""

    directory: Path
    parts: list[Part]
    ports: dict[str, str] = field(default_factory=lambda: {usual: str(free_port()) for usual in PORTS.values()})
    rewritten: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clone = self.directory / "devin-session-metrics"
        self.programs = self.directory / "programs"
        self.home = self.directory / "home"
        for directory in (self.programs, self.home):
            directory.mkdir()
        copy_project(self.clone)
        customized = self.directory / "customized"
        customized.mkdir()
        ports = {command: self.ports[usual] for command, usual in PORTS.items()}
        (customized / "sitecustomize.py").write_text(OTHER_PORTS.format(ports=ports), encoding="utf-8")
        self.rewritten |= self.ports
        self.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{self.clone}:{customized}",
        }
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def here(self, line: str) -> str:
        """The line with this test's directories, ports and names."""
        for usual, own in self.rewritten.items():
            line = line.replace(usual, own)
        assert not re.search(r"/(opt|etc|var/lib)/devin", line), "a test stays in its own directories"
        return line

    def types(self, line: str, *, code: int = 0, answers: str = "") -> str:
        """The output of a line, which must end with this exit code. `answers` is typed into the program."""
        assert self.shell.stdin and self.shell.stdout
        end = "the-end-of-the-line"
        typed = f"eval {shlex.quote(self.here(line))} <<'{end}'\n{answers}\n{end}\nprintf '\\n{end} %s\\n' $?\n"
        too_long = threading.Timer(PATIENCE, os.killpg, (self.shell.pid, signal.SIGKILL))
        too_long.start()
        lines, ended_with = [], None
        self.shell.stdin.write(typed)
        self.shell.stdin.flush()
        for answer in self.shell.stdout:
            if answer.startswith(end):
                ended_with = int(answer.split()[1])
                break
            lines.append(answer)
        too_long.cancel()
        shown = "".join(lines)
        assert ended_with == code, f"{line}\nended with {ended_with}:\n{shown}"
        assert "Traceback" not in shown, shown
        return shown

    def asks(self, line: str, *, code: int = 0) -> str:
        """The output of a line that begins `devin-sessions`, in a forked process: starting from nothing takes longer.

        It has the variables that the shell and the clone's .env have, or those of the service.
        """
        line, _, target = self.here(line).partition(" > ")
        words = shlex.split(line)
        own = dict(word.split("=", 1) for word in itertools.takewhile(lambda word: "=" in word, words))
        program, *arguments = words[len(own) :]
        data = f"{self.clone}/data"
        variables: dict[str, str | None] = {
            "WAREHOUSE_URL": "duckdb:///data/warehouse.duckdb",
            "DAGSTER_HOME": f"{data}/dagster",
        }
        if program == "as_service":
            variables |= dotenv_values(self.here("/etc/devin-sessions/environment"))
            assert arguments.pop(0) == "devin-sessions"
        else:
            assert Path(program).name == "devin-sessions"
            variables |= dotenv_values(self.clone / ".env")
            variables |= dict(line.split("=", 1) for line in self.types("env").splitlines() if "=" in line)
            variables |= own
        environment = dict.fromkeys(map(str.upper, Settings.model_fields), "") | {
            name: (value or "").replace("duckdb:///data", f"duckdb:///{data}") for name, value in variables.items()
        }
        number = len(list(self.directory.glob("asked-*")))
        ended = Command(tuple(arguments), environment, self.directory / f"asked-{number}").ended(PATIENCE)
        assert ended.code == code, f"{line}\nended with {ended.code}:\n{ended.output}"
        assert "Traceback" not in ended.output, ended.output
        if target:
            (self.clone / target).write_text(ended.output, encoding="utf-8")
        return ended.output

    @contextmanager
    def runs(self, line: str, ended_by: signal.Signals = signal.SIGINT) -> Iterator[Running]:
        """A command in a second terminal, stopped by Ctrl-C or another signal when the block ends."""
        log = self.directory / f"{len(list(self.directory.glob('*.log')))}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", self.here(line)],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(process, log)
        try:
            yield running
            os.killpg(process.pid, ended_by)
            process.wait(120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert "Traceback" not in running.output, running.output
        patiently(retry=tenacity.retry_if_result(bool))(self.is_served)

    def is_served(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", int(self.ports[PORTS["ui"]]))) == 0

    def follows(self, part: Part, unusual: Mapping[str, Callable[[str], object]] | None = None) -> None:
        """Type the commands of a part, skipping those in sentences that were typed before.

        `unusual` maps a command to what to do instead of typing or asking it.
        """
        todo = dict(unusual or {})
        for command in part.commands:
            if command.is_in_sentence and command.name in self.outputs:
                continue
            how = todo.pop(command.name, self.asks if ASKS.fullmatch(command.typed) else self.types)
            self.outputs[command.name] = str(how(command.typed))
        assert not todo, f"not under {part.heading}: {todo}"
        self.parts.remove(part)

    def sets(self, path: Path, **variables: str) -> None:
        """Set variables in an environment file."""
        lines = path.read_text(encoding="utf-8").splitlines()
        for name, value in variables.items():
            lines = [line for line in lines if not line.startswith(f"{name}=")] + [f"{name}={value}"]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def leaves(self) -> None:
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.close()
        self.shell.wait(60)
        self.shell.stdout.close()
