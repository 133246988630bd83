"""Takes the pictures of the documentation: `make screenshots`. Needs Debian's Chromium.

The demo is loaded, its report is opened, and Dagster's graph of its assets, in a browser without a window.
"""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

from pipelines.demo import FOLDER
from pipelines.settings import PROJECT
from tests.browser import chromium
from tests.ui import dagster_ui

PICTURES = PROJECT / "docs" / "pictures"
DAYS = 200


def main() -> None:
    command = [sys.executable, "-m", "pipelines.cli"]
    subprocess.run([*command, "demo", "--days", str(DAYS), "--organizations", "16"], cwd=PROJECT, check=True)
    over_the_demo = {
        "WAREHOUSE_URL": f"duckdb:///{FOLDER}/warehouse.duckdb",
        "DAGSTER_HOME": str(FOLDER / "dagster"),
        "DEVIN_START_DATE": str(datetime.now(UTC).date() - timedelta(days=DAYS)),
    }
    PICTURES.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 1150})
        page.goto((FOLDER / "published" / "report.html").as_uri())
        page.wait_for_selector("html[data-drawn]")
        page.screenshot(path=PICTURES / "report.png")
        with dagster_ui(over_the_demo) as url:
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            page.goto(f"{url}/asset-groups")
            page.get_by_text("daily_sessions", exact=True).first.wait_for()
            page.get_by_text("enterprise_sessions", exact=True).first.wait_for()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=PICTURES / "asset-graph.png")


if __name__ == "__main__":
    main()
