"""What a load reports while it runs. How that looks on a screen is in `pipelines.command.screen`."""

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import reduce
from operator import add

from pipelines.loading.load_metrics import LoadMetrics
from pipelines.loading.load_result import LoadResult
from resources.calls import Calls
from resources.outage import Waiting


@dataclass
class Progress:
    """How far the loads of a process have come. Override `changed`, `waiting` and `store` to show it.

    `cells` of the `cells_expected` are settled. `results` has one for each load. `began` is on the monotonic clock.
    """

    cells_expected: int = 0
    cells: int = 0
    calls: Calls = field(default_factory=Calls)
    results: list[LoadResult] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.calls.watchers.append(self.waiting)

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self.began

    @property
    def result(self) -> LoadResult:
        """What came of all loads so far."""
        return reduce(add, self.results, LoadResult())

    @property
    def metrics(self) -> LoadMetrics:
        """The numbers of all loads so far; `after - before` are those of the loads in between."""
        stored = reduce(add, (result.metrics for result in self.results), LoadMetrics())
        return replace(stored, calls=0) + LoadMetrics.of_calls(self.calls, self.seconds)

    def begin(self) -> LoadResult:
        """Another load begins. Returns what it is to fill in."""
        self.results.append(LoadResult())
        return self.results[-1]

    def changed(self) -> None:
        """Called after every change of a number, from the thread that loads."""

    def waiting(self, waiting: Waiting) -> None:
        """Called at the beginning of each pause in which nothing is asked, from the thread that asks."""

    def store(self, days: Collection[date]) -> None:
        """Called after these days were stored, from the thread that loads."""
        self.changed()

    def expect(self, cells: int) -> None:
        """A load of this many cells begins."""
        self.cells_expected += cells
        self.calls.expected += cells
        self.changed()

    def answered(self) -> None:
        """A cell is known."""
        self.cells += 1
        self.changed()


SECONDS_WORTH_A_LINE = 5.0
SECONDS_BETWEEN_LINES = 30.0


@dataclass
class WaitLines:
    """Reports waits where each takes a line for good: those of more than a moment, and one line in half a minute."""

    say: Callable[[Waiting], None]
    said_until: float = -math.inf

    def __call__(self, waiting: Waiting) -> None:
        """Report `waiting`, if it is time for a line."""
        begins = time.monotonic()
        if waiting.until - waiting.since > SECONDS_WORTH_A_LINE and begins >= self.said_until:
            self.said_until = begins + SECONDS_BETWEEN_LINES
            self.say(waiting)


@contextmanager
def waits_logged(calls: Calls, log: Callable[[str], None]) -> Iterator[None]:
    """While this is open, waits are lines in a log."""
    lines = WaitLines(lambda waiting: log(str(waiting)))
    calls.watchers.append(lines)
    try:
        yield
    finally:
        calls.watchers.remove(lines)
