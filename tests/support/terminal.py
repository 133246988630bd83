"""A command on a terminal of its own."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from pipelines.home import PROJECT
from tests.support.forks import Command

ENDING_SECONDS = 60


def shown_on_a_terminal(*arguments: str, columns: int) -> list[str]:
    """The lines that a forked command shows on a terminal of this width until it ends.

    That terminal doesn't control it, so keys are no signals: that, and what it shows while it starts, is for Terminal.
    """
    ours, theirs = _pair(columns)
    command = Command(arguments, _environment(), Path(os.ttyname(theirs)))
    shown = b""
    is_running = True
    while is_running:
        is_running = command.is_running(for_seconds=0.05)
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 65536)
    command.ended()
    os.close(ours)
    os.close(theirs)
    return _lines(shown.decode())


def _pair(columns: int) -> tuple[int, int]:
    """The two ends of a terminal: its user's and its program's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    return ours, theirs


def _environment() -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name != "COLUMNS"}, "TERM": "xterm"}


def _lines(shown: str) -> list[str]:
    """Without colors and other control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r\n", "\n").split("\n")


class Terminal:
    """A command on its own terminal, with what it has shown there so far."""

    def __init__(self, *arguments: str, columns: int = 120, **variables: str) -> None:
        self._ours, theirs = _pair(columns)
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a part may end within a character
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *arguments],
            cwd=PROJECT,
            preexec_fn=lambda: os.login_tty(theirs),  # its controlling terminal, so that ^C is a signal
            env={**_environment(), **variables},
        )
        os.close(theirs)

    def shows(self, pattern: str) -> str:
        """Wait until text that matches the pattern is shown, and return it."""
        deadline = time.monotonic() + ENDING_SECONDS
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, f"{pattern} is not in …{self.shown[-500:]}"
            self._read(deadline)
        return found[0]

    @property
    def lines(self) -> list[str]:
        """What was shown, without colors and other control sequences."""
        return _lines(self.shown)

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def wait(self) -> int:
        """Wait until the command ends, and return its exit code."""
        deadline = time.monotonic() + ENDING_SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(ENDING_SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(ENDING_SECONDS)
        os.close(self._ours)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more after …{self.shown[-500:]}"
        try:
            part = os.read(self._ours, 65536)
        except OSError:  # how a terminal reports its end
            return False
        self.shown += self._decoder.decode(part)
        return bool(part)
