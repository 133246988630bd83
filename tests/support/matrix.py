"""An API that is a function over a matrix of sessions, and blocks that are collected from it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from pipelines.loading.answers import DayAnswers, Errors
from pipelines.loading.block import Count
from pipelines.loading.workers import Workers
from pipelines.partitions import Day

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
ERRORS = Errors(refusals=(PermissionError,), temporary=(OSError,))
Cell = tuple[str, int]


def days_of(number: int) -> list[Day]:
    return [Day((FIRST + timedelta(n)).date(), FIRST + timedelta(n), FIRST + timedelta(n + 1)) for n in range(number)]


@dataclass
class Source:
    """An API with these sessions per organization and day; the organization "hidden" is not listed."""

    cells: dict[Cell, int]
    number_of_days: int
    changes: dict[int, tuple[Cell, int]] = field(default_factory=dict)
    refuses: Callable[[Sequence[str], int], Exception | None] = lambda org_ids, days: None
    asked: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)

    async def __call__(self, start: datetime, end: datetime, org_ids: Sequence[str]) -> int:
        await asyncio.sleep(0)
        if len(self.asked) in self.changes:
            cell, change = self.changes[len(self.asked)]
            self.cells[cell] = max(0, self.cells.get(cell, 0) + change)
        first, last = (start - FIRST).days, (end - FIRST).days
        self.asked.append((first, last, tuple(org_ids)))
        assert -1 <= first < last <= self.number_of_days
        assert len(org_ids) <= 50
        if error := self.refuses(org_ids, last - first):
            raise error
        return sum(n for (o, d), n in self.cells.items() if first <= d < last and (not org_ids or o in org_ids))

    def truth(self, org_id: str, day: int) -> int:
        return self.cells.get((org_id, day), 0)


async def at_once() -> None:
    pass


def collected(
    ask: Callable[..., Coroutine[Any, Any, list[DayAnswers]]],
    count: Count,
    number_of_days: int,
    org_ids: Sequence[str],
    workers: int,
    answered: Callable[[], None] = lambda: None,
    may_proceed: Callable[[], Awaitable[object]] = at_once,
    **options: Any,
) -> list[DayAnswers]:
    async def main() -> list[DayAnswers]:
        async with Workers(workers) as pool:
            return await ask(
                count,
                days_of(number_of_days),
                org_ids,
                before=Day((FIRST - timedelta(1)).date(), FIRST - timedelta(1), FIRST),
                workers=pool,
                errors=ERRORS,
                answered=answered,
                may_proceed=may_proceed,
                **options,
            )

    return asyncio.run(main())


ORGS = [f"org-{n}" for n in range(8)]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Source, list[str], dict[str, float], int]:
    """A source, the listed organizations, the expected activity of some of them, and a number of workers."""
    orgs = ORGS[: draw(st.integers(1, len(ORGS)))]
    number_of_days = draw(st.integers(1, 12))
    numbers = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 10**6))
    density = draw(st.integers(0, 3))
    cells = {
        (org_id, day): draw(numbers) if draw(st.integers(0, 3)) <= density else 0
        for org_id in orgs
        for day in range(number_of_days)
    }
    for day in draw(st.lists(st.integers(0, number_of_days - 1), max_size=3)):
        cells["hidden", day] = draw(st.integers(0, 5))
    expected = draw(st.dictionaries(st.sampled_from(orgs), st.floats(0.001, 5)))
    return Source(cells, number_of_days), orgs, expected, draw(st.integers(1, 6))
