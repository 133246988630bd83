"""Ctrl-C and SIGTERM end a command cleanly, from its first moment on: a sentence, and 128 plus the signal's number.

Imports nothing heavy, so that it is in place before what takes seconds to import.
"""

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTHING_DONE = b"Interrupted before anything was done.\n"


class Interrupted(BaseException):
    """Somebody stopped the command. No exception of Python's own: libraries turn those into words of theirs."""


class _State:
    is_handled = False
    is_over = False
    reading = -1
    received = 0


def begin() -> None:
    """From now on a signal ends the process with a sentence; after `ready`, it raises Interrupted in the main thread.

    A second one ends the process at once.
    """
    _State.reading, writing = os.pipe()
    for descriptor in (_State.reading, writing):
        os.set_blocking(descriptor, False)
    # While a run goes on, Dagster's handler is in the place of this one, and does not say which signal it was.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _handle)


def ready() -> None:
    """What handles Interrupted is in place."""
    _State.is_handled = True


def over() -> None:
    """The command has said how it ended: from now on a signal ends the process without a word."""
    _State.is_over = True


def received() -> int:
    """The signal that this process was sent to end it; 0 if none, or if `begin` was not called."""
    if not _State.received and _State.reading >= 0:
        try:
            sent = os.read(_State.reading, 4096)
        except BlockingIOError:
            sent = b""
        _State.received = next((number for number in sent if number in SIGNALS), 0)
    return _State.received


def exit_code() -> int:
    """What a command ends with that was interrupted, as shells have it."""
    return 128 + (received() or signal.SIGINT)


def _handle(number: int, frame: FrameType | None) -> None:
    if not _State.is_handled:
        os.write(2, _NOTHING_DONE)
    if not _State.is_handled or _State.is_over or _State.received:
        os._exit(128 + number)
    _State.received = number
    raise Interrupted
