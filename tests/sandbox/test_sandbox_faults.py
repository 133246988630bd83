"""The sandbox fails as configured, and then returns the truth again. All requests are real HTTP."""

import json
import time
from datetime import datetime, timedelta

import httpx
import pytest

from resources.sandbox.contract import ORGANIZATIONS_PATH, SESSIONS_PATH
from resources.sandbox.server import Sandbox
from tests.support.sandbox import FIRST, MICROSECOND, NOW, ask, client_of, window


def test_a_status_is_returned_as_often_as_configured_and_then_the_truth(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=503, times=2)
    answers = [client.get(SESSIONS_PATH) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
    assert answers[0].json() == {"detail": "Service Unavailable"}
    assert answers[0].headers["content-type"] == "application/json"
    assert fault.hits == 2


def test_a_status_without_a_reason_phrase_can_be_returned_too(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=520)
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.json()) == (520, {"detail": "Error"})


def test_a_fault_strikes_once_by_default(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=500)
    assert [client.get(SESSIONS_PATH).status_code for _ in range(3)] == [500, 200, 200]


def test_a_429_can_say_when_to_retry(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=429, retry_after="2")
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert "retry-after" not in client.get(SESSIONS_PATH).headers


def test_a_body_that_breaks_the_contract_is_sent_as_it_is(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(body=b"<html>", content_type="text/html", status=200)
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (
        200,
        b"<html>",
        "text/html",
    )


def test_a_redirect_has_its_target_as_location(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(redirect_to="https://elsewhere.example/login", status=307)
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://elsewhere.example/login")


def test_a_dropped_request_gets_no_response_and_the_next_one_does(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(drop=True)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        client.get(SESSIONS_PATH)
    assert sandbox.requests[-1].status is None
    assert client.get(SESSIONS_PATH).status_code == 200


def test_a_truncated_response_ends_before_its_content_length(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(truncate=True)
    with client.stream("GET", SESSIONS_PATH) as answer:
        announced = int(answer.headers["content-length"])
        received = bytearray()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            for chunk in answer.iter_raw():
                received += chunk
    assert answer.status_code == 200
    assert 0 < len(received) < announced
    assert received.startswith(b'{"sess')


def test_a_reset_request_ends_with_a_connection_reset(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(reset=True)
    with pytest.raises(httpx.ReadError, match="reset"):
        client.get(SESSIONS_PATH)
    assert sandbox.requests[-1].status is None
    assert client.get(SESSIONS_PATH).status_code == 200


def test_garbage_is_sent_instead_of_http(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(garbage=b"\x16\x03\x01 no HTTP\r\n\r\n")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(SESSIONS_PATH)
    assert sandbox.requests[-1].status is None
    assert client.get(SESSIONS_PATH).status_code == 200


def test_a_dripping_body_is_the_true_one_in_parts(sandbox: Sandbox, client: httpx.Client) -> None:
    truth = ask(client, {})
    fault = sandbox.fail(drip=0.2)
    with client.stream("GET", SESSIONS_PATH) as answer:
        parts = list(answer.iter_raw())
    assert len(parts) > 1
    assert json.loads(b"".join(parts)) == {"sessions_count": truth}
    assert fault.hits == 1


def test_a_lie_replaces_the_truth_and_counts_as_a_hit_only_where_it_differs(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    truth = ask(client, window(FIRST, NOW))
    lie = sandbox.fail(
        rewrite=lambda asked, answer: {"sessions_count": 7} if asked.start == FIRST else answer, times=None
    )
    assert ask(client, window(FIRST, NOW)) == 7
    assert ask(client, window(FIRST + timedelta(days=1), NOW)) != 7
    assert client.get(SESSIONS_PATH, params={"start_date": "nonsense"}).status_code == 422
    assert lie.hits == 1
    sandbox.heal()
    assert ask(client, window(FIRST, NOW)) == truth


def test_a_delayed_response_is_true_and_holds_up_no_other_request(sandbox: Sandbox, client: httpx.Client) -> None:
    truth = ask(client, {})
    sandbox.fail(delay=0.3)
    began = time.perf_counter()
    assert ask(client, {}) == truth
    assert time.perf_counter() - began >= 0.3

    sandbox.fail(delay=30, times=None, when=lambda asked: bool(asked.org_ids))
    org_id = sandbox.organizations[0].org_id
    with pytest.raises(httpx.ReadTimeout):
        client.get(SESSIONS_PATH, params={"org_ids": org_id}, timeout=0.1)
    assert sandbox.requests[-1].org_ids == (org_id,)
    assert ask(client, {}) == truth


def test_a_delayed_failure_fails_after_the_delay(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=502, delay=0.2)
    began = time.perf_counter()
    assert client.get(SESSIONS_PATH).status_code == 502
    assert time.perf_counter() - began >= 0.2


def test_an_endless_body_continues_until_the_client_disconnects(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(endless=True)
    received = 0
    with client.stream("GET", SESSIONS_PATH) as answer:
        assert answer.status_code == 200
        assert "content-length" not in answer.headers
        for chunk in answer.iter_raw():
            received += len(chunk)
            if received > 5_000_000:
                break
    assert received > 5_000_000
    assert client.get(SESSIONS_PATH).status_code == 200


def test_a_fault_strikes_only_the_requests_that_pass_all_its_filters(sandbox: Sandbox, client: httpx.Client) -> None:
    bad, good = (item.org_id for item in sandbox.organizations[:2])
    sandbox.fail(status=500, path=ORGANIZATIONS_PATH, times=None)
    sandbox.fail(status=502, org_id=bad, when=lambda asked: asked.start == FIRST, times=None)

    def status(start: datetime, *org_ids: str) -> int:
        return client.get(SESSIONS_PATH, params=window(start, NOW, org_ids=list(org_ids))).status_code

    assert client.get(ORGANIZATIONS_PATH).status_code == 500
    assert status(FIRST, bad) == status(FIRST, good, bad) == 502
    assert status(FIRST, good) == status(FIRST + MICROSECOND, bad) == status(FIRST) == 200


def test_the_oldest_fault_that_matches_strikes_first(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=500)
    sandbox.fail(status=502)
    assert [client.get(SESSIONS_PATH).status_code for _ in range(3)] == [500, 502, 200]


def test_a_fault_with_a_chance_strikes_the_same_requests_for_the_same_seed() -> None:
    def statuses() -> list[int]:
        with Sandbox(seed=3, organizations=1) as sandbox, client_of(sandbox) as client:
            sandbox.fail(status=503, chance=0.3, times=None)
            return [client.get(SESSIONS_PATH).status_code for _ in range(60)]

    once = statuses()
    assert 5 < once.count(503) < 35
    assert statuses() == once


def test_a_fault_can_be_healed_alone_or_with_all_others(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=500, times=None)
    sandbox.fail(status=502, times=None)
    assert client.get(SESSIONS_PATH).status_code == 500
    fault.heal()
    assert client.get(SESSIONS_PATH).status_code == 502
    sandbox.heal()
    assert client.get(SESSIONS_PATH).status_code == 200


def test_a_fault_spares_requests_that_are_refused_for_their_key(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=503)
    with client_of(sandbox, "apk_user_other") as stranger:
        assert stranger.get(SESSIONS_PATH).status_code == 401
    assert fault.hits == 0
    assert client.get(SESSIONS_PATH, params={"start_date": "yesterday"}).status_code == 503


def test_a_fault_that_would_change_nothing_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="change nothing"):
        sandbox.fail(times=3)
