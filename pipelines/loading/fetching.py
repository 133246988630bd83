"""Fetches the blocks of a load, each while the one before it is stored."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from anyio.from_thread import BlockingPortal

from pipelines.loading.answers import DayAnswers, Errors
from pipelines.loading.block_size import PlannedBlock, Wanted, in_blocks
from pipelines.loading.collect import collect_differenced, collect_direct, collect_listed
from pipelines.loading.listed import Proposal
from pipelines.loading.progress import Progress
from pipelines.loading.proposing import SessionList
from pipelines.loading.workers import Workers
from pipelines.partitions import Day
from pipelines.settings import Settings, Strategy
from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, Rejected, Unavailable
from warehouse.dimensions import Dimension

ERRORS = Errors(refusals=(Rejected,), temporary=(Unavailable, ContractBroken))
# Recent activity tells how likely an organization is to be quiet; older days count less with each block.
FADING = 0.7


@dataclass
class BlockFetcher:
    """Fetches blocks through an open client. `refused` are the ids that the API still refuses during this load."""

    dimension: Dimension
    client: DevinClient
    portal: BlockingPortal
    workers: Workers
    settings: Settings
    progress: Progress
    strategy: Strategy
    activity: dict[str, tuple[float, float]]
    refused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        is_forced = self.strategy == "listed"
        later = self.settings.dimensions[self.settings.dimensions.index(self.dimension) + 1 :]
        self.list = SessionList(self.dimension, self.client, self.workers, is_forced, self.progress.listed_days, later)

    def fetch(self, wanted: Wanted, day_before: Callable[[Day], Day]) -> Iterator[Sequence[DayAnswers]]:
        """The answers for each block, while the totals of the next are fetched: more would be lost by a kill.

        From the list of sessions a block takes few requests, most of which wait for others: there the whole of the next
        is fetched meanwhile, and blocks are longer.
        """

        def start(block: PlannedBlock) -> _Pending:
            return self._start(block, day_before(block.days[0]))

        started = map(start, in_blocks(wanted, lambda: self.list.is_used))  # each once it is due
        pending = next(started, None)
        while pending:
            pending.proceed()
            ahead = next(started, None) if self.list.is_used else None
            if ahead:
                ahead.proceed()
            answers = pending.answers.result()
            if self.list.misplaces and any(of_day.known_by("listed") for of_day in answers):
                answers = self._ask_instead(answers, start(pending.block))
            self._remember(answers)
            pending = ahead or next(started, None)
            yield answers

    def _ask_instead(self, listed: Sequence[DayAnswers], pending: "_Pending") -> list[DayAnswers]:
        """What is asked for in place of counts from a list that another block has meanwhile found to misplace."""
        self.progress.expect(sum(len(of_day.counts) for of_day in listed))
        pending.proceed()
        asked = pending.answers.result()
        for of_day, before in zip(asked, listed, strict=True):
            of_day.calls += before.calls
        return asked

    def _start(self, block: PlannedBlock, before: Day) -> "_Pending":
        """Start to fetch `block`; `before` is the day before it."""
        may_proceed = asyncio.Event()
        answers = self.portal.start_task_soon(self._fetch, block, before, may_proceed)
        return _Pending(block, answers, partial(self.portal.start_task_soon, may_proceed.set))

    def still_refused(self, last: Mapping[str, Day]) -> dict[str, Exception]:
        """The ids that the API still refuses to count on the day given for each, with the reasons."""
        return self.portal.call(self._still_refused, last)

    async def _still_refused(self, last: Mapping[str, Day]) -> dict[str, Exception]:
        async def refusal(id_: str, day: Day) -> Exception | None:
            try:
                await self._count(day.start, day.end, (id_,))
            except ERRORS.refusals as error:
                return error
            except ERRORS.temporary:
                pass  # it is counted like any other id, and fails its day if the error persists
            return None

        found = await asyncio.gather(*(refusal(id_, day) for id_, day in last.items()))
        return {id_: error for id_, error in zip(last, found, strict=True) if error}

    def read_list(self, of_day: DayAnswers) -> Proposal | None:
        """The sessions that the list has on one day with a control total; None if it can't be read."""
        return self.portal.call(self.list.read, [of_day])

    def _remember(self, answers: Sequence[DayAnswers]) -> None:
        """Add the counts of this block to the activity that is expected in the next."""
        for id_ in {id_ for a in answers for id_ in a.counts}:
            counts = [a.counts[id_] for a in answers if id_ in a.counts]
            days, sessions = self.activity.get(id_, (0.0, 0.0))
            self.activity[id_] = (days * FADING + len(counts), sessions * FADING + sum(counts))

    async def _count(self, start: datetime, end: datetime, ids: Sequence[str]) -> int:
        return await self.client.count(start, end, **{self.dimension.question_filter: ids})

    async def _fetch(self, block: PlannedBlock, before: Day, may_proceed: asyncio.Event) -> list[DayAnswers]:
        collect: Callable[..., Coroutine[Any, Any, list[DayAnswers]]] = collect_direct
        if self.strategy != "direct":
            # Half a session more than was seen: having seen none does not prove that none will come.
            expected = {i: (sessions + 0.5) / (days + 1) for i, (days, sessions) in self.activity.items() if days}
            collect = partial(collect_differenced, expected=expected)
            if self.strategy != "differenced" and not self.list.why_not:
                collect = partial(
                    collect_listed,
                    expected=expected,
                    propose=partial(self.list.propose, expected, block.ids),
                    judged=self.list.judge,
                    sampled=self.settings.devin_list_samples,
                    dice=self.list.dice,
                )
        return await collect(
            self._count,
            block.days,
            block.ids,
            before=before,
            workers=self.workers,
            errors=ERRORS,
            answered=self.progress.answered,
            may_proceed=may_proceed.wait,
        )


@dataclass
class _Pending:
    """A block that is being fetched. It waits for `proceed` to be called before it asks more than its totals."""

    block: PlannedBlock
    answers: Future[list[DayAnswers]]
    proceed: Callable[[], object]
