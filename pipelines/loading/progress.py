"""What a load tells whoever watches it: the numbers so far. How they look on a screen is in `cli`."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from pipelines.loading.collect import Cells
from resources.devin_api import Calls
from resources.outage import Waiting
from warehouse.writes import Changes, StoredDay


@dataclass
class Progress:
    """The numbers of one or more loads. Override `changed` to show them.

    `cells` are those that are settled, `known` those of the days that are `stored`; `found` days were loaded by another
    run before their turn came. `incomplete` days lack the ids that the source refused to count. `contradictions` are
    sentences. `began` is on the monotonic clock.
    """

    cells_expected: int = 0
    cells: int = 0
    calls: Calls = field(default_factory=Calls)
    sessions: int = 0
    unattributed: int = 0
    known: Cells = field(default_factory=Cells)
    changes: Changes = field(default_factory=Changes)
    stored: list[date] = field(default_factory=list)
    found: set[date] = field(default_factory=set)
    incomplete: dict[date, set[str]] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.calls.watchers.append(self.waiting)

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self.began

    def changed(self) -> None:
        """Called after every change of a number, from the thread that loads."""

    def waiting(self, waiting: Waiting) -> None:
        """Called at the beginning of each pause in which nothing is asked, from the thread that asks."""

    def expect(self, cells: int) -> None:
        """A load of this many cells begins."""
        self.cells_expected += cells
        self.calls.expected += cells
        self.changed()

    def answered(self) -> None:
        """A cell is known."""
        self.cells += 1
        self.changed()

    def store(self, days: Mapping[date, StoredDay], cells: Cells, before: Mapping[date, StoredDay]) -> None:
        """These days were stored, with this many new `cells` in all; `before` are those that this load had stored."""
        self.stored += days.keys() - before.keys()
        self.known += cells
        for day in days.values():
            self.sessions += day.sessions_count
            self.unattributed += day.unattributed_count
            self.changes += day.changes
        for day in before.values():
            self.sessions -= day.sessions_count
            self.unattributed -= day.unattributed_count
        self.changed()

    def lacks(self, day: date, ids: set[str]) -> None:
        """The source refused to count these on a day that is stored; none if all are there now."""
        self.incomplete.pop(day, None)
        if ids:
            self.incomplete[day] = ids


SECONDS_WORTH_A_LINE = 5.0
SECONDS_BETWEEN_LINES = 30.0


@dataclass
class WaitLines:
    """Says waits where each takes a line for good: those of more than a moment, and one line in half a minute."""

    say: Callable[[Waiting], None]
    said_until: float = -math.inf

    def __call__(self, waiting: Waiting) -> None:
        """Say `waiting`, if it is time for a line."""
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
