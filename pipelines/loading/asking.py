"""How the blocks of a load are asked, each while the one before it is stored."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from anyio.from_thread import BlockingPortal

from pipelines.loading import collect
from pipelines.loading.answers import DayAnswers, Errors
from pipelines.loading.progress import Progress
from pipelines.loading.workers import Workers
from pipelines.partitions import Day
from pipelines.settings import Settings
from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, Rejected, Unavailable
from warehouse.dimensions import Dimension

DAYS_PER_BLOCK = 31
ERRORS = Errors(refusals=(Rejected,), passing=(Unavailable, ContractBroken))
# What somebody did lately says how likely quiet is; older days count less with each block.
FADING = 0.7

Wanted = dict[Day, Sequence[str]]
"""Who is to be counted on each day."""


@dataclass(frozen=True)
class AskedBlock:
    """Consecutive days on which the same ids are asked about."""

    days: list[Day]
    ids: Sequence[str]


@dataclass
class Asking:
    """Asks one block at a time over an open client. `refused` are the ids that it asked about in vain for the load."""

    dimension: Dimension
    client: DevinClient
    portal: BlockingPortal
    workers: Workers
    settings: Settings
    progress: Progress
    is_differenced: bool
    activity: dict[str, tuple[float, float]]
    refused: set[str] = field(default_factory=set)

    def start(self, block: AskedBlock, before: Day) -> "UnderWay":
        """Begin to ask `block`; `before` is the day before it."""
        goes_on = asyncio.Event()
        answers = self.portal.start_task_soon(self._ask, block, before, goes_on)
        return UnderWay(answers, partial(self.portal.start_task_soon, goes_on.set))

    def still_refused(self, last: Mapping[str, Day]) -> dict[str, Exception]:
        """The ids that the source still refuses to count on this day of each, and why."""
        return self.portal.call(self._still_refused, last)

    async def _still_refused(self, last: Mapping[str, Day]) -> dict[str, Exception]:
        async def refusal(id_: str, day: Day) -> Exception | None:
            try:
                await self._count(day.start, day.end, (id_,))
            except ERRORS.refusals as error:
                return error
            except ERRORS.passing:
                pass  # it is asked like any other, and fails its day if that goes on
            return None

        found = await asyncio.gather(*(refusal(id_, day) for id_, day in last.items()))
        return {id_: error for id_, error in zip(last, found, strict=True) if error}

    def remember(self, answers: Sequence[DayAnswers]) -> None:
        """Take what each did in this block into account for the next."""
        for id_ in {id_ for a in answers for id_ in a.counts}:
            counts = [a.counts[id_] for a in answers if id_ in a.counts]
            days, sessions = self.activity.get(id_, (0.0, 0.0))
            self.activity[id_] = (days * FADING + len(counts), sessions * FADING + sum(counts))

    async def _count(self, start: datetime, end: datetime, ids: Sequence[str]) -> int:
        return await self.client.count(start, end, **{self.dimension.question_filter: ids})

    async def _ask(self, block: AskedBlock, before: Day, goes_on: asyncio.Event) -> list[DayAnswers]:
        if self.is_differenced:
            # Half a session more than was seen: never having seen one is no proof that none will come.
            expected = {i: (sessions + 0.5) / (days + 1) for i, (days, sessions) in self.activity.items() if days}
            ask: Callable[..., Coroutine[Any, Any, list[DayAnswers]]] = partial(collect.differenced, expected=expected)
        else:
            ask = collect.direct
        return await ask(
            self._count,
            block.days,
            block.ids,
            before=before,
            workers=self.workers,
            errors=ERRORS,
            answered=self.progress.answered,
            may_go_on=goes_on.wait,
        )


@dataclass
class UnderWay:
    """A block that is being asked: its answers when they are there, and leave to ask more than its totals."""

    answers: Future[list[DayAnswers]]
    may_go_on: Callable[[], object]


def in_blocks(wanted: Wanted) -> Iterator[AskedBlock]:
    """The days in blocks of consecutive ones on which the same are wanted."""
    block: AskedBlock | None = None
    for day, ids in wanted.items():
        if not ids:
            continue
        if block and (len(block.days) == DAYS_PER_BLOCK or block.days[-1].end != day.start or block.ids != ids):
            yield block
            block = None
        block = block or AskedBlock([], ids)
        block.days.append(day)
    if block:
        yield block
