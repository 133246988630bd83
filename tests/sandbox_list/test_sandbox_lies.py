"""Each lie does what it says to the list of sessions, and nothing to the counts. All requests are real HTTP."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from resources.sandbox.contract import SessionsPage, SessionsPageV3, Version
from resources.sandbox.lies import (
    MISSING,
    AddFields,
    Change,
    Double,
    Enlarge,
    LeaveOut,
    Lie,
    Move,
    NeverEnd,
    Postdate,
    Refuse,
    RepeatPage,
    Shift,
    Spoil,
    Swap,
    WrongTotal,
)
from resources.sandbox.server import Sandbox
from tests.support import sandbox as v2
from tests.support import sandbox_v3 as v3
from tests.support.sandbox import FIRST, NOW
from tests.support.session_list import Item, Reader, created_at, every_lie

DAY = timedelta(days=1)
MONDAY = datetime(2025, 3, 3, tzinfo=UTC)
SPAN = (MONDAY, MONDAY + 3 * DAY)
DAYS = (date(2025, 3, 3), date(2025, 3, 5))


def ids(items: list[Item]) -> list[str]:
    return [item["session_id"] for item in items]


def by(items: list[Item], *fields: str) -> Counter[tuple[Any, ...]]:
    """The number of items by day, organization or other fields."""
    return Counter(tuple(created_at(it).date() if name == "day" else it[name] for name in fields) for it in items)


def true_and_false(sandbox: Sandbox, reader: Reader, lie: Lie) -> tuple[list[Item], list[Item]]:
    """The span's items, true and with the lie."""
    true = reader.items(*SPAN)
    sandbox.lie(lie)
    return true, reader.items(*SPAN)


Answers = list[tuple[int, bytes]]


@pytest.fixture(scope="module")
def ask(serving: tuple[Sandbox, dict[Version, Reader]]) -> Callable[[], Answers]:
    """Asks for every page in v2 and the first in v3."""
    older, newer = serving[1]["v2"], serving[1]["v3"]

    def asked() -> Answers:
        found = [older.get(**older.window(*SPAN), limit=200, skip=skip) for skip in range(0, 800, 200)]
        return [(answer.status_code, answer.content) for answer in [*found, newer.get(**newer.window(*SPAN))]]

    return asked


@pytest.fixture(scope="module")
def truth(ask: Callable[[], Answers]) -> Answers:
    return ask()


@pytest.mark.parametrize("name", every_lie(DAYS))
def test_every_lie_changes_the_list_the_same_way_each_time_and_no_count(
    serving: tuple[Sandbox, dict[Version, Reader]],
    sandbox: Sandbox,
    ask: Callable[[], Answers],
    truth: Answers,
    name: str,
) -> None:
    sandbox.lie(every_lie(DAYS)[name])
    lies = ask()
    assert lies != truth
    assert ask() == lies
    assert v2.ask(serving[1]["v2"].client, v2.window(*SPAN)) == sandbox.truth(*SPAN)
    assert v3.count(serving[1]["v3"].client, v3.window(*SPAN)) == sandbox.truth(*SPAN)


def test_without_lies_the_list_is_true_again(sandbox: Sandbox, ask: Callable[[], Answers], truth: Answers) -> None:
    sandbox.lie(LeaveOut(), AddFields())
    sandbox.heal()
    assert ask() == truth


def test_a_share_is_left_out_whatever_the_window_and_the_page(sandbox: Sandbox, reader: Reader) -> None:
    true, items = true_and_false(sandbox, reader, LeaveOut(share=0.25))
    assert set(ids(items)) < set(ids(true))
    assert 0.15 < 1 - len(items) / len(true) < 0.35
    halves = reader.items(MONDAY + 3 * DAY / 2, SPAN[1], size=30) + reader.items(MONDAY, MONDAY + 3 * DAY / 2, size=40)
    assert halves == items
    sandbox.heal()
    sandbox.lie(LeaveOut(share=0.25, seed=2))
    assert ids(reader.items(*SPAN)) != ids(items)


def test_whole_organizations_are_left_out(sandbox: Sandbox, reader: Reader) -> None:
    true, items = true_and_false(sandbox, reader, LeaveOut(share=1, organizations=(0, 2)))
    out = {sandbox.organizations[rank].org_id for rank in (0, 2)}
    assert items == [item for item in true if item["org_id"] not in out] != true


@pytest.mark.parametrize(("has_same_id", "has_same_organization"), [(True, True), (False, True), (True, False)])
def test_some_are_listed_twice(
    sandbox: Sandbox, reader: Reader, has_same_id: bool, has_same_organization: bool
) -> None:
    lie = Double(share=0.2, has_same_id=has_same_id, has_same_organization=has_same_organization)
    true, items = true_and_false(sandbox, reader, lie)
    added = len(items) - len(true)
    assert 0.1 < added / len(true) < 0.3
    assert len(set(ids(items))) == len(true) + (0 if has_same_id else added)
    for fields in (("user_id", "day"), ("org_id", "user_id", "day")):
        doubled = by(items, *fields) - by(true, *fields)
        is_in_place = has_same_organization or "org_id" not in fields
        assert (doubled.keys() <= by(true, *fields).keys()) == is_in_place


@pytest.mark.parametrize(("owner", "to"), [("org_id", None), ("user_id", None), ("org_id", "org-" + "x" * 9_996)])
def test_some_are_moved_to_another_owner_and_found_there(
    sandbox: Sandbox, reader: Reader, owner: Any, to: str | None
) -> None:
    true, items = true_and_false(sandbox, reader, Move(share=0.2, owner=owner, to=to))
    assert ids(items) == ids(true)
    moved = [(was[owner], it[owner]) for was, it in zip(true, items, strict=True) if was != it]
    assert 0.1 < len(moved) / len(true) < 0.3
    assert len({target for _, target in moved}) == 1 if to else len({target for _, target in moved}) > 3
    target = moved[0][1]
    assert len(target) == (10_000 if to else len(target))
    if not to:
        found = reader.items(*SPAN, {f"{owner}s": [target]})
        assert ids(found) == [item["session_id"] for item in items if item[owner] == target]


def test_two_organizations_swap_sessions_so_that_every_sum_agrees(sandbox: Sandbox, reader: Reader) -> None:
    true, items = true_and_false(sandbox, reader, Swap(DAYS, organizations=(0, 1), sessions=2))
    assert by(items, "day") == by(true, "day")
    assert by(items, "org_id") == by(true, "org_id")
    one, other = (it.org_id for it in sandbox.organizations[:2])
    wrong = by(items, "day", "org_id")
    wrong.subtract(by(true, "day", "org_id"))
    first, second = DAYS
    assert {cell: by_how_much for cell, by_how_much in wrong.items() if by_how_much} == {
        (first, one): -2,
        (first, other): 2,
        (second, one): 2,
        (second, other): -2,
    }


def test_every_session_is_an_hour_late_and_in_the_window_of_that_hour(sandbox: Sandbox, reader: Reader) -> None:
    true, items = true_and_false(sandbox, reader, Shift())
    hour = timedelta(hours=1)
    both = [(created_at(it) - hour, it["session_id"]) for it in items if created_at(it) >= MONDAY + hour]
    assert both == [(created_at(it), it["session_id"]) for it in true if created_at(it) < SPAN[1] - hour]
    assert ids(reader.items(MONDAY + hour, SPAN[1] + hour)) == ids(true)
    midnight = MONDAY + DAY
    late = ids(reader.items(midnight, midnight + hour))
    sandbox.heal()
    assert late == ids(reader.items(midnight - hour, midnight)) != []
    sandbox.lie(Shift(-hour))
    early = ids(reader.items(midnight - hour, midnight))
    sandbox.heal()
    assert early == ids(reader.items(midnight, midnight + hour)) != []


def test_sessions_appear_or_vanish_between_pages(sandbox: Sandbox, reader: Reader) -> None:
    true = ids(reader.items(*SPAN))
    sandbox.lie(Change(3))
    pages = reader.pages(reader.window(*SPAN), 50)
    assert [page["total"] for page in pages] == [len(true) + 3 * number for number in range(len(pages))]
    assert ids(pages[1]["items"]) == true[47:97]
    assert ids(pages[2]["items"]) == true[94:144]
    assert {session for page in pages for session in ids(page["items"])} == set(true)
    sandbox.heal()
    sandbox.lie(Change(-3))
    pages = reader.pages(reader.window(*SPAN), 50)
    assert ids(pages[1]["items"]) == true[53:103]
    assert [page["total"] for page in pages] == [len(true) - 3 * number for number in range(len(pages))]


@pytest.mark.parametrize("repeats", [True, False])
def test_the_list_never_ends(sandbox: Sandbox, reader: Reader, repeats: bool) -> None:
    true = ids(reader.items(*SPAN))
    sandbox.lie(NeverEnd(repeats))
    pages = reader.pages(reader.window(*SPAN), at_most=8)
    assert len(pages) == 8
    listed = [session for page in pages for session in ids(page["items"])]
    if repeats:
        assert listed == true[:200] * 8
    else:
        assert listed[: len(true)] == true
        assert len(set(listed)) == 8 * 200
        assert {page["total"] for page in pages} == {len(true)}


def test_a_page_is_repeated_and_the_one_it_replaces_is_lost(sandbox: Sandbox, reader: Reader) -> None:
    true, items = true_and_false(sandbox, reader, RepeatPage())
    assert ids(items) == ids(true[:200] * 2 + true[400:])


@pytest.mark.parametrize("status", [403, 404, 500])
def test_the_list_is_refused_from_the_start_or_in_the_middle(sandbox: Sandbox, reader: Reader, status: int) -> None:
    sandbox.lie(Refuse(status, from_page=1))
    window = reader.window(*SPAN)
    first = reader.get(**window).json()
    second = {"skip": "100"} if reader.version == "v2" else {"after": first["end_cursor"]}
    assert reader.get(**window, **second).status_code == status
    sandbox.lie(Refuse(status))
    assert reader.get(**window).status_code == status


@pytest.mark.parametrize(("by_how_much", "total"), [(7, 7), (-7, -7), (None, None)])
def test_the_total_is_wrong(sandbox: Sandbox, reader: Reader, by_how_much: int | None, total: int | None) -> None:
    true, items = true_and_false(sandbox, reader, WrongTotal(by_how_much))
    assert items == true
    stated = reader.get(**reader.window(*SPAN)).json()["total"]
    assert stated == (None if total is None else len(true) + total)


def test_some_say_that_they_are_from_the_future(sandbox: Sandbox, reader: Reader) -> None:
    true, items = true_and_false(sandbox, reader, Postdate(share=0.2))
    assert ids(items) == ids(true)
    future = [item for item in items if created_at(item) > NOW]
    assert 0.1 < len(future) / len(true) < 0.3
    assert [it for it in items if it not in future] == [it for it in true if it["session_id"] not in ids(future)]


def test_a_page_is_as_large_as_asked_however_few_sessions_it_has(sandbox: Sandbox, reader: Reader) -> None:
    sandbox.lie(Enlarge(1_000_000))
    for first in (1, 200):
        answer = reader.get(**reader.window(*SPAN), **{"limit" if reader.version == "v2" else "first": first})
        assert 1_000_000 < len(answer.content) < 1_500_000


def test_unknown_fields_are_added_and_the_rest_is_true(sandbox: Sandbox, reader: Reader) -> None:
    true = reader.get(**reader.window(*SPAN)).json()
    sandbox.lie(AddFields())
    page = reader.get(**reader.window(*SPAN)).json()
    assert set(page) - set(true) == set(page["items"][0]) - set(true["items"][0]) == {"unexpected"}
    model = SessionsPage if reader.version == "v2" else SessionsPageV3
    assert model.model_validate(page) == model.model_validate(true)


@pytest.mark.parametrize("name", ["session_id", "org_id", "user_id", "created_at"])
@pytest.mark.parametrize("value", [MISSING, None, 7, [{}]], ids=["missing", "null", "number", "list"])
def test_a_field_of_some_is_missing_or_wrong(sandbox: Sandbox, reader: Reader, name: str, value: Any) -> None:
    true, items = true_and_false(sandbox, reader, Spoil(name, value, share=0.2))
    spoiled = [(was, it) for was, it in zip(true, items, strict=True) if was != it]
    assert 0 < len(spoiled) / len(true) < 0.3
    for was, it in spoiled:
        assert it == ({key: was[key] for key in was if key != name} if value is MISSING else {**was, name: value})


def test_lies_build_on_each_other_and_are_about_different_sessions(sandbox: Sandbox, reader: Reader) -> None:
    true = reader.items(*SPAN)
    sandbox.lie(LeaveOut(share=0.3), Double(share=0.3))
    sandbox.lie(Move(share=0.3))
    items = reader.items(*SPAN)
    left = set(ids(items))
    doubled = Counter(ids(items))
    assert 0.6 < len(left) / len(true) < 0.8
    assert 0.2 < sum(number == 2 for number in doubled.values()) / len(left) < 0.4
    assert by(items, "org_id") != by([item for item in true if item["session_id"] in left], "org_id")
    assert len(reader.items(FIRST, FIRST + DAY)) > 0
