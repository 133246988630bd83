"""v3 of the sandbox counts the same sessions as v2. All requests are real HTTP."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.sandbox.server import Sandbox
from tests.support import sandbox as v2
from tests.support.sandbox import FIRST, MICROSECOND, NOW, few
from tests.support.sandbox_v3 import BREAKDOWNS, SECOND, ask, client_of, count, window

seconds = st.integers(0, 240 * 86_400).map(lambda after: FIRST + timedelta(seconds=after))


@few
@given(st.lists(seconds, min_size=3, max_size=3, unique=True).map(sorted))
def test_adjacent_windows_add_up_in_total_and_in_every_breakdown(
    serving: tuple[Sandbox, httpx.Client, httpx.Client], three: list[datetime]
) -> None:
    sandbox, client, _ = serving
    start, middle, end = three
    whole, first, second = (ask(client, window(*two)) for two in ((start, end), (start, middle), (middle, end)))
    assert whole["sessions_created_count"] == sandbox.truth(start, end)
    assert whole["sessions_created_count"] == first["sessions_created_count"] + second["sessions_created_count"]
    for breakdown, kinds in BREAKDOWNS.items():
        assert whole[breakdown] == {kind: first[breakdown][kind] + second[breakdown][kind] for kind in kinds}


@few
@given(st.lists(seconds, min_size=2, max_size=2, unique=True).map(sorted), st.data())
def test_both_versions_count_the_same_sessions_in_the_same_window(
    serving: tuple[Sandbox, httpx.Client, httpx.Client], two: list[datetime], data: st.DataObject
) -> None:
    sandbox, client, older = serving
    everywhere = [item.org_id for item in sandbox.organizations]
    everyone = [member.user_id for member in sandbox.members]
    filters: dict[str, list[str]] = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "org_ids": st.lists(st.sampled_from([*everywhere, "org-0"]), min_size=1),
                "user_ids": st.lists(st.sampled_from([*everyone, "user-0"]), min_size=1),
            },
        )
    )
    assert count(client, window(two[0], two[1], **filters)) == v2.ask(older, v2.window(two[0], two[1], **filters))


@few
@given(st.lists(seconds, min_size=2, max_size=2, unique=True).map(sorted))
def test_organizations_add_up_to_the_count_without_a_filter(
    serving: tuple[Sandbox, httpx.Client, httpx.Client], two: list[datetime]
) -> None:
    sandbox, client, _ = serving
    by_org = [count(client, window(*two, org_ids=[item.org_id])) for item in sandbox.organizations]
    assert sum(by_org) == count(client, window(*two))


def test_every_origin_and_size_occurs_and_most_sessions_start_on_the_web(client: httpx.Client) -> None:
    body = ask(client, window(FIRST, NOW))
    for breakdown in BREAKDOWNS:
        assert min(body[breakdown].values()) > 0
    by_origin, by_size = body["sessions_created_by_origin"], body["sessions_created_by_size"]
    assert max(by_origin, key=by_origin.__getitem__) == "webapp"
    assert max(by_size, key=by_size.__getitem__) == "xs"


@pytest.mark.parametrize(("end_is_inclusive", "more"), [(False, 0), (True, 5)])
def test_the_end_counts_only_if_it_is_inclusive_and_then_for_the_whole_second(
    end_is_inclusive: bool, more: int
) -> None:
    at = datetime(2025, 3, 4, 10, 20, 30, tzinfo=UTC)
    with Sandbox(end_is_inclusive=end_is_inclusive, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        org_id = sandbox.organizations[0].org_id
        sandbox.remove_sessions(org_id, at - SECOND, at + 2 * SECOND)
        params = window(at - timedelta(hours=1), at, org_ids=[org_id])
        before = count(client, params)
        sandbox.add_sessions(org_id, at, count=3)
        sandbox.add_sessions(org_id, at + SECOND - MICROSECOND, count=2)
        sandbox.add_sessions(org_id, at + SECOND, count=100)
        assert count(client, params) == before + more
        assert count(client, window(at, at + SECOND, org_ids=[org_id])) == 5 + (100 if end_is_inclusive else 0)


def test_no_session_is_later_than_the_clock() -> None:
    clock = [NOW]
    with Sandbox(clock=lambda: clock[0]) as sandbox, client_of(sandbox) as client:
        later = NOW + timedelta(days=7)
        until_now = count(client, window(FIRST, later))
        assert until_now == sandbox.truth(FIRST, NOW)
        assert count(client, {"time_after": 0, "time_before": 253_402_300_799}) == until_now
        assert count(client, window(NOW + SECOND, later)) == 0
        clock[0] = later
        assert count(client, window(FIRST, later)) > until_now


def test_a_later_change_of_past_counts_shows_in_both_versions() -> None:
    at = datetime(2025, 2, 5, 12, tzinfo=UTC)
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client, v2.client_of(sandbox) as older:
        before = count(client, window(FIRST, NOW))
        sandbox.add_sessions("org-unlisted", at, count=4)
        assert count(client, window(FIRST, NOW)) == before + 4
        assert count(client, window(at, at + SECOND, org_ids=["org-unlisted"])) == 4
        assert v2.ask(older, v2.window(at, at + SECOND, org_ids=["org-unlisted"])) == 4
        assert sandbox.remove_sessions("org-unlisted", at, at + SECOND) == 4
        assert count(client, window(FIRST, NOW)) == before
