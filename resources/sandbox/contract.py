"""The API's published contract: paths, parameters, and the bodies of responses and errors."""

import base64
from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from fastapi import HTTPException, Query, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from resources.sandbox.logged_request import PROBLEM, phrase

SESSIONS_PATH = "/v2/enterprise/metrics/sessions"
ORGANIZATIONS_PATH = "/v2/enterprise/organizations"
MEMBERS_PATH = "/v2/enterprise/members"
LIST_PATH = "/v2/enterprise/sessions"
SESSIONS_PATH_V3 = "/v3/enterprise/metrics/sessions"
ORGANIZATIONS_PATH_V3 = "/v3/enterprise/organizations"
MEMBERS_PATH_V3 = "/v3/enterprise/members/users"
LIST_PATH_V3 = "/v3/enterprise/sessions"

SECOND = timedelta(seconds=1)

Version = Literal["v2", "v3"]
Status = Literal["new", "claimed", "running", "exit", "error", "suspended", "resuming"]
Item = TypeVar("Item")
Moment = Annotated[datetime | None, Query()]
Ids = Annotated[list[str] | None, Query()]
Skip = Annotated[int, Query(ge=0)]
PageSize = Annotated[int, Query(ge=1, le=200)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))]


class SessionsCount(BaseModel):
    sessions_count: int


class Organization(BaseModel):
    org_id: str
    org_name: str
    created_at: datetime | None


class Member(BaseModel):
    user_id: str
    email: str
    name: str | None
    created_at: datetime | None


class Page(BaseModel, Generic[Item]):
    """Part of a list in v2."""

    items: list[Item]
    total: int
    skip: int
    limit: int
    has_more: bool
    next_cursor: str | None

    @classmethod
    def of(cls, items: list[Item], skip: int, limit: int) -> Self:
        """The page of the full list `items` that skips `skip` of them and holds at most `limit`."""
        following = skip + limit
        has_more = following < len(items)
        return cls(
            items=items[skip:following],
            total=len(items),
            skip=skip,
            limit=limit,
            has_more=has_more,
            next_cursor=str(following) if has_more else None,
        )


class PullRequest(BaseModel):
    url: str
    state: str | None


class Session(BaseModel):
    session_id: str
    org_id: str
    user_id: str | None = None
    created_at: datetime
    updated_at: datetime
    status: Status
    title: str | None = None
    url: str
    tags: list[str]
    acus_consumed: float
    pull_requests: list[PullRequest]


class SessionsPage(BaseModel):
    items: list[Session]
    total: int
    skip: int
    limit: int
    has_more: bool
    next_cursor: int | None = None


class InvalidParameter(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class InvalidParameters(BaseModel):
    # No document that FastAPI generates requires it, so neither does the contract.
    detail: list[InvalidParameter] = Field(default_factory=list)


class CountsByOrigin(BaseModel):
    api: int
    automation: int
    desktop: int
    jira: int
    linear: int
    slack: int
    teams: int
    webapp: int


class CountsBySize(BaseModel):
    xs: int
    s: int
    m: int
    l: int  # noqa: E741 (the API's own name)
    xl: int


class SessionsCreated(BaseModel):
    sessions_created_count: int
    sessions_created_by_origin: CountsByOrigin
    sessions_created_by_size: CountsBySize


class OrganizationV3(BaseModel):
    org_id: str
    name: str
    created_at: int


class MemberV3(BaseModel):
    user_id: str
    email: str
    name: str | None


class CursorPage(BaseModel, Generic[Item]):
    """Part of a list in v3."""

    items: list[Item]
    end_cursor: str | None
    has_next_page: bool

    @classmethod
    def of(cls, items: list[Item], first: int, after: str | None) -> Self:
        """The page of the full list `items` with the first `first` of those that follow the cursor `after`."""
        following = (0 if after is None else offset_of(cls.__name__, after)) + first
        has_more = following < len(items)
        return cls(
            items=items[following - first : following],
            end_cursor=cursor_of(cls.__name__, following) if has_more else None,
            has_next_page=has_more,
        )


class PullRequestV3(BaseModel):
    pr_url: str
    pr_state: str | None


class SessionV3(BaseModel):
    session_id: str
    org_id: str
    user_id: str | None = None
    service_user_id: str | None = None
    created_at: int
    updated_at: int
    status: Status
    title: str | None = None
    url: str
    tags: list[str]
    acus_consumed: float
    pull_requests: list[PullRequestV3]
    origin: str | None = None
    is_archived: bool = False
    parent_session_id: str | None = None
    child_session_ids: list[str] | None = None


class SessionsPageV3(BaseModel):
    items: list[SessionV3]
    end_cursor: str | None = None
    has_next_page: bool = False
    total: int | None = None


class Problem(BaseModel):
    type: str
    title: str
    status: int
    detail: str


Responses = dict[int | str, dict[str, Any]]
INVALID: Responses = {422: {"model": InvalidParameters, "description": "Validation Error"}}
REFUSED: Responses = {code: {"description": phrase(code)} for code in (400, 401, 403, 404, 429)}
PROBLEMS: Responses = {
    code: {"description": phrase(code), "content": {PROBLEM: {"schema": Problem.model_json_schema()}}}
    for code in (400, 401, 403, 404, 422, 429)
}


def cursor_of(of: str, offset: int) -> str:
    return base64.urlsafe_b64encode(f"{of}:{offset}".encode()).decode()


def offset_of(of: str, cursor: str) -> int:
    try:
        name, _, offset = base64.urlsafe_b64decode(cursor).decode().rpartition(":")
        if name == of and offset.isdecimal():
            return int(offset)
    except ValueError:
        pass
    raise HTTPException(422, "after: not a cursor of this list")
