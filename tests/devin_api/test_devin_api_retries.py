"""The client retries transient failures, and waits as long as the API asks. Over real HTTP."""

import asyncio
import email.utils
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.devin_errors import Rejected, SourceDown, Unavailable
from resources.sandbox.server import Sandbox
from tests.support.client import END, SAFETY_SECONDS, START, api, count, count_body, using
from tests.support.http import Send, http, raw

TRANSIENT: dict[str, dict[str, Any]] = {
    **{str(status): {"status": status} for status in (408, 429, 500, 502, 503, 504)},
    "dropped connection": {"drop": True},
    "truncated body": {"truncate": True},
    "web page": {"body": b"<html>Sign in</html>", "content_type": "text/html"},
    "empty body": {"body": b""},
    "half a JSON": {"body": b'{"sessions_count": 1'},
    "two JSONs": {"body": b'{"sessions_count": 1}{"sessions_count": 1}'},
    "number too long to read": {"body": b'{"sessions_count": ' + b"9" * 10_000 + b"}"},
    "JSON too deep to read": {"body": b'{"sessions_count": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"},
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_transient_failure_costs_one_more_request(sandbox: Sandbox, fault: dict[str, Any]) -> None:
    calls = Calls()
    org_id = sandbox.organizations[0].org_id
    sandbox.fail(**fault)
    assert count(api(sandbox.url), calls, org_ids=[org_id]) == sandbox.truth(START, END, [org_id]) > 0
    assert len(sandbox.requests) == 2
    assert len(set(asked.params for asked in sandbox.requests)) == 1
    assert calls == Calls(sent=2, retried=1)


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_permanent_failure_is_given_up_after_the_allowed_tries(sandbox: Sandbox, fault: dict[str, Any]) -> None:
    calls = Calls()
    sandbox.fail(**fault, org_id="org-7", times=None)

    async def ask(client: DevinClient) -> None:
        await client.count(START, END)
        with pytest.raises(Unavailable) as refused:
            await client.count(START, END, org_ids=["org-7"])
        message = str(refused.value)
        assert "organization org-7 from 2025-03-03T00:00:00Z to 2025-03-04T00:00:00Z" in message
        assert "after 3 tries" in message

    using(api(sandbox.url, max_tries=3), ask, calls)
    assert [asked.org_ids for asked in sandbox.requests].count(("org-7",)) == 3
    # After each failed retry, a request that was answered before shows whether the API is down.
    assert calls == Calls(sent=6, retried=4)


def test_a_dropped_keep_alive_connection_costs_one_more_request(sandbox: Sandbox) -> None:
    calls = Calls()

    async def ask(client: DevinClient) -> None:
        await client.count(START, END)
        sandbox.fail(drop=True)
        assert await client.count(START, END) == sandbox.truth(START, END)

    using(api(sandbox.url), ask, calls)
    assert [asked.status for asked in sandbox.requests] == [200, None, 200]
    assert calls == Calls(sent=3, retried=1)


def test_a_response_that_does_not_come_in_time_is_retried(sandbox: Sandbox) -> None:
    calls = Calls()
    sandbox.fail(delay=SAFETY_SECONDS)
    assert count(api(sandbox.url, timeout_seconds=1), calls) == sandbox.truth(START, END)
    assert len(sandbox.requests) == 2
    assert calls == Calls(sent=2, retried=1)


def test_a_response_that_trickles_in_forever_times_out_although_no_single_byte_is_late() -> None:
    def drip(head: bytes, send: Send) -> None:
        send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            send(b" ")
            time.sleep(0.01)  # a trickle, not a flood

    with raw(drip) as server, pytest.raises(SourceDown, match=r"no complete response within 0\.2 s"):
        count(api(server.url, timeout_seconds=0.2, max_tries=2))
    assert server.connections == 2


def test_an_api_that_refuses_connections_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    calls = Calls()
    with pytest.raises(SourceDown, match=r"the connection failed: .*no request succeeded for"):
        count(api(url, max_tries=3), calls)
    assert calls == Calls(sent=2, retried=1)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        http(b"not gzip", "200 OK", "Content-Encoding: gzip", "Connection: close"),
    ],
)
def test_a_response_that_is_not_http_is_not_accepted(answer: bytes) -> None:
    def once(head: bytes, send: Send) -> None:
        send(answer)
        raise ConnectionError("closed after one answer")

    with raw(once) as server, pytest.raises(SourceDown):
        count(api(server.url, max_tries=2))
    assert len(server.requests) == 2


def test_a_failure_of_one_request_does_not_affect_the_others_in_flight(sandbox: Sandbox) -> None:
    sandbox.fail(status=404, org_id="org-broken", times=None)
    org_ids = [o.org_id for o in sandbox.organizations]

    async def ask(client: DevinClient) -> list[int | BaseException]:
        asked = [client.count(START, END, org_ids=[org_id]) for org_id in ["org-broken", *org_ids]]
        return await asyncio.gather(*asked, return_exceptions=True)

    broken, *counts = using(api(sandbox.url), ask)
    assert isinstance(broken, Rejected)
    assert counts == [sandbox.truth(START, END, [org_id]) for org_id in org_ids]


# The pause that the API asks for


def http_date(after: timedelta) -> str:
    return email.utils.format_datetime(datetime.now(UTC) + after, usegmt=True)


@pytest.mark.parametrize("wanted", ["0", http_date(-timedelta(days=1))], ids=["in seconds", "as a date"])
def test_without_a_pause_to_wait_for_the_retry_is_immediate(sandbox: Sandbox, wanted: str) -> None:
    sandbox.fail(retry_after=wanted)
    count(api(sandbox.url, backoff_seconds=3600, max_backoff_seconds=3600))
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "soon",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "0x10",
        "Wed, 99 Foo 2099 00:00:00 GMT",
        "Wed, 21 Oct 99999999999 07:28:00 GMT",
        "Wed, 21 Oct 2099 99999999999999999999:28:00 GMT",
        "\u00ff",
    ],
)
def test_an_invalid_retry_after_is_ignored(wanted: str) -> None:
    refusal = http(b"", "429 Too Many Requests", f"Retry-After: {wanted}")
    with raw(refusal, http(count_body(4))) as server:
        assert count(api(server.url)) == 4
    assert len(server.requests) == 2
