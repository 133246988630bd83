"""An event loop on a clock that moves to when the loop would wake up: no test waits, and every number is exact."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class Clock(selectors.DefaultSelector):
    """Moves the time to when the loop would have woken up, instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += max(timeout or 0.0, 1e-9)  # a real clock never stands still either
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop on that clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main)
