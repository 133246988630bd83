"""A stand-in for the Devin Enterprise API, v2 and v3, as strict as the published contract.

It can be made to fail, or to differ from the contract. The sessions that it counts come from `sessions`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import Receive, Scope, Send

from resources.sandbox.contract import (
    INVALID,
    MEMBERS_PATH,
    MEMBERS_PATH_V3,
    ORGANIZATIONS_PATH,
    ORGANIZATIONS_PATH_V3,
    PROBLEMS,
    REFUSED,
    SECOND,
    SESSIONS_PATH,
    SESSIONS_PATH_V3,
    Bearer,
    CountsByOrigin,
    CountsBySize,
    CursorPage,
    Ids,
    Member,
    MemberV3,
    Moment,
    Organization,
    OrganizationV3,
    Page,
    PageSize,
    SessionsCount,
    SessionsCreated,
    Skip,
    Version,
)
from resources.sandbox.faulty_server import FaultyServer
from resources.sandbox.lies import Lie
from resources.sandbox.logged_request import PROBLEM, UnixSeconds, aware, from_unix, is_v3, problem
from resources.sandbox.session_list import Order, SessionList, creators
from resources.sandbox.sessions import MICROSECOND, SandboxMember, SandboxOrganization, Sessions


def _now() -> datetime:
    return datetime.now(UTC)


class Sandbox(FaultyServer):
    """The API on 127.0.0.1 with invented organizations and sessions: `with Sandbox() as sandbox: sandbox.url`.

    The same seed, number of organizations and first day give the same sessions. None is later than the clock, which
    must return a moment with a time zone. `port=0` picks a free port, which `stop` and `start` keep.

    v2 accepts `api_key`, v3 accepts `service_key`; a version that isn't in `versions` has no paths. Both versions can
    differ from what a client hopes for:
    - `end_is_inclusive`: sessions at the end itself count too; in v3, which has whole seconds, all of that second.
    - `unknown_organization`: the response to a request about an organization that doesn't exist.
    - `org_ids_semantics`: whether all of several `org_ids` count, or only the first or the last.
    - `lists_organizations`, `lists_members`, `lists_sessions`: whether the keys may list them.
    - `list_order`, `list_end_is_inclusive`: in which order sessions are listed ("random" is the same each time), and
      whether those at the end itself are. What else can be wrong with the list is in `lies`; see `lie`.
    - `memberless`: the share of invented sessions that no member created, half of them a service user's.
    - `rate_limit`: how many requests with a valid key are allowed in each second of `monotonic`. The others get a 429
      with a Retry-After of one second. `rate_limit_headers` adds the limit and what is left of it to every response.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        organizations: int = 12,
        first_day: date = date(2025, 1, 1),
        api_key: str = "apk_user_sandbox",
        service_key: str = "cog_sandbox",
        versions: Sequence[Version] = ("v2", "v3"),
        lists_organizations: bool = True,
        lists_members: bool = True,
        lists_sessions: bool = True,
        list_order: Order = "newest",
        list_end_is_inclusive: bool = False,
        memberless: float = 0.0,
        end_is_inclusive: bool = False,
        unknown_organization: Literal["zero", "forbidden", "not_found"] = "zero",
        org_ids_semantics: Literal["union", "last", "first"] = "union",
        rate_limit: int | None = None,
        rate_limit_headers: bool = False,
        port: int = 0,
        clock: Callable[[], datetime] = _now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(seed=seed, port=port)
        self._sessions = Sessions(seed, organizations, first_day, memberless)
        self._list = SessionList(
            self._sessions,
            seed=seed,
            may_list=lists_sessions,
            end_is_inclusive=list_end_is_inclusive,
            order=list_order,
            clock=clock,
        )
        self.api_key = api_key
        self.service_key = service_key
        self._lists_organizations = lists_organizations
        self._lists_members = lists_members
        self._end_is_inclusive = end_is_inclusive
        self._unknown_organization = unknown_organization
        self._org_ids_counted = {"union": slice(None), "last": slice(-1, None), "first": slice(1)}[org_ids_semantics]
        self._rate_limit = rate_limit
        self._rate_limit_headers = rate_limit_headers
        self._clock = clock
        self._monotonic = monotonic
        self._second = 0
        self._requests_in_second = 0
        self._v2 = self._build_application("v2")
        self._v3 = self._build_application("v3")
        if "v2" in versions:
            self._serve_v2(self._v2)
            self._list.serve_v2(self._v2)
        if "v3" in versions:
            self._serve_v3(self._v3)
            self._list.serve_v3(self._v3)

    @property
    def organizations(self) -> Sequence[SandboxOrganization]:
        """Every listed organization, busiest first."""
        return self._sessions.organizations

    @property
    def members(self) -> Sequence[SandboxMember]:
        """Every listed user: all users of all organizations, each once."""
        return self._sessions.members

    def truth(
        self,
        start: datetime,
        end: datetime,
        org_ids: Iterable[str] | None = None,
        user_ids: Iterable[str] | None = None,
    ) -> int:
        """The number of sessions created in [start, end) and not after the clock. Moments need a time zone."""
        return self._sessions.count(
            start,
            min(end, self._clock()),
            None if org_ids is None else tuple(org_ids),
            None if user_ids is None else tuple(user_ids),
        )

    def add_sessions(self, org_id: str, at: datetime, count: int = 1, user_id: str | None = None) -> None:
        """Add sessions, as a later change to past counts. An unlisted `org_id` is then counted but still not listed.

        They are the organization's first user's unless `user_id` says otherwise; NOBODY says that they have no user.
        """
        self._sessions.add(org_id, at, count, user_id)

    def remove_sessions(self, org_id: str, at_or_after: datetime, before: datetime) -> int:
        """Remove one organization's sessions in [at_or_after, before). Returns how many there were."""
        return self._sessions.remove(org_id, at_or_after, before)

    def lie(self, *lies: Lie) -> None:
        """Tell these lies in the list of sessions, each about what the one before it left, until `heal`."""
        self._list.lies += lies

    def heal(self) -> None:
        """Remove every fault, and list the truth."""
        super().heal()
        self._list.lies = ()

    def openapi(self, version: Version = "v2") -> dict[str, Any]:
        """The OpenAPI document of one version, as served."""
        return (self._v3 if version == "v3" else self._v2).openapi()

    async def _respond_truthfully(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._v3 if is_v3(scope["path"]) else self._v2)(scope, receive, send)

    async def _authorize(self, request: Request, bearer: Bearer) -> None:
        key = bearer.credentials if bearer else ""
        if is_v3(request.url.path):
            expected, is_of_another_kind = self.service_key, key.startswith("apk_")
        else:
            is_of_one_organization = key.startswith("apk_") and not key.startswith("apk_user_")
            expected, is_of_another_kind = self.api_key, key.startswith("cog_") or is_of_one_organization
        if is_of_another_kind:
            raise HTTPException(403, "This kind of key is not accepted here")
        if key != expected:
            raise HTTPException(401, "Missing or invalid API key")
        request.state.authorized = True

    async def _limit_rate(self, request: Request) -> None:
        if self._rate_limit is None:
            return
        second = int(self._monotonic())
        self._requests_in_second = self._requests_in_second + 1 if second == self._second else 1
        self._second = second
        if self._rate_limit_headers:
            left = max(self._rate_limit - self._requests_in_second, 0)
            request.state.headers = {"x-ratelimit-limit": str(self._rate_limit), "x-ratelimit-remaining": str(left)}
        if self._requests_in_second > self._rate_limit:
            raise HTTPException(429, "Too many requests", headers={"retry-after": "1"})

    def _build_application(self, version: Version) -> FastAPI:
        return FastAPI(
            title="Devin Enterprise API",
            version=version,
            openapi_url=None,
            dependencies=[Depends(self._authorize), Depends(self._limit_rate)],
            exception_handlers={AnyHTTPException: _refused, RequestValidationError: _invalid}
            if version == "v3"
            else {},
        )

    def _serve_v2(self, application: FastAPI) -> None:
        @application.get(SESSIONS_PATH, responses=REFUSED | INVALID)
        async def sessions(
            start_date: Moment = None,
            end_date: Moment = None,
            start: Moment = None,
            end: Moment = None,
            org_ids: Ids = None,
            user_ids: Ids = None,
        ) -> SessionsCount:
            if (start_date or end_date) and (start or end):
                raise HTTPException(400, "Send start_date and end_date, or start and end, not both pairs")
            now = self._clock().astimezone(UTC)
            # Omitted bounds default to the billing cycle so far.
            since = aware(start_date or start or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
            until = self._until(since, aware(end_date or end or now), MICROSECOND)
            return SessionsCount(sessions_count=self.truth(since, until, self._counted_orgs(org_ids), user_ids))

        @application.get(ORGANIZATIONS_PATH, responses=INVALID)
        async def organizations(skip: Skip = 0, limit: PageSize = 100) -> Page[Organization]:
            self._check_may_list("organizations", self._lists_organizations)
            items = [Organization.model_validate(item, from_attributes=True) for item in self.organizations]
            return Page[Organization].of(items, skip, limit)

        @application.get(MEMBERS_PATH, responses=INVALID)
        async def members(skip: Skip = 0, limit: PageSize = 100) -> Page[Member]:
            self._check_may_list("members", self._lists_members)
            items = [Member.model_validate(item, from_attributes=True) for item in self.members]
            return Page[Member].of(items, skip, limit)

    def _serve_v3(self, application: FastAPI) -> None:
        @application.get(SESSIONS_PATH_V3, responses=PROBLEMS)
        async def sessions(
            time_after: Annotated[UnixSeconds, Query()],
            time_before: Annotated[UnixSeconds, Query()],
            org_ids: Ids = None,
            user_ids: Ids = None,
            service_user_ids: Ids = None,
        ) -> SessionsCreated:
            since = from_unix(time_after)
            until = min(self._until(since, from_unix(time_before), SECOND), self._clock())
            by_origin, by_size = self._sessions.by_origin_and_size(
                since, until, self._counted_orgs(org_ids), creators(user_ids, service_user_ids)
            )
            return SessionsCreated(
                sessions_created_count=sum(by_origin.values()),
                sessions_created_by_origin=CountsByOrigin(**by_origin),
                sessions_created_by_size=CountsBySize(**by_size),
            )

        @application.get(ORGANIZATIONS_PATH_V3, responses=PROBLEMS)
        async def organizations(first: PageSize = 100, after: str | None = None) -> CursorPage[OrganizationV3]:
            self._check_may_list("organizations", self._lists_organizations)
            items = [
                OrganizationV3(
                    org_id=item.org_id,
                    name=item.org_name,
                    created_at=int((item.created_at or item.begins).timestamp()),
                )
                for item in self.organizations
            ]
            return CursorPage[OrganizationV3].of(items, first, after)

        @application.get(MEMBERS_PATH_V3, responses=PROBLEMS)
        async def members(first: PageSize = 100, after: str | None = None) -> CursorPage[MemberV3]:
            self._check_may_list("members", self._lists_members)
            items = [MemberV3.model_validate(item, from_attributes=True) for item in self.members]
            return CursorPage[MemberV3].of(items, first, after)

    def _until(self, since: datetime, until: datetime, tick: timedelta) -> datetime:
        """The moment before which sessions count; `tick` is the resolution of moments in requests."""
        if until <= since:
            raise HTTPException(400, "The end must be later than the start")
        return min(until, self._clock()) + tick if self._end_is_inclusive else until

    def _counted_orgs(self, org_ids: list[str] | None) -> list[str] | None:
        """Those of the requested organizations that are counted."""
        counted = None if org_ids is None else org_ids[self._org_ids_counted]
        refusal = {"zero": None, "forbidden": 403, "not_found": 404}[self._unknown_organization]
        if refusal and not all(map(self._sessions.knows, counted or ())):
            raise HTTPException(refusal, "Unknown organization")
        return counted

    def _check_may_list(self, what: str, may: bool) -> None:
        if not may:
            raise HTTPException(403, f"This key may not list {what}")


async def _refused(request: Request, error: AnyHTTPException) -> JSONResponse:
    content = problem(error.status_code, str(error.detail))
    return JSONResponse(content, error.status_code, error.headers, PROBLEM)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    detail = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
    return JSONResponse(problem(422, detail), 422, media_type=PROBLEM)
