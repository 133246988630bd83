"""The sandbox counts exactly, and its sessions look like those of people. All requests are real HTTP."""

import random
import time
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.sandbox.contract import ORGANIZATIONS_PATH
from resources.sandbox.server import Sandbox
from tests.support.sandbox import FIRST, MICROSECOND, NOW, ask, client_of, few, window

moments = st.timedeltas(timedelta(0), timedelta(days=240)).map(lambda after: FIRST + after)


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


def test_a_user_is_counted_only_in_the_requested_organizations(sandbox: Sandbox, client: httpx.Client) -> None:
    first, second = sandbox.organizations[:2]
    params = window(FIRST, NOW, user_ids=[first.user_ids[0]])
    assert ask(client, {**params, "org_ids": first.org_id}) == ask(client, params) > 0
    assert ask(client, {**params, "org_ids": second.org_id}) == 0


def test_a_session_is_in_the_window_that_starts_with_it_and_not_in_the_one_that_ends_with_it(
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


def test_an_inclusive_end_counts_the_sessions_at_that_instant() -> None:
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


def test_a_later_change_of_past_counts_shows_in_every_window_that_contains_it(
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


def test_sessions_of_an_unlisted_organization_count_only_in_the_total(
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


def test_the_same_seed_gives_the_same_sessions_whatever_the_order_of_requests() -> None:
    one, again, other = (Sandbox(seed=seed, clock=lambda: NOW) for seed in (7, 7, 8))
    assert one.organizations == again.organizations
    assert {item.org_id for item in one.organizations}.isdisjoint(item.org_id for item in other.organizations)
    starts = [FIRST + timedelta(hours=6 * number) for number in range(4 * 100)]
    forward = {start: one.truth(start, start + timedelta(hours=6)) for start in starts}
    random.Random(1).shuffle(starts)
    assert forward == {start: again.truth(start, start + timedelta(hours=6)) for start in starts}
    assert list(cells(one).values()) != list(cells(other).values())


def test_creating_two_years_takes_about_a_second_and_a_request_about_a_millisecond() -> None:
    began = time.perf_counter()
    with Sandbox() as sandbox, client_of(sandbox) as client:
        span = window(FIRST, FIRST + timedelta(days=680, hours=7))
        ask(client, span)
        created = time.perf_counter()
        for _ in range(50):
            ask(client, span)
        ended = time.perf_counter()
    assert created - began < 3
    assert (ended - created) / 50 < 0.02
