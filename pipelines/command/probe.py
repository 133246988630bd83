"""What a handful of questions tell of the real source: whether it behaves as the job takes for granted.

Published pages leave open whether the end of a window is inclusive, whether filters of several organizations add up,
and what an unknown organization gives. Each finding here has a verdict and, where need be, what to set.
"""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.loading.block_size import ORGS_PER_QUESTION
from pipelines.partitions import Day
from pipelines.settings import Settings
from resources.calls import Calls
from resources.devin_api import DevinAPI, DevinClient
from resources.devin_errors import DevinAPIError, Rejected, Unauthorized

UNKNOWN_ORGANIZATION = "org-0000000000000000-unknown"
DAYS = 7
PATIENCE_SECONDS = 15.0  # somebody sits before the screen
MOST_QUESTIONS_ABOUT_ORGANIZATIONS = 50

Verdict = Literal["good", "note", "bad", "unknown"]


@dataclass(frozen=True)
class Finding:
    """The answer to one question of the user's: the verdict, what was seen, and what to do about it."""

    question: str
    verdict: Verdict
    seen: str
    advice: str = ""


def probe(devin_api: DevinAPI, settings: Settings, days: Sequence[Day], calls: Calls) -> list[Finding]:
    """Ask the source about `days`, which are closed and consecutive, and stores nothing.

    What gets no usable answer is a finding too. Raises Unauthorized if there is no key at all.
    """
    with devin_api.connected(calls) as (client, portal):
        return portal.call(_Probe(client, settings, days, calls).findings)


@dataclass
class _Probe:
    client: DevinClient
    settings: Settings
    days: Sequence[Day]
    calls: Calls
    of_days: list[int] = field(default_factory=list)
    org_ids: list[str] = field(default_factory=list)
    filters_add_up: bool = False

    async def findings(self) -> list[Finding]:
        accepted = await self._key()
        if accepted.verdict != "good":
            return [accepted]
        return [
            accepted,
            await _asked("Can organizations be listed?", self._listing()),
            await _asked("Do days add up?", self._days_add_up()),
            await _asked("Do several org_ids add up?", self._filters_add_up()),
            await _asked("Do organizations add up to the total?", self._organizations_add_up()),
            await _asked("What does an unknown organization give?", self._unknown_organization()),
            self._latency(),
            self._limits(),
        ]

    async def _count(self, *org_ids: str) -> int:
        """Of the whole period."""
        return await self.client.count(self.days[0].start, self.days[-1].end, org_ids=org_ids)

    async def _key(self) -> Finding:
        question = "Is the key accepted?"
        version = self.client.version.name
        try:
            self.of_days = [await self.client.count(day.start, day.end) for day in self.days]
        except Unauthorized as error:
            return Finding(question, "bad", str(error), "Mend the key first: nothing else can be asked without it.")
        except DevinAPIError as error:
            return Finding(question, "unknown", str(error), "Nothing else can be asked while this is so.")
        period = f"{self.days[0].day} to {self.days[-1].day}"
        return Finding(question, "good", f"Yes, by {version} of the API: {sum(self.of_days):,} sessions, {period}.")

    async def _listing(self) -> Finding:
        question = "Can organizations be listed?"
        self.org_ids = list(self.settings.devin_org_ids)
        try:
            listed = [organization.org_id for organization in (await self.client.organizations()).items]
        except Rejected as error:
            if self.org_ids:
                return Finding(question, "note", str(error), "No harm: DEVIN_ORG_IDS names those to count.")
            return Finding(question, "bad", str(error), "Set DEVIN_ORG_IDS to the ids to count.")
        self.org_ids = self.org_ids or listed
        absent = sorted(set(self.org_ids) - set(listed))
        if absent:
            seen = f"{len(listed):,} are listed, but not {', '.join(absent[:3])} of DEVIN_ORG_IDS."
            return Finding(question, "note", seen, "Check the ids: the source may count unknown ones as 0.")
        return Finding(question, "good", f"Yes, {len(listed):,} of them.")

    async def _days_add_up(self) -> Finding:
        question = "Do days add up?"
        apart, together = sum(self.of_days), await self._count()
        seen = f"{len(self.days)} days sum to {apart:,}, asked as one window they are {together:,}."
        if apart == together == 0:
            return Finding(question, "unknown", seen, "Probe days with sessions: devin-sessions probe --until DAY")
        if apart == together:
            return Finding(question, "good", seen)
        if apart > together and self.settings.devin_window_end == "exclusive":
            return Finding(
                question, "bad", seen + " The end of a window is counted too.", "Set DEVIN_WINDOW_END=inclusive."
            )
        if apart < together and self.settings.devin_window_end == "inclusive":
            return Finding(
                question, "bad", seen + " The end of a window is not counted.", "Set DEVIN_WINDOW_END=exclusive."
            )
        advice = "Probe again: it may have changed in between. If it stays, ask the source's owner before you trust it."
        return Finding(question, "bad", seen, advice)

    async def _filters_add_up(self) -> Finding:
        question = "Do several org_ids add up?"
        busy: dict[str, int] = {}
        for org_id in self.org_ids[:MOST_QUESTIONS_ABOUT_ORGANIZATIONS]:
            if number := await self._count(org_id):
                busy[org_id] = number
            if len(busy) == 2:
                break
        if len(busy) < 2:
            seen = "Fewer than two organizations with sessions were found."
            return Finding(question, "unknown", seen, "Probe busier days: devin-sessions probe --until DAY")
        (a, of_a), (b, of_b) = busy.items()
        both = await self._count(a, b)
        seen = f"{{{a}}} has {of_a:,} and {{{b}}} {of_b:,}; {{{a}, {b}}} has {both:,}."
        if both == of_a + of_b:
            self.filters_add_up = True
            return Finding(question, "good", seen)
        advice = "Set DEVIN_FETCH=direct, which asks for one organization at a time."
        return Finding(question, "bad", seen, advice)

    async def _organizations_add_up(self) -> Finding:
        question = "Do organizations add up to the total?"
        size = ORGS_PER_QUESTION if self.filters_add_up else 1
        groups = [self.org_ids[n : n + size] for n in range(0, len(self.org_ids), size)]
        if not groups or len(groups) > MOST_QUESTIONS_ABOUT_ORGANIZATIONS:
            seen = f"It would take {len(groups):,} questions." if groups else "No organization is known."
            return Finding(question, "unknown", seen, "The first load will tell, day by day.")
        of_organizations = sum([await self._count(*group) for group in groups])
        total = await self._count()
        seen = (
            f"{len(self.org_ids):,} organizations have {of_organizations:,} sessions, the whole enterprise {total:,}."
        )
        if of_organizations == total:
            return Finding(question, "good", seen)
        if of_organizations < total:
            advice = "The others are stored as unattributed_count. The key may not see every organization."
            if self.settings.devin_org_ids:
                advice = "The others are stored as unattributed_count: DEVIN_ORG_IDS names only some organizations."
            return Finding(question, "note", seen, advice)
        return Finding(
            question, "bad", seen, "The source contradicts itself: ask its owner before you trust the numbers."
        )

    async def _unknown_organization(self) -> Finding:
        question = "What does an unknown organization give?"
        try:
            number = await self._count(UNKNOWN_ORGANIZATION)
        except Rejected as error:
            return Finding(question, "good", f"A refusal ({error.status}): a misspelt id cannot pass for a quiet one.")
        if number:
            advice = (
                "The filter org_ids is ignored: the counts per organization would be wrong. Ask the source's owner."
            )
            return Finding(question, "bad", f"{number:,} sessions.", advice)
        return Finding(
            question, "note", "0, and no error.", "Check the ids in DEVIN_ORG_IDS: a misspelt one counts as 0."
        )

    def _latency(self) -> Finding:
        median, most = self.calls.latency(0.5), self.calls.latency(0.95)
        seen = f"median {median or 0:.3f} s, 95 % within {most or 0:.3f} s, over {self.calls.sent:,} calls."
        return Finding("How fast does it answer?", "good", seen)

    def _limits(self) -> Finding:
        question = "Does it tell a rate limit?"
        refused = self.calls.outcomes["429"]
        told = ", ".join(f"{name}: {value}" for name, value in self.calls.limit_headers.items())
        if refused:
            seen = f"{refused} of {self.calls.sent} calls were refused (429). {told}".strip()
            advice = "The job finds the limit by itself; to stay well below it, set DEVIN_REQUESTS_PER_MINUTE."
            return Finding(question, "note", seen, advice)
        if told:
            return Finding(question, "note", told, "To stay well below it, set DEVIN_REQUESTS_PER_MINUTE.")
        return Finding(question, "good", "No. The job slows down when it meets one.")


async def _asked(question: str, finding: Coroutine[Any, Any, Finding]) -> Finding:
    try:
        return await finding
    except DevinAPIError as error:
        return Finding(question, "unknown", str(error), "Probe again. If it stays, ask the source's owner.")
