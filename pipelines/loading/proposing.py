"""Reads the list of sessions for a block, as long as that costs less than it saves and the list can be believed."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from pipelines.loading.answers import DayAnswers
from pipelines.loading.block_size import SESSIONS_PER_WINDOW
from pipelines.loading.cost import is_list_cheaper
from pipelines.loading.listed import ListVerdict, Proposal, windows_of
from pipelines.loading.workers import Batch, Workers
from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, Rejected, Unavailable
from warehouse.dimensions import Dimension


@dataclass
class SessionList:
    """The list of sessions during one load. Once `why_not` says why, it is not read any more.

    `is_forced`: read it whatever it costs. `misplaces`: it was seen to say the wrong organization, or user, or day.
    """

    dimension: Dimension
    client: DevinClient
    workers: Workers
    is_forced: bool
    why_not: str = ""
    misplaces: bool = False
    dice: random.Random = field(default_factory=random.Random)

    async def propose(
        self, expected: dict[str, float], ids: Sequence[str], answers: Sequence[DayAnswers]
    ) -> Proposal | None:
        """The sessions of each id on each day of a block with these ids; None if they had better be asked for."""
        totals = [of_day.control_total or 0 for of_day in answers]
        return await self.read(answers) if self.is_forced or is_list_cheaper(totals, ids, expected) else None

    async def read(self, answers: Sequence[DayAnswers]) -> Proposal | None:
        """The sessions of each id on each of these consecutive days, whatever it costs; None if there is `why_not`."""
        if self.why_not:
            return None
        totals = [of_day.control_total or 0 for of_day in answers]
        proposal: list[Counter[str | None]] = [Counter() for _ in answers]
        batch = Batch(self.workers)
        for first, after in windows_of(totals, SESSIONS_PER_WINDOW):
            batch.add(partial(self._read, answers[first:after], proposal[first:after]))
        await batch.all_asked()
        return None if self.why_not else proposal

    async def _read(self, answers: Sequence[DayAnswers], counted: Proposal) -> None:
        """Add the sessions of these consecutive days."""
        most = sum(of_day.control_total or 0 for of_day in answers)
        pages = 0
        try:
            async for sessions in self.client.sessions(answers[0].day.start, answers[-1].day.end, most):
                pages += 1
                for session in sessions:
                    day = next(d for d, of_day in enumerate(answers) if session.created_at < of_day.day.end)
                    counted[day][getattr(session, self.dimension.id)] += 1
                if self.why_not:
                    break
        except Rejected as error:
            self.why_not = (
                f"The list of sessions is not used, since the key may not read it: {error} All counts were asked for, "
                "which takes more requests. To not try it any more: DEVIN_FETCH=differenced"
            )
        except (ContractBroken, Unavailable) as error:
            self.why_not = f"The list of sessions was given up, and the counts were asked for instead: {error}"
        for of_day in answers:
            of_day.calls += pages / len(answers)

    def judge(self, verdict: ListVerdict) -> None:
        """Take note of what became of a proposal."""
        if verdict is ListVerdict.MISPLACES:
            self.misplaces = True
            self.why_not = (
                "The list of sessions contradicts the API's own counts: it has sessions at another "
                f"{self.dimension.noun} or on another day. Nothing of it was kept; the counts were asked for instead."
            )
