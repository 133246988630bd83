"""The benchmark's stand-in for the API returns exactly what its world holds, as slowly as configured."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from importlib import import_module
from typing import Any

import httpx
import pytest

from resources.sandbox.contract import SessionsPage
from tests.bench.__main__ import MODULES
from tests.bench.source import KEY, LIST_PATH, LONGEST_REQUEST_LINE, ORGANIZATIONS_PATH, SESSIONS_PATH, Source
from tests.bench.world import World

Params = dict[str, str | list[str]]


def client_of(source: Source, key: str = KEY) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=source.url, headers=headers, trust_env=False, verify=False)


def window(world: World, first: int, after: int, *org_ids: str) -> Params:
    """From the start of day number `first` to the start of day number `after`."""
    start, end = (world.dates[0] + timedelta(number) for number in (first, after))
    return {"start_date": f"{start}T00:00:00Z", "end_date": f"{end}T00:00:00Z", "org_ids": list(org_ids)}


def count(client: httpx.Client, params: Params) -> int:
    answer = client.get(SESSIONS_PATH, params=params)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["sessions_count"]
    number = answer.json()["sessions_count"]
    assert type(number) is int
    return number


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source(World(orgs=7, days=40), latency=0) as it:
        yield it


@pytest.fixture
def client(source: Source) -> Iterator[httpx.Client]:
    source.reset()
    with client_of(source) as it:
        yield it


def test_every_cell_has_the_count_of_the_world(source: Source, client: httpx.Client) -> None:
    world = source.world
    counts = {
        (day, org_id): count(client, window(world, n, n + 1, org_id))
        for n, day in enumerate(world.dates)
        for org_id in world.org_ids
    }
    assert counts == world.cells


@pytest.mark.parametrize(("first", "after"), [(0, 40), (0, 1), (3, 17), (39, 40), (-5, 4), (30, 90), (50, 60)])
def test_a_window_is_the_sum_of_its_days(source: Source, client: httpx.Client, first: int, after: int) -> None:
    world = source.world
    for numbers in ([], [0], [6], [1, 4], [0, 1, 2, 3, 4, 5, 6]):
        rows = [world.counts[n] for n in numbers] if numbers else world.counts
        expected = sum(sum(row[max(first, 0) : after]) for row in rows)
        assert count(client, window(world, first, after, *(world.org_ids[n] for n in numbers))) == expected


def test_an_organization_listed_twice_counts_once(source: Source, client: httpx.Client) -> None:
    busiest = max(source.world.org_ids, key=lambda org_id: count(client, window(source.world, 0, 40, org_id)))
    once = count(client, window(source.world, 0, 40, busiest))
    assert once > 0
    assert count(client, window(source.world, 0, 40, busiest, busiest)) == once


@pytest.mark.parametrize("name", ["start_date", "end_date"])
@pytest.mark.parametrize(
    "value", [None, "2025-01-02T00:00:00", "2025-01-02T05:00:00Z", "2025-01-02T00:00:00+00:00", "x"]
)
def test_only_whole_utc_days_are_accepted(client: httpx.Client, source: Source, name: str, value: str | None) -> None:
    params = window(source.world, 0, 10)
    del params[name]
    if value:
        params[name] = value
    answer = client.get(SESSIONS_PATH, params=params)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", name]


def test_requests_that_the_api_would_refuse_are_refused(source: Source, client: httpx.Client) -> None:
    world = source.world
    assert client.get(SESSIONS_PATH, params=window(world, 4, 4)).status_code == 400
    assert client.get(SESSIONS_PATH, params=window(world, 0, 1, "org-unknown")).status_code == 404
    assert client.get("/v2/enterprise/metrics/prs").status_code == 404
    too_long = world.org_ids[:1] * (LONGEST_REQUEST_LINE // len(world.org_ids[0]))
    assert client.get(SESSIONS_PATH, params=window(world, 0, 1, *too_long)).status_code == 414
    with client_of(source, key="cog_other") as stranger:
        assert stranger.get(SESSIONS_PATH, params=window(world, 0, 1)).status_code == 401


def test_pages_hold_every_organization_once_and_in_order(source: Source, client: httpx.Client) -> None:
    listed: list[str] = []
    has_more = True
    while has_more:
        page = client.get(ORGANIZATIONS_PATH, params={"skip": len(listed), "limit": 3}).json()
        listed += [item["org_id"] for item in page["items"]]
        has_more = page["has_more"]
        assert (page["total"], page["limit"]) == (7, 3)
        assert page["next_cursor"] == (str(len(listed)) if has_more else None)
    assert listed == source.world.org_ids
    assert len(client.get(ORGANIZATIONS_PATH).json()["items"]) == 7
    assert client.get(ORGANIZATIONS_PATH, params={"limit": 201}).status_code == 422


def test_the_list_has_every_session_of_the_window_once_oldest_first() -> None:
    world = World(orgs=7, days=40)
    params = {"created_date_from": "2025-01-04T00:00:00Z", "created_date_to": "2025-02-03T00:00:00Z"}
    with Source(world, latency=0, lists_sessions=True) as source, client_of(source) as client:
        items: list[dict[str, Any]] = []
        has_more = True
        while has_more:
            answer = client.get(LIST_PATH, params={**params, "skip": str(len(items)), "limit": "35"})
            page = SessionsPage.model_validate(answer.json())
            has_more = page.has_more
            items += answer.json()["items"]
            assert page.next_cursor == (len(items) if has_more else None)
        assert page.total == len(items) == len({item["session_id"] for item in items}) > 100
        moments = [item["created_at"] for item in items]
        assert moments == sorted(moments)
        listed = Counter((date.fromisoformat(item["created_at"][:10]), item["org_id"]) for item in items)
        in_window = {cell: n for cell, n in world.cells.items() if world.dates[3] <= cell[0] < world.dates[33]}
        assert listed == Counter(in_window)
        assert client.get(LIST_PATH, params={**params, "limit": "201"}).status_code == 422
        assert client.get(LIST_PATH, params={**params, "org_ids": world.org_ids[0]}).status_code == 422
        assert client.get(LIST_PATH).status_code == 422
        seen = source.counters()
        assert (seen.list_calls, seen.calls, seen.session_calls) == (math.ceil(len(items) / 35) + 3,) * 2 + (0,)
        assert seen.first_at > 0


def test_without_a_list_its_path_does_not_exist(client: httpx.Client) -> None:
    assert client.get(LIST_PATH).status_code == 404


def test_the_counters_count_requests_and_repeats(source: Source, client: httpx.Client) -> None:
    before = time.monotonic()
    for params in (window(source.world, 0, 1), window(source.world, 0, 2), window(source.world, 0, 1)):
        count(client, params)
    client.get(ORGANIZATIONS_PATH)
    seen = source.counters()
    assert (seen.session_calls, seen.organization_calls, seen.calls, seen.refused) == (3, 1, 4, 0)
    assert seen.repeated == 1
    assert before <= seen.first_at < seen.last_at <= time.monotonic()
    assert source.wait_for_calls(4, timeout=10)
    assert not source.wait_for_calls(5, timeout=0.05)
    source.reset()
    assert source.counters().calls == 0


def test_requests_over_the_limit_get_429_and_retry_after_until_a_second_has_passed() -> None:
    with Source(World(orgs=2, days=3), latency=0, limit=20) as source, client_of(source) as client:
        params = window(source.world, 0, 1)
        answers = [client.get(SESSIONS_PATH, params=params) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        # If this machine stalls for a second, more than 20 get through before the first refusal.
        while answers[-1].status_code == 200 and len(answers) < 1000:
            answers.append(client.get(SESSIONS_PATH, params=params))
        assert answers[-1].status_code == 429
        assert answers[-1].headers["retry-after"] == "1"
        assert answers[-1].json() == {"detail": "Too many requests"}
        assert source.counters().refused == 1
        time.sleep(1)  # as Retry-After asks
        assert count(client, params) == sum(row[0] for row in source.world.counts)


def test_every_response_is_delayed_by_the_latency() -> None:
    with Source(World(orgs=2, days=3), latency=0.2) as source, client_of(source) as client:
        began = time.monotonic()
        count(client, window(source.world, 0, 1))
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("nonzero", [1 / 3, 1 / 8])
def test_the_requested_share_of_cells_has_sessions(nonzero: float) -> None:
    world = World(orgs=60, days=365, nonzero=nonzero)
    assert sum(count > 0 for count in world.cells.values()) / len(world.cells) == pytest.approx(nonzero, rel=0.05)
    assert World(orgs=60, days=365, nonzero=nonzero).counts == world.counts


def test_every_measurement_is_a_function_of_its_module() -> None:
    for name, module in MODULES.items():
        assert callable(getattr(import_module(f"tests.bench.{module}"), name))
