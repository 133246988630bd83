"""Takes the pictures of the documentation: `make screenshots`. Needs Debian's Chromium.

The demo is loaded, its report is opened, and Dagster's graph of its assets, in a browser without a window.
"""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tenacity

from pipelines.demo import FOLDER
from tests.browser import chromium

PROJECT = Path(__file__).resolve().parents[1]
PICTURES = PROJECT / "docs" / "pictures"
DAYS = 200


def main() -> None:
    command = [sys.executable, "-m", "pipelines.cli"]
    subprocess.run([*command, "demo", "--days", str(DAYS), "--organizations", "16"], cwd=PROJECT, check=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 1150})
        page.goto((FOLDER / "published" / "report.html").as_uri())
        page.wait_for_selector("html[data-drawn]")
        page.screenshot(path=PICTURES / "report.png")
        with dagster_ui(command) as url:
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            page.goto(f"{url}/asset-groups")
            page.get_by_text("daily_sessions", exact=True).first.wait_for()
            page.get_by_text("enterprise_sessions", exact=True).first.wait_for()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=PICTURES / "asset-graph.png")


@contextmanager
def dagster_ui(command: list[str]) -> Iterator[str]:
    """The UI over the demo, at this address, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "WAREHOUSE_URL": f"duckdb:///{FOLDER}/warehouse.duckdb",
        "DAGSTER_HOME": str(FOLDER / "dagster"),
        "DEVIN_START_DATE": str(datetime.now(UTC).date() - timedelta(days=DAYS)),
    }
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*command, "ui", "--port", str(port)], cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((urllib.error.URLError, ConnectionError)),
            wait=tenacity.wait_fixed(0.3),
            stop=tenacity.stop_after_delay(60),
            reraise=True,
        )(lambda: urllib.request.urlopen(f"{url}/server_info").close())
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


if __name__ == "__main__":
    main()
