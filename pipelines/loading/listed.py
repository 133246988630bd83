"""Takes a block's counts from the list of sessions, once totals have proven them. Pure, as `collect` is.

The list may leave out, double or misplace sessions, so it proposes and the endpoint's own answers decide. Each day's
sum must equal its control total, and each organization's sum its own total over the block. A session that is left out,
deleted or doubled shows in the one cell in which a day that disagrees meets an organization that does: such cells are
asked for themselves.
"""

import enum
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.loading.block import Block
from pipelines.loading.block_size import ORGS_PER_QUESTION
from pipelines.loading.workers import Question

Proposal = Sequence[Counter[str | None]]
"""The sessions of each id on each day of a block, as the list has them, also of ids that nobody asks about."""


class ListVerdict(enum.Enum):
    """What a list is worth: whether this block's counts hold, differ too often, or lack an answer that they need.

    `MISPLACES` is about whatever the list says.
    """

    PROVEN = enum.auto()
    UNPROVEN = enum.auto()
    UNANSWERED = enum.auto()
    MISPLACES = enum.auto()


async def accept(block: Block, proposal: Proposal, *, most: int, sampled: int, dice: random.Random) -> ListVerdict:
    """Settle every cell of `block` as the `proposal` has it if it can be proven; otherwise none.

    The control totals of all days must be known. At most `most` cells that disagree are asked for. `sampled` further
    totals are compared, chosen by `dice`. Totals of organizations that are asked for stay in the block either way.
    """
    return await _Proof(block, proposal).judge(most=most, sampled=sampled, dice=dice)


class _Proof:
    def __init__(self, block: Block, proposal: Proposal) -> None:
        self._block = block
        self._days = list(zip(block.answers, proposal, strict=True))
        self._asked: dict[tuple[int, str], int] = {}
        self._samples: list[tuple[range, Sequence[str], int]] = []
        self._lost_samples = 0
        self._is_answered = True

    async def judge(self, *, most: int, sampled: int, dice: random.Random) -> ListVerdict:
        await self._ask_totals([self._block.ask_in_one, *self._sample(sampled, dice)])
        if self._block.open_ids() - self._refused():
            return ListVerdict.UNANSWERED
        days, ids = self._disagreeing_days(), self._disagreeing_ids()
        if ids and not days:
            return ListVerdict.MISPLACES
        if len(days) * len(ids) > most:
            return ListVerdict.UNPROVEN
        await self._ask(itertools.product(days, ids))
        if not self._is_answered:
            return ListVerdict.UNANSWERED
        if self._disagreeing_days():
            return ListVerdict.UNPROVEN
        if self._disagreeing_ids():  # the difference lies on days that all agree
            return ListVerdict.MISPLACES
        if self._lost_samples and not await self._have_replaced_samples(dice):
            return ListVerdict.UNANSWERED
        if self._is_a_sample_wrong():
            return ListVerdict.MISPLACES
        self._settle()
        return ListVerdict.PROVEN

    async def _ask_totals(self, also: Iterable[Question]) -> None:
        """Ask for the total of each organization with sessions, and of those without any in groups; `also` these."""
        sums = {id_: self._sum(id_) for id_ in self._block.org_ids}
        quiet = [id_ for id_, number in sums.items() if not number]
        groups = [quiet[n : n + ORGS_PER_QUESTION] for n in range(0, len(quiet), ORGS_PER_QUESTION)]
        groups += [[id_] for id_, number in sums.items() if number]
        while groups:
            await self._block.ask_all([*map(self._block.total_of, groups), *also])
            also = ()
            lost = [(ids, total) for ids, total in self._block.totals if total and len(ids) > 1]
            self._block.totals = [part for part in self._block.totals if part not in lost]
            groups = [half for ids, _ in lost for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :])]

    def _refused(self) -> set[str]:
        return {id_ for a, _ in self._days for id_ in a.refused}

    def _counted(self) -> list[str]:
        refused = self._refused()
        return [id_ for id_ in self._block.org_ids if id_ not in refused]

    def _count(self, d: int, id_: str) -> int:
        return self._asked.get((d, id_), self._days[d][1][id_])

    def _sum(self, id_: str) -> int:
        return sum(self._count(d, id_) for d in range(len(self._days)))

    def _disagreeing_days(self) -> list[int]:
        """The days whose number of sessions in the list, whoever created them, differs from the control total."""
        found = []
        for d, (of_day, listed) in enumerate(self._days):
            asked = {id_: number for (day, id_), number in self._asked.items() if day == d}
            if listed.total() + sum(number - listed[id_] for id_, number in asked.items()) != of_day.control_total:
                found.append(d)
        return found

    def _disagreeing_ids(self) -> list[str]:
        return [id_ for ids, total in self._block.totals if sum(map(self._sum, ids)) != total for id_ in ids]

    async def _ask(self, cells: Iterable[tuple[int, str]]) -> None:
        def ask_for(d: int, id_: str) -> Question:
            async def ask() -> None:
                number = await self._block.ask_if_possible([self._days[d][0]], (id_,))
                if number is None:
                    self._is_answered = False
                else:
                    self._asked[d, id_] = number

            return ask

        await self._block.ask_all(itertools.starmap(ask_for, cells))

    def _sample(self, sampled: int, dice: random.Random) -> Iterable[Question]:
        """Questions for totals of random organizations over random days.

        Sessions that change places in two organizations on two days, so that every sum is right, show in a total of one
        of the two organizations over one of the two days: one question in six finds them, one cell in hundreds would.
        """
        ids, answers = self._counted(), self._block.answers

        def sample() -> Question:
            some = dice.sample(ids, min((len(ids) + 1) // 2, ORGS_PER_QUESTION))
            days = range(*sorted(dice.sample(range(len(answers) + 1), 2)))

            async def ask() -> None:
                total = await self._block.ask_if_possible(answers[days.start : days.stop], some)
                if total is None:
                    self._lost_samples += 1
                else:
                    self._samples.append((days, some, total))

            return ask

        return [sample() for _ in range(sampled if ids else 0)]

    async def _have_replaced_samples(self, dice: random.Random) -> bool:
        """Ask for as many totals as got no answer, of organizations that the API is known to count."""
        lost, self._lost_samples = self._lost_samples, 0
        await self._block.ask_all(self._sample(lost, dice))
        return not self._lost_samples

    def _is_a_sample_wrong(self) -> bool:
        return any(total != sum(self._count(d, id_) for d in days for id_ in ids) for days, ids, total in self._samples)

    def _settle(self) -> None:
        counted = self._counted()
        of_nobody = {id_ for _, listed in self._days for id_ in listed}.difference(counted)
        for d, (of_day, listed) in enumerate(self._days):
            for id_ in counted:
                self._block.set(of_day, id_, self._count(d, id_), "asked" if (d, id_) in self._asked else "listed")
            of_day.others = {id_: listed[id_] for id_ in of_nobody if listed[id_]}


def windows_of(control_totals: Sequence[int], sessions_a_window: int) -> list[tuple[int, int]]:
    """Consecutive days, by their first index and the one after the last, with about that many sessions in each window.

    Windows are read side by side, the pages of one after each other.
    """
    found, first, sessions = [], 0, 0
    for d, number in enumerate(control_totals):
        if d > first and sessions + number > sessions_a_window:
            found.append((first, d))
            first, sessions = d, 0
        sessions += number
    return [*found, (first, len(control_totals))]
