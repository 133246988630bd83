"""Reads the list of sessions for a block, as long as that costs less than it saves and the list can be believed."""

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pipelines.loading.answers import DayAnswers
from pipelines.loading.block_size import SESSIONS_PER_WINDOW
from pipelines.loading.cost import is_list_cheaper
from pipelines.loading.listed import ListVerdict, Proposal, windows_of
from pipelines.loading.listed_days import Listed, ListedDays
from pipelines.loading.workers import Batch, Workers
from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, Rejected, Unavailable
from warehouse.dimensions import Dimension


@dataclass
class SessionList:
    """The list of sessions during one load. Once `why_not` says why, it is not read any more.

    `is_forced`: read it whatever it costs. `is_used`: the last block was read from it. `misplaces`: it was seen to say
    the wrong organization, or user, or day. What it has is kept in `listed_days` for the `later` dimensions, which are
    loaded after this one.
    """

    dimension: Dimension
    client: DevinClient
    workers: Workers
    is_forced: bool
    listed_days: ListedDays
    later: Sequence[Dimension] = ()
    why_not: str = ""
    is_used: bool = False
    misplaces: bool = False
    dice: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        known = self.listed_days.service_users or set()
        self.listed_days.service_users = known if self.client.version.tells_service_users else None

    async def propose(
        self, expected: dict[str, float], ids: Sequence[str], answers: Sequence[DayAnswers]
    ) -> Proposal | None:
        """The sessions of each id on each day of a block with these ids; None if they had better be asked for."""
        totals = [of_day.control_total or 0 for of_day in answers]
        is_known = self.listed_days.has(self.dimension, answers)
        self.is_used = not self.why_not and (self.is_forced or is_known or is_list_cheaper(totals, ids, expected))
        return await self.read(answers) if self.is_used else None

    async def read(self, answers: Sequence[DayAnswers]) -> Proposal | None:
        """The sessions of each id on each of these consecutive days, whatever it costs; None if there is `why_not`."""
        if self.why_not:
            return None
        if (known := self.listed_days.take(self.dimension, answers)) is not None:
            return known
        totals = [of_day.control_total or 0 for of_day in answers]
        listed = {dimension: [Listed() for _ in answers] for dimension in (self.dimension, *self.later)}
        batch = Batch(self.workers)
        for first, after in windows_of(totals, SESSIONS_PER_WINDOW):
            of_window = {dimension: of_days[first:after] for dimension, of_days in listed.items()}
            batch.add(partial(self._read, answers[first:after], of_window))
        await batch.all_asked()
        if self.why_not:
            self.is_used = False
            return None
        for dimension in self.later:
            self.listed_days.keep(dimension, answers, listed[dimension])
        return listed[self.dimension]

    async def _read(self, answers: Sequence[DayAnswers], counted: Mapping[Dimension, Proposal]) -> None:
        """Add the sessions of these consecutive days."""
        ends = [of_day.day.end for of_day in answers]
        service_users = set() if self.listed_days.service_users is None else self.listed_days.service_users
        most = sum(of_day.control_total or 0 for of_day in answers)
        pages = 0
        try:
            async for sessions in self.client.sessions(answers[0].day.start, answers[-1].day.end, most):
                pages += 1
                for session in sessions:
                    day = bisect_right(ends, session.created_at)
                    for dimension, of_days in counted.items():
                        of_days[day][getattr(session, dimension.id)] += 1
                    if session.is_service_user and session.user_id:
                        service_users.add(session.user_id)
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
            self.listed_days.distrust()
            self.why_not = (
                "The list of sessions contradicts the API's own counts: it has sessions at another "
                f"{self.dimension.noun} or on another day. Nothing of it was kept; the counts were asked for instead."
            )
        elif verdict is ListVerdict.UNPROVEN:
            self.why_not = self.why_not or (
                "The list of sessions was given up, and the counts were asked for instead: it differs from the API's "
                "own counts too often to save requests."
            )
        self.is_used = self.is_used and not self.why_not
