"""v2 of the sandbox: parameters, keys, organizations and members. All requests are real HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from resources.sandbox.contract import LIST_PATH, MEMBERS_PATH, ORGANIZATIONS_PATH, SESSIONS_PATH
from resources.sandbox.server import Sandbox
from tests.support.sandbox import FIRST, KEY, MICROSECOND, NOW, ask, client_of, text, window

# Parameters


def test_start_and_end_mean_the_same_as_start_date_and_end_date(client: httpx.Client) -> None:
    start, end = datetime(2025, 2, 3, 8, tzinfo=UTC), datetime(2025, 2, 9, 8, tzinfo=UTC)
    count = ask(client, window(start, end))
    assert count > 0
    assert ask(client, {"start": text(start), "end": text(end)}) == count


@pytest.mark.parametrize("pair", [("start_date", "end"), ("end_date", "start"), ("start_date", "start")])
def test_parameters_from_both_pairs_are_refused(client: httpx.Client, pair: tuple[str, str]) -> None:
    answer = client.get(SESSIONS_PATH, params={name: text(FIRST) for name in pair})
    assert answer.status_code == 400
    assert "both pairs" in answer.json()["detail"]


@pytest.mark.parametrize("length", [timedelta(0), -MICROSECOND])
def test_an_end_that_is_not_after_the_start_is_refused(client: httpx.Client, length: timedelta) -> None:
    answer = client.get(SESSIONS_PATH, params=window(NOW, NOW + length))
    assert answer.status_code == 400
    assert answer.json() == {"detail": "The end must be later than the start"}


def test_omitted_bounds_default_to_the_billing_cycle_until_now(sandbox: Sandbox, client: httpx.Client) -> None:
    cycle = datetime(2025, 7, 1, tzinfo=UTC)
    so_far = sandbox.truth(cycle, NOW)
    assert ask(client, {}) == so_far > 0
    early = datetime(2025, 7, 8, tzinfo=UTC)
    assert ask(client, {"end_date": text(early)}) == sandbox.truth(cycle, early) < so_far
    assert ask(client, {"start_date": text(FIRST)}) == sandbox.truth(FIRST, NOW) > so_far


def test_a_misspelled_parameter_is_ignored_and_gives_the_billing_cycle(client: httpx.Client) -> None:
    assert ask(client, {"startdate": text(FIRST), "enddate": text(NOW)}) == ask(client, {})


def test_a_moment_without_a_time_zone_is_utc_and_one_with_an_offset_is_converted(client: httpx.Client) -> None:
    start, end = datetime(2025, 2, 3, 8, tzinfo=UTC), datetime(2025, 2, 4, 8, tzinfo=UTC)
    count = ask(client, window(start, end))
    bare = {"start_date": "2025-02-03T08:00:00", "end_date": "2025-02-04T08:00:00"}
    offset = {"start_date": "2025-02-03T10:00:00+02:00", "end_date": "2025-02-04T03:00:00-05:00"}
    assert ask(client, {**bare}) == ask(client, {**offset}) == count
    assert count != ask(client, window(start - timedelta(hours=2), end - timedelta(hours=2)))


@pytest.mark.parametrize("name", ["start_date", "end_date", "start", "end"])
@pytest.mark.parametrize("value", ["null", "yesterday", "2025-02-30T00:00:00Z", "2025-02-03T10:00:00 02:00", ""])
def test_an_invalid_datetime_gets_a_422_in_the_form_of_the_contract(
    client: httpx.Client, name: str, value: str
) -> None:
    answer = client.get(SESSIONS_PATH, params={name: value})
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"] == ["query", name]
    assert problem["msg"].startswith("Input should be a valid datetime")
    assert problem["type"].startswith("datetime_")


@pytest.mark.parametrize(("option", "status"), [("zero", 200), ("forbidden", 403), ("not_found", 404)])
def test_an_unknown_organization_gets_the_configured_response(option: Any, status: int) -> None:
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


@pytest.mark.parametrize("path", [SESSIONS_PATH, ORGANIZATIONS_PATH, MEMBERS_PATH, LIST_PATH])
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
def test_the_key_is_checked_before_the_parameters(sandbox: Sandbox, path: str, header: str | None, status: int) -> None:
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


def test_an_unknown_path_gets_a_404(client: httpx.Client) -> None:
    for path in ("/v2/enterprise/metrics", "/v4/enterprise/metrics/sessions", "/", "/openapi.json", "/docs"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


# Organizations


def test_the_pages_have_every_organization_once_in_order(sandbox: Sandbox, client: httpx.Client) -> None:
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


def test_a_page_defaults_to_the_first_hundred_and_is_empty_past_the_end() -> None:
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
def test_a_page_out_of_bounds_gets_a_422(client: httpx.Client, name: str, value: str, problem: str) -> None:
    answer = client.get(ORGANIZATIONS_PATH, params={name: value})
    assert answer.status_code == 422
    assert [(item["loc"], item["type"]) for item in answer.json()["detail"]] == [(["query", name], problem)]


def test_a_key_can_be_allowed_to_count_but_not_to_list() -> None:
    with Sandbox(lists_organizations=False) as sandbox, client_of(sandbox) as client:
        answer = client.get(ORGANIZATIONS_PATH)
        assert (answer.status_code, answer.json()) == (403, {"detail": "This key may not list organizations"})
        assert ask(client, window(FIRST, NOW)) > 0


# Members


def test_the_pages_have_every_user_of_every_organization_once(sandbox: Sandbox, client: httpx.Client) -> None:
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


def test_members_have_unique_addresses_but_not_always_a_name_or_a_creation_time() -> None:
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
def test_a_page_of_members_out_of_bounds_gets_a_422(client: httpx.Client, name: str, value: str) -> None:
    answer = client.get(MEMBERS_PATH, params={name: value})
    assert answer.status_code == 422
    assert [item["loc"] for item in answer.json()["detail"]] == [["query", name]]


def test_a_key_can_be_allowed_to_list_organizations_but_not_members() -> None:
    with Sandbox(lists_members=False) as sandbox, client_of(sandbox) as client:
        answer = client.get(MEMBERS_PATH)
        assert (answer.status_code, answer.json()) == (403, {"detail": "This key may not list members"})
        assert client.get(ORGANIZATIONS_PATH).status_code == 200
