"""Ctrl-C and SIGTERM end a command at any moment, with a sentence and the exit code 128 plus the signal's number.

The process exits in the handler: an exception raised there could be swallowed by the code that it interrupts, such as
an extension module during its import, and the command would continue. Nothing is lost, because everything is stored in
whole transactions. During a run, Dagster's own handler replaces this one and cancels the run.

Imports nothing heavy, so that the handlers are installed before the imports that take seconds.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RAISED = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")
_SHOW_CURSOR = b"\x1b[?25h"
_CLEAR_LINE = b"\r\x1b[K"


class _State:
    last_words: Callable[[], str] = lambda: "Interrupted before anything was done.\n"
    reading = -1
    received = 0


def install_handlers() -> None:
    """From now on, SIGINT and SIGTERM end the process."""
    _State.reading, writing = os.pipe()
    for descriptor in (_State.reading, writing):
        os.set_blocking(descriptor, False)
    # Dagster's handler does not report which signal it got.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _exit)
    sys.unraisablehook = _resend


def _resend(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again if its exception was raised in a destructor, where Python prints it and continues."""
    if unraisable.exc_type.__name__ in _RAISED:
        here = threading.get_ident(), _State.received or signal.SIGINT
        threading.Thread(target=_send_once_back, args=here, daemon=True).start()
    else:
        sys.__unraisablehook__(unraisable)


def _send_once_back(thread: int, number: int) -> None:
    """Send a signal as soon as `thread` has left the hook, in which Python would print its exception too."""
    while _is_in_hook(sys._current_frames().get(thread)):
        time.sleep(0.01)  # nothing tells when a hook has returned
    os.kill(os.getpid(), number)


def _is_in_hook(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not _resend.__code__:
        frame = frame.f_back
    return frame is not None


def set_last_words(last_words: Callable[[], str]) -> None:
    """Set what a signal prints before the process exits: a text that ends with its line break, or is empty."""
    _State.last_words = last_words


def raise_keyboard_interrupt() -> None:
    """From now on, a signal raises KeyboardInterrupt: for a command that only waits for one."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


def received() -> int:
    """The signal that asked this process to end; 0 if none came, or if `install_handlers` was not called."""
    if not _State.received and _State.reading >= 0:
        try:
            sent = os.read(_State.reading, 4096)
        except BlockingIOError:
            sent = b""
        _State.received = next((number for number in sent if number in SIGNALS), 0)
    return _State.received


def exit_code() -> int:
    """The exit code of an interrupted command, by the convention of shells."""
    return 128 + (received() or signal.SIGINT)


def _exit(number: int, frame: FrameType | None) -> None:
    if os.isatty(1):
        os.write(1, _SHOW_CURSOR)  # a progress bar may have hidden it
    words = _State.last_words().encode()
    os.write(2, _CLEAR_LINE + words if os.isatty(2) and words else words)
    os._exit(128 + number)
