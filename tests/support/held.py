"""A source that holds a run up, so that a test can act in the middle of it."""

import threading
from datetime import datetime

from resources.sandbox.logged_request import LoggedRequest
from tests.support.world import World


class Held:
    """A source that stops answering from a moment on, and tells when it was asked for it."""

    def __init__(self, world: World, since: datetime) -> None:
        self.reached = threading.Event()
        self.since = since
        world.source.fail(delay=600, when=self.is_asked, times=None)

    def is_asked(self, asked: LoggedRequest) -> bool:
        held = asked.start is not None and asked.start >= self.since
        if held:
            self.reached.set()
        return held
