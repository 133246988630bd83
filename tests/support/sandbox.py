"""Calls the sandbox over HTTP, as API v2."""

from datetime import UTC, datetime, timedelta

import httpx
from hypothesis import settings

from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.server import Sandbox

KEY = "apk_user_sandbox"
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 7, 16, 13, 45, 30, 250_000, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
Params = dict[str, str | list[str]]


def client_of(sandbox: Sandbox, key: str = KEY) -> httpx.Client:
    return httpx.Client(base_url=sandbox.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, verify=False)


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def window(start: datetime, end: datetime, **filters: list[str]) -> Params:
    return {"start_date": text(start), "end_date": text(end), **filters}


def ask(client: httpx.Client, params: Params) -> int:
    answer = client.get(SESSIONS_PATH, params=params)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert list(body) == ["sessions_count"]
    count = body["sessions_count"]
    assert type(count) is int
    return count


few = settings(max_examples=25, deadline=None)
