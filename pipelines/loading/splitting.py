"""How totals are split until every cell is known: one part of two is asked, the other is the rest. Pure."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.loading.block import Block
from pipelines.loading.workers import Batch, Question

MOST_ORGS_IN_A_QUESTION = 50
# A group whose chance of holding no session at all is one half tells most; e^-0.7 is about that.
WEIGHT_OF_A_GROUP = 0.7


def groups(org_ids: Sequence[str], weights: Mapping[str, float]) -> list[list[str]]:
    """Organizations to ask together: quiet ones next to each other, any other for itself."""
    found: list[list[str]] = []
    weight = math.inf
    for org_id in sorted(org_ids, key=lambda o: weights.get(o, math.inf)):
        own = weights.get(org_id, math.inf)
        if weight + own > WEIGHT_OF_A_GROUP or len(found[-1]) == MOST_ORGS_IN_A_QUESTION:
            found.append([])
            weight = 0.0
        found[-1].append(org_id)
        weight += own
    return found


async def split(block: Block) -> None:
    """Split the totals of `block` until every cell is known.

    The largest go first: they use up the days' control totals, and on a day that has nothing left the other
    organizations are zero.
    """
    await _Splitting(block).all_totals()


@dataclass(frozen=True)
class _Part:
    """Organizations on days, by their numbers in the block, that share a total. `is_asked`: the total itself was."""

    org_ids: list[str]
    days: list[int]
    is_asked: bool = True

    @property
    def is_cell(self) -> bool:
        """Whether its total is one organization's on one day."""
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
        self._steps.add(self._step(part, total), first=total)

    def _step(self, part: _Part, total: int) -> Question:
        """One step in resolving a total over organizations or, for a single one, over days.

        It asks one question at most. A total that cannot be is left open; the proof then asks its cells.
        """

        async def step() -> None:
            live = [d for d in part.days if self._rest[d] > 0]
            if total < 0 or (total > 0 and not live):
                return
            if total == 0 or len(live) == len(part.org_ids) == 1:
                for d, org_id in itertools.product(part.days, part.org_ids):
                    self._settle(d, org_id, total if d in live else 0, is_derived=not (part.is_asked and part.is_cell))
                return
            first, other = self._halves(part, live)
            try:
                number = await self._block.ask(self._block.answers[first.days[0] : first.days[-1] + 1], first.org_ids)
            except (*self._block.errors.refusals, *self._block.errors.passing):
                return  # left open as well
            self._add(first, number)
            self._add(other, total - number)

        return step

    def _halves(self, part: _Part, live: list[int]) -> tuple[_Part, _Part]:
        """The part to ask for, and the other."""
        if len(part.org_ids) > 1:
            half = len(part.org_ids) // 2
            return _Part(part.org_ids[:half], part.days), _Part(part.org_ids[half:], part.days, is_asked=False)
        for d in set(part.days).difference(live):
            self._settle(d, part.org_ids[0], 0, is_derived=True)
        half = _half([self._rest[d] for d in live])
        return _Part(part.org_ids, live[:half]), _Part(part.org_ids, live[half:], is_asked=False)

    def _settle(self, d: int, org_id: str, number: int, *, is_derived: bool) -> None:
        self._rest[d] -= number
        self._block.set(self._block.answers[d], org_id, number, is_derived=is_derived)


def _half(weights: Sequence[float]) -> int:
    """Where to cut so that both parts weigh about the same, neither being empty: such a question tells most."""
    if math.inf in weights:
        return len(weights) // 2
    sums = list(itertools.accumulate(weights))
    return min(range(1, len(weights)), key=lambda cut: abs(sums[cut - 1] - sums[-1] / 2))
