"""A thread for coroutines whose beginning and end no signal interrupts: either would then wait for it for ever."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from anyio.from_thread import BlockingPortal, start_blocking_portal

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def blocking_portal() -> Iterator[BlockingPortal]:
    """anyio's portal. A signal that comes while it begins or ends is handled right after."""
    portal = start_blocking_portal()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        opened = portal.__enter__()
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # raises what a handler raises that waited
            yield opened
        finally:
            error = sys.exc_info()
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
            finally:
                portal.__exit__(*error)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
