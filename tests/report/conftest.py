"""A browser for the report, and a run that wrote a report."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.browser import chromium
from tests.support.report import LoadedPage, Look
from tests.support.world import World


@pytest.fixture
def look() -> Iterator[Look]:
    """Opens a page and waits for its charts. Use it after any run in this process, which needs the event loop."""
    with ExitStack() as stack:
        browser = cache(lambda: stack.enter_context(chromium()))

        def open_page(
            path: Path,
            width: int = 1440,
            scheme: Literal["light", "dark"] = "light",
            clock: datetime | None = None,
            **options: Any,
        ) -> LoadedPage:
            page = browser().new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
            if clock:
                page.clock.install(time=clock)
            looked = LoadedPage(page)
            page.on("console", lambda message: looked.console.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: looked.console.append(f"error: {error}"))
            page.on("request", lambda request: looked.requests.append(request.url))
            page.on("dialog", lambda dialog: looked.console.append(f"dialog: {dialog.message}"))
            page.goto(path.as_uri())
            if options.get("java_script_enabled", True):
                page.wait_for_selector("html[data-drawn]")
            return looked

        yield open_page


@pytest.fixture
def loaded(each_world: World) -> World:
    """A world with a report on 100 days."""
    each_world.configure(
        devin_start_date="2025-01-01", devin_report_path=str(each_world.folder / "published" / "report.html")
    )
    assert each_world.run("2025-01-01", "2025-04-10").success
    return each_world
