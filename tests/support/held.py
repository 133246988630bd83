"""Stalls a run at the API, so that a test can act in the middle of it."""

import threading
from datetime import datetime

from resources.sandbox.logged_request import LoggedRequest
from tests.support.world import World


class Gate:
    """Keeps the API from answering at all once it is asked for a window that starts at `since` or later.

    It sets `reached` at the first of them.
    """

    def __init__(self, world: World, since: datetime) -> None:
        self.since = since
        self.reached = threading.Event()
        self._is_open = threading.Event()
        world.source.fail(status=500, when=self._waits, times=None)

    def open(self) -> None:
        """Let it answer from here on."""
        self._is_open.set()

    def _waits(self, asked: LoggedRequest) -> bool:
        if asked.start is not None and asked.start >= self.since:
            self.reached.set()
            self._is_open.wait()
        return False  # the fault itself never strikes


class Held:
    """Makes the API stall on windows that start at `since` or later, and sets `reached` at the first of them."""

    def __init__(self, world: World, since: datetime) -> None:
        self.reached = threading.Event()
        self.since = since
        world.source.fail(delay=600, when=self.is_asked, times=None)

    def is_asked(self, asked: LoggedRequest) -> bool:
        held = asked.start is not None and asked.start >= self.since
        if held:
            self.reached.set()
        return held
