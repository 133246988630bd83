"""Compares a block with the totals above it, and reads a second time what does not add up. Pure."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.loading.answers import Contradiction, DayAnswers
from pipelines.loading.block import Block
from pipelines.loading.workers import Question


async def prove(block: Block, *, is_split: bool) -> None:
    """Compare everything in `block` with the totals above it, and read a second time what does not add up.

    If the block was split or listed, this also asks for the cells that are still open and for the inferred ones of days
    that disagree with their control total; if not, for all cells of days on which they exceed it. What then still
    disagrees with a total over several days is recorded as a contradiction.
    """
    await _Proof(block).check(is_split=is_split)


@dataclass
class _Stretch:
    """Consecutive days that are compared with the API's own count of all of them, `in_one`.

    For a single day that would be the same question again, so it is compared together with the day `before` it.
    """

    days: list[DayAnswers]
    before: DayAnswers
    in_one: int | None = None

    @property
    def compared(self) -> list[DayAnswers]:
        """The days that the one question covers, in order."""
        return self.days if len(self.days) > 1 else [self.before, *self.days]

    @property
    def by_day(self) -> int | None:
        """The sum of their control totals; None if one is unknown."""
        totals = [a.control_total for a in self.compared]
        return None if None in totals else sum(total or 0 for total in totals)

    @property
    def disagrees(self) -> bool:
        """Whether both the one question and the days were answered, and differ."""
        return self.in_one is not None and self.by_day is not None and self.in_one != self.by_day

    def close(self) -> None:
        """After the last question, record a contradiction if the days still disagree."""
        self.days[0].calls += self.before.calls
        if self.in_one is None or self.by_day is None or self.in_one == self.by_day:
            return
        found = Contradiction(None, self.compared[0].day, self.compared[-1].day, self.in_one, self.by_day)
        for of_day in self.days:
            of_day.contradictions.append(found)


class _Proof:
    def __init__(self, block: Block) -> None:
        self._block = block

    async def check(self, *, is_split: bool) -> None:
        stretches = self._stretches()
        await self._block.ask_all(question for stretch in stretches for question in self._questions_about(stretch))
        moved = [stretch for stretch in stretches if stretch.disagrees]
        if is_split:
            await self._ask_doubtful(moved)
        else:
            await self._ask_exceeding_days()
        await self._read_again([stretch for stretch in moved if stretch.disagrees])
        for stretch in stretches:
            stretch.close()
        if is_split and len(self._block.answers) > 1:
            await self._compare_with_totals_of_organizations()

    async def _ask_doubtful(self, moved: Sequence[_Stretch]) -> None:
        """Ask for open cells and for inferred ones that may be wrong, then for control totals that still disagree.

        The control totals of `moved` stretches are left out: they are read again in any case.
        """
        known = [a for a in self._block.answers if a.is_whole]
        is_complete = len(known) == len(self._block.answers) and not self._block.open_ids()
        rest = sum(a.control_total or 0 for a in known) - sum(total for _, total in self._block.totals)

        def disagrees(of_day: DayAnswers) -> bool:
            return of_day.rest < 0 or (is_complete and rest == 0 and of_day.rest != 0)

        doubtful = [a for a in known if disagrees(a) or self._block.open_on(a)]
        if is_complete and (rest < 0 or moved):  # a change may hide in a day's rest, or fill it
            doubtful = known
        await self._block.ask_cells_again(
            (a, org_id) for a in doubtful for org_id in [*a.known_by("derived", "listed"), *self._block.open_on(a)]
        )
        left = {id(a) for stretch in moved for a in stretch.days}
        disagreeing = [a for a in doubtful if a.is_whole and disagrees(a) and id(a) not in left]
        await self._block.ask_all(map(self._block.control_total_of, disagreeing))

    async def _ask_exceeding_days(self) -> None:
        """Ask again for the cells and the control totals of days whose cells exceed their control total."""
        exceeding = [a for a in self._block.answers if a.is_whole and a.rest < 0]
        await self._block.ask_cells_again((a, org_id) for a in exceeding for org_id in a.counts)
        await self._block.ask_all(map(self._block.control_total_of, exceeding))

    def _stretches(self) -> list[_Stretch]:
        """The stretches of consecutive days whose control totals are known."""
        found: list[_Stretch] = []
        for previous, of_day in itertools.pairwise([None, *self._block.answers]):
            if of_day is None or of_day.control_total is None:
                continue
            if previous is not None and previous.control_total is not None:
                found[-1].days.append(of_day)
            else:
                found.append(_Stretch([of_day], DayAnswers(previous.day if previous else self._block.before)))
        return found

    def _questions_about(self, stretch: _Stretch) -> list[Question]:
        of_the_day_before = [self._block.control_total_of(stretch.before)] if len(stretch.days) == 1 else []
        return [*of_the_day_before, self._total_of_stretch(stretch)]

    def _total_of_stretch(self, stretch: _Stretch) -> Question:
        async def ask() -> None:
            if self._block.in_one is not None and stretch.days == self._block.answers:
                stretch.in_one, self._block.in_one = self._block.in_one, None
                return
            try:
                stretch.in_one = await self._block.ask(stretch.compared, ())
            except self._block.errors.temporary as error:
                # A bad day before a single one must not fail that one.
                for of_day in stretch.days if len(stretch.days) > 1 else ():
                    of_day.failures.append(error)

        return ask

    async def _read_again(self, moved: Sequence[_Stretch]) -> None:
        """Read these stretches and their control totals again, and the cells of days whose total has changed."""
        before = {id(a): a.control_total for stretch in moved for a in stretch.compared}
        again = [a for stretch in moved for a in stretch.compared]
        await self._block.ask_all(map(self._block.control_total_of, again))
        changed = [a for stretch in moved for a in stretch.days if a.control_total != before[id(a)]]
        await self._block.ask_cells_again(
            (a, org_id) for a in changed for org_id in self._block.org_ids if org_id not in a.refused
        )
        await self._block.ask_all(map(self._total_of_stretch, moved))

    async def _compare_with_totals_of_organizations(self) -> None:
        """Read organizations again, total and cells, whose cells don't add up to their total over the block."""
        suspects = [
            org_id
            for org_ids, total in self._block.totals
            if self._block.is_known(org_ids) and sum(map(self._block.sum_of, org_ids)) != total
            for org_id in org_ids
        ]
        totals: dict[str, int] = {}

        def total_of(org_id: str) -> Question:
            async def ask() -> None:
                total = await self._block.ask_if_possible(self._block.answers, (org_id,))
                if total is not None:
                    totals[org_id] = total

            return ask

        await self._block.ask_all(map(total_of, suspects))
        suspects = [org_id for org_id, total in totals.items() if self._block.sum_of(org_id) != total]
        await self._block.ask_cells_again((a, org_id) for a in self._block.answers for org_id in suspects)
        for org_id in suspects:
            in_one, by_day = totals[org_id], self._block.sum_of(org_id)
            if self._block.is_known([org_id]) and in_one != by_day:
                found = Contradiction(org_id, self._block.answers[0].day, self._block.answers[-1].day, in_one, by_day)
                for of_day in self._block.answers:
                    of_day.contradictions.append(found)
