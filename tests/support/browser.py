"""Headless Chromium from Debian, for the tests of the report and the screenshots in the documentation."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from playwright.sync_api import Browser, sync_playwright

_PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
"""The first has no windows, and opens a page with a third of the CPU."""
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A browser with an empty profile and these extra arguments, until the block ends.

    Raises SystemExit if no Chromium is installed.
    """
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if not program:
        raise SystemExit("Chromium is not installed. On Debian: apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_ARGUMENTS, *arguments])
        yield browser
        browser.close()


@contextmanager
def chromium_if_needed() -> Iterator[Callable[[], Browser]]:
    """Starts a browser when it is first called, and returns the same one from then on, until the block ends."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(chromium()))
