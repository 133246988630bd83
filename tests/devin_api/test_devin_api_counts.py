"""The client requests exactly the right counts, also from synchronous code. Over real HTTP."""

import asyncio
import threading
from datetime import datetime

import pytest

from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.support.client import BERLIN, END, SAFETY_SECONDS, START, api, count, count_body, organizations, using
from tests.support.http import Send, http, raw

# One request


def test_a_count_sends_both_bounds_in_utc_and_each_id_as_its_own_parameter(sandbox: Sandbox) -> None:
    count(api(sandbox.url), org_ids=["org-b", "org-a"], user_ids=["user-2", "user-1"])
    (asked,) = sandbox.requests
    assert asked.path == SESSIONS_PATH
    assert asked.params == (
        ("start_date", "2025-03-03T00:00:00Z"),
        ("end_date", "2025-03-04T00:00:00Z"),
        ("org_ids", "org-b"),
        ("org_ids", "org-a"),
        ("user_ids", "user-2"),
        ("user_ids", "user-1"),
    )


def test_empty_filters_are_left_out(sandbox: Sandbox) -> None:
    count(api(sandbox.url), org_ids=[], user_ids=[])
    assert sandbox.requests[0].params == (("start_date", "2025-03-03T00:00:00Z"), ("end_date", "2025-03-04T00:00:00Z"))


def test_a_window_in_another_zone_is_sent_in_utc_to_the_microsecond(sandbox: Sandbox) -> None:
    start = datetime(2025, 3, 29, 23, 59, 59, 123_456, tzinfo=BERLIN)
    end = datetime(2025, 3, 31, 0, 0, 0, 1, tzinfo=BERLIN)
    assert count(api(sandbox.url), start=start, end=end) == sandbox.truth(start, end) > 0
    assert dict(sandbox.requests[0].params) == {
        "start_date": "2025-03-29T22:59:59.123456Z",
        "end_date": "2025-03-30T22:00:00.000001Z",
    }


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (START.replace(tzinfo=None), END),
        (START, END.replace(tzinfo=None)),
        (START.replace(tzinfo=None), END.replace(tzinfo=None)),
        (START, START),
        (END, START),
        # Reversed in time, though not on the clock: this hour repeats when summer time ends.
        (datetime(2025, 10, 26, 2, 15, tzinfo=BERLIN, fold=1), datetime(2025, 10, 26, 2, 45, tzinfo=BERLIN)),
    ],
    ids=["start naive", "end naive", "both naive", "empty", "reversed", "reversed by the clock change"],
)
def test_an_invalid_window_is_refused_before_anything_is_sent(sandbox: Sandbox, start: datetime, end: datetime) -> None:
    calls = Calls()
    with pytest.raises(ValueError, match="not a window of aware datetimes"):
        count(api(sandbox.url), calls, start=start, end=end)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


def test_the_hour_that_is_repeated_when_summer_time_ends_is_a_window(sandbox: Sandbox) -> None:
    start = datetime(2025, 10, 26, 2, 0, tzinfo=BERLIN)
    count(api(sandbox.url), start=start, end=start.replace(fold=1))
    assert dict(sandbox.requests[0].params) == {
        "start_date": "2025-10-26T00:00:00Z",
        "end_date": "2025-10-26T01:00:00Z",
    }


def test_counts_are_those_of_the_api(sandbox: Sandbox) -> None:
    first, second, third = sandbox.organizations[:3]
    user_ids = list(first.user_ids[:1])
    both = [first.org_id, second.org_id]

    async def ask(client: DevinClient) -> list[int]:
        return [
            await client.count(START, END),
            await client.count(START, END, org_ids=both),
            await client.count(START, END, org_ids=[third.org_id]),
            await client.count(START, END, user_ids=user_ids),
            await client.count(START, END, org_ids=both, user_ids=user_ids),
        ]

    assert using(api(sandbox.url), ask) == [
        sandbox.truth(START, END),
        sandbox.truth(START, END, both),
        sandbox.truth(START, END, [third.org_id]),
        sandbox.truth(START, END, user_ids=user_ids),
        sandbox.truth(START, END, both, user_ids),
    ]
    assert sandbox.truth(START, END) > sandbox.truth(START, END, both) > sandbox.truth(START, END, both, user_ids) > 0


def test_concurrent_requests_share_the_allowed_connections() -> None:
    both_connections_in_use = threading.Barrier(2)

    def answer(head: bytes, send: Send) -> None:
        both_connections_in_use.wait(SAFETY_SECONDS)
        send(http(count_body(3)))

    async def ask(client: DevinClient) -> list[int]:
        return await asyncio.gather(*(client.count(START, END) for _ in range(8)))

    with raw(answer) as server:
        assert using(api(server.url, max_connections=2), ask) == [3] * 8
    assert server.connections == 2


def test_calls_counts_every_request_and_every_retry(sandbox: Sandbox) -> None:
    calls = Calls()
    sandbox.fail(status=503, times=2)
    count(api(sandbox.url, patience_seconds=SAFETY_SECONDS), calls)
    assert calls == Calls(sent=3, retried=2)
    organizations(api(sandbox.url), calls)
    assert calls == Calls(sent=4, retried=2)


# From synchronous code


def test_synchronous_code_makes_requests_through_a_portal(sandbox: Sandbox) -> None:
    calls = Calls()
    with api(sandbox.url).connected(calls) as (client, portal):
        asking = portal.start_task_soon(client.count, START, END)
        listing = portal.start_task_soon(client.organizations)
        assert asking.result(SAFETY_SECONDS) == sandbox.truth(START, END)
        assert [o.org_id for o in listing.result(SAFETY_SECONDS).items] == [o.org_id for o in sandbox.organizations]
    assert calls == Calls(sent=2, retried=0)


def test_an_interrupt_of_the_calling_thread_cancels_requests_in_flight(sandbox: Sandbox) -> None:
    arrived = threading.Event()

    def note(asked: LoggedRequest) -> bool:
        arrived.set()
        return True

    sandbox.fail(delay=SAFETY_SECONDS, when=note)
    with (
        pytest.raises(KeyboardInterrupt),
        api(sandbox.url, timeout_seconds=SAFETY_SECONDS).connected(Calls()) as (client, portal),
    ):
        asking = portal.start_task_soon(client.count, START, END)
        assert arrived.wait(SAFETY_SECONDS)
        raise KeyboardInterrupt
    # Cancelled, or failed because its client was closed: either may come first.
    assert asking.cancelled() or isinstance(asking.exception(timeout=0), RuntimeError)
