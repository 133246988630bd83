"""Takes the screenshots for the documentation: `make screenshots`. Needs Debian's Chromium.

Loads the demo, then opens its report and Dagster's asset graph in a headless browser.
"""

import subprocess

from pipelines.command.demo import directory
from pipelines.home import PROJECT
from tests.support.browser import chromium
from tests.support.ui import dagster_ui, load_the_demo, patient_page, see_the_graph

PICTURES = PROJECT / "docs" / "pictures"
DAYS = 200


def main() -> None:
    over_the_demo = load_the_demo(DAYS, organizations=16)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 1150})
        page.goto((directory() / "published" / "report.html").as_uri())
        page.wait_for_selector("html[data-drawn]")
        page.screenshot(path=PICTURES / "report.png")
        with dagster_ui(over_the_demo, subprocess.DEVNULL) as url:
            page = patient_page(browser, width=1600, height=900)
            see_the_graph(page, url)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=PICTURES / "asset-graph.png")


if __name__ == "__main__":
    main()
