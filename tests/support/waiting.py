"""Waits for another thread or process."""

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; fail after a minute."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.02)  # leaves the processor to what is waited for
