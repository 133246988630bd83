"""Debian's Chromium without a window, for the tests of the report and the pictures of the documentation."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A browser with an empty profile and these arguments more, until the block ends.

    Ends the program, or the test, if there is none.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        raise SystemExit("There is no Chromium to look at pages with. On Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_ARGUMENTS, *arguments])
        yield browser
        browser.close()
