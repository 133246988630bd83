"""A block of days and organizations: what is known about it, and how each question about it is asked.

Pure: it gets a function that counts, and knows nothing of HTTP, Dagster or SQL.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from pipelines.loading.answers import DayAnswers, Errors, How
from pipelines.loading.workers import Batch, Question, Workers
from pipelines.partitions import Day

# An organization that got no answer on this many days, and on no other day either, is not asked about any more.
DAYS_UNANSWERED = 3


class Count(Protocol):
    """Counts the sessions in [start, end) of these organizations or users, or of the whole enterprise without ids."""

    async def __call__(self, start: datetime, end: datetime, ids: Sequence[str], /) -> int: ...


class Block:
    """The state of one block: what is known about each day, and the totals that are still to be split."""

    def __init__(
        self,
        count: Count,
        days: Sequence[Day],
        org_ids: Sequence[str],
        before: Day,
        workers: Workers,
        errors: Errors,
        answered: Callable[[], None],
    ) -> None:
        self.answers = [DayAnswers(day) for day in days]
        self.before = before
        self._count = count
        self.org_ids = org_ids
        self.workers = workers
        self.errors = errors
        self._answered = answered
        self.totals: list[tuple[list[str], int]] = []
        self.in_one: int | None = None
        self._asked_again: set[tuple[int, str]] = set()
        self._answered_for: set[str] = set()
        self._unanswered: dict[str, list[Exception]] = {}

    def with_control_total(self) -> list[DayAnswers]:
        """The days whose control total is known."""
        return [of_day for of_day in self.answers if of_day.control_total is not None]

    async def ask_control_totals(self, also: Iterable[Question] = ()) -> None:
        """Ask for each day's control total, and the questions `also`, which need not wait for them."""
        await self.ask_all([*(self.control_total_of(of_day) for of_day in self.answers), *also])

    async def ask_cells(self, cells: Iterable[tuple[DayAnswers, str]]) -> None:
        """Ask for these cells directly, those of the last and the first day before the others.

        An organization that gets no answer on those two and a third day is not asked about on the others.
        """
        ends = [id(of_day) for of_day in (self.answers[-1], self.answers[0])]
        ordered = sorted(cells, key=lambda cell: ends.index(id(cell[0])) if id(cell[0]) in ends else len(ends))
        await self.ask_all(self.cell_of(of_day, org_id) for of_day, org_id in ordered)

    async def ask_cells_again(self, cells: Iterable[tuple[DayAnswers, str]]) -> None:
        """Ask for these cells directly a second time, but never a third."""
        again = {(id(a), org_id): (a, org_id) for a, org_id in cells if (id(a), org_id) not in self._asked_again}
        self._asked_again |= again.keys()
        await self.ask_cells(again.values())

    def is_known(self, org_ids: Sequence[str]) -> bool:
        """Whether all of their cells in the block are known."""
        return all(a.is_whole and org_id in a.counts for a in self.answers for org_id in org_ids)

    def sum_of(self, org_id: str) -> int:
        return sum(a.counts.get(org_id, 0) for a in self.answers)

    def open_ids(self) -> set[str]:
        """Organizations whose total over the block is not known."""
        return set(self.org_ids).difference(*(org_ids for org_ids, _ in self.totals))

    def open_on(self, of_day: DayAnswers) -> list[str]:
        return [org_id for org_id in self.org_ids if org_id not in of_day.counts and org_id not in of_day.refused]

    async def ask_all(self, questions: Iterable[Question]) -> None:
        batch = Batch(self.workers)
        for question in questions:
            batch.add(question)
        await batch.all_asked()

    async def ask(self, days: Sequence[DayAnswers], org_ids: Sequence[str]) -> int:
        for of_day in days:
            of_day.calls += 1 / len(days)
        return await self._count(days[0].day.start, days[-1].day.end, org_ids)

    async def ask_if_possible(self, days: Sequence[DayAnswers], org_ids: Sequence[str]) -> int | None:
        """The answer; None if the API refuses it or fails for now, which leaves what it was about open."""
        try:
            return await self.ask(days, org_ids)
        except (*self.errors.refusals, *self.errors.temporary):
            return None

    def control_total_of(self, of_day: DayAnswers) -> Question:
        async def ask() -> None:
            try:
                of_day.control_total = await self.ask([of_day], ())
            except self.errors.temporary as error:
                of_day.failures.append(error)

        return ask

    def cell_of(self, of_day: DayAnswers, org_id: str) -> Question:
        async def ask() -> None:
            if of_day.failures:
                return  # the day can no longer be stored
            unanswered = self._unanswered.get(org_id, [])
            if len(unanswered) >= DAYS_UNANSWERED and org_id not in self._answered_for:
                of_day.failures.append(unanswered[0])
                return
            try:
                self.set(of_day, org_id, await self.ask([of_day], (org_id,)), "asked")
            except self.errors.refusals as error:
                of_day.refused[org_id] = error
            except self.errors.temporary as error:
                of_day.failures.append(error)
                self._unanswered.setdefault(org_id, []).append(error)
            else:
                self._answered_for.add(org_id)

        return ask

    async def ask_in_one(self) -> None:
        """Ask for the total of all days, for the proof to compare: it need not wait for that until then."""
        if len(self.answers) > 1:  # a single day is compared together with the day before it
            self.in_one = await self.ask_if_possible(self.answers, ())

    def total_of(self, org_ids: list[str]) -> Question:
        """The question for their total over the block. A refusal is narrowed down to the organization it concerns."""

        async def ask() -> None:
            try:
                self.totals.append((org_ids, await self.ask(self.answers, org_ids)))
                self._answered_for.update(org_ids)
            except self.errors.refusals:
                if len(org_ids) > 1:
                    for org_id in org_ids:
                        await self.total_of([org_id])()
                else:
                    await self._ask_refused(org_ids[0])
            except self.errors.temporary:
                pass  # left open: the proof asks for its cells, so that one bad day does not fail the others

        return ask

    async def _ask_refused(self, org_id: str) -> None:
        """Ask for the last day alone, which tells whether the API refuses the organization or only the range."""
        last = self.answers[-1]
        await self.cell_of(last, org_id)()
        for of_day in self.answers[:-1]:
            if org_id in last.refused:
                of_day.refused[org_id] = last.refused[org_id]
            else:
                await self.cell_of(of_day, org_id)()

    def set(self, of_day: DayAnswers, org_id: str, number: int, how: How) -> None:
        is_new = org_id not in of_day.counts
        of_day.counts[org_id] = number
        of_day.how[org_id] = how
        if is_new:
            self._answered()
