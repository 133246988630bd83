"""Splits totals until every cell is known: one of two parts is asked for, the other is the rest. Pure."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.loading.answers import How
from pipelines.loading.block import Block
from pipelines.loading.block_size import ORGS_PER_QUESTION
from pipelines.loading.workers import Batch, Question

# A question about a group tells most if its chance of having no session is one half; e^-0.7 is about that.
WEIGHT_OF_A_GROUP = 0.7


def groups(org_ids: Sequence[str], weights: Mapping[str, float]) -> list[list[str]]:
    """Groups of organizations to ask for in one question: quiet ones together, every other one alone.

    `weights` are the sessions that each is expected to have.
    """
    found: list[list[str]] = []
    weight = math.inf
    for org_id in sorted(org_ids, key=lambda o: weights.get(o, math.inf)):
        own = weights.get(org_id, math.inf)
        if weight + own > WEIGHT_OF_A_GROUP or len(found[-1]) == ORGS_PER_QUESTION:
            found.append([])
            weight = 0.0
        found[-1].append(org_id)
        weight += own
    return found


async def split(block: Block) -> None:
    """Split the totals of `block` until every cell is known.

    The largest totals go first: they use up the days' control totals, and once nothing is left on a day, the other
    organizations are zero there.
    """
    await _Splitting(block).all_totals()


@dataclass(frozen=True)
class _Part:
    """Organizations, and days by their index in the block, that share a total. `is_asked`: it was not derived."""

    org_ids: list[str]
    days: list[int]
    is_asked: bool = True

    @property
    def is_cell(self) -> bool:
        """Whether it is one organization on one day."""
        return len(self.org_ids) == len(self.days) == 1


class _Splitting:
    def __init__(self, block: Block) -> None:
        self._block = block
        self._rest = [math.inf if a.control_total is None else a.rest for a in block.answers]
        self._steps = Batch(block.workers)

    async def all_totals(self) -> None:
        everything = list(range(len(self._block.answers)))
        for org_ids, total in self._block.totals:
            self._add(_Part(org_ids, everything), total)
        await self._steps.all_asked()

    def _add(self, part: _Part, total: int) -> None:
        self._steps.add(self._step(part, total), priority=total)

    def _step(self, part: _Part, total: int) -> Question:
        """One step in splitting a total over organizations or, for a single organization, over days.

        It asks one question at most. A total that is impossible is left open; the proof then asks for its cells.
        """

        async def step() -> None:
            live = [d for d in part.days if self._rest[d] > 0]
            if total < 0 or (total > 0 and not live):
                return
            if total == 0 or len(live) == len(part.org_ids) == 1:
                for d, org_id in itertools.product(part.days, part.org_ids):
                    self._settle(
                        d, org_id, total if d in live else 0, "asked" if part.is_asked and part.is_cell else "derived"
                    )
                return
            first, other = self._halves(part, live)
            days = self._block.answers[first.days[0] : first.days[-1] + 1]
            number = await self._block.ask_if_possible(days, first.org_ids)
            if number is None:
                return  # left open too
            self._add(first, number)
            self._add(other, total - number)

        return step

    def _halves(self, part: _Part, live: list[int]) -> tuple[_Part, _Part]:
        """The part to ask for, and the other one."""
        if len(part.org_ids) > 1:
            half = len(part.org_ids) // 2
            return _Part(part.org_ids[:half], part.days), _Part(part.org_ids[half:], part.days, is_asked=False)
        for d in set(part.days).difference(live):
            self._settle(d, part.org_ids[0], 0, "derived")
        half = _half([self._rest[d] for d in live])
        return _Part(part.org_ids, live[:half]), _Part(part.org_ids, live[half:], is_asked=False)

    def _settle(self, d: int, org_id: str, number: int, how: How) -> None:
        self._rest[d] -= number
        self._block.set(self._block.answers[d], org_id, number, how)


def _half(weights: Sequence[float]) -> int:
    """Where to cut so that both parts weigh about the same and neither is empty, since that question tells most."""
    if math.inf in weights:
        return len(weights) // 2
    sums = list(itertools.accumulate(weights))
    return min(range(1, len(weights)), key=lambda cut: abs(sums[cut - 1] - sums[-1] / 2))
