"""Ctrl-C and SIGTERM at any moment, and the progress of a load on a real terminal."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from pipelines.home import PROJECT
from tests.support.begun import begin
from tests.support.command import start
from tests.support.held import Gate, Held
from tests.support.terminal import Terminal
from tests.support.ui import started_by
from tests.support.waiting import wait_until
from tests.support.world import World

ENDING_SECONDS = 60


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def statuses() -> list[dg.DagsterRunStatus]:
    with dg.DagsterInstance.get() as instance:
        return [run.status for run in instance.get_runs()]


def test_on_a_terminal_the_bar_moves_while_days_load_and_ctrl_c_ends_cleanly(
    world: World, terminals: list[Terminal]
) -> None:
    world.configure(devin_fetch="differenced")  # from the list, the second block would be the last
    second_block = Gate(world, datetime(2025, 2, 1, tzinfo=UTC))
    third_block = Held(world, datetime(2025, 3, 4, tzinfo=UTC))
    terminal = Terminal("backfill", "2025-01-01", "2025-04-01")
    terminals.append(terminal)
    terminal.shows(r"155/455")
    second_block.open()
    assert third_block.reached.wait(ENDING_SECONDS)
    terminal.shows(r"310/455")
    terminal.shows(r"2025-03-03 stored")
    terminal.type(b"\x03")
    assert terminal.wait() == 130
    assert "Interrupted. Still to load: 2025-03-04…2025-04-01" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert world.cells() == world.truth("2025-01-01", "2025-03-03")
    assert statuses() == [dg.DagsterRunStatus.CANCELED]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_api_does_not_respond_cancels_the_run(world: World, number: signal.Signals) -> None:
    held = Held(world, datetime(2025, 4, 1, tzinfo=UTC))
    command = begin(world, "backfill", "2025-04-01", "2025-04-02")
    assert held.reached.wait(ENDING_SECONDS)
    command.send(number)
    ended = command.ended(ENDING_SECONDS)
    assert ended.code == 128 + number
    assert "Interrupted. Still to load: 2025-04-01…2025-04-02" in ended.errors
    assert "Traceback" not in ended.errors
    assert statuses() == [dg.DagsterRunStatus.CANCELED]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_gets_a_sentence(tmp_path: Path, number: signal.Signals) -> None:
    reached = tmp_path / "reached"
    os.mkfifo(reached)
    (tmp_path / "dagster.py").write_text(
        f"import threading\nopen({str(reached)!r}, 'w').close()\nthreading.Event().wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "from pipelines.__main__ import main; main()", "status"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
        stderr=subprocess.PIPE,
    )
    reached.read_bytes()
    process.send_signal(number)
    _, err = process.communicate(timeout=ENDING_SECONDS)
    assert (process.returncode, err) == (128 + number, "Interrupted before anything was done.\n")


ENDLESS = "select count(*) from range(1000000000000) numbers(number) where number % 7 = 3"


def wait_until_spent(pid: int, seconds: float) -> None:
    """Wait until a process has spent this much CPU time."""
    spent = Path(f"/proc/{pid}/stat")

    def has_spent() -> bool:
        *_, user, system = spent.read_text().rpartition(")")[2].split()[:13]
        return int(user) + int(system) >= seconds * os.sysconf("SC_CLK_TCK")

    wait_until(has_spent, "this much CPU time is spent")


def test_a_signal_in_the_imports_of_a_query_or_in_the_middle_of_it_gets_a_sentence(world: World) -> None:
    assert world.run("2025-04-01", "2025-04-02").success
    found: list[tuple[float, int | None, str]] = []
    for seconds in (0.5, 2.0):
        process = start("query", ENDLESS)
        try:
            wait_until_spent(process.pid, seconds)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=ENDING_SECONDS)
        finally:
            process.kill()  # otherwise it would count for ever
        found.append((seconds, process.returncode, err))
    command = begin(world, "query", ENDLESS)
    try:
        wait_until_spent(command.pid, 2.0)  # most of it in the query, as it has done the imports
        command.send(signal.SIGINT)
    finally:
        ended = command.ended(ENDING_SECONDS)
    found.append((2.0, ended.code, ended.errors))
    for seconds, code, err in found:
        assert (code, err.startswith("Interrupted"), "Traceback" in err) == (130, True, False), (seconds, err)


STRUCK_AT_ITS_START = """
import os, signal, sys, threading
from resources.portal import blocking_portal

handled = threading.Event()
def handle(number, frame):
    handled.set()
    raise InterruptedError
signal.signal(signal.SIGTERM, handle)

def strike(frame, *_):  # runs in the new thread before anything else does, while the main thread waits for it
    if frame.f_code.co_name == "run":
        sys.settrace(None)
        handled.wait(0.5)
        {strike}
        handled.wait(0.5)
threading.settrace(strike)
try:
    with blocking_portal() as portal:
        pass
except InterruptedError:
    print("handled", signal.getsignal(signal.SIGTERM) is handle)
"""


@pytest.mark.parametrize(
    "strike",
    [
        "signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)",
        "signal.pthread_kill(threading.get_ident(), signal.SIGTERM)",
        "os.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_a_signal_while_the_clients_thread_starts_is_handled_without_waiting_for_ever(strike: str) -> None:
    command = [sys.executable, "-c", STRUCK_AT_ITS_START.replace("{strike}", strike)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=ENDING_SECONDS, check=True)
    assert done.stdout == "handled True\n"


STRUCK_IN_A_DESTRUCTOR = """
import os, signal, threading
from pipelines.command import interrupts

interrupts.install_handlers()
interrupts.raise_keyboard_interrupt()

class Struck:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

try:
    struck = Struck()
    del struck
    threading.Event().wait(10)
except KeyboardInterrupt:
    print("interrupted")
"""


A_BUSY_MACHINE = """
import threading, time

class Slow(threading.Thread):
    def start(self):
        super().start()
        for _ in range(30):
            time.sleep(0.01)

threading.Thread = Slow
"""


@pytest.mark.parametrize("before", ["", A_BUSY_MACHINE], ids=["at once", "on a busy machine"])
def test_an_interrupt_in_a_destructor_is_sent_again_and_not_printed(before: str) -> None:
    command = [sys.executable, "-c", before + STRUCK_IN_A_DESTRUCTOR]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=ENDING_SECONDS, check=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.mark.parametrize(
    ("starting", "number"), [("pipelines.definitions", signal.SIGINT), ("dagster._daemon", signal.SIGKILL)]
)
def test_a_ui_that_is_stopped_while_it_starts_leaves_nothing_behind(
    world: World, starting: str, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "ui", "--port", "0"],
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    wait_until(lambda: started_by(process.pid, starting), f"{starting} has been started")
    os.killpg(process.pid, number)  # as a terminal does
    output, _ = process.communicate(timeout=ENDING_SECONDS)  # ends with the last process that has the pipe
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert output.splitlines()[-1] == "Interrupted before anything was done."
    assert "Traceback" not in output
