"""Whether the API's list of sessions agrees with its counts, and what a load makes of it if it doesn't.

A load proves every count that it takes from the list. The probe says beforehand whether that saves requests.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pipelines.command.findings import PROBE_BUSIER_DAYS, Finding, Verdict
from pipelines.loading.block_size import ORGS_PER_QUESTION
from pipelines.partitions import Day
from resources.devin_answers import sanitized
from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, Rejected
from resources.devin_versions import PAGE_SIZE

QUESTION = "Does the list of sessions agree?"
IF_IT_FAILS = (
    "Probe again. If only the list fails, nothing is wrong: the job asks for each count instead. "
    "DEVIN_FETCH=differenced never reads the list."
)
MAX_PAGES = 50
MAX_MORE_TOTALS = 5
MOST_NAMED = 3

Difference = tuple[str, int, int]
"""A day or an organization, its sessions in the list, and those that the API counts."""


@dataclass
class ListComparison:
    """Compares the list with the counts of `days` and with `totals`, those of organizations over all these days.

    `may_combine` is whether one request counts several organizations. If not, `totals` has those of single ones too.
    `known_ids` are the organizations that are listed or chosen; None if that isn't known.
    """

    client: DevinClient
    days: Sequence[Day]
    counts: Sequence[int]
    org_ids: Sequence[str]
    totals: dict[tuple[str, ...], int]
    may_combine: bool
    known_ids: Collection[str] | None
    per_day: Counter[int] = field(default_factory=Counter)
    per_organization: Counter[str | None] = field(default_factory=Counter)

    async def finding(self) -> Finding:
        """Read the list and compare it. Raises a DevinAPIError if requests fail, unless the key may not read it."""
        counted = sum(self.counts)
        if (pages := math.ceil(counted / PAGE_SIZE)) > MAX_PAGES:
            seen = f"It was not read: that would take {pages:,} requests."
            return Finding(QUESTION, "unknown", seen, "None needed: a load compares it with the counts by itself.")
        try:
            await self._read(counted)
        except Rejected as error:
            if error.status not in (403, 404):
                raise
            advice = (
                "None needed: the job asks for each count instead, which takes more requests. To have the list read, "
                f"use {self.client.version.key_to_list_sessions}. DEVIN_FETCH=differenced never tries."
            )
            return Finding(QUESTION, "note", f"The key may not read it. {error}", advice)
        if not counted and not self.per_day:
            return Finding(QUESTION, "unknown", "It has no sessions, and none are counted.", PROBE_BUSIER_DAYS)
        await self._ask_for_more_totals()
        return self._judged()

    async def _read(self, counted: int) -> None:
        ends = [day.end for day in self.days]
        pages = 0
        async for sessions in self.client.sessions(self.days[0].start, ends[-1], counted):
            pages += 1
            if pages > MAX_PAGES:
                raise ContractBroken(f"The list of sessions did not end within {MAX_PAGES} pages.")
            self.per_day.update(bisect_right(ends, session.created_at) for session in sessions)
            self.per_organization.update(session.org_id for session in sessions)

    async def _ask_for_more_totals(self) -> None:
        """Ask about the busiest organizations by the list, and about some without sessions in it."""
        left = [org_id for org_id in self.org_ids if (org_id,) not in self.totals]
        busiest = sorted(filter(self.per_organization.get, left), key=lambda it: -self.per_organization[it])
        quiet = [org_id for org_id in left if not self.per_organization[org_id]]
        groups = [[org_id] for org_id in busiest[: MAX_MORE_TOTALS - 1]]
        groups.append(quiet[: ORGS_PER_QUESTION if self.may_combine else 1])
        for group in filter(None, groups):
            with suppress(Rejected):  # a refused organization isn't among those that are compared
                total = await self.client.count(self.days[0].start, self.days[-1].end, org_ids=group)
                self.totals[tuple(group)] = total

    def _judged(self) -> Finding:
        days = _differences(
            (f"{day.day}", self.per_day[d], count)
            for d, (day, count) in enumerate(zip(self.days, self.counts, strict=True))
        )
        organizations, compared = self._organizations()
        strangers, about_strangers = self._strangers()
        if days:
            seen = (
                f"No: it has {self.per_day.total():,} sessions where {sum(self.counts):,} are counted. "
                f"{len(days)} of {len(self.days)} days differ: {_named(days)}."
                + (f" Organizations that differ: {_named(organizations)}." if organizations else "")
            )
            advice = "None needed: the job notices, and asks for what differs itself, which takes more requests."
        elif organizations:
            seen = f"No: it agrees on each day, but not for each organization: {_named(organizations)}."
            advice = (
                "None needed: the job notices that sessions are misplaced, and keeps nothing of the list. "
                "DEVIN_FETCH=differenced saves the attempt."
            )
        else:
            seen = (
                f"Yes: {self.per_day.total():,} sessions, compared on {len(self.days)} days and for {compared:,} of "
                f"{len(self.org_ids):,} organizations. So long loads may take far fewer requests, and each count is "
                "still proven."
            )
            advice = ""
        verdict: Verdict = "note" if days or organizations or strangers else "good"
        return Finding(QUESTION, verdict, f"{seen} {strangers}".strip(), f"{advice} {about_strangers}".strip())

    def _organizations(self) -> tuple[list[Difference], int]:
        """Those that differ, those asked about alone first, and how many can be compared one by one."""
        totals = sorted(self.totals.items(), key=lambda it: len(it[0]))
        alone = {ids[0] for ids, _ in totals if len(ids) == 1}
        differences = _differences(
            (ids[0] if len(ids) == 1 else f"{len(ids)} organizations together", sum(map(self._listed, ids)), number)
            for ids, number in totals
            if len(ids) == 1 or not alone.issuperset(ids)  # it may be what showed that totals don't combine
        )
        return differences, len(alone | {org_id for ids, number in totals if not number for org_id in ids})

    def _listed(self, org_id: str) -> int:
        return self.per_organization[org_id]

    def _strangers(self) -> tuple[str, str]:
        """What is seen of organizations that nobody listed, and what to do about them; both empty if there are none."""
        known = self.per_organization.keys() if self.known_ids is None else self.known_ids
        found = [(it, number) for it, number in self.per_organization.most_common() if it not in known]
        if not found:
            return "", ""
        names = [f"{sanitized(it, 60) if it else 'without an id'} ({number:,})" for it, number in found]
        seen = f"It has sessions of organizations that aren't listed: {_first(names)}."
        return seen, "To count unlisted organizations too, set DEVIN_ORG_IDS to the ids of all organizations."


def _differences(compared: Iterable[Difference]) -> list[Difference]:
    return [(name, listed, counted) for name, listed, counted in compared if listed != counted]


def _named(differences: Sequence[Difference]) -> str:
    """The first of them, and by how much they differ."""
    return _first([_difference(*it) for it in differences], "; ")


def _difference(name: str, listed: int, counted: int) -> str:
    by = f"{listed - counted:,} more" if listed > counted else f"{counted - listed:,} fewer"
    return f"{name} {listed:,}, not {counted:,} ({by})"


def _first(names: Sequence[str], separator: str = ", ") -> str:
    more = [f"and {len(names) - MOST_NAMED:,} more"] if len(names) > MOST_NAMED else []
    return separator.join([*names[:MOST_NAMED], *more])
