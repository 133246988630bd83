"""`devin-sessions probe`: sends a few requests to see whether the API behaves as the job assumes.

The API's documentation leaves open whether the end of a window is inclusive, whether filters with several
organizations add up, what an unknown organization returns, and whether the list of sessions agrees with the counts.
Each finding has a verdict and, if necessary, what to set.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from pipelines.command import probe_list
from pipelines.command.findings import PROBE_BUSIER_DAYS, Finding, or_unknown
from pipelines.command.probe_list import ListComparison
from pipelines.command.screen import complain
from pipelines.definitions import devin_api_for
from pipelines.loading.asking import asking_alone
from pipelines.loading.block_size import ORGS_PER_QUESTION
from pipelines.partitions import Day, as_days, daily_partitions
from pipelines.settings import Settings
from resources.calls import Calls
from resources.devin_api import DevinAPI, DevinClient
from resources.devin_errors import DevinAPIError, Rejected, Unauthorized
from resources.outage import format_duration

UNKNOWN_ORGANIZATION = "org-0000000000000000-unknown"
DAYS = 7
PATIENCE_SECONDS = 15.0  # a person is waiting
MAX_ORGANIZATION_REQUESTS = 50

CLOCKS_DIFFER = timedelta(minutes=1)


def impatient(settings: Settings, activity: str) -> DevinAPI:
    """The API, for a command whose user waits for an answer. `activity` is what messages call it."""
    patience = min(settings.devin_patience_seconds, PATIENCE_SECONDS)
    return replace(devin_api_for(settings, settings.warehouse), patience_seconds=patience, activity=activity)


def days_to_probe(settings: Settings, closed: Sequence[date], last: date) -> list[Day]:
    """The last of the `closed` days up to `last`, without one that their zone skips: there is nothing to count."""
    earlier = as_days(daily_partitions(settings), [f"{day}" for day in closed if day <= last][-DAYS - 1 :])
    return [day for day in earlier if not day.is_skipped][-DAYS:]


def probe(devin_api: DevinAPI, settings: Settings, days: Sequence[Day], calls: Calls) -> list[Finding]:
    """Probe the API about `days`, which are closed and consecutive. Stores nothing.

    A request that fails is a finding too. Raises Unauthorized if no key is set.
    """
    with (
        asking_alone(settings, "devin-sessions probe", _show_wait, leaves_no_file=True),
        devin_api.connected(calls) as (client, portal),
    ):
        return portal.call(_Probe(client, settings, days, calls).findings)


def _show_wait(sentence: str) -> None:
    complain(sentence, "held_up")  # standard output may have nothing but JSON


@dataclass
class _Probe:
    client: DevinClient
    settings: Settings
    days: Sequence[Day]
    calls: Calls
    counts_per_day: list[int] = field(default_factory=list)
    org_ids: list[str] = field(default_factory=list)
    known_ids: Collection[str] | None = None
    totals: dict[tuple[str, ...], int] = field(default_factory=dict)
    filters_add_up: bool = False

    async def findings(self) -> list[Finding]:
        of_key = await self._key()
        if of_key.verdict != "good":
            return [of_key]
        return [
            of_key,
            await or_unknown("Can organizations be listed?", self._listing()),
            await or_unknown("Do days add up?", self._days_add_up()),
            await or_unknown("Do several org_ids add up?", self._filters_add_up()),
            await or_unknown("Do organizations add up to the total?", self._organizations_add_up()),
            await or_unknown(probe_list.QUESTION, self._list_agrees(), probe_list.IF_IT_FAILS),
            await or_unknown("What does an unknown organization return?", self._unknown_organization()),
            await or_unknown("Does the API count by start and end too?", self._start_and_end()),
            self._latency(),
            self._limits(),
            *self._clocks(),
        ]

    async def _count(self, *org_ids: str) -> int:
        """Sessions in the whole period."""
        self.totals[org_ids] = await self.client.count(self.days[0].start, self.days[-1].end, org_ids=org_ids)
        return self.totals[org_ids]

    async def _key(self) -> Finding:
        question = "Is the key accepted?"
        version = self.client.version.name
        try:
            self.counts_per_day = [await self.client.count(day.start, day.end) for day in self.days]
        except Unauthorized as error:
            return Finding(question, "bad", str(error), "Fix the key first: nothing else can be probed without it.")
        except DevinAPIError as error:
            return Finding(question, "unknown", str(error), "Nothing else can be probed until this works.")
        sessions = f"{sum(self.counts_per_day):,} sessions, {self.days[0].day} to {self.days[-1].day}"
        return Finding(question, "good", f"Yes, by {version} of the API: {sessions}.")

    async def _listing(self) -> Finding:
        question = "Can organizations be listed?"
        self.org_ids = list(self.settings.devin_org_ids)
        try:
            listed = [organization.org_id for organization in (await self.client.organizations()).items]
        except Rejected as error:
            self.known_ids = self.org_ids
            if self.org_ids:
                return Finding(question, "note", str(error), "None needed: DEVIN_ORG_IDS has the ids to count.")
            return Finding(question, "bad", str(error), "Set DEVIN_ORG_IDS to the ids to count.")
        self.known_ids = {*self.org_ids, *listed}
        self.org_ids = self.org_ids or listed
        absent = sorted(set(self.org_ids) - set(listed))
        if absent:
            seen = f"{len(listed):,} are listed, but not {', '.join(absent[:3])} from DEVIN_ORG_IDS."
            return Finding(question, "note", seen, "Check the ids: the API may count unknown ones as 0.")
        return Finding(question, "good", f"Yes, {len(listed):,} of them.")

    async def _days_add_up(self) -> Finding:
        question = "Do days add up?"
        apart, together = sum(self.counts_per_day), await self._count()
        seen = f"{len(self.days)} days add up to {apart:,}; requested as one window, they have {together:,}."
        if apart == together == 0:
            return Finding(question, "unknown", seen, PROBE_BUSIER_DAYS)
        if apart == together:
            return Finding(question, "good", seen)
        if apart > together and self.settings.devin_window_end == "exclusive":
            return Finding(
                question, "bad", seen + " So the end of a window is counted.", "Set DEVIN_WINDOW_END=inclusive."
            )
        if apart < together and self.settings.devin_window_end == "inclusive":
            return Finding(
                question, "bad", seen + " So the end of a window is not counted.", "Set DEVIN_WINDOW_END=exclusive."
            )
        advice = (
            "Probe again: the counts may have changed in between. If they still differ, ask the API's owner before you "
            "trust them."
        )
        return Finding(question, "bad", seen, advice)

    async def _filters_add_up(self) -> Finding:
        question = "Do several org_ids add up?"
        busy: dict[str, int] = {}
        for org_id in self.org_ids[:MAX_ORGANIZATION_REQUESTS]:
            if number := await self._count(org_id):
                busy[org_id] = number
            if len(busy) == 2:
                break
        if len(busy) < 2:
            seen = "Fewer than two organizations with sessions were found."
            return Finding(question, "unknown", seen, PROBE_BUSIER_DAYS)
        (a, of_a), (b, of_b) = busy.items()
        both = await self._count(a, b)
        seen = f"{{{a}}} has {of_a:,} and {{{b}}} {of_b:,}; {{{a}, {b}}} has {both:,}."
        if both == of_a + of_b:
            self.filters_add_up = True
            return Finding(question, "good", seen)
        advice = "Set DEVIN_FETCH=direct, which requests one organization at a time."
        return Finding(question, "bad", seen, advice)

    async def _organizations_add_up(self) -> Finding:
        question = "Do organizations add up to the total?"
        size = ORGS_PER_QUESTION if self.filters_add_up else 1
        groups = [self.org_ids[n : n + size] for n in range(0, len(self.org_ids), size)]
        if not groups or len(groups) > MAX_ORGANIZATION_REQUESTS:
            seen = f"It would take {len(groups):,} requests." if groups else "No organization is known."
            return Finding(question, "unknown", seen, "The first load will show it, day by day.")
        of_organizations = sum([await self._count(*group) for group in groups])
        total = await self._count()
        seen = (
            f"{len(self.org_ids):,} organizations have {of_organizations:,} sessions; the whole enterprise has "
            f"{total:,}."
        )
        if of_organizations == total:
            return Finding(question, "good", seen)
        if of_organizations < total:
            advice = "The others are stored as unattributed_count. The key may not see every organization."
            if self.settings.devin_org_ids:
                advice = "The others are stored as unattributed_count: DEVIN_ORG_IDS has only some organizations."
            return Finding(question, "note", seen, advice)
        return Finding(question, "bad", seen, "The API contradicts itself: ask its owner before you trust the numbers.")

    async def _list_agrees(self) -> Finding:
        fetch = self.settings.devin_fetch
        if fetch in ("direct", "differenced"):
            seen = f"It was not read, since DEVIN_FETCH={fetch} never reads it."
            return Finding(
                probe_list.QUESTION, "note", seen, "None needed. To compare it, probe with DEVIN_FETCH=auto."
            )
        return await ListComparison(
            self.client,
            self.days,
            self.counts_per_day,
            self.org_ids,
            {ids: number for ids, number in self.totals.items() if ids},
            self.filters_add_up,
            self.known_ids,
        ).finding()

    async def _unknown_organization(self) -> Finding:
        question = "What does an unknown organization return?"
        try:
            number = await self._count(UNKNOWN_ORGANIZATION)
        except Rejected as error:
            seen = f"An error ({error.status}), so a misspelled id can't be mistaken for an idle organization."
            return Finding(question, "good", seen)
        if number:
            advice = "The filter org_ids is ignored, so counts per organization would be wrong. Ask the API's owner."
            return Finding(question, "bad", f"{number:,} sessions.", advice)
        return Finding(
            question, "note", "0, and no error.", "Check the ids in DEVIN_ORG_IDS: a misspelled one counts as 0."
        )

    async def _start_and_end(self) -> Finding:
        question = "Does the API count by start and end too?"
        start, end = self.days[0].start, self.days[-1].end
        documented = " and ".join(name for name, _ in self.client.version.window(start, end))
        try:
            number = await self.client.count_by_start_and_end(start, end)
        except Rejected as error:
            return Finding(question, "good", f"No, it refuses them ({error.status}). The job sends {documented}.")
        total = self.totals.get((), sum(self.counts_per_day))
        if number == total == 0:
            return Finding(question, "unknown", f"They count 0 sessions, as {documented} do.", PROBE_BUSIER_DAYS)
        if number == total:
            return Finding(question, "good", f"Yes: {number:,} sessions, as by {documented}, which the job sends.")
        seen = (
            f"No: with them it counts {number:,} sessions, not {total:,}. It probably ignores them: without a period, "
            "it counts the current billing cycle."
        )
        return Finding(question, "note", seen, f"None needed: the job sends {documented}. So should your own requests.")

    def _latency(self) -> Finding:
        median, most = self.calls.latency(0.5), self.calls.latency(0.95)
        seen = f"Median {median or 0:.3f} s, 95 % within {most or 0:.3f} s, over {self.calls.sent:,} requests."
        return Finding("How fast does it respond?", "good", seen)

    def _limits(self) -> Finding:
        question = "Does it report a rate limit?"
        refused = self.calls.outcomes["429"]
        headers = ", ".join(f"{name}: {value}" for name, value in self.calls.limit_headers.items())
        if refused:
            seen = f"{refused} of {self.calls.sent} requests were refused (429). {headers}".strip()
            advice = "The job finds the limit by itself; to stay well below it, set DEVIN_REQUESTS_PER_MINUTE."
            return Finding(question, "note", seen, advice)
        if headers:
            return Finding(question, "note", headers, "To stay well below it, set DEVIN_REQUESTS_PER_MINUTE.")
        return Finding(question, "good", "No. The job slows down when it reaches one.")

    def _clocks(self) -> list[Finding]:
        """A finding if the clocks differ by more than a minute."""
        question = "Is this machine's clock right?"
        ahead, behind = self.calls.clock.ahead, self.calls.clock.behind
        off_by = format_duration(max(ahead, behind).total_seconds())
        if ahead > CLOCKS_DIFFER:
            seen = f"It is {off_by} ahead of the API's, where it is {self.calls.clock.now():%Y-%m-%d %H:%M:%S} UTC."
            advice = "Set it right, for example with timedatectl set-ntp true: days that aren't over aren't loaded."
            return [Finding(question, "bad", seen, advice)]
        if behind > CLOCKS_DIFFER:
            seen = f"It is {off_by} behind the API's. No number is wrong, but days are loaded that much later."
            return [Finding(question, "note", seen, "Set it right, for example with timedatectl set-ntp true.")]
        return []
