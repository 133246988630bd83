"""The sandbox keeps the published contract, counts exactly, and fails as it is told. Asked over real HTTP.

v2 of the API, and what both versions share. What only v3 has is in `test_sandbox_v3`.
"""

import copy
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.sandbox.asked import Asked
from resources.sandbox.contract import MEMBERS_PATH, ORGANIZATIONS_PATH, SESSIONS_PATH, Version
from resources.sandbox.server import Sandbox

KEY = "apk_user_sandbox"
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 7, 16, 13, 45, 30, 250_000, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CONTRACTS = Path(__file__).parent / "contract"
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


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[Sandbox, httpx.Client]]:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        yield sandbox, client


@pytest.fixture
def sandbox(serving: tuple[Sandbox, httpx.Client]) -> Iterator[Sandbox]:
    yield serving[0]
    serving[0].heal()
    serving[0].requests.clear()


@pytest.fixture
def client(serving: tuple[Sandbox, httpx.Client]) -> httpx.Client:
    return serving[1]


@pytest.fixture
def sandbox_to_change() -> Iterator[tuple[Sandbox, httpx.Client]]:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        yield sandbox, client


# Counts

moments = st.timedeltas(timedelta(0), timedelta(days=240)).map(lambda after: FIRST + after)
few = settings(max_examples=25, deadline=None)


@few
@given(st.lists(moments, min_size=3, max_size=3, unique=True).map(sorted))
def test_adjacent_windows_add_up_to_the_window_that_spans_them(
    serving: tuple[Sandbox, httpx.Client], three: list[datetime]
) -> None:
    sandbox, client = serving
    start, middle, end = three
    whole = ask(client, window(start, end))
    assert whole == ask(client, window(start, middle)) + ask(client, window(middle, end))
    assert whole == sandbox.truth(start, end)


@few
@given(st.lists(moments, min_size=2, max_size=2, unique=True).map(sorted), st.data())
def test_organizations_and_users_add_up_to_the_count_without_a_filter(
    serving: tuple[Sandbox, httpx.Client], two: list[datetime], data: st.DataObject
) -> None:
    sandbox, client = serving
    start, end = two
    org_ids = [item.org_id for item in sandbox.organizations]
    by_org = [ask(client, window(start, end, org_ids=[org_id])) for org_id in org_ids]
    assert sum(by_org) == ask(client, window(start, end))
    some = data.draw(st.lists(st.sampled_from(org_ids), min_size=1))
    assert ask(client, window(start, end, org_ids=some)) == sum(by_org[org_ids.index(i)] for i in set(some))
    rank = data.draw(st.integers(0, len(org_ids) - 1))
    users = sandbox.organizations[rank].user_ids
    by_user = [ask(client, window(start, end, user_ids=[user_id])) for user_id in users]
    assert sum(by_user) == by_org[rank] == ask(client, window(start, end, user_ids=list(users)))
    assert by_user[0] == sandbox.truth(start, end, [org_ids[rank]], [users[0]])


def test_a_user_is_counted_only_in_the_organizations_asked_for(sandbox: Sandbox, client: httpx.Client) -> None:
    first, second = sandbox.organizations[:2]
    params = window(FIRST, NOW, user_ids=[first.user_ids[0]])
    assert ask(client, {**params, "org_ids": first.org_id}) == ask(client, params) > 0
    assert ask(client, {**params, "org_ids": second.org_id}) == 0


def test_a_session_belongs_to_the_window_that_starts_with_it_not_to_the_one_that_ends_with_it(
    sandbox_to_change: tuple[Sandbox, httpx.Client],
) -> None:
    sandbox, client = sandbox_to_change
    org_id = sandbox.organizations[0].org_id
    for at in (datetime(2025, 3, 4, tzinfo=UTC), datetime(2025, 3, 4, 10, 20, 30, 123_456, tzinfo=UTC)):
        ends = window(at - timedelta(hours=1), at, org_ids=[org_id])
        starts = window(at, at + MICROSECOND, org_ids=[org_id])
        before = ask(client, ends), ask(client, starts)
        sandbox.add_sessions(org_id, at, count=3)
        assert (ask(client, ends), ask(client, starts)) == (before[0], before[1] + 3)


def test_an_inclusive_end_counts_the_sessions_of_its_last_instant() -> None:
    at = datetime(2025, 3, 4, tzinfo=UTC)
    with Sandbox(end_is_inclusive=True, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        org_id = sandbox.organizations[0].org_id
        params = window(at - timedelta(hours=1), at, org_ids=[org_id])
        before = ask(client, params)
        sandbox.add_sessions(org_id, at, count=3)
        assert ask(client, params) == before + 3
        assert sandbox.truth(at - timedelta(hours=1), at, [org_id]) == before
        assert ask(client, window(at, datetime.max.replace(tzinfo=UTC))) > 0


def test_no_session_is_later_than_the_clock() -> None:
    clock = [NOW]
    with Sandbox(clock=lambda: clock[0]) as sandbox, client_of(sandbox) as client:
        later = NOW + timedelta(days=7)
        until_now = ask(client, window(FIRST, NOW))
        assert until_now == ask(client, window(FIRST, later)) == sandbox.truth(FIRST, later)
        assert ask(client, window(NOW, later)) == 0
        clock[0] = later
        assert ask(client, window(FIRST, later)) > until_now


def test_a_later_change_at_the_source_shows_in_every_window_that_holds_it(
    sandbox_to_change: tuple[Sandbox, httpx.Client],
) -> None:
    sandbox, client = sandbox_to_change
    item = sandbox.organizations[3]
    at = datetime(2025, 2, 5, 12, tzinfo=UTC)
    day = at.replace(hour=0), at.replace(hour=0) + timedelta(days=1)
    all_year, in_day = ask(client, window(FIRST, NOW)), ask(client, window(*day, org_ids=[item.org_id]))
    by_user = ask(client, window(*day, user_ids=[item.user_ids[1]]))

    sandbox.add_sessions(item.org_id, at, count=5, user_id=item.user_ids[1])
    assert ask(client, window(FIRST, NOW)) == all_year + 5
    assert ask(client, window(*day, org_ids=[item.org_id])) == in_day + 5
    assert ask(client, window(*day, user_ids=[item.user_ids[1]])) == by_user + 5

    assert sandbox.remove_sessions(item.org_id, *day) == in_day + 5
    assert ask(client, window(*day, org_ids=[item.org_id])) == 0
    assert ask(client, window(FIRST, NOW)) == all_year - in_day


def test_sessions_of_an_organization_that_is_not_listed_count_in_the_total_only(
    sandbox_to_change: tuple[Sandbox, httpx.Client],
) -> None:
    sandbox, client = sandbox_to_change
    listed = [item.org_id for item in sandbox.organizations]
    before = ask(client, window(FIRST, NOW))
    sandbox.add_sessions("org-unlisted", datetime(2025, 2, 5, tzinfo=UTC), count=4)
    assert ask(client, window(FIRST, NOW)) == before + 4
    assert ask(client, window(FIRST, NOW, org_ids=listed)) == before
    assert ask(client, window(FIRST, NOW, org_ids=["org-unlisted"])) == 4
    page = client.get(ORGANIZATIONS_PATH).json()
    assert [item["org_id"] for item in page["items"]] == listed


def test_sessions_before_the_first_day_are_refused() -> None:
    sandbox = Sandbox(clock=lambda: NOW)
    with pytest.raises(ValueError, match="no sessions before 2025-01-01"):
        sandbox.add_sessions(sandbox.organizations[0].org_id, FIRST - MICROSECOND)


# Shape


def cells(sandbox: Sandbox, days: int = 90) -> dict[str, list[int]]:
    starts = [FIRST + timedelta(days=day) for day in range(days)]
    return {
        item.org_id: [sandbox.truth(start, start + timedelta(days=1), [item.org_id]) for start in starts]
        for item in sandbox.organizations
    }


def test_a_few_organizations_are_busy_many_are_quiet_and_weekends_are_slow() -> None:
    counts = cells(Sandbox(clock=lambda: NOW))
    totals = sorted((sum(row) for row in counts.values()), reverse=True)
    assert sum(totals[:3]) > 0.6 * sum(totals)
    assert sum(total <= 3 * 90 for total in totals) >= 5
    weekdays = [day for day in range(90) if (FIRST + timedelta(days=day)).weekday() < 5]
    busiest = max(counts.values(), key=sum)
    assert 60 < sum(busiest[day] for day in weekdays) / len(weekdays) < 160
    weekend = [busiest[day] for day in range(90) if day not in weekdays]
    assert sum(weekend) / len(weekend) < 0.2 * sum(busiest) / 90
    every = [count for row in counts.values() for count in row]
    assert 0.33 < every.count(0) / len(every) < 0.5


def test_sessions_follow_working_hours() -> None:
    sandbox = Sandbox(clock=lambda: NOW)
    busiest = sandbox.organizations[0].org_id
    hours = [0] * 24
    for number in range(24 * 60):
        start = FIRST + timedelta(hours=number)
        hours[start.hour] += sandbox.truth(start, start + timedelta(hours=1), [busiest])
    assert sum(sorted(hours)[:8]) < 0.1 * sum(hours)


def test_some_organizations_start_late_and_some_stop() -> None:
    sandbox = Sandbox(clock=lambda: NOW)
    late = [item for item in sandbox.organizations if item.active_from > date(2025, 1, 1)]
    stopped = [item for item in sandbox.organizations if item.active_until is not None]
    assert late
    assert stopped
    for item in late:
        begins = datetime(item.active_from.year, item.active_from.month, item.active_from.day, tzinfo=UTC)
        assert sandbox.truth(FIRST, begins, [item.org_id]) == 0
    for item in stopped:
        assert item.active_until is not None
        ends = datetime(item.active_until.year, item.active_until.month, item.active_until.day, tzinfo=UTC)
        assert sandbox.truth(ends, NOW, [item.org_id]) == 0
        assert sandbox.truth(FIRST, ends, [item.org_id]) > 0


def test_an_organization_is_created_before_its_first_session_and_one_has_no_creation_time() -> None:
    sandbox = Sandbox(clock=lambda: NOW)
    created = [item.created_at for item in sandbox.organizations]
    assert None in created
    assert max(moment for moment in created if moment) > FIRST
    for item in sandbox.organizations:
        if item.created_at is not None and item.created_at > FIRST:
            assert sandbox.truth(FIRST, item.created_at, [item.org_id]) == 0
            assert sandbox.truth(item.created_at, NOW, [item.org_id]) > 0


def test_organizations_have_distinct_ids_and_names_that_need_quoting() -> None:
    items = Sandbox(organizations=40).organizations
    assert len({item.org_id for item in items}) == len({item.org_name for item in items}) == 40
    assert all(len(item.org_id) == 36 and int(item.org_id.removeprefix("org-"), 16) for item in items)
    names = "".join(item.org_name for item in items[:12])
    assert "'" in names
    assert "&" in names
    assert not names.isascii()


def test_the_same_seed_gives_the_same_sessions_in_whatever_order_they_are_asked_for() -> None:
    one, again, other = (Sandbox(seed=seed, clock=lambda: NOW) for seed in (7, 7, 8))
    assert one.organizations == again.organizations
    assert {item.org_id for item in one.organizations}.isdisjoint(item.org_id for item in other.organizations)
    starts = [FIRST + timedelta(hours=6 * number) for number in range(4 * 100)]
    forward = {start: one.truth(start, start + timedelta(hours=6)) for start in starts}
    random.Random(1).shuffle(starts)
    assert forward == {start: again.truth(start, start + timedelta(hours=6)) for start in starts}
    assert list(cells(one).values()) != list(cells(other).values())


def test_two_years_are_made_in_about_a_second_and_a_request_takes_about_a_millisecond() -> None:
    began = time.perf_counter()
    with Sandbox() as sandbox, client_of(sandbox) as client:
        span = window(FIRST, FIRST + timedelta(days=680, hours=7))
        ask(client, span)
        made = time.perf_counter()
        for _ in range(50):
            ask(client, span)
        asked = time.perf_counter()
    assert made - began < 3
    assert (asked - made) / 50 < 0.02


# Parameters


def test_start_and_end_mean_the_same_as_start_date_and_end_date(client: httpx.Client) -> None:
    start, end = datetime(2025, 2, 3, 8, tzinfo=UTC), datetime(2025, 2, 9, 8, tzinfo=UTC)
    count = ask(client, window(start, end))
    assert count > 0
    assert ask(client, {"start": text(start), "end": text(end)}) == count


@pytest.mark.parametrize("pair", [("start_date", "end"), ("end_date", "start"), ("start_date", "start")])
def test_both_pairs_together_are_refused(client: httpx.Client, pair: tuple[str, str]) -> None:
    answer = client.get(SESSIONS_PATH, params={name: text(FIRST) for name in pair})
    assert answer.status_code == 400
    assert "both pairs" in answer.json()["detail"]


@pytest.mark.parametrize("length", [timedelta(0), -MICROSECOND])
def test_an_end_that_is_not_after_the_start_is_refused(client: httpx.Client, length: timedelta) -> None:
    answer = client.get(SESSIONS_PATH, params=window(NOW, NOW + length))
    assert answer.status_code == 400
    assert answer.json() == {"detail": "The end must be later than the start"}


def test_omitted_bounds_mean_the_billing_cycle_until_now(sandbox: Sandbox, client: httpx.Client) -> None:
    cycle = datetime(2025, 7, 1, tzinfo=UTC)
    so_far = sandbox.truth(cycle, NOW)
    assert ask(client, {}) == so_far > 0
    early = datetime(2025, 7, 8, tzinfo=UTC)
    assert ask(client, {"end_date": text(early)}) == sandbox.truth(cycle, early) < so_far
    assert ask(client, {"start_date": text(FIRST)}) == sandbox.truth(FIRST, NOW) > so_far


def test_a_misspelt_parameter_is_ignored_and_gives_the_billing_cycle(client: httpx.Client) -> None:
    assert ask(client, {"startdate": text(FIRST), "enddate": text(NOW)}) == ask(client, {})


def test_a_moment_without_a_zone_is_utc_and_one_with_an_offset_is_converted(client: httpx.Client) -> None:
    start, end = datetime(2025, 2, 3, 8, tzinfo=UTC), datetime(2025, 2, 4, 8, tzinfo=UTC)
    count = ask(client, window(start, end))
    bare = {"start_date": "2025-02-03T08:00:00", "end_date": "2025-02-04T08:00:00"}
    offset = {"start_date": "2025-02-03T10:00:00+02:00", "end_date": "2025-02-04T03:00:00-05:00"}
    assert ask(client, {**bare}) == ask(client, {**offset}) == count
    assert count != ask(client, window(start - timedelta(hours=2), end - timedelta(hours=2)))


@pytest.mark.parametrize("name", ["start_date", "end_date", "start", "end"])
@pytest.mark.parametrize("value", ["null", "yesterday", "2025-02-30T00:00:00Z", "2025-02-03T10:00:00 02:00", ""])
def test_a_bad_datetime_is_answered_422_in_the_contracts_form(client: httpx.Client, name: str, value: str) -> None:
    answer = client.get(SESSIONS_PATH, params={name: value})
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"] == ["query", name]
    assert problem["msg"].startswith("Input should be a valid datetime")
    assert problem["type"].startswith("datetime_")


@pytest.mark.parametrize(("option", "status"), [("zero", 200), ("forbidden", 403), ("not_found", 404)])
def test_an_unknown_organization_is_answered_as_configured(option: Any, status: int) -> None:
    with Sandbox(unknown_organization=option, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        known = sandbox.organizations[0].org_id
        answer = client.get(SESSIONS_PATH, params=window(FIRST, NOW, org_ids=[known, "org-0"]))
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["sessions_count"] == sandbox.truth(FIRST, NOW, [known])
            assert ask(client, window(FIRST, NOW, org_ids=["org-0"])) == 0
        else:
            assert answer.json() == {"detail": "Unknown organization"}
        assert ask(client, window(FIRST, NOW, org_ids=[known])) > 0


# Keys


@pytest.mark.parametrize("path", [SESSIONS_PATH, ORGANIZATIONS_PATH, MEMBERS_PATH])
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer apk_user_other", 401),
        ("Bearer something", 401),
        (KEY, 401),
        (f"Basic {KEY}", 401),
        ("Bearer apk_organization", 403),
        ("Bearer cog_service", 403),
        ("Bearer cog_sandbox", 403),
        (f"Bearer {KEY}", 200),
    ],
)
def test_the_key_decides_before_the_parameters(sandbox: Sandbox, path: str, header: str | None, status: int) -> None:
    headers = {} if header is None else {"Authorization": header}
    good = httpx.get(sandbox.url + path, headers=headers, trust_env=False, verify=False)
    assert good.status_code == status
    bad_params = {"start_date": "yesterday", "limit": "many"}
    bad = httpx.get(sandbox.url + path, params=bad_params, headers=headers, trust_env=False, verify=False)
    assert bad.status_code == (422 if status == 200 else status)
    if status != 200:
        assert isinstance(bad.json()["detail"], str)


def test_another_key_can_be_required() -> None:
    with Sandbox(api_key="apk_user_mine") as sandbox:
        with client_of(sandbox, "apk_user_mine") as client:
            assert client.get(SESSIONS_PATH).status_code == 200
        with client_of(sandbox) as client:
            assert client.get(SESSIONS_PATH).status_code == 401


def test_an_unknown_path_is_not_found(client: httpx.Client) -> None:
    for path in ("/v2/enterprise/metrics", "/v4/enterprise/metrics/sessions", "/", "/openapi.json", "/docs"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


# Organizations


def test_the_pages_hold_every_organization_once_in_order(sandbox: Sandbox, client: httpx.Client) -> None:
    items: list[dict[str, Any]] = []
    while True:
        page = client.get(ORGANIZATIONS_PATH, params={"skip": len(items), "limit": 5}).json()
        assert (page["total"], page["skip"], page["limit"]) == (12, len(items), 5)
        items += page["items"]
        assert (page["next_cursor"] is not None) == page["has_more"] == (len(items) < 12)
        if not page["has_more"]:
            break
    assert [(item["org_id"], item["org_name"]) for item in items] == [
        (item.org_id, item.org_name) for item in sandbox.organizations
    ]
    created = [item["created_at"] and datetime.fromisoformat(item["created_at"]) for item in items]
    assert created == [item.created_at for item in sandbox.organizations]


def test_a_page_defaults_to_the_first_hundred_and_past_the_end_is_empty() -> None:
    with Sandbox(organizations=101) as sandbox, client_of(sandbox) as client:
        page = client.get(ORGANIZATIONS_PATH).json()
        assert (len(page["items"]), page["skip"], page["limit"], page["has_more"]) == (100, 0, 100, True)
        page = client.get(ORGANIZATIONS_PATH, params={"limit": 200}).json()
        assert (len(page["items"]), page["has_more"], page["next_cursor"]) == (101, False, None)
        page = client.get(ORGANIZATIONS_PATH, params={"skip": 100, "limit": 1}).json()
        assert (len(page["items"]), page["has_more"], page["next_cursor"]) == (1, False, None)
        page = client.get(ORGANIZATIONS_PATH, params={"skip": 101}).json()
        assert (page["items"], page["total"], page["has_more"]) == ([], 101, False)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("limit", "0", "greater_than_equal"),
        ("limit", "201", "less_than_equal"),
        ("limit", "ten", "int_parsing"),
        ("skip", "-1", "greater_than_equal"),
    ],
)
def test_a_page_out_of_bounds_is_answered_422(client: httpx.Client, name: str, value: str, problem: str) -> None:
    answer = client.get(ORGANIZATIONS_PATH, params={name: value})
    assert answer.status_code == 422
    assert [(item["loc"], item["type"]) for item in answer.json()["detail"]] == [(["query", name], problem)]


def test_a_key_can_be_allowed_to_count_but_not_to_list() -> None:
    with Sandbox(lists_organizations=False) as sandbox, client_of(sandbox) as client:
        answer = client.get(ORGANIZATIONS_PATH)
        assert (answer.status_code, answer.json()) == (403, {"detail": "This key may not list organizations"})
        assert ask(client, window(FIRST, NOW)) > 0


# Members


def test_the_pages_hold_every_user_of_every_organization_once(sandbox: Sandbox, client: httpx.Client) -> None:
    items: list[dict[str, Any]] = []
    has_more = True
    while has_more:
        page = client.get(MEMBERS_PATH, params={"skip": len(items), "limit": 25}).json()
        assert (page["total"], page["skip"], page["limit"]) == (len(sandbox.members), len(items), 25)
        items += page["items"]
        has_more = page["has_more"]
        assert (page["next_cursor"] is not None) == has_more == (len(items) < len(sandbox.members))
    everyone = [user_id for item in sandbox.organizations for user_id in item.user_ids]
    assert [item["user_id"] for item in items] == everyone
    assert len(set(everyone)) == len(everyone) > 25
    for item, member in zip(items, sandbox.members, strict=True):
        assert list(item) == ["user_id", "email", "name", "created_at"]
        assert (item["email"], item["name"]) == (member.email, member.name)
        assert (item["created_at"] and datetime.fromisoformat(item["created_at"])) == member.created_at


def test_members_have_an_address_of_their_own_but_not_always_a_name_or_a_time_of_creation() -> None:
    sandbox = Sandbox(organizations=40)
    members = sandbox.members
    assert len({member.email for member in members}) == len(members)
    assert all(member.email.isascii() and member.email.count("@") == 1 for member in members)
    assert 0 < sum(member.name is None for member in members) < len(members) / 4
    assert 0 < sum(member.created_at is None for member in members) < len(members) / 4
    assert not "".join(member.name or "" for member in members).isascii()
    created = {member.user_id: member.created_at for member in members}
    for item in sandbox.organizations:
        for moment in filter(None, map(created.get, item.user_ids)):
            assert item.created_at is not None
            assert item.created_at <= moment <= item.begins
    assert Sandbox(organizations=40).members == members
    assert {member.user_id for member in Sandbox(seed=2).members}.isdisjoint(created)


@pytest.mark.parametrize(("name", "value"), [("limit", "0"), ("limit", "201"), ("skip", "-1"), ("skip", "x")])
def test_a_page_of_members_out_of_bounds_is_answered_422(client: httpx.Client, name: str, value: str) -> None:
    answer = client.get(MEMBERS_PATH, params={name: value})
    assert answer.status_code == 422
    assert [item["loc"] for item in answer.json()["detail"]] == [["query", name]]


def test_a_key_can_be_allowed_to_list_organizations_but_not_members() -> None:
    with Sandbox(lists_members=False) as sandbox, client_of(sandbox) as client:
        answer = client.get(MEMBERS_PATH)
        assert (answer.status_code, answer.json()) == (403, {"detail": "This key may not list members"})
        assert client.get(ORGANIZATIONS_PATH).status_code == 200


# Other ways than the documented ones


@pytest.mark.parametrize(("semantics", "taken"), [("union", slice(None)), ("last", slice(2, 3)), ("first", slice(1))])
def test_of_several_organizations_all_or_only_the_last_or_first_count(semantics: Any, taken: slice) -> None:
    with Sandbox(org_ids_semantics=semantics, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        org_ids = [item.org_id for item in sandbox.organizations[:3]]
        counts = [ask(client, window(FIRST, NOW, org_ids=[org_id])) for org_id in org_ids]
        assert len(set(counts)) == 3
        assert ask(client, window(FIRST, NOW, org_ids=org_ids)) == sum(counts[taken])
        assert sandbox.requests[-1].org_ids == tuple(org_ids)
        users = [user_id for item in sandbox.organizations[:3] for user_id in item.user_ids]
        assert ask(client, window(FIRST, NOW, user_ids=users)) == sum(counts)


@pytest.mark.parametrize(
    ("semantics", "statuses"), [("union", [404, 404]), ("last", [404, 200]), ("first", [200, 404])]
)
def test_an_organization_that_is_not_taken_need_not_exist(semantics: Any, statuses: list[int]) -> None:
    with (
        Sandbox(org_ids_semantics=semantics, unknown_organization="not_found") as sandbox,
        client_of(sandbox) as client,
    ):
        known = sandbox.organizations[0].org_id
        asked = ([known, "org-0"], ["org-0", known])
        assert [client.get(SESSIONS_PATH, params={"org_ids": org_ids}).status_code for org_ids in asked] == statuses


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


def test_only_requests_with_a_good_key_use_up_the_rate_limit() -> None:
    with Sandbox(rate_limit=2, monotonic=lambda: 0.5) as sandbox, client_of(sandbox) as client:
        with client_of(sandbox, "apk_user_other") as stranger:
            assert [stranger.get(SESSIONS_PATH).status_code for _ in range(4)] == [401] * 4
        assert client.get("/elsewhere").status_code == 404
        assert client.get(SESSIONS_PATH, params={"start_date": "yesterday"}).status_code == 422
        assert [client.get(SESSIONS_PATH).status_code for _ in range(2)] == [200, 429]


def test_every_answer_can_tell_the_rate_limit_and_what_is_left_of_it() -> None:
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


def test_without_a_rate_limit_nothing_is_refused_or_told(client: httpx.Client) -> None:
    answers = [client.get(SESSIONS_PATH) for _ in range(60)]
    assert {answer.status_code for answer in answers} == {200}
    assert not [name for name in answers[-1].headers if name.startswith("x-ratelimit")]


# Faults


def test_a_status_is_answered_as_often_as_told_and_then_the_truth(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=503, times=2)
    answers = [client.get(SESSIONS_PATH) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
    assert answers[0].json() == {"detail": "Service Unavailable"}
    assert answers[0].headers["content-type"] == "application/json"
    assert fault.hits == 2


def test_a_status_that_has_no_name_is_answered_too(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=520)
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.json()) == (520, {"detail": "Error"})


def test_a_fault_strikes_once_unless_told_otherwise(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=500)
    assert [client.get(SESSIONS_PATH).status_code for _ in range(3)] == [500, 200, 200]


def test_too_many_requests_can_tell_when_to_come_back(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=429, retry_after="2")
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert "retry-after" not in client.get(SESSIONS_PATH).headers


def test_a_body_that_is_not_the_contract_is_sent_as_it_is(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(body=b"<html>", content_type="text/html", status=200)
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (
        200,
        b"<html>",
        "text/html",
    )


def test_a_redirect_names_its_target(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(redirect_to="https://elsewhere.example/login", status=307)
    answer = client.get(SESSIONS_PATH)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://elsewhere.example/login")


def test_a_dropped_request_gets_no_answer_and_the_next_one_does(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(drop=True)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        client.get(SESSIONS_PATH)
    assert sandbox.requests[-1].status is None
    assert client.get(SESSIONS_PATH).status_code == 200


def test_a_truncated_answer_ends_before_its_announced_length(sandbox: Sandbox, client: httpx.Client) -> None:
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


def test_a_reset_request_is_cut_off_by_the_peer(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(reset=True)
    with pytest.raises(httpx.ReadError, match="reset"):
        client.get(SESSIONS_PATH)
    assert sandbox.requests[-1].status is None
    assert client.get(SESSIONS_PATH).status_code == 200


def test_garbage_comes_instead_of_http(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(garbage=b"\x16\x03\x01 no HTTP\r\n\r\n")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(SESSIONS_PATH)
    assert sandbox.requests[-1].status is None
    assert client.get(SESSIONS_PATH).status_code == 200


def test_a_dripping_body_is_the_truth_in_parts(sandbox: Sandbox, client: httpx.Client) -> None:
    truth = ask(client, {})
    fault = sandbox.fail(drip=0.2)
    with client.stream("GET", SESSIONS_PATH) as answer:
        parts = list(answer.iter_raw())
    assert len(parts) > 1
    assert json.loads(b"".join(parts)) == {"sessions_count": truth}
    assert fault.hits == 1


def test_a_lie_replaces_the_truth_and_only_counts_where_it_differs(sandbox: Sandbox, client: httpx.Client) -> None:
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


def test_a_delayed_answer_is_the_truth_and_holds_up_no_other_request(sandbox: Sandbox, client: httpx.Client) -> None:
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


def test_an_endless_body_goes_on_until_the_client_leaves(sandbox: Sandbox, client: httpx.Client) -> None:
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


# Log and life


def test_the_log_tells_what_was_asked_and_answered_but_not_the_key(sandbox: Sandbox, client: httpx.Client) -> None:
    client.get(
        f"{SESSIONS_PATH}?start_date=2025-02-03T08:00:00Z&end=2025-02-04T00:00:00&org_ids=a&org_ids=b&user_ids=u&x="
    )
    client.get(SESSIONS_PATH, params={"start_date": "yesterday"})
    client.get("/elsewhere")
    assert sandbox.requests == [
        Asked(
            path=SESSIONS_PATH,
            params=(
                ("start_date", "2025-02-03T08:00:00Z"),
                ("end", "2025-02-04T00:00:00"),
                ("org_ids", "a"),
                ("org_ids", "b"),
                ("user_ids", "u"),
                ("x", ""),
            ),
            start=datetime(2025, 2, 3, 8, tzinfo=UTC),
            end=datetime(2025, 2, 4, tzinfo=UTC),
            org_ids=("a", "b"),
            user_ids=("u",),
            status=400,
        ),
        Asked(SESSIONS_PATH, (("start_date", "yesterday"),), None, None, (), (), 422),
        Asked("/elsewhere", (), None, None, (), (), 404),
    ]
    assert KEY not in repr(sandbox.requests)


def test_a_stopped_sandbox_refuses_connections_and_starts_again_at_the_same_address() -> None:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        url, count = sandbox.url, ask(client, {})
        sandbox.stop()
        with pytest.raises(httpx.TransportError):
            client.get(SESSIONS_PATH)
        with pytest.raises(httpx.ConnectError):
            client.get(SESSIONS_PATH)
        sandbox.start()
        assert sandbox.url == url
        assert ask(client, {}) == count
        assert len(sandbox.requests) == 2
        with pytest.raises(RuntimeError, match="already serving"):
            sandbox.start()


def test_stopping_cuts_a_request_in_flight() -> None:
    arrived = threading.Event()

    def notice(asked: Asked) -> bool:
        arrived.set()
        return True

    with Sandbox() as sandbox, client_of(sandbox) as client, ThreadPoolExecutor(1) as pool:
        sandbox.fail(delay=30, when=notice)
        answer = pool.submit(client.get, SESSIONS_PATH, timeout=20)
        assert arrived.wait(5)
        sandbox.stop()
        with pytest.raises(httpx.TransportError):
            answer.result(timeout=5)


def test_the_address_is_unknown_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = Sandbox().url


# Contract

ANNOTATIONS = {"title", "description", "summary", "examples"}


def resolved(schema: Any, document: dict[str, Any]) -> Any:
    """A schema with its references followed, without what only explains, and in an order of no account."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return resolved(target, document)
    result: dict[str, Any] = {}
    for word, value in schema.items():
        if word == "properties":
            result[word] = {name: resolved(part, document) for name, part in value.items()}
        elif word in ("anyOf", "oneOf", "allOf"):
            result[word] = sorted((resolved(part, document) for part in value), key=json.dumps)
        elif word == "required":
            result[word] = sorted(value)
        elif word not in ANNOTATIONS:
            result[word] = resolved(value, document)
    return result


def promises(document: dict[str, Any]) -> dict[str, Any]:
    """What a client can rely on: paths, keys, parameters, answers, and all their schemas."""
    schemes = document["components"]["securitySchemes"]
    return {
        f"{method} {path}": {
            "parameters": {
                (item["in"], item["name"]): (item.get("required", False), resolved(item["schema"], document))
                for item in operation.get("parameters", [])
            },
            "responses": {
                code: {
                    media: resolved(content["schema"], document) for media, content in answer.get("content", {}).items()
                }
                for code, answer in operation["responses"].items()
            },
            "security": [{name: schemes[name] for name in way} for way in operation.get("security", [])],
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


def contract(version: Version = "v2") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONTRACTS / f"devin_{version}.openapi.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_sandbox_promises_exactly_the_published_contract(version: Version) -> None:
    assert promises(Sandbox(organizations=0).openapi(version)) == promises(contract(version))


def counting(document: dict[str, Any]) -> Any:
    return document["paths"][SESSIONS_PATH]["get"]


def parameter(document: dict[str, Any], name: str) -> Any:
    return next(item for item in counting(document)["parameters"] if item["name"] == name)


def schema(document: dict[str, Any], name: str) -> Any:
    return document["components"]["schemas"][name]


MUTATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a path is missing": lambda it: it["paths"].pop(ORGANIZATIONS_PATH),
    "a path is new": lambda it: it["paths"].update({"/v2/new": it["paths"][ORGANIZATIONS_PATH]}),
    "a parameter is missing": lambda it: counting(it)["parameters"].remove(parameter(it, "user_ids")),
    "a parameter is renamed": lambda it: parameter(it, "start_date").update(name="startDate"),
    "a parameter is required": lambda it: parameter(it, "start_date").update(required=True),
    "a parameter is a header": lambda it: parameter(it, "start_date").update({"in": "header"}),
    "a parameter is not null": lambda it: parameter(it, "end")["schema"]["anyOf"].pop(),
    "a parameter lost its format": lambda it: parameter(it, "end")["schema"]["anyOf"][0].pop("format"),
    "a list holds numbers": lambda it: parameter(it, "org_ids")["schema"]["anyOf"][0]["items"].update(type="integer"),
    "a list is one text": lambda it: parameter(it, "org_ids")["schema"].update(anyOf=[{"type": "string"}]),
    "a limit moved": lambda it: it["paths"][ORGANIZATIONS_PATH]["get"]["parameters"][1]["schema"].update(maximum=500),
    "a default moved": lambda it: it["paths"][ORGANIZATIONS_PATH]["get"]["parameters"][1]["schema"].update(default=50),
    "an answer is missing": lambda it: counting(it)["responses"].pop("429"),
    "an answer is another type": lambda it: counting(it)["responses"]["200"].update(
        content={"text/csv": {"schema": {"type": "string"}}}
    ),
    "the count is a text": lambda it: schema(it, "SessionsMetrics")["properties"]["sessions_count"].update(
        type="string"
    ),
    "the count is optional": lambda it: schema(it, "SessionsMetrics")["required"].clear(),
    "the count is renamed": lambda it: schema(it, "SessionsMetrics")["properties"].update(
        count=schema(it, "SessionsMetrics")["properties"].pop("sessions_count")
    ),
    "the creation time is not null": lambda it: schema(it, "Organization")["properties"]["created_at"]["anyOf"].pop(),
    "an error place is text only": lambda it: schema(it, "ValidationError")["properties"]["loc"]["items"][
        "anyOf"
    ].pop(),
    "no key is needed": lambda it: counting(it).pop("security"),
    "the key is sent otherwise": lambda it: it["components"]["securitySchemes"]["HTTPBearer"].update(scheme="basic"),
}


@pytest.mark.parametrize("difference", MUTATIONS)
def test_the_comparison_with_the_contract_sees_every_difference(difference: str) -> None:
    mutated = copy.deepcopy(contract())
    MUTATIONS[difference](mutated)
    assert promises(mutated) != promises(contract())


def test_the_comparison_with_the_contract_overlooks_wording_and_order() -> None:
    reworded = copy.deepcopy(contract())
    counting(reworded).update(summary="Count", operationId="other")
    counting(reworded)["parameters"].reverse()
    parameter(reworded, "end")["schema"].update(title="Until", description="The end")
    parameter(reworded, "end")["schema"]["anyOf"].reverse()
    assert promises(reworded) == promises(contract())
