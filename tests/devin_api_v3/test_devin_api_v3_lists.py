"""The client lists the organizations and users of v3 over all pages, or says why it cannot."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from resources.devin_errors import ContractBroken
from resources.devin_lists import Organization, User
from resources.sandbox.contract import ORGANIZATIONS_PATH_V3
from resources.sandbox.server import Sandbox
from tests.support.client import api, organizations, using
from tests.support.dialects import NOW, V2, V3, Ask, Dialect, both_lists, organization_v3, page_v3, users


def test_organizations_are_listed_over_all_pages_in_the_apis_order() -> None:
    with Sandbox(organizations=450, clock=lambda: NOW) as sandbox:
        listed = organizations(api(sandbox.url))
        assert listed == [
            # v3 returns whole seconds, and a creation time for every organization.
            Organization(o.org_id, o.org_name, (o.created_at or o.begins).replace(microsecond=0))
            for o in sandbox.organizations
        ]
        first, second, third = (dict(asked.params) for asked in sandbox.requests)
        assert {asked.path for asked in sandbox.requests} == {ORGANIZATIONS_PATH_V3}
    assert len(listed) == 450
    assert first == {"first": "200"}
    assert second == {"first": "200", "after": second["after"]}
    assert third == {"first": "200", "after": third["after"]}
    assert second["after"] != third["after"]


def test_users_are_listed_over_all_pages_in_the_apis_order(dialect: Dialect) -> None:
    with Sandbox(organizations=70, clock=lambda: NOW) as sandbox:
        listed = users(api(sandbox.url))
        assert listed == [
            User(member.user_id, member.created_at if dialect is V2 else None) for member in sandbox.members
        ]
        assert {asked.path for asked in sandbox.requests} == {dialect.users_path}
        assert len(sandbox.requests) == -(-len(listed) // 200) > 2
        sizes = {dict(asked.params)["limit" if dialect is V2 else "first"] for asked in sandbox.requests}
        assert sizes == {"200"}
    assert {user.created_at is None for user in listed} == ({True, False} if dialect is V2 else {True})


@pytest.mark.parametrize("cursor", ["a+b/c==", "x&after=y#z?", "100% é 東京", " ", "0", "a\\b\n"])
@both_lists
def test_a_cursor_is_sent_back_unchanged(sandbox: Sandbox, ask: Ask, cursor: str) -> None:
    sandbox.fail(body=V3.page("a", more=True, cursor=cursor))
    sandbox.fail(body=V3.page("b", "c", more=True, cursor="following"))
    sandbox.fail(body=V3.page("d"))
    assert using(api(sandbox.url), ask) == ["a", "b", "c", "d"]
    assert [asked.params for asked in sandbox.requests] == [
        (("first", "200"),),
        (("first", "200"), ("after", cursor)),
        (("first", "200"), ("after", "following")),
    ]


@both_lists
def test_the_last_pages_cursor_is_not_followed(sandbox: Sandbox, ask: Ask) -> None:
    page: dict[str, Any] = json.loads(V3.page("a"))
    sandbox.fail(body=json.dumps(page | {"end_cursor": "more"}).encode())
    assert using(api(sandbox.url), ask) == ["a"]
    assert len(sandbox.requests) == 1


@both_lists
def test_an_empty_list_is_valid(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    sandbox.fail(body=dialect.page())
    assert using(api(sandbox.url), ask) == []


def test_the_creation_time_of_an_organization_is_an_instant_or_none(sandbox: Sandbox) -> None:
    moments = [0, 1_714_979_289, -1, 253_402_300_799, None]
    sandbox.fail(body=page_v3(*(organization_v3(f"org-{at}", created_at=at) for at in moments)))
    assert [o.created_at for o in organizations(api(sandbox.url))] == [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        None,
    ]


@pytest.mark.parametrize(
    "created_at",
    [
        "2024-05-06T07:08:09Z",
        "1714979289",
        "",
        True,
        False,
        0.0,
        1_714_979_289.0,
        1_714_979_289.5,
        253_402_300_800,  # the year 10000
        1_714_979_289_000,  # milliseconds
        -62_135_596_801,  # the year 0
        2**63,
        -(2**63) - 1,
        10**400,
        [1_714_979_289],
        {"seconds": 1_714_979_289},
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_creation_time_that_is_not_unix_seconds_is_none(sandbox: Sandbox, created_at: object) -> None:
    sandbox.fail(body=page_v3(organization_v3(), organization_v3("org-2", created_at=created_at)))
    assert [o.created_at is None for o in organizations(api(sandbox.url))] == [False, True]


@pytest.mark.parametrize("cursor", [None, "", 0, 7, True, ["more"], {"after": "more"}], ids=repr)
@both_lists
def test_a_page_that_promises_more_without_a_cursor_breaks_the_contract(
    sandbox: Sandbox, ask: Ask, cursor: object
) -> None:
    page: dict[str, Any] = json.loads(V3.page("a", more=True))
    sandbox.fail(body=json.dumps(page | {"end_cursor": cursor}).encode())
    with pytest.raises(ContractBroken, match=r"from offset 0: .*another page but no usable cursor"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"has_next_page": False, "end_cursor": None},
        {"items": [], "has_next_page": False},
        {"items": [], "has_next_page": True},
        {"items": [], "end_cursor": None},
        {"items": None, "has_next_page": False, "end_cursor": None},
        {"items": {}, "has_next_page": False, "end_cursor": None},
        {"items": "", "has_next_page": False, "end_cursor": None},
        {"items": [], "has_next_page": None, "end_cursor": None},
        {"items": [], "has_next_page": 0, "end_cursor": None},
        {"items": [], "has_next_page": "false", "end_cursor": None},
        {"items": [None], "has_next_page": False, "end_cursor": None},
        {"items": ["org-1"], "has_next_page": False, "end_cursor": None},
        {"items": [["org-1"]], "has_next_page": False, "end_cursor": None},
        {"items": [{}], "has_next_page": False, "end_cursor": None},
    ],
    ids=json.dumps,
)
@both_lists
def test_a_page_with_a_missing_field_or_a_wrong_type_breaks_the_contract(
    sandbox: Sandbox, ask: Ask, body: object
) -> None:
    sandbox.fail(body=json.dumps(body).encode())
    with pytest.raises(ContractBroken, match=r"Listing \w+s from offset 0"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize(
    "item",
    [
        {"name": "One", "created_at": 0},
        organization_v3(org_id=None),
        organization_v3(org_id=1),
        organization_v3(org_id=""),
        organization_v3(org_id=["org-1"]),
        organization_v3(org_id="\ud800"),
    ],
    ids=json.dumps,
)
def test_an_organization_without_a_usable_id_breaks_the_contract(sandbox: Sandbox, item: object) -> None:
    sandbox.fail(body=page_v3(organization_v3("org-0"), item))
    with pytest.raises(ContractBroken, match="Listing organizations from offset 0, item 2 of the page:"):
        organizations(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("user_id", [None, 1, "", ["user-1"], "\ud800"], ids=ascii)
def test_a_user_without_an_id_breaks_the_contract(sandbox: Sandbox, dialect: Dialect, user_id: object) -> None:
    page: dict[str, Any] = json.loads(dialect.page("user-0", "user-1"))
    page["items"][1]["user_id"] = user_id
    sandbox.fail(body=json.dumps(page).encode())
    with pytest.raises(ContractBroken, match="Listing users from offset 0"):
        users(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("ids", [[], ["a"]], ids=["empty", "of one"])
@both_lists
def test_a_page_of_the_other_version_is_not_a_list(
    sandbox: Sandbox, dialect: Dialect, ask: Ask, ids: list[str]
) -> None:
    other = V3 if dialect is V2 else V2
    sandbox.fail(body=other.page(*ids))
    with pytest.raises(ContractBroken, match="the page breaks the contract"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1
