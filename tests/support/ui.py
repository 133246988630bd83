"""The Dagster UI as `devin-sessions ui` serves it, for its tests, screenshots and benchmark."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import tenacity
from playwright.sync_api import Browser, Page, expect

from pipelines.alive import MARKS
from pipelines.checks import claims_of
from pipelines.command.demo import directory
from pipelines.home import PROJECT
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from warehouse import tables
from warehouse.dimensions import ORGANIZATIONS

ENDING_SECONDS = 120
PATIENCE = 60_000  # milliseconds; a page of the UI loads its parts one after the other


@contextmanager
def dagster_ui(environment: Mapping[str, str], output: IO[str] | int | None = None) -> Iterator[str]:
    """The URL of a UI in this environment, once it responds. When the block ends it is stopped as by Ctrl-C.

    Its output goes to `output`, by default to the caller's.
    """
    port = free_port()
    command = [sys.executable, "-m", "pipelines", "ui", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=PROJECT, env={**os.environ, **environment}, start_new_session=True, stdout=output, stderr=output
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(ENDING_SECONDS)


def _wait_for(url: str) -> None:
    """Wait until this UI responds."""
    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((urllib.error.URLError, ConnectionError)),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(120),
        reraise=True,
    )(lambda: urllib.request.urlopen(f"{url}/server_info").close())


@dataclass
class EndingUI:
    """A UI that a signal ends: its URL, and the lines that it and every process that it started have printed."""

    url: str
    pid: int
    printed: list[str] = field(default_factory=list)

    def kill_code_server(self) -> None:
        """Kill the process that runs the code for the UI, not the daemon's, as the system does without memory."""
        program = "api\0grpc"
        (daemon,) = started_by(self.pid, "dagster._daemon")
        (code_server,) = {*started_by(self.pid, program)} - {*started_by(daemon, program)}
        os.kill(code_server, signal.SIGKILL)


@contextmanager
def ui_ended_by(*numbers: signal.Signals, then: Callable[[], None] = lambda: None) -> Iterator[EndingUI]:
    """A UI, once it responds and its daemon runs. When the block ends, so must the UI at these signals, and after
    `then` all that it started.

    A UI takes long to start, so no test starts one for each signal: each UI that a test needs ends by other ones, and
    a second one finds it ending.
    """
    port = free_port()
    command = [sys.executable, "-m", "pipelines", "ui", "--port", str(port)]
    # Every process that is started holds the pipe open, so the output ends when the last of them has ended.
    process = subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    ui = EndingUI(f"http://127.0.0.1:{port}", process.pid)

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                ui.printed.append(line)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        _wait_for(ui.url)
        daemons = "Instance is configured with the following daemons"
        wait_until(lambda: any(daemons in line for line in ui.printed), "the daemon runs")
        announced = f"The Dagster UI: {ui.url} "
        wait_until(lambda: any(announced in line for line in ui.printed), "it has said where it is")
        yield ui
        groups = {os.getpgid(found) for found in started_by(process.pid)}
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait(ENDING_SECONDS)
        raise
    for number in (numbers[0], numbers[-1]):  # as impatient people press Ctrl-C
        os.killpg(process.pid, number)  # as a terminal does
    code = process.wait(ENDING_SECONDS)
    then()
    reading.join(ENDING_SECONDS)
    output = "".join(ui.printed)
    assert not reading.is_alive(), f"a process that the UI started is still running: {output}"
    assert code == 0, output
    assert "Daemon threads shut down" in output
    assert "Traceback" not in output, output
    assert groups and process.pid not in groups, "Ctrl-C would end the code server that a tick of the daemon uses"


def started_by(parent: int, program: str = "") -> list[int]:
    """The processes that `parent` started, and those that they started, whose command contains `program`."""
    found = []
    for listed in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for child in map(int, listed.read_text().split()):
                found += [child] if program in Path(f"/proc/{child}/cmdline").read_text() else []
                found += started_by(child, program)
    return found


def processes_of_runs(dagster_home: Path) -> dict[str, int]:
    """The process of each run that a UI has launched and that still asks the API, by run id."""
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            mark = link.readlink()
            if mark.parent == dagster_home / MARKS:
                found[mark.name] = int(link.parts[2])
    return found


def load_the_demo(days: int, organizations: int) -> dict[str, str]:
    """Load the demo, and return the environment in which the UI shows it."""
    command = [sys.executable, "-m", "pipelines", "demo"]
    amount = ["--days", str(days), "--organizations", str(organizations)]
    subprocess.run([*command, *amount], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return {
        "WAREHOUSE_URL": f"duckdb:///{directory()}/warehouse.duckdb",
        "DAGSTER_HOME": str(directory() / "dagster"),
        "DEVIN_START_DATE": str(datetime.now(UTC).date() - timedelta(days=days)),
    }


def patient_page(browser: Browser, *, width: int, height: int) -> Page:
    """A page that allows PATIENCE for whatever is expected of it."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    return page


def see_the_graph(page: Page, url: str) -> None:
    """See all assets at a glance."""
    page.goto(f"{url}/asset-groups")
    nodes = ["organizations", "daily_sessions", *(rollup.name for rollup in tables.ROLLUPS), "published_snapshot"]
    for name in nodes:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()


def see_it_near(page: Page, url: str) -> None:
    """Zoom in until the boxes show text: all checks pass and every day is loaded."""
    see_the_graph(page, url)
    near = page.get_by_role("button", name="zoom_in")
    for _ in range(8):
        near.click()
    number = len(claims_of(ORGANIZATIONS))
    expect(page.get_by_text(f"{number} / {number} Passed")).to_be_visible()
    expect(page.get_by_text("100% filled")).to_be_visible()


def see_the_description(page: Page, url: str) -> None:
    """See the selected asset's description beside the graph."""
    page.goto(f"{url}/asset-groups")
    page.get_by_text("daily_sessions", exact=True).first.click()
    expect(page.get_by_text(str(tables.daily_sessions.comment))).to_be_visible()


def see_the_plots(page: Page, url: str) -> None:
    """See the daily plots and the column descriptions on the asset's page."""
    page.goto(f"{url}/assets/daily_sessions?view=overview")
    expect(page.get_by_text(str(tables.daily_sessions.comment)).first).to_be_visible()
    expect(page.get_by_text(str(tables.daily_sessions.c.is_derived.comment))).to_be_visible()
    page.get_by_text("Plots", exact=True).first.click()
    expect(page.get_by_text("sessions_count", exact=True).last).to_be_visible()
    expect(page.locator("canvas")).not_to_have_count(0)


def see_the_checks(page: Page, url: str) -> None:
    """See that all checks passed."""
    page.goto(f"{url}/assets/daily_sessions?view=checks")
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(len(claims_of(ORGANIZATIONS)))
