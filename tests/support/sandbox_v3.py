"""Calls the sandbox over HTTP, as API v3."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from resources.sandbox.contract import LIST_PATH_V3, MEMBERS_PATH_V3, ORGANIZATIONS_PATH_V3, SESSIONS_PATH_V3
from resources.sandbox.server import Sandbox
from tests.support import sandbox as v2

KEY = "cog_sandbox"
SECOND = timedelta(seconds=1)
PATHS = (SESSIONS_PATH_V3, ORGANIZATIONS_PATH_V3, MEMBERS_PATH_V3, LIST_PATH_V3)
BREAKDOWNS = {
    "sessions_created_by_origin": {"api", "automation", "desktop", "jira", "linear", "slack", "teams", "webapp"},
    "sessions_created_by_size": {"xs", "s", "m", "l", "xl"},
}
Params = dict[str, int | str | list[str]]


def client_of(sandbox: Sandbox, key: str = KEY) -> httpx.Client:
    return v2.client_of(sandbox, key)


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def window(start: datetime, end: datetime, **filters: list[str]) -> Params:
    return {"time_after": unix(start), "time_before": unix(end), **filters}


def ask(client: httpx.Client, params: Params) -> dict[str, Any]:
    answer = client.get(SESSIONS_PATH_V3, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert list(body) == ["sessions_created_count", *BREAKDOWNS]
    assert type(body["sessions_created_count"]) is int
    for breakdown, kinds in BREAKDOWNS.items():
        assert set(body[breakdown]) == kinds
        assert sum(body[breakdown].values()) == body["sessions_created_count"]
    return body


def count(client: httpx.Client, params: Params) -> int:
    return int(ask(client, params)["sessions_created_count"])


def check_problem(answer: httpx.Response, status: int, detail: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    title = httpx.codes.get_reason_phrase(status)
    assert answer.json() == {"type": "about:blank", "title": title, "status": status, "detail": detail}
