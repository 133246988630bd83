"""Behaviour of the sandbox beyond the documented API: filters that are ignored, and a rate limit."""

from typing import Any

import httpx
import pytest

from resources.sandbox.contract import ORGANIZATIONS_PATH, SESSIONS_PATH
from resources.sandbox.server import Sandbox
from tests.support.sandbox import FIRST, NOW, ask, client_of, window


@pytest.mark.parametrize(("semantics", "counted"), [("union", slice(None)), ("last", slice(2, 3)), ("first", slice(1))])
def test_all_of_several_organizations_are_counted_or_only_the_first_or_last(semantics: Any, counted: slice) -> None:
    with Sandbox(org_ids_semantics=semantics, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        org_ids = [item.org_id for item in sandbox.organizations[:3]]
        counts = [ask(client, window(FIRST, NOW, org_ids=[org_id])) for org_id in org_ids]
        assert len(set(counts)) == 3
        assert ask(client, window(FIRST, NOW, org_ids=org_ids)) == sum(counts[counted])
        assert sandbox.requests[-1].org_ids == tuple(org_ids)
        users = [user_id for item in sandbox.organizations[:3] for user_id in item.user_ids]
        assert ask(client, window(FIRST, NOW, user_ids=users)) == sum(counts)


@pytest.mark.parametrize(
    ("semantics", "statuses"), [("union", [404, 404]), ("last", [404, 200]), ("first", [200, 404])]
)
def test_an_organization_that_is_not_counted_need_not_exist(semantics: Any, statuses: list[int]) -> None:
    with (
        Sandbox(org_ids_semantics=semantics, unknown_organization="not_found") as sandbox,
        client_of(sandbox) as client,
    ):
        known = sandbox.organizations[0].org_id
        orders = ([known, "org-0"], ["org-0", known])
        assert [client.get(SESSIONS_PATH, params={"org_ids": org_ids}).status_code for org_ids in orders] == statuses


def test_beyond_the_rate_limit_requests_are_refused_until_the_next_second() -> None:
    now = [100.0]
    with Sandbox(rate_limit=3, monotonic=lambda: now[0]) as sandbox, client_of(sandbox) as client:

        def statuses(count: int) -> list[int]:
            return [client.get(SESSIONS_PATH).status_code for _ in range(count)]

        assert statuses(5) == [200, 200, 200, 429, 429]
        now[0] = 100.99
        answer = client.get(ORGANIZATIONS_PATH)
        assert (answer.status_code, answer.json()) == (429, {"detail": "Too many requests"})
        assert answer.headers["retry-after"] == "1"
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
        now[0] = 101.0
        assert statuses(4) == [200, 200, 200, 429]
        now[0] = 160.5
        assert statuses(1) == [200]
        assert [asked.status for asked in sandbox.requests].count(429) == 4


def test_only_requests_with_a_valid_key_use_up_the_rate_limit() -> None:
    with Sandbox(rate_limit=2, monotonic=lambda: 0.5) as sandbox, client_of(sandbox) as client:
        with client_of(sandbox, "apk_user_other") as stranger:
            assert [stranger.get(SESSIONS_PATH).status_code for _ in range(4)] == [401] * 4
        assert client.get("/elsewhere").status_code == 404
        assert client.get(SESSIONS_PATH, params={"start_date": "yesterday"}).status_code == 422
        assert [client.get(SESSIONS_PATH).status_code for _ in range(2)] == [200, 429]


def test_every_response_can_report_the_rate_limit_and_what_is_left_of_it() -> None:
    with (
        Sandbox(rate_limit=3, rate_limit_headers=True, monotonic=lambda: 0.0) as sandbox,
        client_of(sandbox) as client,
    ):
        sandbox.fail(status=503, when=lambda asked: asked.path == ORGANIZATIONS_PATH)
        answers = [
            client.get(SESSIONS_PATH),
            client.get(SESSIONS_PATH, params={"end": "never"}),
            *(client.get(ORGANIZATIONS_PATH) for _ in range(2)),
        ]
        assert [answer.status_code for answer in answers] == [200, 422, 503, 429]
        assert [answer.headers["X-RateLimit-Limit"] for answer in answers] == ["3"] * 4
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]


def test_without_a_rate_limit_no_request_is_refused_and_no_header_is_sent(client: httpx.Client) -> None:
    answers = [client.get(SESSIONS_PATH) for _ in range(60)]
    assert {answer.status_code for answer in answers} == {200}
    assert not [name for name in answers[-1].headers if name.startswith("x-ratelimit")]
