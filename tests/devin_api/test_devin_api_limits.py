"""What the API says about its rate limit in headers is believed before it refuses a request."""

import asyncio
from datetime import UTC, datetime

import httpx
import pytest

from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.limit_headers import seconds_until_reset
from tests.support.client import END, START, api, count_body, using
from tests.support.http import http, raw

DATE = "Fri, 28 Nov 2025 12:00:00 GMT"
AT = int(datetime(2025, 11, 28, 12, tzinfo=UTC).timestamp())

EXHAUSTED = {
    "draft 03": (30.0, {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "0", "RateLimit-Reset": "30"}),
    "draft 07": (50.0, {"RateLimit": "limit=100, remaining=0, reset=50"}),
    "structured": (20.0, {"RateLimit": '"default";r=0;t=20', "RateLimit-Policy": '"default";q=100;w=60'}),
    "structured, the longest": (9.0, {"RateLimit": '"burst";r=0;t=2, "hour";r=0;t=9;pk=:cHI=:, "day";r=7;t=99'}),
    "structured, with a comma in its name": (4.0, {"RateLimit": '"a, b";r=0;t=4'}),
    "structured, without a time": (60.0, {"RateLimit": '"default";r=0', "RateLimit-Policy": '"default";q=100;w=60'}),
    "seconds": (12.5, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "12.5"}),
    "epoch": (42.0, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{AT + 42}"}),
    "epoch in milliseconds": (42.5, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{AT * 1000 + 42_500}"}),
    "hyphens": (3.0, {"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "3"}),
    "a date": (60.0, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "Fri, 28 Nov 2025 12:01:00 GMT"}),
}


@pytest.mark.parametrize(("seconds", "headers"), EXHAUSTED.values(), ids=EXHAUSTED)
def test_each_form_says_how_long_nothing_remains(seconds: float, headers: dict[str, str]) -> None:
    assert seconds_until_reset(httpx.Headers({"Date": DATE, **headers})) == pytest.approx(seconds)
    left = {name: value.replace("=0", "=1").replace("r=0", "r=1") for name, value in headers.items()}
    left = {name: "1" if name.endswith("Remaining") else value for name, value in left.items()}
    assert seconds_until_reset(httpx.Headers({"Date": DATE, **left})) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "0"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"},
        {"X-RateLimit-Remaining": "none", "X-RateLimit-Reset": "9"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{AT - 5}"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "-1"},
        {"X-RateLimit-Remaining": "0, 9", "X-RateLimit-Reset": "nan"},
        {"RateLimit": '"default";r=0'},
        {"RateLimit": '"default";r=;t=5'},
        {"RateLimit": '"default;r=0;t=5'},
        {"RateLimit": "remaining, reset=9, =, ;;"},
        {"RateLimit": "limit=1, remaining=0"},
        {"X-RateLimit-Reset": "60"},
    ],
    ids=repr,
)
def test_what_can_not_be_read_stops_nobody(headers: dict[str, str]) -> None:
    assert seconds_until_reset(httpx.Headers({"Date": DATE, **headers})) is None


def test_all_requests_wait_for_the_reset_and_none_is_refused() -> None:
    last = http(count_body(1), "200 OK", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 0.5")
    answer = http(count_body(1), "200 OK", "X-RateLimit-Remaining: 5", "X-RateLimit-Reset: 0.5")
    calls = Calls()

    async def ask(client: DevinClient) -> float:
        await client.count(START, END)
        exhausted_at = asyncio.get_running_loop().time()
        await asyncio.gather(*(client.count(START, END) for _ in range(4)))
        return asyncio.get_running_loop().time() - exhausted_at

    with raw(last, answer) as server:
        assert using(api(server.url, patience_seconds=30), ask, calls) >= 0.4
    assert calls.outcomes == {"200": 5}
    assert calls.waited >= 0.4


def test_a_reset_beyond_patience_is_left_to_a_refusal() -> None:
    distant = http(count_body(7), "200 OK", "RateLimit-Remaining: 0", "RateLimit-Reset: 40000")
    with raw(distant) as server:
        assert using(api(server.url, patience_seconds=30), _two_counts) == [7, 7]


async def _two_counts(client: DevinClient) -> list[int]:
    return [await client.count(START, END) for _ in range(2)]
