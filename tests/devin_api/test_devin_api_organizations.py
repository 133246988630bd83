"""The client lists all organizations despite pages, contradictions and odd names. Over real HTTP."""

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resources.calls import Calls
from resources.devin_errors import ContractBroken, Rejected
from resources.devin_lists import Organization
from resources.sandbox.server import Sandbox
from tests.support.client import KEY, NOW, api, item, organizations, page, using
from tests.support.http import Send, http, raw
from tests.support.json_values import json_leaves


def test_organizations_are_listed_over_all_pages_in_the_apis_order() -> None:
    with Sandbox(api_key=KEY, organizations=450, clock=lambda: NOW) as sandbox:
        listed = organizations(api(sandbox.url))
        assert listed == [Organization(o.org_id, o.org_name, o.created_at) for o in sandbox.organizations]
        assert [dict(asked.params) for asked in sandbox.requests] == [
            {"skip": "0", "limit": "200"},
            {"skip": "200", "limit": "200"},
            {"skip": "400", "limit": "200"},
        ]
    assert len(listed) == 450


def test_a_list_in_smaller_pages_than_requested_is_read_in_full(sandbox: Sandbox) -> None:
    sandbox.fail(body=page(item("a"), has_more=True))
    sandbox.fail(body=page(item("b"), item("c"), has_more=True))
    sandbox.fail(body=page(item("d")))
    assert [o.org_id for o in organizations(api(sandbox.url))] == ["a", "b", "c", "d"]
    assert [dict(asked.params)["skip"] for asked in sandbox.requests] == ["0", "1", "3"]


def test_an_empty_list_of_organizations_is_valid(sandbox: Sandbox) -> None:
    sandbox.fail(body=page())
    assert organizations(api(sandbox.url)) == []


def test_the_creation_time_is_an_instant_or_none(sandbox: Sandbox) -> None:
    sandbox.fail(
        body=page(
            item("a", created_at="2024-05-06T07:08:09.5Z"),
            item("b", created_at="2024-05-06T07:08:09+02:00"),
            item("c", created_at="2024-05-06T07:08:09"),
            item("d", created_at=None),
        )
    )
    assert [o.created_at for o in organizations(api(sandbox.url))] == [
        datetime(2024, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC),
        datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC),
        datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        None,
    ]


def with_total(total: object, *ids: str, more: bool = False) -> bytes:
    return json.dumps({"items": [item(id_) for id_ in ids], "has_more": more, "total": total}).encode()


CONTRADICTIONS: dict[str, list[bytes]] = {
    "fewer than the total": [with_total(3, "a", "b")],
    "more than the total": [with_total(1, "a", "b")],
    "one twice": [with_total(3, "a", "b", "b")],
    "one twice and no total": [with_total(None, "a", "b", "a")],
    "one twice over two pages": [with_total(3, "a", "b", more=True), with_total(3, "b")],
    "a total that changes": [with_total(3, "a", more=True), with_total(2, "b")],
}


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_list_that_contradicts_itself_is_read_a_second_time(sandbox: Sandbox, pages: list[bytes]) -> None:
    for body in [*pages, with_total(3, "a", "b", "c")]:
        sandbox.fail(body=body)
    listed = using(api(sandbox.url), lambda client: client.organizations())
    assert [o.org_id for o in listed.items] == ["a", "b", "c"]
    assert listed.problem == ""
    assert len(sandbox.requests) == len(pages) + 1
    assert dict(sandbox.requests[-1].params)["skip"] == "0"


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_list_that_contradicts_itself_twice_is_reported_and_all_its_items_are_used(
    sandbox: Sandbox, pages: list[bytes]
) -> None:
    for body in [*pages, with_total(7, "b", "c")]:
        sandbox.fail(body=body)
    listed = using(api(sandbox.url), lambda client: client.organizations())
    assert [o.org_id for o in listed.items] == ["a", "b", "c"]
    assert re.search(
        r"list of organizations contradicts itself: .*2 distinct.*; on a second read, its total is 7, and it lists 2 "
        r"distinct ones\. All 3 listed either time are counted.*set DEVIN_ORG_IDS",
        listed.problem,
    )
    assert len(sandbox.requests) == len(pages) + 1


@pytest.mark.parametrize("total", [None, "3", 3.0, True, [3]])
def test_a_total_that_is_not_a_whole_number_is_ignored(sandbox: Sandbox, total: object) -> None:
    sandbox.fail(body=with_total(total, "a", "b"))
    assert using(api(sandbox.url), lambda client: client.organizations()).problem == ""
    assert len(sandbox.requests) == 1


names = json_leaves | st.text(st.characters(exclude_categories=())) | st.lists(st.none())


def test_an_invalid_name_or_date_of_one_never_affects_the_others(sandbox: Sandbox) -> None:
    with api(sandbox.url, max_tries=1).connected(Calls()) as (client, portal):

        @settings(max_examples=150, deadline=None)
        @given(names, names, st.sets(st.sampled_from(["org_name", "created_at"])))
        @example("Team \ud83d", "", set())
        @example("a\0b", "2024-05-06T07:08:09Z", set())
        def ask(name: object, created_at: object, absent: set[str]) -> None:
            odd = {k: v for k, v in item("b", name, created_at).items() if k not in absent}
            sandbox.heal()
            sandbox.fail(body=page(item("a"), odd, item("c")))
            a, b, c = portal.call(client.organizations).items
            assert (a.org_id, b.org_id, c.org_id) == ("a", "b", "c")
            assert (b.org_name is None) == ("org_name" in absent or not isinstance(name, str))
            if isinstance(b.org_name, str) and isinstance(name, str):
                assert len(b.org_name) == len(name)
                assert "\0" not in b.org_name
                b.org_name.encode()
            if "created_at" in absent or not isinstance(created_at, str):
                assert b.created_at is None

        ask()


def test_an_invalid_id_is_reported_by_its_position(sandbox: Sandbox) -> None:
    sandbox.fail(body=page(item("a"), item(""), item("c")))
    with pytest.raises(ContractBroken, match="from offset 0, item 2 of the page"):
        organizations(api(sandbox.url))


def test_an_empty_page_that_promises_more_breaks_the_contract(sandbox: Sandbox) -> None:
    sandbox.fail(body=page(item("org-1"), has_more=True))
    sandbox.fail(body=page(has_more=True), times=None)
    with pytest.raises(ContractBroken, match=r"the list does not end \(1 organizations so far\)"):
        organizations(api(sandbox.url))
    assert len(sandbox.requests) == 2


def test_a_list_that_always_promises_more_breaks_the_contract() -> None:
    def answer(head: bytes, send: Send) -> None:
        match = re.search(rb"skip=(\d+)", head)
        assert match
        skip = int(match[1])
        send(http(page(*(item(f"org-{n}") for n in range(skip, skip + 40_000)), has_more=True)))

    with raw(answer) as server, pytest.raises(ContractBroken, match="the list does not end"):
        organizations(api(server.url))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"items": []},
        {"has_more": False},
        {"items": None, "has_more": False},
        {"items": {}, "has_more": False},
        {"items": "", "has_more": False},
        {"items": 0, "has_more": False},
        {"items": [], "has_more": None},
        {"items": [], "has_more": 0},
        {"items": [], "has_more": "false"},
        {"items": [None], "has_more": False},
        {"items": ["org-1"], "has_more": False},
        {"items": [["org-1"]], "has_more": False},
        {"items": [{"org_name": "One", "created_at": None}], "has_more": False},
        {"items": [item(org_id=None)], "has_more": False},
        {"items": [item(org_id=1)], "has_more": False},
        {"items": [item(org_id="")], "has_more": False},
        {"items": [item(org_id=["org-1"])], "has_more": False},
        {"items": [item(org_id="\ud800")], "has_more": False},
    ],
    ids=json.dumps,
)
def test_a_page_with_a_missing_field_or_a_wrong_type_breaks_the_contract(sandbox: Sandbox, body: object) -> None:
    sandbox.fail(body=json.dumps(body).encode())
    with pytest.raises(ContractBroken, match="Listing organizations from offset 0"):
        organizations(api(sandbox.url))
    assert len(sandbox.requests) == 1


def test_a_key_that_may_not_list_organizations_is_reported_with_the_setting_to_use() -> None:
    with Sandbox(api_key=KEY, lists_organizations=False) as sandbox:
        with pytest.raises(Rejected, match=r"403 \(This key may not list organizations\).* set DEVIN_ORG_IDS"):
            organizations(api(sandbox.url))
        assert len(sandbox.requests) == 1


def test_listing_is_retried_like_counting(sandbox: Sandbox) -> None:
    sandbox.fail(status=503)
    assert len(organizations(api(sandbox.url))) == len(sandbox.organizations)
    assert len(sandbox.requests) == 2
