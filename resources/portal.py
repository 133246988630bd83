"""A thread for coroutines whose beginning and end no signal interrupts: either would then wait for it for ever."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from anyio.from_thread import BlockingPortal, start_blocking_portal

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def blocking_portal() -> Iterator[BlockingPortal]:
    """anyio's portal. A signal that comes while it begins or ends is handled right after."""
    portal = start_blocking_portal()

    def end(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        with _signals_held():
            return portal.__exit__(kind, error, trace)

    with ExitStack() as stack:
        with _signals_held():
            opened = portal.__enter__()
            stack.push(end)
        yield opened


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals are handled at the end of the block, by the handlers of before.

    Blocking them for this thread would not do: another may then take them, and Python calls the handler in this one.
    """
    if threading.current_thread() is not threading.main_thread():  # which handles none
        yield
        return
    received: list[int] = []
    with ExitStack() as restored:  # each handler, even if one that is back raises at once
        for number in _HELD:
            restored.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda number, _: received.append(number))
        yield
    for number_received in dict.fromkeys(received):
        signal.raise_signal(number_received)
