"""The ways in which the list of sessions can be wrong, told by `Sandbox.lie`. The counts stay true.

Which sessions a lie is about depends on its seed and their ids alone, so that every window and page tells the same one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from hashlib import blake2b
from typing import Any, Literal

from fastapi import HTTPException

from resources.sandbox.listed import Listed, ListPage
from resources.sandbox.logged_request import phrase
from resources.sandbox.sessions import DAY, EPOCH, MICROSECOND

Owner = Literal["org_id", "user_id"]
KnownIds = Mapping[Owner, Sequence[str]]
"""The ids of every organization, busiest first, and of every member."""

MISSING = object()
"""In place of the value of a field that isn't sent."""


class Lie:
    """Changes what the list holds, which part of it a page shows, and how the page is written: nothing unless said."""

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        """What the list holds instead of all sessions of some whole UTC days. Windows and filters apply to it."""
        return sessions

    def turn(self, page: ListPage, sessions: list[Listed]) -> ListPage:
        """What is shown instead of a page of the list `sessions`."""
        return page

    def write(self, body: dict[str, Any]) -> None:
        """Change the JSON of a page."""


@dataclass(frozen=True, kw_only=True)
class LieAboutSome(Lie):
    """A lie about a share of the sessions. Lies of different kinds or seeds are about different ones."""

    share: float = 0.1
    seed: int = 1

    def concerns(self, name: str) -> bool:
        """Whether the session with this id or other unique name is among them."""
        return self.draw(name) < self.share

    def draw(self, name: str) -> float:
        """A number in [0, 1) that is as good as random, and the same for the same lie and name."""
        return int(_digest(f"{type(self).__name__}/{self.seed}/{name}", 6), 16) / 2**48

    def moved(self, session: Listed, owner: Owner, among: Sequence[str]) -> Listed:
        """The session of another owner, if there is another one."""
        others = [value for value in among if value != getattr(session, owner)] or [getattr(session, owner)]
        other = others[int(self.draw(f"to/{session.session_id}") * len(others))]
        return session._replace(org_id=other) if owner == "org_id" else session._replace(user_id=other)


@dataclass(frozen=True)
class LeaveOut(LieAboutSome):
    """Leave out a share of the sessions, of all organizations or of those with these ranks."""

    organizations: tuple[int, ...] | None = None

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        org_ids = None if self.organizations is None else {ids["org_id"][rank] for rank in self.organizations}
        return [
            session
            for session in sessions
            if (org_ids is not None and session.org_id not in org_ids) or not self.concerns(session.session_id)
        ]


@dataclass(frozen=True)
class Double(LieAboutSome):
    """List a share of the sessions twice: under the same id or another, in the same organization or another."""

    has_same_id: bool = True
    has_same_organization: bool = True

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        doubles = [session for session in sessions if self.concerns(session.session_id)]
        if not self.has_same_organization:
            doubles = [self.moved(session, "org_id", ids["org_id"]) for session in doubles]
        if not self.has_same_id:
            doubles = [_renamed(session, "double") for session in doubles]
        return sessions + doubles


@dataclass(frozen=True)
class Move(LieAboutSome):
    """List a share of the sessions under another organization or user: any, or the one with the id `to`."""

    owner: Owner = "org_id"
    to: str | None = None

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        others = ids[self.owner] if self.to is None else [self.to]
        return [
            self.moved(session, self.owner, others) if self.concerns(session.session_id) else session
            for session in sessions
        ]


@dataclass(frozen=True)
class Swap(Lie):
    """Move sessions from one organization to another on one UTC day, and as many back on the other day.

    So each day keeps its sum, and each organization its sum over both, if there are that many sessions to move.
    """

    days: tuple[date, date]
    organizations: tuple[int, int] = (0, 1)
    sessions: int = 1

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        one, other = (ids["org_id"][rank] for rank in self.organizations)
        moved = {
            session: session._replace(org_id=target)
            for day, source, target in ((self.days[0], one, other), (self.days[1], other, one))
            for session in [it for it in sessions if it.org_id == source and _day(it.at) == day][: self.sessions]
        }
        return [moved.get(session, session) for session in sessions]


@dataclass(frozen=True)
class Shift(Lie):
    """List every session as created later, or earlier, by up to a day."""

    by: timedelta = timedelta(hours=1)

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        return [session._replace(at=session.at + self.by // MICROSECOND) for session in sessions]


@dataclass(frozen=True)
class Change(Lie):
    """Before each further page, this many sessions appear at the head of the list, or vanish from it if negative."""

    by: int = 1

    def turn(self, page: ListPage, sessions: list[Listed]) -> ListPage:
        appeared = self.by * page.number
        start, end = (max(offset - appeared, 0) for offset in (page.offset, page.offset + page.size))
        total = max(len(sessions) + appeared, 0)
        return replace(page, sessions=sessions[start:end], total=total, has_more=page.offset + page.size < total)


@dataclass(frozen=True)
class NeverEnd(Lie):
    """Every page has a next one, with the sessions of the first page again or with new ones."""

    repeats: bool = False

    def turn(self, page: ListPage, sessions: list[Listed]) -> ListPage:
        shown = sessions[: page.size] if self.repeats else list(page.sessions)
        while sessions and len(shown) < page.size:
            number = page.offset + len(shown)
            shown.append(_renamed(sessions[number % len(sessions)], f"new {number}"))
        return replace(page, sessions=shown, has_more=True)


@dataclass(frozen=True)
class RepeatPage(Lie):
    """Show the page before it in place of the page with this number; the first page is number 0."""

    number: int = 1

    def turn(self, page: ListPage, sessions: list[Listed]) -> ListPage:
        if page.number != self.number:
            return page
        return replace(page, sessions=sessions[max(page.offset - page.size, 0) : page.offset])


@dataclass(frozen=True)
class Refuse(Lie):
    """Respond with this status from the page with this number on; the first page is number 0."""

    status: int = 403
    from_page: int = 0

    def turn(self, page: ListPage, sessions: list[Listed]) -> ListPage:
        if page.number >= self.from_page:
            raise HTTPException(self.status, phrase(self.status))
        return page


@dataclass(frozen=True)
class WrongTotal(Lie):
    """State a total that is too high, or too low if negative; null if None, as v3 allows."""

    by: int | None = 1

    def turn(self, page: ListPage, sessions: list[Listed]) -> ListPage:
        return replace(page, total=None if self.by is None else len(sessions) + self.by)


@dataclass(frozen=True)
class Postdate(LieAboutSome):
    """State a later creation time than the one by which a share of the sessions is listed."""

    by: timedelta = timedelta(days=3650)

    def turn(self, page: ListPage, sessions: list[Listed]) -> ListPage:
        shown = [
            session._replace(at=session.at + self.by // MICROSECOND) if self.concerns(session.session_id) else session
            for session in page.sessions
        ]
        return replace(page, sessions=shown)


@dataclass(frozen=True)
class Enlarge(Lie):
    """Make each page that has sessions at least this many bytes long, by their titles."""

    size: int = 10_000_000

    def write(self, body: dict[str, Any]) -> None:
        for item in body["items"]:
            item["title"] = "x" * (self.size // len(body["items"]) + 1)


@dataclass(frozen=True)
class AddFields(Lie):
    """Add fields that the contract doesn't have to each page and session."""

    def write(self, body: dict[str, Any]) -> None:
        for part in (body, *body["items"]):
            part["unexpected"] = {"nested": [1, None, "text"]}


@dataclass(frozen=True)
class Spoil(LieAboutSome):
    """Send a field of a share of the sessions with this value, or not at all if it is MISSING."""

    name: str
    value: Any = field(default=MISSING, hash=False)

    def write(self, body: dict[str, Any]) -> None:
        for item in body["items"]:
            # No lie changes the address, so it decides which sessions are spoiled even if several fields are.
            if self.concerns(item["url"]):
                item[self.name] = self.value
                if self.value is MISSING:
                    del item[self.name]


def _digest(text: str, size: int) -> str:
    return blake2b(text.encode(), digest_size=size).hexdigest()


def _renamed(session: Listed, why: str) -> Listed:
    return session._replace(session_id=f"devin-{_digest(f'{why}/{session.session_id}', 16)}")


def _day(at: int) -> date:
    return EPOCH.date() + timedelta(days=at // DAY)
