"""v3 of the sandbox fails like v2, and shares its rate limit and log."""

from datetime import datetime, timedelta

import httpx
import pytest

from resources.sandbox.contract import (
    MEMBERS_PATH_V3,
    ORGANIZATIONS_PATH,
    ORGANIZATIONS_PATH_V3,
    SESSIONS_PATH,
    SESSIONS_PATH_V3,
)
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.support import sandbox as v2
from tests.support.sandbox import FIRST, NOW
from tests.support.sandbox_v3 import KEY, SECOND, check_problem, client_of, window


def test_a_status_comes_with_a_problem_body(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=503, times=2)
    for path in (SESSIONS_PATH_V3, ORGANIZATIONS_PATH_V3):
        check_problem(client.get(path), 503, "Service Unavailable")
    assert client.get(ORGANIZATIONS_PATH_V3).status_code == 200
    assert fault.hits == 2


def test_a_body_or_a_content_type_replaces_the_problem(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=500, body=b'{"sessions_created_count": 1}')
    answer = client.get(SESSIONS_PATH_V3)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
    assert answer.content == b'{"sessions_created_count": 1}'
    sandbox.fail(status=500, content_type="text/plain")
    answer = client.get(SESSIONS_PATH_V3)
    assert answer.headers["content-type"] == "text/plain"
    assert answer.json()["title"] == "Internal Server Error"


def test_a_429_can_say_when_to_retry(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(retry_after="2")
    answer = client.get(SESSIONS_PATH_V3)
    check_problem(answer, 429, "Too Many Requests")
    assert answer.headers["retry-after"] == "2"


def test_a_response_is_dropped_or_truncated_as_in_v2(sandbox: Sandbox, client: httpx.Client) -> None:
    for drop in (True, False):
        sandbox.fail(drop=drop, truncate=not drop)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            client.get(SESSIONS_PATH_V3, params=window(FIRST, NOW))
    assert [asked.status for asked in sandbox.requests] == [None, 200]


def test_a_fault_strikes_only_the_version_organization_and_window_it_is_for(
    serving: tuple[Sandbox, httpx.Client, httpx.Client], sandbox: Sandbox
) -> None:
    _, client, older = serving
    bad, good = (item.org_id for item in sandbox.organizations[:2])
    sandbox.fail(status=502, path=SESSIONS_PATH_V3, org_id=bad, when=lambda asked: asked.start == FIRST, times=None)

    def status(start: datetime, org_id: str) -> int:
        return client.get(SESSIONS_PATH_V3, params=window(start, NOW, org_ids=[org_id])).status_code

    assert status(FIRST, bad) == 502
    assert status(FIRST, good) == status(FIRST + SECOND, bad) == 200
    assert older.get(SESSIONS_PATH, params=v2.window(FIRST, NOW, org_ids=[bad])).status_code == 200


def test_a_fault_spares_requests_that_are_refused_for_their_key(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=503)
    with client_of(sandbox, "apk_user_sandbox") as stranger:
        assert stranger.get(SESSIONS_PATH_V3).status_code == 403
    assert fault.hits == 0
    assert client.get(SESSIONS_PATH_V3).status_code == 503


def test_both_versions_share_one_rate_limit() -> None:
    now = [7.0]
    with (
        Sandbox(rate_limit=2, rate_limit_headers=True, monotonic=lambda: now[0]) as sandbox,
        client_of(sandbox) as client,
        v2.client_of(sandbox) as older,
    ):
        assert older.get(ORGANIZATIONS_PATH).headers["x-ratelimit-remaining"] == "1"
        assert client.get(ORGANIZATIONS_PATH_V3).headers["x-ratelimit-remaining"] == "0"
        answer = client.get(ORGANIZATIONS_PATH_V3)
        check_problem(answer, 429, "Too many requests")
        assert answer.headers["retry-after"] == "1"
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("2", "0")
        now[0] = 8.0
        assert client.get(ORGANIZATIONS_PATH_V3).status_code == 200


def test_the_log_has_the_window_as_moments_but_not_the_key(sandbox: Sandbox, client: httpx.Client) -> None:
    client.get(f"{SESSIONS_PATH_V3}?time_after=1735689600&time_before=1735776000&org_ids=a&org_ids=b&user_ids=u")
    client.get(SESSIONS_PATH_V3, params={"time_after": 1735689600000, "time_before": "soon", "start": "2025-01-01"})
    client.get(MEMBERS_PATH_V3, params={"first": 7})
    counted, refused, listed = sandbox.requests
    assert counted == LoggedRequest(
        path=SESSIONS_PATH_V3,
        params=(
            ("time_after", "1735689600"),
            ("time_before", "1735776000"),
            ("org_ids", "a"),
            ("org_ids", "b"),
            ("user_ids", "u"),
        ),
        start=FIRST,
        end=FIRST + timedelta(days=1),
        org_ids=("a", "b"),
        user_ids=("u",),
        status=200,
    )
    assert (refused.start, refused.end, refused.status) == (None, None, 422)
    assert listed == LoggedRequest(MEMBERS_PATH_V3, (("first", "7"),), None, None, (), (), 200)
    assert KEY not in repr(sandbox.requests)
