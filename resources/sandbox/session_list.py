"""The list of sessions, page by page, in both versions of the API. What it holds comes from `sessions` and `lies`."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Response

from resources.sandbox.contract import (
    INVALID,
    LIST_PATH,
    LIST_PATH_V3,
    PROBLEMS,
    SECOND,
    Ids,
    Moment,
    PageSize,
    SessionsPage,
    SessionsPageV3,
    Skip,
    cursor_of,
    offset_of,
)
from resources.sandbox.lies import KnownIds, Lie
from resources.sandbox.listed import Listed, ListPage, is_service_user, item_v2, item_v3
from resources.sandbox.logged_request import JSON, UnixSeconds, aware, from_unix
from resources.sandbox.sessions import DAY, EPOCH, MICROSECOND, NOBODY, Session, Sessions, microseconds

Order = Literal["newest", "oldest", "random"]
MomentV3 = Annotated[UnixSeconds | None, Query()]
AFTER_ALL = datetime.max.replace(tzinfo=EPOCH.tzinfo) - SECOND

SORT_KEYS: dict[Order, Callable[[Listed], Any]] = {
    "newest": lambda session: (-session.at, session.session_id),
    "oldest": lambda session: (session.at, session.session_id),
    "random": lambda session: session.session_id,
}


@dataclass(frozen=True)
class Wanted:
    """What a request asks for. Bounds are microseconds since 1970, from the first until before the second."""

    created: tuple[int, int]
    updated: tuple[int, int]
    org_ids: frozenset[str] | None
    user_ids: frozenset[str] | None
    session_ids: frozenset[str] | None

    def has(self, session: Listed) -> bool:
        """Whether the session is asked for."""
        return (
            self.created[0] <= session.at < self.created[1]
            and self.updated[0] <= session.updated_at < self.updated[1]
            and (self.org_ids is None or session.org_id in self.org_ids)
            and (self.user_ids is None or session.user_id in self.user_ids)
            and (self.session_ids is None or session.session_id in self.session_ids)
        )


class SessionList:
    """The list as one server shows it. `lies` may be changed between requests."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        seed: int,
        may_list: bool,
        end_is_inclusive: bool,
        order: Order,
        clock: Callable[[], datetime],
    ) -> None:
        self.lies: tuple[Lie, ...] = ()
        self._sessions = sessions
        self._seed = seed
        self._may_list = may_list
        self._end_is_inclusive = end_is_inclusive
        self._order = order
        self._clock = clock
        # Pages of one window are mostly asked for one after another, and sorting all of it takes longer than a page.
        self._matching = lru_cache(maxsize=32)(self._match)

    def serve_v2(self, application: FastAPI) -> None:
        """Add the list's path to an application that serves v2."""

        @application.get(LIST_PATH, responses=INVALID, response_model=SessionsPage)
        async def listed(
            skip: Skip = 0,
            limit: PageSize = 100,
            created_date_from: Moment = None,
            created_date_to: Moment = None,
            updated_date_from: Moment = None,
            updated_date_to: Moment = None,
            org_ids: Ids = None,
            user_ids: Ids = None,
            session_ids: Ids = None,
        ) -> Response:
            wanted = Wanted(
                self._bounds(created_date_from, created_date_to, MICROSECOND),
                self._bounds(updated_date_from, updated_date_to, MICROSECOND),
                *map(_set, (org_ids, user_ids, session_ids)),
            )
            page = self._page(wanted, skip, limit)
            now = microseconds(self._clock())
            body = {
                "items": [item_v2(session, now) for session in page.sessions],
                "total": page.total,
                "skip": skip,
                "limit": limit,
                "has_more": page.has_more,
                "next_cursor": skip + limit if page.has_more else None,
            }
            return self._written(body)

    def serve_v3(self, application: FastAPI) -> None:
        """Add the list's path to an application that serves v3."""

        @application.get(LIST_PATH_V3, responses=PROBLEMS, response_model=SessionsPageV3)
        async def listed(
            first: PageSize = 100,
            after: str | None = None,
            created_after: MomentV3 = None,
            created_before: MomentV3 = None,
            updated_after: MomentV3 = None,
            updated_before: MomentV3 = None,
            org_ids: Ids = None,
            user_ids: Ids = None,
            service_user_ids: Ids = None,
            session_ids: Ids = None,
        ) -> Response:
            wanted = Wanted(
                self._bounds(_moment(created_after), _moment(created_before), SECOND),
                self._bounds(_moment(updated_after), _moment(updated_before), SECOND),
                *map(_set, (org_ids, creators(user_ids, service_user_ids), session_ids)),
            )
            offset = 0 if after is None else offset_of(SessionsPageV3.__name__, after)
            page = self._page(wanted, offset, first)
            now = microseconds(self._clock())
            body = {
                "items": [item_v3(session, now) for session in page.sessions],
                "end_cursor": cursor_of(SessionsPageV3.__name__, offset + first) if page.has_more else None,
                "has_next_page": page.has_more,
                "total": page.total,
            }
            return self._written(body)

    def _bounds(self, start: datetime | None, end: datetime | None, tick: timedelta) -> tuple[int, int]:
        """The bounds in microseconds, of which an omitted one excludes nothing; `tick` is their resolution."""
        until = min(aware(end or AFTER_ALL), AFTER_ALL) + (tick if self._end_is_inclusive else timedelta(0))
        return microseconds(aware(start or EPOCH)), microseconds(until)

    def _page(self, wanted: Wanted, offset: int, size: int) -> ListPage:
        if not self._may_list:
            raise HTTPException(403, "This key may not list sessions")
        now = microseconds(self._clock())
        tomorrow = (now // DAY + 1) * DAY
        sessions = self._matching(wanted, tomorrow, self.lies, self._sessions.version)
        if wanted.created[1] > now:
            sessions = [session for session in sessions if session.at < now]
        page = ListPage.of(sessions, offset, size)
        for lie in self.lies:
            page = lie.turn(page, sessions)
        return page

    def _match(self, wanted: Wanted, before: int, lies: tuple[Lie, ...], version: int) -> list[Listed]:
        """The whole list in order, of sessions created before `before`."""
        # A lie may need whole days, and may move a session by up to a day.
        first, last = ((moment // DAY + days) * DAY for moment, days in zip(wanted.created, (-1, 2), strict=True))
        sessions = [
            session
            for org_id, found in self._sessions.listed(first, min(last, before))
            for session in self._identified(org_id, found)
        ]
        ids: KnownIds = {
            "org_id": self._sessions.org_ids,
            "user_id": [member.user_id for member in self._sessions.members],
        }
        for lie in lies:
            sessions = lie.hold(sessions, ids)
        return sorted(filter(wanted.has, sessions), key=SORT_KEYS[self._order])

    def _identified(self, org_id: str, sessions: list[Session]) -> Iterator[Listed]:
        """One organization's sessions with their ids: the same for the same seed and session."""
        previous, repeats = None, 0
        for session in sessions:
            repeats = repeats + 1 if session == previous else 0
            previous = session
            at, user_id = session
            digest = blake2b(f"{self._seed}/{org_id}/{at}/{user_id}/{repeats}".encode(), digest_size=16)
            yield Listed(at, f"devin-{digest.hexdigest()}", org_id, user_id)

    def _written(self, body: dict[str, Any]) -> Response:
        for lie in self.lies:
            lie.write(body)
        return Response(json.dumps(body), media_type=JSON)


def creators(user_ids: list[str] | None, service_user_ids: list[str] | None) -> list[str] | None:
    """The users of either filter of v3; None if neither is sent."""
    if user_ids is None and service_user_ids is None:
        return None
    return [*(user_ids or ()), *filter(is_service_user, service_user_ids or ())]


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else from_unix(seconds)


def _set(ids: list[str] | None) -> frozenset[str] | None:
    return None if ids is None else frozenset(ids) - {NOBODY}
