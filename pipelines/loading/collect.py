"""Which questions to ask for a block of days and organizations, and what the answers add up to.

Pure: it is handed a function that counts, and knows no HTTP, Dagster or SQL. Where users are counted, what is said
here of organizations holds for them. `direct` asks every cell itself.
`differenced` asks totals first and derives: the last part of a split is the rest, and nothing is left to ask where a
total is zero. Either way each day's cells are held against the source's own total for that day, and the days against
its own total for all of them in one question.
"""

import contextlib
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pipelines.loading.workers import Batch, Question, Workers
from pipelines.partitions import Day

MOST_ORGS_IN_A_QUESTION = 50
# An organization that got no answer on so many days, and on none one, is not asked about the others of the block.
DAYS_UNANSWERED = 3
# A group whose chance of holding no session at all is one half tells most; e^-0.7 is about that.
WEIGHT_OF_A_GROUP = 0.7


class Count(Protocol):
    """Counts the sessions in [start, end) of these organizations, of all if none is named; of users likewise."""

    async def __call__(self, start: datetime, end: datetime, ids: Sequence[str], /) -> int: ...


@dataclass(frozen=True)
class Errors:
    """Which exceptions leave only some cells open; any other ends the collection.

    `refusals` are about the organizations in the question and final, `passing` may be gone another time.
    """

    refusals: tuple[type[Exception], ...]
    passing: tuple[type[Exception], ...]


@dataclass(frozen=True)
class Cells:
    """How many cells are known, and how: `asked` themselves, or following from answers about others.

    Those that follow are `proven_zero` where a total left nothing for them, else `derived`.
    """

    asked: int = 0
    derived: int = 0
    proven_zero: int = 0

    @property
    def known(self) -> int:
        """All of them."""
        return self.asked + self.derived + self.proven_zero

    def __add__(self, other: "Cells") -> "Cells":
        return Cells(self.asked + other.asked, self.derived + other.derived, self.proven_zero + other.proven_zero)

    def __sub__(self, other: "Cells") -> "Cells":
        return Cells(self.asked - other.asked, self.derived - other.derived, self.proven_zero - other.proven_zero)


@dataclass(frozen=True)
class Contradiction:
    """The source counts `in_one` sessions from `first` to `last` asked as one window, but `by_day` day by day.

    Seen in two readings, one after the other. `org_id` is None where no organization was named.
    """

    org_id: str | None
    first: Day
    last: Day
    in_one: int
    by_day: int


@dataclass
class DayAnswers:
    """What is known of one day. `calls` is its share of the questions: one about ten days counts a tenth on each."""

    day: Day
    control_total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    refused: dict[str, Exception] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)
    calls: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the day can be stored: no question about it is open, though organizations may be refused for good."""
        return self.control_total is not None and not self.failures

    @property
    def cells(self) -> Cells:
        """How its cells came to be known."""
        zeros = sum(self.counts[id_] == 0 for id_ in self.derived)
        return Cells(len(self.counts) - len(self.derived), len(self.derived) - zeros, zeros)

    @property
    def rest(self) -> int:
        """The control total minus the cells."""
        return (self.control_total or 0) - sum(self.counts.values())


async def direct(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    before: Day,
    workers: Workers,
    errors: Errors,
    answered: Callable[[], None],
    may_go_on: Callable[[], Awaitable[object]],
) -> list[DayAnswers]:
    """Ask each day's control total, then each cell itself, then the total of all days in one question.

    A day without a control total costs no further question. `answered` is called for each cell that is settled.
    `may_go_on` is awaited after the totals, which are a small part of the questions. A single day is asked together
    with the one `before` it.
    """
    block = _Block(count, days, org_ids, before, workers, errors, answered)
    await block.ask_control_totals()
    await may_go_on()
    await block.ask_cells((of_day, org_id) for of_day in block.with_control_total() for org_id in org_ids)
    await block.check(is_split=False)
    return block.answers


async def differenced(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    before: Day,
    expected: Mapping[str, float],
    workers: Workers,
    errors: Errors,
    answered: Callable[[], None],
    may_go_on: Callable[[], Awaitable[object]],
) -> list[DayAnswers]:
    """Ask each day's control total and each organization's total, and split what is not zero until every cell is known.

    `expected` is how many sessions a day an organization is likely to have, where that is known: quiet ones share a
    question. While the source is consistent it is asked at most cells + days + organizations questions and the two that
    hold the days against their total, whatever the data. Else it is read a second time, with at most twice as many
    questions more: derived cells are asked themselves, what still differs from the control total stays visible as the
    day's rest, and what still differs from the total of all days is a contradiction. `before` and `may_go_on` are as in
    `direct`.
    """
    block = _Block(count, days, org_ids, before, workers, errors, answered)
    groups = _groups(org_ids, {org_id: expected[org_id] * len(days) for org_id in org_ids if org_id in expected})
    await block.ask_control_totals(also=[block.total_of(group) for group in groups])
    await may_go_on()
    await block.split()
    await block.check(is_split=True)
    return block.answers


def _groups(org_ids: Sequence[str], weights: Mapping[str, float]) -> list[list[str]]:
    """Organizations to ask together: quiet ones next to each other, any other for itself."""
    groups: list[list[str]] = []
    weight = math.inf
    for org_id in sorted(org_ids, key=lambda o: weights.get(o, math.inf)):
        own = weights.get(org_id, math.inf)
        if weight + own > WEIGHT_OF_A_GROUP or len(groups[-1]) == MOST_ORGS_IN_A_QUESTION:
            groups.append([])
            weight = 0.0
        groups[-1].append(org_id)
        weight += own
    return groups


@dataclass
class _Stretch:
    """Consecutive days that are held against the source's own count of all of them, `in_one`.

    A day for itself would be the same question again, so it is held together with the day `before` it.
    """

    days: list[DayAnswers]
    before: DayAnswers
    in_one: int | None = None

    @property
    def held(self) -> list[DayAnswers]:
        """The days of the one question, in order."""
        return self.days if len(self.days) > 1 else [self.before, *self.days]

    @property
    def by_day(self) -> int | None:
        """The sum of their control totals; None while one is unknown."""
        totals = [a.control_total for a in self.held]
        return None if None in totals else sum(total or 0 for total in totals)

    @property
    def disagrees(self) -> bool:
        """Whether the one question and the days are both answered, and differently."""
        return self.in_one is not None and self.by_day is not None and self.in_one != self.by_day

    def close(self) -> None:
        """After the last question: keep what still disagrees with its days."""
        self.days[0].calls += self.before.calls
        if self.in_one is None or self.by_day is None or self.in_one == self.by_day:
            return
        found = Contradiction(None, self.held[0].day, self.held[-1].day, self.in_one, self.by_day)
        for of_day in self.days:
            of_day.contradictions.append(found)


class _Block:
    """The state of one collection: what is known of each day, and which totals wait to be split."""

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
        self._before = before
        self._count = count
        self._org_ids = org_ids
        self._workers = workers
        self._errors = errors
        self._answered = answered
        self._totals: list[tuple[list[str], int]] = []
        self._rest: list[float] = []
        self._asked_again: set[tuple[int, str]] = set()
        self._answered_for: set[str] = set()
        self._unanswered: dict[str, list[Exception]] = {}

    def with_control_total(self) -> list[DayAnswers]:
        """The days whose control total is known."""
        return [of_day for of_day in self.answers if of_day.control_total is not None]

    async def ask_control_totals(self, also: Iterable[Question] = ()) -> None:
        """Ask each day's control total, and what else has no need to wait for them."""
        await self._all([*(self._control_total_of(of_day) for of_day in self.answers), *also])

    async def ask_cells(self, cells: Iterable[tuple[DayAnswers, str]]) -> None:
        """Ask these cells themselves, those of the last and the first day before the others.

        If an organization gets no answer there nor on a third day, it gets none on the days between either.
        """
        ends = [id(of_day) for of_day in (self.answers[-1], self.answers[0])]
        ordered = sorted(cells, key=lambda cell: ends.index(id(cell[0])) if id(cell[0]) in ends else len(ends))
        await self._all(self._cell_of(of_day, org_id) for of_day, org_id in ordered)

    async def split(self) -> None:
        """Split the totals until every cell is known.

        The largest go first: they use up the days' control totals, and on a day that has nothing left the other
        organizations are zero.
        """
        self._rest = [math.inf if a.control_total is None else a.rest for a in self.answers]
        everything = list(range(len(self.answers)))
        steps = Batch(self._workers)
        for org_ids, total in self._totals:
            is_cell = len(everything) == len(org_ids) == 1
            steps.add(self._split_of(steps, org_ids, everything, total, is_cell=is_cell), first=total)
        await steps.all_asked()

    async def check(self, *, is_split: bool) -> None:
        """Hold everything against the totals above it, and read a second time what does not add up.

        Where the block was split, that also asks the cells that are still open, and the derived ones of days that
        disagree with their control total; where it was not, all of the days on which they exceed it. What disagrees
        even then with a total over several days is a contradiction.
        """
        stretches = self._stretches()
        await self._all(question for stretch in stretches for question in self._questions_about(stretch))
        moved = [stretch for stretch in stretches if stretch.disagrees]
        if is_split:
            await self._ask_doubtful(moved)
        else:
            await self._ask_days_with_too_much()
        await self._read_again([stretch for stretch in moved if stretch.disagrees])
        for stretch in stretches:
            stretch.close()
        if is_split and len(self.answers) > 1:
            await self._hold_against_totals_of_organizations()

    async def _ask_doubtful(self, moved: Sequence["_Stretch"]) -> None:
        """Ask open cells, and derived ones that may be wrong; then the control totals that disagree all the same.

        The control totals of `moved` stretches are left: they are read again in any case.
        """
        known = [a for a in self.answers if a.is_whole]
        is_complete = len(known) == len(self.answers) and not self._open()
        rest = sum(a.control_total or 0 for a in known) - sum(total for _, total in self._totals)

        def disagrees(of_day: DayAnswers) -> bool:
            return of_day.rest < 0 or (is_complete and rest == 0 and of_day.rest != 0)

        doubtful = [a for a in known if disagrees(a) or self._open_on(a)]
        if is_complete and (rest < 0 or moved):  # a change may hide in a rest, or fill one
            doubtful = known
        await self._ask_cells_again((a, org_id) for a in doubtful for org_id in [*a.derived, *self._open_on(a)])
        left = {id(a) for stretch in moved for a in stretch.days}
        disagreeing = [a for a in doubtful if a.is_whole and disagrees(a) and id(a) not in left]
        await self._all(map(self._control_total_of, disagreeing))

    async def _ask_days_with_too_much(self) -> None:
        """Ask the cells and the control totals again of days whose cells sum to more than their control total."""
        exceeding = [a for a in self.answers if a.is_whole and a.rest < 0]
        await self._ask_cells_again((a, org_id) for a in exceeding for org_id in a.counts)
        await self._all(map(self._control_total_of, exceeding))

    async def _ask_cells_again(self, cells: Iterable[tuple[DayAnswers, str]]) -> None:
        """Ask these cells themselves, but none for a third time."""
        twice = {(id(a), org_id): (a, org_id) for a, org_id in cells if (id(a), org_id) not in self._asked_again}
        self._asked_again |= twice.keys()
        await self.ask_cells(twice.values())

    def _stretches(self) -> list["_Stretch"]:
        """The runs of consecutive days whose control totals are known; a single day comes with the one before it."""
        found: list[_Stretch] = []
        for previous, of_day in itertools.pairwise([None, *self.answers]):
            if of_day is None or of_day.control_total is None:
                continue
            if previous is not None and previous.control_total is not None:
                found[-1].days.append(of_day)
            else:
                found.append(_Stretch([of_day], DayAnswers(previous.day if previous else self._before)))
        return found

    def _questions_about(self, stretch: "_Stretch") -> list[Question]:
        of_the_day_before = [self._control_total_of(stretch.before)] if len(stretch.days) == 1 else []
        return [*of_the_day_before, self._total_of_stretch(stretch)]

    def _total_of_stretch(self, stretch: "_Stretch") -> Question:
        async def ask() -> None:
            try:
                stretch.in_one = await self._ask(stretch.held, ())
            except self._errors.passing as error:
                # A bad day before a single one must not take that along.
                for of_day in stretch.days if len(stretch.days) > 1 else ():
                    of_day.failures.append(error)

        return ask

    async def _read_again(self, moved: Sequence["_Stretch"]) -> None:
        """Read these stretches and their control totals again, and the cells of days whose total has changed."""
        before = {id(a): a.control_total for stretch in moved for a in stretch.held}
        again = [a for stretch in moved for a in stretch.held]
        await self._all(map(self._control_total_of, again))
        changed = [a for stretch in moved for a in stretch.days if a.control_total != before[id(a)]]
        await self._ask_cells_again((a, org_id) for a in changed for org_id in self._org_ids if org_id not in a.refused)
        await self._all(map(self._total_of_stretch, moved))

    async def _hold_against_totals_of_organizations(self) -> None:
        """An organization whose cells do not sum to its total over the block is read again, total and cells."""
        suspects = [
            org_id
            for org_ids, total in self._totals
            if self._is_known(org_ids) and sum(map(self._sum_of, org_ids)) != total
            for org_id in org_ids
        ]
        totals: dict[str, int] = {}

        def total_of(org_id: str) -> Question:
            async def ask() -> None:
                with contextlib.suppress(*self._errors.refusals, *self._errors.passing):
                    totals[org_id] = await self._ask(self.answers, (org_id,))

            return ask

        await self._all(map(total_of, suspects))
        suspects = [org_id for org_id, total in totals.items() if self._sum_of(org_id) != total]
        await self._ask_cells_again((a, org_id) for a in self.answers for org_id in suspects)
        for org_id in suspects:
            in_one, by_day = totals[org_id], self._sum_of(org_id)
            if self._is_known([org_id]) and in_one != by_day:
                found = Contradiction(org_id, self.answers[0].day, self.answers[-1].day, in_one, by_day)
                for of_day in self.answers:
                    of_day.contradictions.append(found)

    def _is_known(self, org_ids: Sequence[str]) -> bool:
        """Whether each of their cells of the block is known."""
        return all(a.is_whole and org_id in a.counts for a in self.answers for org_id in org_ids)

    def _sum_of(self, org_id: str) -> int:
        return sum(a.counts.get(org_id, 0) for a in self.answers)

    def _open(self) -> set[str]:
        """Organizations whose total of the block is not known."""
        return set(self._org_ids).difference(*(org_ids for org_ids, _ in self._totals))

    def _open_on(self, of_day: DayAnswers) -> list[str]:
        return [org_id for org_id in self._org_ids if org_id not in of_day.counts and org_id not in of_day.refused]

    async def _all(self, questions: Iterable[Question]) -> None:
        batch = Batch(self._workers)
        for question in questions:
            batch.add(question)
        await batch.all_asked()

    async def _ask(self, days: Sequence[DayAnswers], org_ids: Sequence[str]) -> int:
        for of_day in days:
            of_day.calls += 1 / len(days)
        return await self._count(days[0].day.start, days[-1].day.end, org_ids)

    def _control_total_of(self, of_day: DayAnswers) -> Question:
        async def ask() -> None:
            try:
                of_day.control_total = await self._ask([of_day], ())
            except self._errors.passing as error:
                of_day.failures.append(error)

        return ask

    def _cell_of(self, of_day: DayAnswers, org_id: str) -> Question:
        async def ask() -> None:
            if of_day.failures:
                return  # the day cannot become whole any more
            unanswered = self._unanswered.get(org_id, [])
            if len(unanswered) >= DAYS_UNANSWERED and org_id not in self._answered_for:
                of_day.failures.append(unanswered[0])
                return
            try:
                self._set(of_day, org_id, await self._ask([of_day], (org_id,)), is_derived=False)
            except self._errors.refusals as error:
                of_day.refused[org_id] = error
            except self._errors.passing as error:
                of_day.failures.append(error)
                self._unanswered.setdefault(org_id, []).append(error)
            else:
                self._answered_for.add(org_id)

        return ask

    def total_of(self, org_ids: list[str]) -> Question:
        """The question for their total over the block. A refusal is narrowed down to the one it is about."""

        async def ask() -> None:
            try:
                self._totals.append((org_ids, await self._ask(self.answers, org_ids)))
                self._answered_for.update(org_ids)
            except self._errors.refusals:
                if len(org_ids) > 1:
                    for org_id in org_ids:
                        await self.total_of([org_id])()
                else:
                    await self._ask_refused(org_ids[0])
            except self._errors.passing:
                pass  # left open: the check asks its cells, so that a bad day does not take the others along

        return ask

    async def _ask_refused(self, org_id: str) -> None:
        """The last day alone tells whether the source refuses the organization or only the range."""
        last = self.answers[-1]
        await self._cell_of(last, org_id)()
        for of_day in self.answers[:-1]:
            if org_id in last.refused:
                of_day.refused[org_id] = last.refused[org_id]
            else:
                await self._cell_of(of_day, org_id)()

    def _split_of(self, steps: Batch, org_ids: list[str], days: list[int], total: int, *, is_cell: bool) -> Question:
        """One step in resolving a total over organizations or, for a single one, over days (by their numbers).

        It asks one question at most, for the first of two parts; the other part is the rest. `is_cell`: the total was
        asked for one organization on one day, so that nothing is derived. A total that cannot be is left open; the
        check then asks its cells.
        """

        async def step() -> None:
            live = [d for d in days if self._rest[d] > 0]
            if total < 0 or (total > 0 and not live):
                return
            if total == 0 or len(live) == len(org_ids) == 1:
                for d, org_id in itertools.product(days, org_ids):
                    self._settle(d, org_id, total if d in live else 0, is_derived=not is_cell)
                return
            if len(org_ids) > 1:
                half = len(org_ids) // 2
                first, other = (org_ids[:half], days), (org_ids[half:], days)
            else:
                for d in set(days).difference(live):
                    self._settle(d, org_ids[0], 0, is_derived=True)
                half = _half([self._rest[d] for d in live])
                first, other = (org_ids, live[:half]), (org_ids, live[half:])
            try:
                number = await self._ask(self.answers[first[1][0] : first[1][-1] + 1], first[0])
            except (*self._errors.refusals, *self._errors.passing):
                return  # left open, likewise
            is_single = len(first[0]) == len(first[1]) == 1
            steps.add(self._split_of(steps, *first, number, is_cell=is_single), first=number)
            steps.add(self._split_of(steps, *other, total - number, is_cell=False), first=total - number)

        return step

    def _settle(self, d: int, org_id: str, number: int, *, is_derived: bool) -> None:
        self._rest[d] -= number
        self._set(self.answers[d], org_id, number, is_derived=is_derived)

    def _set(self, of_day: DayAnswers, org_id: str, number: int, *, is_derived: bool) -> None:
        is_new = org_id not in of_day.counts
        of_day.counts[org_id] = number
        (of_day.derived.add if is_derived else of_day.derived.discard)(org_id)
        if is_new:
            self._answered()


def _half(weights: Sequence[float]) -> int:
    """Where to cut so that both parts weigh about the same, neither being empty: such a question tells most."""
    if math.inf in weights:
        return len(weights) // 2
    sums = list(itertools.accumulate(weights))
    return min(range(1, len(weights)), key=lambda cut: abs(sums[cut - 1] - sums[-1] / 2))
