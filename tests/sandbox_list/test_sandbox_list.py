"""The list of sessions has every session that is counted once, whatever the page size. All requests are real HTTP."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.sandbox.contract import (
    LIST_PATH,
    LIST_PATH_V3,
    ORGANIZATIONS_PATH_V3,
    SessionsPage,
    SessionsPageV3,
    Version,
)
from resources.sandbox.listed import MARKERS
from resources.sandbox.server import Sandbox
from resources.sandbox.session_list import Order
from resources.sandbox.sessions import NOBODY
from tests.support import sandbox as v2
from tests.support import sandbox_v3 as v3
from tests.support.sandbox import FIRST, MICROSECOND, NOW, few
from tests.support.session_list import Reader, created_at, reader_of

SECOND = v3.SECOND
DAY = timedelta(days=1)
FEBRUARY = date(2025, 2, 1)
MONDAY = datetime(2025, 3, 3, tzinfo=UTC)


@few
@given(
    st.sampled_from(["v2", "v3"]),
    st.integers(0, 100 * 86_400).map(lambda after: FIRST + timedelta(seconds=after)),
    st.integers(1, 48).flatmap(lambda hours: st.tuples(st.just(hours), st.integers(hours, 200))),
)
def test_the_pages_have_every_session_of_the_window_once_in_order_whatever_their_size(
    serving: tuple[Sandbox, dict[Version, Reader]], version: Version, start: datetime, hours_and_size: tuple[int, int]
) -> None:
    sandbox, readers = serving
    hours, size = hours_and_size
    end = start + timedelta(hours=hours)
    pages = readers[version].pages(readers[version].window(start, end), size)
    items = [item for page in pages for item in page["items"]]
    assert {len(page["items"]) for page in pages[:-1]} <= {size}
    assert {page["total"] for page in pages} == {len(items)} == {sandbox.truth(start, end)}
    assert len({item["session_id"] for item in items}) == len(items)
    moments = [created_at(item) for item in items]
    assert moments == sorted(moments, reverse=True)
    assert all(start <= moment < end for moment in moments)
    by_org = Counter(item["org_id"] for item in items)
    assert by_org == Counter({it.org_id: sandbox.truth(start, end, [it.org_id]) for it in sandbox.organizations})


def test_a_page_is_what_the_contract_says(reader: Reader) -> None:
    (page,) = reader.pages(reader.window(MONDAY, MONDAY + timedelta(hours=13)))
    model = SessionsPage if reader.version == "v2" else SessionsPageV3
    parsed = model.model_validate(page)
    assert len(parsed.items) > 20
    assert {frozenset(item) for item in page["items"]} == {frozenset(type(parsed.items[0]).model_fields)}
    assert set(page) == set(model.model_fields)
    if reader.version == "v2":
        assert (page["skip"], page["limit"], page["has_more"], page["next_cursor"]) == (0, 200, False, None)
        assert all(item["created_at"].endswith("Z") for item in page["items"])
        assert reader.get(limit=3).json()["next_cursor"] == 3
    else:
        assert (page["end_cursor"], page["has_next_page"]) == (None, False)
        assert all(type(item["created_at"]) is int for item in page["items"])
        assert {item["is_archived"] for item in page["items"]} == {True, False}
        assert {bool(item["parent_session_id"]) for item in page["items"]} == {True, False}
    for item in page["items"]:
        assert item["created_at"] <= item["updated_at"]
        assert len(item["session_id"]) == 38
        assert int(item["session_id"].removeprefix("devin-"), 16)
    for marker in MARKERS:
        assert sum(marker in repr(item) for item in page["items"]) > 0


def test_without_parameters_a_page_has_the_newest_hundred_of_all_sessions(sandbox: Sandbox, reader: Reader) -> None:
    page = reader.get().json()
    assert len(page["items"]) == 100
    assert page["total"] == sandbox.truth(FIRST, NOW)
    assert reader.get(**{"skip" if reader.version == "v2" else "first": 1}).json()["total"] == page["total"]
    past_the_end = reader.window(NOW, NOW + DAY)
    assert [(body["items"], body["total"]) for body in reader.pages(past_the_end)] == [([], 0)]
    assert [body["items"] for body in reader.pages(reader.window(MONDAY, MONDAY - DAY))] == [[]]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_order_can_be_oldest_first_or_random_but_the_same_each_time(version: Version) -> None:
    def ids(order: Order) -> list[str]:
        with (
            Sandbox(organizations=2, first_day=FEBRUARY, list_order=order, clock=lambda: NOW) as sandbox,
            reader_of(sandbox, version) as reader,
        ):
            return [item["session_id"] for item in reader.items(MONDAY, MONDAY + DAY, size=50)]

    newest, oldest, mixed = ids("newest"), ids("oldest"), ids("random")
    assert oldest == newest[::-1]
    assert sorted(mixed) == sorted(newest)
    assert mixed not in (newest, oldest)
    assert ids("random") == mixed


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize(("is_inclusive", "more"), [(False, 0), (True, 1)])
def test_the_sessions_at_the_end_are_listed_only_if_it_is_inclusive(
    version: Version, is_inclusive: bool, more: int
) -> None:
    at = datetime(2025, 3, 4, 10, 20, 30, tzinfo=UTC)
    tick = MICROSECOND if version == "v2" else SECOND
    with (
        Sandbox(organizations=2, first_day=FEBRUARY, list_end_is_inclusive=is_inclusive, clock=lambda: NOW) as sandbox,
        reader_of(sandbox, version) as reader,
    ):
        org_id = sandbox.organizations[0].org_id
        sandbox.remove_sessions(org_id, at - SECOND, at + 2 * SECOND)
        before = len(reader.items(at - DAY, at, {"org_ids": [org_id]}))
        sandbox.add_sessions(org_id, at + tick - MICROSECOND)
        sandbox.add_sessions(org_id, at + tick)
        assert len(reader.items(at - DAY, at, {"org_ids": [org_id]})) == before + more
        assert len(reader.items(at, at + tick, {"org_ids": [org_id]})) == 1 + more
        assert sandbox.truth(at - DAY, at, [org_id]) == before


def test_filters_by_organization_user_session_and_update_all_apply(sandbox: Sandbox, reader: Reader) -> None:
    everything = reader.items(MONDAY, MONDAY + DAY)
    org_id, user_id = sandbox.organizations[1].org_id, sandbox.organizations[1].user_ids[0]
    some = [item["session_id"] for item in everything[::7]]

    def listed(**filters: str | list[str]) -> list[str]:
        return [item["session_id"] for item in reader.items(MONDAY, MONDAY + DAY, filters)]

    assert listed(org_ids=[org_id, "org-0"]) == [it["session_id"] for it in everything if it["org_id"] == org_id] != []
    assert listed(user_ids=[user_id]) == [it["session_id"] for it in everything if it["user_id"] == user_id] != []
    assert listed(session_ids=some) == some
    assert listed(session_ids=some, org_ids=["org-0"]) == listed(user_ids=[NOBODY]) == []
    bound = everything[len(everything) // 2]["updated_at"]
    after, before = (
        ("updated_date_from", "updated_date_to") if reader.version == "v2" else ("updated_after", "updated_before")
    )
    window = reader.window(MONDAY, MONDAY + DAY)
    later, earlier = (
        [item for page in reader.pages({**window, name: str(bound)}) for item in page["items"]]
        for name in (after, before)
    )
    assert sorted(item["session_id"] for item in later + earlier) == sorted(it["session_id"] for it in everything)
    assert min(item["updated_at"] for item in later) >= bound > max(item["updated_at"] for item in earlier)


def test_sessions_of_no_member_have_no_user_or_a_service_user_and_count_likewise(
    sandbox: Sandbox, serving: tuple[Sandbox, dict[Version, Reader]]
) -> None:
    end = MONDAY + 5 * DAY
    older, newer = (serving[1][version].items(MONDAY, end) for version in ("v2", "v3"))
    by_user = Counter(item["user_id"] for item in older)
    members = {member.user_id for member in sandbox.members}
    (service_user,) = by_user.keys() - members - {None}
    assert service_user.startswith("service-user-")
    assert 0.05 < by_user[None] / len(older) < 0.15
    assert 0.05 < by_user[service_user] / len(older) < 0.15
    assert [(it["user_id"], it["service_user_id"]) for it in newer] == [
        (None, service_user) if it["user_id"] == service_user else (it["user_id"], None) for it in older
    ]
    counted = {user_id: sandbox.truth(MONDAY, end, None, [user_id]) for user_id in by_user if user_id}
    assert counted == {user_id: count for user_id, count in by_user.items() if user_id}
    assert sandbox.truth(MONDAY, end) == by_user[None] + sum(counted.values())
    client = serving[1]["v3"].client
    window = v3.window(MONDAY, end)
    assert v3.count(client, {**window, "service_user_ids": [service_user]}) == counted[service_user]
    assert v3.count(client, {**window, "service_user_ids": sorted(members)}) == 0
    listed = serving[1]["v3"].items(MONDAY, end, {"service_user_ids": [service_user]})
    assert [item["session_id"] for item in listed] == [it["session_id"] for it in newer if it["service_user_id"]]


def test_ids_stay_the_same_and_added_sessions_have_their_own() -> None:
    def ids(seed: int, *, first: datetime = MONDAY, changed: bool = False) -> list[str]:
        with Sandbox(seed=seed, organizations=2, clock=lambda: NOW) as sandbox, reader_of(sandbox, "v2") as reader:
            reader.items(first, first + DAY)
            if changed:
                sandbox.add_sessions("org-unlisted", MONDAY + DAY / 2, count=3)
                sandbox.add_sessions(sandbox.organizations[0].org_id, MONDAY + DAY / 2, user_id=NOBODY)
            return [item["session_id"] for item in reader.items(MONDAY, MONDAY + DAY)]

    once, again, more, other = ids(1), ids(1, first=FIRST), ids(1, changed=True), ids(2)
    assert once == again
    assert set(once) < set(more)
    assert len(set(more)) == len(more) == len(once) + 4
    assert set(once).isdisjoint(other)
    assert more == ids(1, changed=True)


def test_a_later_change_shows_at_once_and_nothing_is_later_than_the_clock() -> None:
    clock = [NOW]
    with (
        Sandbox(organizations=2, first_day=NOW.date() - 4 * DAY, clock=lambda: clock[0]) as sandbox,
        reader_of(sandbox, "v2") as reader,
    ):
        day = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
        so_far = reader.items(day, day + 3 * DAY)
        assert len(so_far) == sandbox.truth(day, NOW) > 0
        assert max(item["updated_at"] for item in so_far) <= v2.text(NOW)
        sandbox.add_sessions("org-unlisted", day, count=2, user_id=NOBODY)
        added = [item for item in reader.items(day, day + 3 * DAY) if item not in so_far]
        assert [(item["org_id"], item["user_id"]) for item in added] == [("org-unlisted", None)] * 2
        sandbox.remove_sessions("org-unlisted", day, NOW)
        assert reader.items(day, day + 3 * DAY) == so_far
        clock[0] = day + 2 * DAY
        assert len(reader.items(day, day + 3 * DAY)) == sandbox.truth(day, day + 2 * DAY) > len(so_far)


# Refusals


def test_a_key_can_be_allowed_to_count_but_not_to_list_sessions() -> None:
    with Sandbox(lists_sessions=False, clock=lambda: NOW) as sandbox:
        with reader_of(sandbox, "v2") as reader:
            answer = reader.get()
            assert (answer.status_code, answer.json()) == (403, {"detail": "This key may not list sessions"})
            assert v2.ask(reader.client, v2.window(FIRST, NOW)) > 0
        with reader_of(sandbox, "v3") as reader:
            v3.check_problem(reader.get(), 403, "This key may not list sessions")
            assert reader.client.get(ORGANIZATIONS_PATH_V3).status_code == 200


@pytest.mark.parametrize(
    ("version", "name", "value"),
    [
        ("v2", "limit", "0"),
        ("v2", "limit", "201"),
        ("v2", "skip", "-1"),
        ("v2", "skip", "x"),
        ("v2", "created_date_from", "yesterday"),
        ("v2", "created_date_to", "null"),
        ("v2", "updated_date_from", ""),
        ("v3", "first", "0"),
        ("v3", "first", "201"),
        ("v3", "created_after", "2025-01-01"),
        ("v3", "created_before", "1735689600000"),
        ("v3", "updated_before", "-1"),
        ("v3", "after", "Zm9yZ2VkOjU="),
    ],
)
def test_an_invalid_parameter_gets_a_422(
    serving: tuple[Sandbox, dict[Version, Reader]], version: Version, name: str, value: str
) -> None:
    answer = serving[1][version].get(**{name: value})
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert detail.startswith(f"{name}: ") if version == "v3" else detail[0]["loc"] == ["query", name]


def test_the_cursor_of_another_list_is_refused(serving: tuple[Sandbox, dict[Version, Reader]]) -> None:
    reader = serving[1]["v3"]
    other = reader.client.get(ORGANIZATIONS_PATH_V3, params={"first": 1}).json()["end_cursor"]
    v3.check_problem(reader.get(after=other), 422, "after: not a cursor of this list")


def test_both_lists_use_up_the_rate_limit_of_the_counts() -> None:
    with (
        Sandbox(organizations=2, rate_limit=2, clock=lambda: MONDAY, monotonic=lambda: 7.0) as sandbox,
        reader_of(sandbox, "v2") as older,
        reader_of(sandbox, "v3") as newer,
    ):
        answers: list[httpx.Response] = [older.get(), newer.get(), newer.get(), older.get()]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[-1].headers["retry-after"] == "1"


def test_the_log_has_the_window_of_creation(sandbox: Sandbox, reader: Reader) -> None:
    reader.pages({**reader.window(MONDAY, MONDAY + DAY), "org_ids": ["a", "b"]})
    asked = sandbox.requests[-1]
    assert asked.path == (LIST_PATH if reader.version == "v2" else LIST_PATH_V3)
    assert (asked.start, asked.end, asked.org_ids) == (MONDAY, MONDAY + DAY, ("a", "b"))
