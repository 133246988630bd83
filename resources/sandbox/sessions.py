"""The sessions behind the sandbox: which organizations and members exist, and who created which session when.

Knows nothing of HTTP or the warehouse.
"""

import functools
import random
import re
import threading
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

Session = tuple[int, str]
"""Microseconds since 1970 (UTC), and the user who created the session."""

NOBODY = ""
"""In place of the user of a session that no user created. Sorts like an id."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1) // MICROSECOND
HOUR = timedelta(hours=1) // MICROSECOND

# Where sessions are started and how large they get; how often each kind is listed is its weight.
ORIGINS = ("webapp",) * 8 + ("slack",) * 5 + ("api",) * 3 + ("automation", "desktop", "jira", "linear", "teams")
SIZES = ("xs",) * 4 + ("s",) * 3 + ("m",) * 2 + ("l", "xl")

NAMES = (
    "Meridian Freight",
    "O'Hara Logistics",
    "Brandt & Söhne",
    "Northwind Health",
    "Café Lumière Retail",
    "Tessellate Robotics",
    "Kōyō Semiconductors",
    "Abbott, Reyes & Quinn",
    "Polar Bridge Energy",
    "Ångström Materials",
    "Sable Point Capital",
    "St. Brigid's Hospitals",
    "Żubr Insurance",
    "Delta Loop Games",
    "Granja São João",
    "Ironbark Mining",
)
GIVEN_NAMES = (
    *("Aiko", "Björn", "Chidi", "Dolores", "Émile", "Fatima", "Goran", "Hana"),
    *("Ines", "João", "Katya", "Leïla", "Marek", "Nadia", "Oisín", "Priya"),
)
FAMILY_NAMES = ("Abe", "Brandão", "D'Arcy", "Eriksson", "García Núñez", "Kowalczyk", "Meier-Lang", "Okafor", "Singh")


@dataclass(frozen=True)
class SandboxOrganization:
    """One organization: the fields that the API shows, and the pattern that its sessions follow."""

    org_id: str
    org_name: str
    created_at: datetime | None
    active_from: date
    active_until: date | None
    sessions_per_weekday: float
    busiest_hour: float
    user_ids: tuple[str, ...]

    @property
    def begins(self) -> datetime:
        """The start of its first active day, in UTC."""
        return datetime.combine(self.active_from, time(), UTC)


@dataclass(frozen=True)
class SandboxMember:
    """One user of one organization, as the API shows them."""

    user_id: str
    email: str
    name: str | None
    created_at: datetime | None


def microseconds(moment: datetime) -> int:
    """Microseconds from 1970 (UTC) to a moment with a time zone."""
    return (moment - EPOCH) // MICROSECOND


def make_organization(seed: int, index: int, first_day: date, is_last: bool) -> SandboxOrganization:
    """Create the organization with this rank: each is about half as busy as the one before it."""
    rng = random.Random(f"{seed}/organization/{index}")
    org_id = f"org-{rng.getrandbits(128):032x}"
    again = f" {index // len(NAMES) + 1}" if index >= len(NAMES) else ""
    starts_late = index % 3 == 1
    active_from = first_day + timedelta(days=rng.randint(10, 60) if starts_late else 0)
    age = timedelta(hours=rng.uniform(1, 72)) if starts_late else timedelta(days=rng.uniform(30, 900))
    return SandboxOrganization(
        org_id=org_id,
        org_name=NAMES[index % len(NAMES)] + again,
        created_at=None if is_last else datetime.combine(active_from, time(), UTC) - age,
        active_from=active_from,
        active_until=active_from + timedelta(days=rng.randint(20, 60)) if index % 5 == 4 else None,
        sessions_per_weekday=max(0.3, 110 * 0.55**index) * rng.uniform(0.9, 1.1),
        busiest_hour=rng.choice((2.0, 9.0, 14.0, 20.0)) + rng.uniform(-1, 1),
        user_ids=tuple(f"user-{rng.getrandbits(128):032x}" for _ in range(rng.randint(2, 12))),
    )


def make_members(seed: int, organization: SandboxOrganization) -> list[SandboxMember]:
    """Create an organization's members, in the order of its `user_ids`. Some have no name or no creation time."""
    rng = random.Random(f"{seed}/members/{organization.org_id}")
    # Given names are unique within an organization, so that no two members share an address.
    given_names = rng.sample(GIVEN_NAMES, len(organization.user_ids))
    members = []
    for user_id, given_name in zip(organization.user_ids, given_names, strict=True):
        name = f"{given_name} {rng.choice(FAMILY_NAMES)}"
        age = (
            None if organization.created_at is None else (organization.begins - organization.created_at) * rng.random()
        )
        members.append(
            SandboxMember(
                user_id=user_id,
                email=f"{_plain(name, '.')}@{_plain(organization.org_name, '-')}.example",
                name=None if rng.random() < 0.1 else name,
                created_at=None if age is None or rng.random() < 0.05 else organization.begins - age,
            )
        )
    return members


def _plain(text: str, separator: str) -> str:
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", separator, letters).strip(separator)


@functools.lru_cache(100_000)  # for one sandbox after another with the same sessions
def make_day(seed: int, organization: SandboxOrganization, day: date, memberless: float) -> Sequence[Session]:
    """Create one organization's sessions on a UTC day, sorted by time: the same for the same arguments.

    A share of them, `memberless`, is no member's: one half is a service user's, the other half nobody's.
    """
    is_gone = organization.active_until is not None and day >= organization.active_until
    if day < organization.active_from or is_gone:
        return ()
    rng = random.Random(f"{seed}/{organization.org_id}/{day.isoformat()}")
    expected = organization.sessions_per_weekday * rng.gammavariate(6, 1 / 6)
    if day.weekday() >= 5:
        expected *= 0.08
    midnight = microseconds(datetime.combine(day, time(), UTC))
    draw = rng.random
    users = organization.user_ids
    sessions: list[Session] = []
    arrival = rng.expovariate(1.0)
    while arrival < expected:
        # The sum of three draws is a bell curve 15 hours wide; what crosses midnight wraps to the day's other end.
        hour = organization.busiest_hour + 5 * (draw() + draw() + draw() - 1.5)
        sessions.append((midnight + int(hour * HOUR) % DAY, users[int(draw() * draw() * len(users))]))
        arrival += rng.expovariate(1.0)
    for index, (moment, _) in enumerate(sessions):
        # A session's last digits of time are as good as random, and never change.
        if (share := moment % 9973 / 9973) < memberless:
            sessions[index] = (moment, NOBODY if share < memberless / 2 else f"service-user-{seed:032x}")
    return tuple(sorted(sessions))


class _Days:
    """One organization's sessions by UTC day, with running totals, so that any window takes two look-ups."""

    def __init__(
        self, seed: int, organization: SandboxOrganization | None, first_day: date, memberless: float = 0.0
    ) -> None:
        self._seed = seed
        self._memberless = memberless
        self._organization = organization
        self._first_day = first_day
        self._origin = microseconds(datetime.combine(first_day, time(), UTC))
        self._days: list[Sequence[Session]] = []
        self._totals = [0]

    def _index(self, moment: int) -> int:
        """The index of the moment's day; creates and sums every day up to it."""
        index = max(moment - self._origin, 0) // DAY
        while len(self._days) <= index:
            day = self._first_day + timedelta(days=len(self._days))
            organization = self._organization
            self._days.append(make_day(self._seed, organization, day, self._memberless) if organization else ())
        while len(self._totals) <= index:
            self._totals.append(self._totals[-1] + len(self._days[len(self._totals) - 1]))
        return index

    def before(self, moment: int) -> int:
        index = self._index(moment)
        return self._totals[index] + bisect_left(self._days[index], (moment,))

    def between(self, start: int, end: int) -> list[Session]:
        days = self._days[self._index(start) : self._index(end) + 1]
        return [session for day in days for session in day if start <= session[0] < end]

    def replace(self, moment: int, sessions: list[Session]) -> None:
        index = self._index(moment)
        self._days[index] = sorted(sessions)
        del self._totals[index + 1 :]

    def add(self, moment: int, user_id: str, count: int) -> None:
        if moment < self._origin:
            raise ValueError(f"the sandbox has no sessions before {self._first_day}")
        self.replace(moment, [*self._days[self._index(moment)], *[(moment, user_id)] * count])

    def remove(self, start: int, end: int) -> int:
        removed = 0
        for index in range(self._index(start), self._index(end) + 1):
            day = self._days[index]
            kept = [session for session in day if not start <= session[0] < end]
            if len(kept) < len(day):
                removed += len(day) - len(kept)
                self.replace(self._origin + index * DAY, kept)
        return removed


class Sessions:
    """Every session of every organization, created when first needed. Thread-safe."""

    def __init__(self, seed: int, organizations: int, first_day: date, memberless: float) -> None:
        self._seed = seed
        self._first_day = first_day
        self._lock = threading.Lock()
        self.version = 0
        """Grows whenever sessions are added or removed."""
        self.organizations = tuple(
            make_organization(seed, index, first_day, is_last=index == organizations - 1)
            for index in range(organizations)
        )
        self.members = tuple(member for item in self.organizations for member in make_members(seed, item))
        self._days = {item.org_id: _Days(seed, item, first_day, memberless) for item in self.organizations}
        self._users = {item.org_id: item.user_ids[0] for item in self.organizations}

    @property
    def org_ids(self) -> list[str]:
        """Every organization that exists: those listed, busiest first, then those given sessions with `add`."""
        with self._lock:
            return list(self._days)

    def knows(self, org_id: str) -> bool:
        """Whether the organization exists: listed, or given sessions with `add`."""
        return org_id in self._days

    def count(
        self,
        start: datetime,
        end: datetime,
        org_ids: Collection[str] | None = None,
        user_ids: Collection[str] | None = None,
    ) -> int:
        """The number of sessions created in [start, end). No filter means all; an unknown id matches nothing."""
        since, until = microseconds(start), microseconds(end)
        if until <= since:
            return 0
        with self._lock:
            if user_ids is None:
                return sum(days.before(until) - days.before(since) for days in self._wanted(org_ids))
            return sum(1 for _ in self._between(since, until, org_ids, user_ids))

    def listed(self, since: int, until: int) -> list[tuple[str, list[Session]]]:
        """Each organization's sessions from `since` until before `until` (microseconds since 1970), sorted by time."""
        with self._lock:
            return [(org_id, days.between(since, until)) for org_id, days in self._days.items()]

    def by_origin_and_size(
        self,
        start: datetime,
        end: datetime,
        org_ids: Collection[str] | None = None,
        user_ids: Collection[str] | None = None,
    ) -> tuple[dict[str, int], dict[str, int]]:
        """What `count` counts, by origin and by size. Every origin and size is included, even with 0."""
        since, until = microseconds(start), microseconds(end)
        by_origin, by_size = dict.fromkeys(ORIGINS, 0), dict.fromkeys(SIZES, 0)
        if until <= since:
            return by_origin, by_size
        with self._lock:
            # A session's last digits of time are as good as random, and never change.
            draws = Counter(
                moment % (len(ORIGINS) * len(SIZES)) for moment, _ in self._between(since, until, org_ids, user_ids)
            )
        for draw, count in draws.items():
            by_origin[ORIGINS[draw % len(ORIGINS)]] += count
            by_size[SIZES[draw // len(ORIGINS)]] += count
        return by_origin, by_size

    def _wanted(self, org_ids: Collection[str] | None) -> list[_Days]:
        wanted = self._days.keys() if org_ids is None else self._days.keys() & set(org_ids)
        return [self._days[item] for item in wanted]

    def _between(
        self, since: int, until: int, org_ids: Collection[str] | None, user_ids: Collection[str] | None
    ) -> Iterator[Session]:
        users = None if user_ids is None else frozenset(user_ids) - {NOBODY}
        for days in self._wanted(org_ids):
            for session in days.between(since, until):
                if users is None or session[1] in users:
                    yield session

    def add(self, org_id: str, at: datetime, count: int, user_id: str | None) -> None:
        """Add sessions at one moment. An unlisted `org_id` becomes an organization that is never listed."""
        with self._lock:
            if org_id not in self._days:
                self._days[org_id] = _Days(self._seed, None, self._first_day)
            user = self._users.get(org_id, f"user-{0:032x}") if user_id is None else user_id
            self.version += 1
            self._days[org_id].add(microseconds(at), user, count)

    def remove(self, org_id: str, at_or_after: datetime, before: datetime) -> int:
        """Remove the organization's sessions in [at_or_after, before). Returns how many there were."""
        with self._lock:
            self.version += 1
            return self._days[org_id].remove(microseconds(at_or_after), microseconds(before))
