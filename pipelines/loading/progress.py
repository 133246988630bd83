"""What a load reports while it runs. `pipelines.command.screen` shows it on a terminal."""

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import reduce
from operator import add

from pipelines.loading.listed_days import ListedDays
from pipelines.loading.load_metrics import LoadMetrics
from pipelines.loading.load_result import LoadResult
from resources.calls import Calls
from resources.outage import Waiting


@dataclass
class Progress:
    """How far the loads of a process have come. Override `changed`, `waiting` and `stored` to show it.

    `cells` of the `cells_expected` are settled. `results` has one item per load. `began` is on the monotonic clock.
    `listed_days` is what loads of organizations leave for those of users.
    """

    cells_expected: int = 0
    cells: int = 0
    calls: Calls = field(default_factory=Calls)
    results: list[LoadResult] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    listed_days: ListedDays = field(default_factory=ListedDays)

    def __post_init__(self) -> None:
        self.calls.watchers.append(self.waiting)

    @property
    def seconds(self) -> float:
        """Seconds since the process began to load."""
        return time.monotonic() - self.began

    @property
    def result(self) -> LoadResult:
        """The outcome of all loads so far."""
        return reduce(add, self.results, LoadResult())

    @property
    def metrics(self) -> LoadMetrics:
        """The numbers of all loads so far; `after - before` are those of the loads in between."""
        stored = reduce(add, (result.metrics for result in self.results), LoadMetrics())
        return replace(stored, calls=0) + LoadMetrics.of_calls(self.calls, self.seconds)

    def begin(self) -> LoadResult:
        """Begin another load. Returns the result that it fills in."""
        self.results.append(LoadResult())
        return self.results[-1]

    def changed(self) -> None:
        """Called after every change of a number, from the thread that loads."""

    def waiting(self, waiting: Waiting) -> None:
        """Called at the beginning of each pause in requests, from the thread that sends them."""

    def held_up(self, sentence: str) -> None:
        """Called before a load waits for another process, with a sentence about that."""

    def stored(self, days: Collection[date]) -> None:
        """Called after these days were stored, from the thread that loads."""
        self.changed()

    def expect(self, cells: int) -> None:
        """Add this many cells to those that are expected."""
        self.cells_expected += cells
        self.calls.expected += cells
        self.changed()

    def answered(self) -> None:
        """Called when a cell is settled."""
        self.cells += 1
        self.changed()


SECONDS_WORTH_A_LINE = 5.0
SECONDS_BETWEEN_LINES = 30.0


def is_worth_a_line(waiting: Waiting) -> bool:
    """Whether a wait takes more than a few seconds, counted from the last answer."""
    return waiting.until - waiting.since > SECONDS_WORTH_A_LINE


@dataclass
class WaitLines:
    """Reports waits as permanent lines: only waits of more than a few seconds, and one line per half minute at most."""

    say: Callable[[Waiting], None]
    quiet_until: float = -math.inf

    def __call__(self, waiting: Waiting) -> None:
        """Report `waiting` if it is long enough and the last line is old enough."""
        begins = time.monotonic()
        if is_worth_a_line(waiting) and begins >= self.quiet_until:
            self.quiet_until = begins + SECONDS_BETWEEN_LINES
            self.say(waiting)


@contextmanager
def log_waits(calls: Calls, log: Callable[[str], None]) -> Iterator[None]:
    """Write waits to a log while this is open."""
    lines = WaitLines(lambda waiting: log(str(waiting)))
    calls.watchers.append(lines)
    try:
        yield
    finally:
        calls.watchers.remove(lines)
