"""A thread for coroutines. No signal interrupts its start or its end, either of which would then hang forever."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from anyio.from_thread import BlockingPortal, start_blocking_portal

_DEFERRED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def blocking_portal() -> Iterator[BlockingPortal]:
    """anyio's portal. A signal that arrives while it starts or stops is handled right afterwards."""
    portal = start_blocking_portal()

    def end(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        with _signals_deferred():
            return portal.__exit__(kind, error, trace)

    with ExitStack() as stack:
        with _signals_deferred():
            opened = portal.__enter__()
            stack.push(end)
        yield opened


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer signals to the end of the block, where their previous handlers run.

    Blocking them in this thread is not enough: another thread may receive them, and Python then calls the handler here.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread handles signals
        yield
        return
    received: list[int] = []
    with ExitStack() as restored:  # restores every handler, even if one raises as soon as it is back
        for number in _DEFERRED:
            restored.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda number, _: received.append(number))
        yield
    for number_received in dict.fromkeys(received):
        signal.raise_signal(number_received)
