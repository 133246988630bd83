"""A session as the list of sessions shows it, a page of them, and how each version of the API writes them.

Titles, tags and addresses carry markers, so that a test finds them wherever a client leaves them.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from resources.sandbox.sessions import EPOCH, HOUR, NOBODY, ORIGINS

MARKERS = ("private-title", "private-tag", "private-address", "private-pull-request")
STATUSES = ("exit",) * 6 + ("suspended", "running", "claimed", "error", "new", "resuming")


class Listed(NamedTuple):
    """One session: microseconds since 1970 (UTC), and whose it is. `user_id` is NOBODY if no user created it."""

    at: int
    session_id: str
    org_id: str
    user_id: str

    @property
    def number(self) -> int:
        """A number that looks random and never changes, for what is derived from the session."""
        return int(self.session_id[-8:], 16)

    @property
    def updated_at(self) -> int:
        """Microseconds since 1970 at which it changed last: up to three hours after its creation."""
        return self.at + self.number % (3 * HOUR)


@dataclass(frozen=True)
class ListPage:
    """The sessions that follow the first `offset` of the list, at most `size`."""

    sessions: list[Listed]
    offset: int
    size: int
    total: int | None
    has_more: bool

    @classmethod
    def of(cls, sessions: list[Listed], offset: int, size: int) -> "ListPage":
        """The page of the full list `sessions`."""
        following = offset + size
        return cls(sessions[offset:following], offset, size, len(sessions), following < len(sessions))

    @property
    def number(self) -> int:
        """How many pages of this size come before it."""
        return self.offset // self.size


def is_service_user(user_id: str) -> bool:
    """Whether the id is a service user's."""
    return user_id.startswith("service-user")


def item_v2(session: Listed, now: int) -> dict[str, Any]:
    """The session in JSON, as v2 writes it; `now`, in microseconds, is the latest time of an update."""
    return {
        **_common(session),
        "user_id": None if session.user_id == NOBODY else session.user_id,
        "created_at": _text(session.at),
        "updated_at": _text(max(min(session.updated_at, now), session.at)),
        "pull_requests": [{"url": url, "state": state} for url, state in _pull_requests(session)],
    }


def item_v3(session: Listed, now: int) -> dict[str, Any]:
    """The session in JSON, as v3 writes it; `now`, in microseconds, is the latest time of an update."""
    is_service = is_service_user(session.user_id)
    has_user = not is_service and session.user_id != NOBODY
    return {
        **_common(session),
        "user_id": session.user_id if has_user else None,
        "service_user_id": session.user_id if is_service else None,
        "created_at": session.at // 1_000_000,
        "updated_at": max(min(session.updated_at, now), session.at) // 1_000_000,
        "pull_requests": [{"pr_url": url, "pr_state": state} for url, state in _pull_requests(session)],
        "origin": ORIGINS[session.at % len(ORIGINS)],
        "is_archived": session.number % 7 == 0,
        "parent_session_id": f"devin-{session.number:032x}" if session.number % 11 == 0 else None,
        "child_session_ids": None,
    }


def _common(session: Listed) -> dict[str, Any]:
    number = session.number
    return {
        "session_id": session.session_id,
        "org_id": session.org_id,
        "status": STATUSES[number % len(STATUSES)],
        "title": None if number % 10 == 0 else f"{MARKERS[0]} {number:08x}",
        "tags": [] if number % 3 == 0 else [f"{MARKERS[1]}-{number % 5}"],
        "url": f"https://devin.example/{MARKERS[2]}/{session.session_id.removeprefix('devin-')}",
        "acus_consumed": number % 1000 / 40,
    }


def _pull_requests(session: Listed) -> list[tuple[str, str]]:
    number = session.number
    states = ("open", "merged", "closed")
    return [
        (f"https://git.example/{MARKERS[3]}/{number + n:08x}", states[(number + n) % len(states)])
        for n in range(number // 16 % 3)
    ]


def _text(moment: int) -> str:
    return (EPOCH + timedelta(microseconds=moment)).isoformat().replace("+00:00", "Z")
