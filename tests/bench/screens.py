"""Measures how long the Dagster UI takes to show everything."""

import statistics
import subprocess
import time

from tests.bench.sizes import Sizes
from tests.bench.table import Row, spread
from tests.support import ui as dagster_ui
from tests.support.browser import chromium


def ui(sizes: Sizes) -> list[Row]:
    """From starting `devin-sessions ui`, which is `make dev`, to what a person sees in the browser, with the demo."""
    days, organizations = sizes.shown
    over_the_demo = dagster_ui.load_the_demo(days, organizations)
    shown = {
        "the graph": dagster_ui.see_the_graph,
        "its boxes, green": dagster_ui.see_it_near,
        "a description beside it": dagster_ui.see_the_description,
        "plots by day": dagster_ui.see_the_plots,
        "six green checks": dagster_ui.see_the_checks,
    }
    seconds: dict[str, list[float]] = {}
    for _ in range(sizes.times):
        with chromium() as browser:
            page = dagster_ui.patient_page(browser, width=2400, height=1200)
            began = time.perf_counter()
            with dagster_ui.dagster_ui(over_the_demo, subprocess.DEVNULL) as url:
                for what, see in shown.items():
                    see(page, url)
                    seconds.setdefault(what, []).append(time.perf_counter() - began)
    last = statistics.median(list(seconds.values())[-1])
    notes = [f"{what}: {spread(took, '.1f')}" for what, took in seconds.items()]
    return [
        Row(f"from devin-sessions ui to all that it shows of {days} days, s", "≤ 20", f"{last:.1f}", last <= 20, notes)
    ]
