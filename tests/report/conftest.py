"""A browser for the report, and an empty warehouse to write it from.

tests/test_activity.py reads the numbers of the report from both databases, so the pages here are of DuckDB.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser

from resources.database import Database
from tests.support.browser import chromium_if_needed
from tests.support.report import LoadedPage, Look, fill, write_report
from tests.support.warehouse import migrated


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[[], Browser]]:
    """One browser for all pages of a module. While it is open, no run is possible in this process."""
    with chromium_if_needed() as found:
        yield found


@pytest.fixture
def look(browser: Callable[[], Browser]) -> Iterator[Look]:
    """Opens a page and waits for its charts. Use it after any run in this process, which needs the event loop."""
    with ExitStack() as stack:

        def open_page(
            path: Path,
            width: int = 1440,
            scheme: Literal["light", "dark"] = "light",
            clock: datetime | None = None,
            **options: Any,
        ) -> LoadedPage:
            page = browser().new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
            stack.callback(page.close)
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
def database(tmp_path: Path) -> Database:
    """A warehouse without rows."""
    return migrated(Database(url=Database.url_of(tmp_path / "warehouse.duckdb")))


@pytest.fixture(scope="session")
def five_weeks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on five weeks of one organization, last read at 2025-06-19 00:05 UTC."""
    directory = tmp_path_factory.mktemp("five-weeks")
    database = migrated(Database(url=Database.url_of(directory / "warehouse.duckdb")))
    fill(database, {"a": [3, 1, 5, 2, 0, 0, 4] * 5})
    return write_report(database, directory)
