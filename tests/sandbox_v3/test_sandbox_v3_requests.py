"""v3 of the sandbox: Unix seconds, cursors, problem+json and service keys. All requests are real HTTP."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from resources.sandbox.contract import (
    MEMBERS_PATH,
    MEMBERS_PATH_V3,
    ORGANIZATIONS_PATH,
    ORGANIZATIONS_PATH_V3,
    SESSIONS_PATH,
    SESSIONS_PATH_V3,
    Version,
)
from resources.sandbox.server import Sandbox
from tests.support import sandbox as v2
from tests.support.sandbox import FIRST, NOW
from tests.support.sandbox_v3 import KEY, PATHS, SECOND, Params, check_problem, client_of, count, unix, window

# Parameters


@pytest.mark.parametrize("missing", ["time_after", "time_before"])
def test_both_bounds_are_required(client: httpx.Client, missing: str) -> None:
    params = window(FIRST, NOW)
    del params[missing]
    check_problem(client.get(SESSIONS_PATH_V3, params=params), 422, f"{missing}: Field required")


@pytest.mark.parametrize("name", ["time_after", "time_before"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("null", "unable to parse string as an integer"),
        ("", "unable to parse string as an integer"),
        ("2025-01-01T00:00:00Z", "unable to parse string as an integer"),
        ("1735689600.5", "unable to parse string as an integer"),
        ("1735689600000", "not Unix seconds in the years 1970 to 9999"),
        ("-1", "not Unix seconds in the years 1970 to 9999"),
    ],
)
def test_a_bound_that_is_not_unix_seconds_is_refused(client: httpx.Client, name: str, value: str, problem: str) -> None:
    answer = client.get(SESSIONS_PATH_V3, params={**window(FIRST, NOW), name: value})
    check_problem(answer, 422, answer.json()["detail"])
    assert answer.json()["detail"].startswith(f"{name}: ")
    assert problem in answer.json()["detail"]


@pytest.mark.parametrize("length", [timedelta(0), -SECOND])
def test_an_end_that_is_not_after_the_start_is_refused(client: httpx.Client, length: timedelta) -> None:
    answer = client.get(SESSIONS_PATH_V3, params=window(FIRST, FIRST + length))
    check_problem(answer, 400, "The end must be later than the start")


@pytest.mark.parametrize(("option", "status"), [("zero", 200), ("forbidden", 403), ("not_found", 404)])
def test_an_unknown_organization_gets_the_configured_response(option: Any, status: int) -> None:
    with Sandbox(unknown_organization=option, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        known = sandbox.organizations[0].org_id
        params = window(FIRST, NOW, org_ids=[known, "org-0"])
        if status == 200:
            assert count(client, params) == sandbox.truth(FIRST, NOW, [known]) > 0
        else:
            check_problem(client.get(SESSIONS_PATH_V3, params=params), status, "Unknown organization")


@pytest.mark.parametrize(("semantics", "counted"), [("union", slice(None)), ("last", slice(2, 3)), ("first", slice(1))])
def test_all_of_several_organizations_are_counted_or_only_the_first_or_last(semantics: Any, counted: slice) -> None:
    with Sandbox(org_ids_semantics=semantics, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        org_ids = [item.org_id for item in sandbox.organizations[:3]]
        assert count(client, window(FIRST, NOW, org_ids=org_ids)) == sandbox.truth(FIRST, NOW, org_ids[counted])


# Keys and versions


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer cog_other", 401),
        ("Bearer something", 401),
        (f"Basic {KEY}", 401),
        ("Bearer apk_organization", 403),
        ("Bearer apk_user_sandbox", 403),
        (f"Bearer {KEY}", 200),
    ],
)
def test_the_key_is_checked_before_the_parameters(sandbox: Sandbox, path: str, header: str | None, status: int) -> None:
    headers = {} if header is None else {"Authorization": header}
    good = httpx.get(sandbox.url + path, params=window(FIRST, NOW), headers=headers, trust_env=False, verify=False)
    assert good.status_code == status
    bad_params = {"time_after": "yesterday", "first": "many"}
    bad = httpx.get(sandbox.url + path, params=bad_params, headers=headers, trust_env=False, verify=False)
    if status == 200:
        assert bad.status_code == 422
    else:
        reasons = {401: "Missing or invalid API key", 403: "This kind of key is not accepted here"}
        check_problem(good, status, reasons[status])
        check_problem(bad, status, reasons[status])


def test_another_service_key_can_be_required() -> None:
    with Sandbox(service_key="cog_mine") as sandbox:
        with client_of(sandbox, "cog_mine") as client:
            assert client.get(ORGANIZATIONS_PATH_V3).status_code == 200
        with client_of(sandbox) as client:
            check_problem(client.get(ORGANIZATIONS_PATH_V3), 401, "Missing or invalid API key")


def test_an_unknown_path_gets_a_404(client: httpx.Client) -> None:
    check_problem(client.get("/v3/enterprise/metrics"), 404, "Not Found")
    assert client.get("/v3").json() == {"detail": "Not Found"}


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_version_that_is_not_served_has_no_paths(version: Version) -> None:
    with Sandbox(versions=[version]) as sandbox:
        with v2.client_of(sandbox) as client:
            statuses = {client.get(path).status_code for path in (SESSIONS_PATH, ORGANIZATIONS_PATH, MEMBERS_PATH)}
            assert statuses == ({200} if version == "v2" else {404})
        with client_of(sandbox) as client:
            statuses = {client.get(path, params=window(FIRST, NOW)).status_code for path in PATHS}
            assert statuses == ({200} if version == "v3" else {404})
        assert [bool(sandbox.openapi(it)["paths"]) for it in ("v2", "v3")] == [version == "v2", version == "v3"]


# Lists


def pages(client: httpx.Client, path: str, first: int) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    params: Params = {"first": first}
    while True:
        answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert list(page) == ["items", "end_cursor", "has_next_page"]
        assert (page["end_cursor"] is not None) == page["has_next_page"]
        found.append(page["items"])
        if not page["has_next_page"]:
            return found
        params["after"] = page["end_cursor"]


@pytest.mark.parametrize(("first", "sizes"), [(5, [5, 5, 2]), (6, [6, 6]), (12, [12]), (200, [12])])
def test_the_pages_have_every_organization_once_in_order(
    sandbox: Sandbox, client: httpx.Client, first: int, sizes: list[int]
) -> None:
    found = pages(client, ORGANIZATIONS_PATH_V3, first)
    assert [len(page) for page in found] == sizes
    assert [item for page in found for item in page] == [
        {"org_id": item.org_id, "name": item.org_name, "created_at": unix(item.created_at or item.begins)}
        for item in sandbox.organizations
    ]
    assert all(type(item["created_at"]) is int for page in found for item in page)


def test_the_pages_have_every_member_once_in_order(sandbox: Sandbox, client: httpx.Client) -> None:
    found = pages(client, MEMBERS_PATH_V3, 10)
    assert {len(page) for page in found[:-1]} == {10}
    assert [item for page in found for item in page] == [
        {"user_id": member.user_id, "email": member.email, "name": member.name} for member in sandbox.members
    ]


def test_a_page_defaults_to_the_first_hundred() -> None:
    with Sandbox(organizations=101) as sandbox, client_of(sandbox) as client:
        for path in (ORGANIZATIONS_PATH_V3, MEMBERS_PATH_V3):
            page = client.get(path).json()
            assert (len(page["items"]), page["has_next_page"]) == (100, True)


def test_without_organizations_the_only_page_is_empty() -> None:
    with Sandbox(organizations=0) as sandbox, client_of(sandbox) as client:
        for path in (ORGANIZATIONS_PATH_V3, MEMBERS_PATH_V3):
            assert client.get(path).json() == {"items": [], "end_cursor": None, "has_next_page": False}


@pytest.mark.parametrize("path", [ORGANIZATIONS_PATH_V3, MEMBERS_PATH_V3])
@pytest.mark.parametrize(
    ("first", "detail"),
    [
        ("0", "first: Input should be greater than or equal to 1"),
        ("201", "first: Input should be less than or equal to 200"),
        ("ten", "first: Input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_a_page_out_of_bounds_is_refused(client: httpx.Client, path: str, first: str, detail: str) -> None:
    check_problem(client.get(path, params={"first": first}), 422, detail)


@pytest.mark.parametrize("cursor", ["", "5", "nonsense", "Zm9yZ2VkOjU=", "ÿ"])
def test_only_a_cursor_of_the_same_list_is_accepted(client: httpx.Client, cursor: str) -> None:
    members = client.get(MEMBERS_PATH_V3, params={"first": 1}).json()["end_cursor"]
    for after in (cursor, members):
        answer = client.get(ORGANIZATIONS_PATH_V3, params={"after": after})
        check_problem(answer, 422, "after: not a cursor of this list")


@pytest.mark.parametrize(
    ("refused", "what", "allowed"),
    [
        (ORGANIZATIONS_PATH_V3, "organizations", MEMBERS_PATH_V3),
        (MEMBERS_PATH_V3, "members", ORGANIZATIONS_PATH_V3),
    ],
)
def test_a_key_can_be_allowed_to_read_one_list_but_not_the_other(refused: str, what: str, allowed: str) -> None:
    with (
        Sandbox(lists_organizations=what != "organizations", lists_members=what != "members") as sandbox,
        client_of(sandbox) as client,
    ):
        check_problem(client.get(refused), 403, f"This key may not list {what}")
        assert client.get(allowed).status_code == 200
        assert count(client, window(FIRST, NOW)) > 0
