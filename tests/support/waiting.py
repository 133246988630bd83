"""Waits for what another thread or process brings about."""

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait for a condition, for a minute at most."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.02)  # between two looks, so that what is waited for has the processor
