"""Which questions to ask for a block of days and organizations, and what the answers add up to.

Pure: it is handed a function that counts, and knows no HTTP, Dagster or SQL.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pipelines.partitions import Day

Question = TypeVar("Question")


class Count(Protocol):
    """Counts the sessions of a day; no organization means all of them."""

    async def __call__(self, day: Day, org_ids: Sequence[str]) -> int: ...


@dataclass
class DayAnswers:
    """What the source said about one day."""

    day: Day
    control_total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    calls: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every question about the day was answered."""
        return self.control_total is not None and not self.failures


async def direct(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    workers: int,
    bearable: tuple[type[Exception], ...],
    answered: Callable[[int], None],
) -> list[DayAnswers]:
    """Ask each day's control total, then each cell itself.

    An exception in `bearable` leaves its day not whole, and a day without a control total costs no further question;
    any other exception ends the collection. `answered` is told after each question how many cells it settled.
    """
    answers = [DayAnswers(day) for day in days]

    async def ask(question: tuple[DayAnswers, str | None]) -> None:
        of_day, org_id = question
        of_day.calls += 1
        try:
            number = await count(of_day.day, () if org_id is None else (org_id,))
        except bearable as error:
            of_day.failures.append(error)
            return
        if org_id is None:
            of_day.control_total = number
        else:
            of_day.counts[org_id] = number
        answered(org_id is not None)

    await _each(((of_day, None) for of_day in answers), ask, workers)
    known = [of_day for of_day in answers if of_day.control_total is not None]
    await _each(((of_day, org_id) for of_day in known for org_id in org_ids), ask, workers)
    return answers


async def _each(
    questions: Iterable[Question], ask: Callable[[Question], Coroutine[Any, Any, None]], workers: int
) -> None:
    """Ask all questions, at most `workers` at once. The first exception stops the rest and is raised."""
    waiting = iter(questions)

    async def work() -> None:
        for question in waiting:
            await ask(question)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
