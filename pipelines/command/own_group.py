"""A command in a process group of its own, which a terminal's signals don't reach, and a process that passes them on.

A terminal sends Ctrl-C to every process of its foreground group. Dagster's code servers and its daemon would get it in
the middle of their imports, and print tracebacks, or while a tick needs them.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import NoReturn

from pipelines.command import interrupts
from pipelines.command.screen import complain, first_words

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run_in_own_group(*arguments: str) -> int:
    """Run `devin-sessions` with these arguments in a group that it leads. Return its exit code once it has ended.

    It gets two more: `--lifeline` and the descriptor of a pipe that closes if this process is killed. Each signal that
    asks this process to end is sent to it as SIGINT. If it doesn't exit with 0, what it started is killed.
    """
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        leader.send_signal(signal.SIGINT)

    reading, _writing = os.pipe()
    command = [sys.executable, "-m", "pipelines", *arguments, "--lifeline", str(reading)]
    leader = subprocess.Popen(command, process_group=0, pass_fds=[reading])
    for number in _FORWARDED:
        signal.signal(number, forward)
    code = leader.wait()
    if code:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)
    if code >= 0:
        return code
    if not received:
        complain(
            f"The process of devin-sessions {arguments[0]} was ended by {signal.Signals(-code).name}, and what it had "
            "started was ended too. What is stored is kept. Start the same command again.",
            "killed",
        )
    return 128 + (received or [-code])[0]


def lead_own_group(lifeline: int) -> None:
    """Let a signal, or the end of the process that has the other end of `lifeline`, kill this process's group."""
    for number in interrupts.SIGNALS:
        signal.signal(number, lambda *_: kill_own_group())
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def kill_own_group() -> NoReturn:
    """End this process and all that it started, in the middle of whatever they do, with a sentence."""
    os.write(2, first_words().encode())
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # not reached


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns when no process has the other end any more
    os.kill(os.getpid(), signal.SIGINT)
