"""Ctrl-C and SIGTERM end a command with a sentence and 128 plus the signal's number, from its first moment on.

The process ends in the handler: an exception that a handler raises may be swallowed by whatever it strikes, such as an
extension that imports, and then the command would go on. Nothing is lost by that, since everything that is stored is
stored whole. While a run goes on, Dagster's own handler is in the place of this one, and cancels the run.

Imports nothing heavy, so that it is in place before what takes seconds to import.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RAISED = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_SHOW_CURSOR = b"\x1b[?25h"


class _State:
    last_words: Callable[[], str] = lambda: "Interrupted before anything was done.\n"
    reading = -1
    received = 0


def begin() -> None:
    """From now on a signal ends the process."""
    _State.reading, writing = os.pipe()
    for descriptor in (_State.reading, writing):
        os.set_blocking(descriptor, False)
    # Dagster's handler does not say which signal it was.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _end)
    sys.unraisablehook = _deliver_again


def _deliver_again(struck: "sys.UnraisableHookArgs") -> None:
    """An interrupt that struck a destructor is printed by Python and then forgotten; here it comes again instead."""
    if struck.exc_type.__name__ in _RAISED:
        number = _State.received or signal.SIGINT
        # By another thread, once this hook is left.
        again = threading.Timer(0.01, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(struck)


def say_at_the_end(last_words: Callable[[], str]) -> None:
    """What a signal lets the process say from now on, with the end of its line."""
    _State.last_words = last_words


def raise_instead() -> None:
    """From now on a signal raises KeyboardInterrupt, for a command that waits for nothing else."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


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


def _end(number: int, frame: FrameType | None) -> None:
    if os.isatty(1):
        os.write(1, _SHOW_CURSOR)  # which a bar may have hidden
    os.write(2, _State.last_words().encode())
    os._exit(128 + number)
