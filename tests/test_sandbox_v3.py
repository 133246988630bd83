"""v3 of the sandbox, over real HTTP: Unix seconds, cursors, problem+json, service keys, and the sessions of v2."""

import copy
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.sandbox.asked import Asked
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
from tests import test_sandbox as v2
from tests.test_sandbox import FIRST, MICROSECOND, NOW, contract, few, promises

KEY = "cog_sandbox"
SECOND = timedelta(seconds=1)
PATHS = (SESSIONS_PATH_V3, ORGANIZATIONS_PATH_V3, MEMBERS_PATH_V3)
BREAKDOWNS = {
    "sessions_created_by_origin": {"api", "automation", "desktop", "jira", "linear", "slack", "teams", "webapp"},
    "sessions_created_by_size": {"xs", "s", "m", "l", "xl"},
}
Params = dict[str, int | str | list[str]]


def client_of(sandbox: Sandbox, key: str = KEY) -> httpx.Client:
    return v2.client_of(sandbox, key)


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def window(start: datetime, end: datetime, **filters: list[str]) -> Params:
    return {"time_after": unix(start), "time_before": unix(end), **filters}


def ask(client: httpx.Client, params: Params) -> dict[str, Any]:
    answer = client.get(SESSIONS_PATH_V3, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert list(body) == ["sessions_created_count", *BREAKDOWNS]
    assert type(body["sessions_created_count"]) is int
    for breakdown, kinds in BREAKDOWNS.items():
        assert set(body[breakdown]) == kinds
        assert sum(body[breakdown].values()) == body["sessions_created_count"]
    return body


def count(client: httpx.Client, params: Params) -> int:
    return int(ask(client, params)["sessions_created_count"])


def check_problem(answer: httpx.Response, status: int, detail: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    title = httpx.codes.get_reason_phrase(status)
    assert answer.json() == {"type": "about:blank", "title": title, "status": status, "detail": detail}


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[Sandbox, httpx.Client, httpx.Client]]:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client, v2.client_of(sandbox) as older:
        yield sandbox, client, older


@pytest.fixture
def sandbox(serving: tuple[Sandbox, httpx.Client, httpx.Client]) -> Iterator[Sandbox]:
    yield serving[0]
    serving[0].heal()
    serving[0].requests.clear()


@pytest.fixture
def client(serving: tuple[Sandbox, httpx.Client, httpx.Client]) -> httpx.Client:
    return serving[1]


# Counts

seconds = st.integers(0, 240 * 86_400).map(lambda after: FIRST + timedelta(seconds=after))


@few
@given(st.lists(seconds, min_size=3, max_size=3, unique=True).map(sorted))
def test_adjacent_windows_add_up_in_the_count_and_in_every_breakdown(
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


def test_every_origin_and_size_occurs_and_the_web_is_where_most_sessions_start(client: httpx.Client) -> None:
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


def test_a_later_change_at_the_source_shows_in_both_versions() -> None:
    at = datetime(2025, 2, 5, 12, tzinfo=UTC)
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client, v2.client_of(sandbox) as older:
        before = count(client, window(FIRST, NOW))
        sandbox.add_sessions("org-unlisted", at, count=4)
        assert count(client, window(FIRST, NOW)) == before + 4
        assert count(client, window(at, at + SECOND, org_ids=["org-unlisted"])) == 4
        assert v2.ask(older, v2.window(at, at + SECOND, org_ids=["org-unlisted"])) == 4
        assert sandbox.remove_sessions("org-unlisted", at, at + SECOND) == 4
        assert count(client, window(FIRST, NOW)) == before


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
        ("1735689600000", "not Unix seconds of the years 1970 to 9999"),
        ("-1", "not Unix seconds of the years 1970 to 9999"),
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
def test_an_unknown_organization_is_answered_as_configured(option: Any, status: int) -> None:
    with Sandbox(unknown_organization=option, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        known = sandbox.organizations[0].org_id
        params = window(FIRST, NOW, org_ids=[known, "org-0"])
        if status == 200:
            assert count(client, params) == sandbox.truth(FIRST, NOW, [known]) > 0
        else:
            check_problem(client.get(SESSIONS_PATH_V3, params=params), status, "Unknown organization")


@pytest.mark.parametrize(("semantics", "taken"), [("union", slice(None)), ("last", slice(2, 3)), ("first", slice(1))])
def test_of_several_organizations_all_or_only_the_last_or_first_count(semantics: Any, taken: slice) -> None:
    with Sandbox(org_ids_semantics=semantics, clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        org_ids = [item.org_id for item in sandbox.organizations[:3]]
        assert count(client, window(FIRST, NOW, org_ids=org_ids)) == sandbox.truth(FIRST, NOW, org_ids[taken])


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
def test_the_key_decides_before_the_parameters(sandbox: Sandbox, path: str, header: str | None, status: int) -> None:
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


def test_an_unknown_path_is_not_found(client: httpx.Client) -> None:
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
def test_the_pages_hold_every_organization_once_in_order(
    sandbox: Sandbox, client: httpx.Client, first: int, sizes: list[int]
) -> None:
    found = pages(client, ORGANIZATIONS_PATH_V3, first)
    assert [len(page) for page in found] == sizes
    assert [item for page in found for item in page] == [
        {"org_id": item.org_id, "name": item.org_name, "created_at": unix(item.created_at or item.begins)}
        for item in sandbox.organizations
    ]
    assert all(type(item["created_at"]) is int for page in found for item in page)


def test_the_pages_hold_every_member_once_in_order(sandbox: Sandbox, client: httpx.Client) -> None:
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


def test_a_source_without_organizations_lists_an_empty_page() -> None:
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
def test_a_key_can_be_allowed_one_list_and_refused_the_other(refused: str, what: str, allowed: str) -> None:
    with (
        Sandbox(lists_organizations=what != "organizations", lists_members=what != "members") as sandbox,
        client_of(sandbox) as client,
    ):
        check_problem(client.get(refused), 403, f"This key may not list {what}")
        assert client.get(allowed).status_code == 200
        assert count(client, window(FIRST, NOW)) > 0


# Faults, rate and log


def test_a_status_is_explained_as_a_problem(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=503, times=2)
    for path in (SESSIONS_PATH_V3, ORGANIZATIONS_PATH_V3):
        check_problem(client.get(path), 503, "Service Unavailable")
    assert client.get(ORGANIZATIONS_PATH_V3).status_code == 200
    assert fault.hits == 2


def test_a_body_or_a_content_type_replaces_the_problem(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(status=500, body=b'{"sessions_created_count": 1}')
    answer = client.get(SESSIONS_PATH_V3)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
    assert answer.content == b'{"sessions_created_count": 1}'
    sandbox.fail(status=500, content_type="text/plain")
    answer = client.get(SESSIONS_PATH_V3)
    assert answer.headers["content-type"] == "text/plain"
    assert answer.json()["title"] == "Internal Server Error"


def test_too_many_requests_can_tell_when_to_come_back(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fail(retry_after="2")
    answer = client.get(SESSIONS_PATH_V3)
    check_problem(answer, 429, "Too Many Requests")
    assert answer.headers["retry-after"] == "2"


def test_a_dropped_or_truncated_answer_is_spoiled_as_in_v2(sandbox: Sandbox, client: httpx.Client) -> None:
    for drop in (True, False):
        sandbox.fail(drop=drop, truncate=not drop)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            client.get(SESSIONS_PATH_V3, params=window(FIRST, NOW))
    assert [asked.status for asked in sandbox.requests] == [None, 200]


def test_a_fault_strikes_only_the_version_organization_and_window_it_is_for(
    serving: tuple[Sandbox, httpx.Client, httpx.Client], sandbox: Sandbox
) -> None:
    _, client, older = serving
    bad, good = (item.org_id for item in sandbox.organizations[:2])
    sandbox.fail(status=502, path=SESSIONS_PATH_V3, org_id=bad, when=lambda asked: asked.start == FIRST, times=None)

    def status(start: datetime, org_id: str) -> int:
        return client.get(SESSIONS_PATH_V3, params=window(start, NOW, org_ids=[org_id])).status_code

    assert status(FIRST, bad) == 502
    assert status(FIRST, good) == status(FIRST + SECOND, bad) == 200
    assert older.get(SESSIONS_PATH, params=v2.window(FIRST, NOW, org_ids=[bad])).status_code == 200


def test_a_fault_spares_requests_that_are_refused_for_their_key(sandbox: Sandbox, client: httpx.Client) -> None:
    fault = sandbox.fail(status=503)
    with client_of(sandbox, "apk_user_sandbox") as stranger:
        assert stranger.get(SESSIONS_PATH_V3).status_code == 403
    assert fault.hits == 0
    assert client.get(SESSIONS_PATH_V3).status_code == 503


def test_both_versions_share_one_rate_limit() -> None:
    now = [7.0]
    with (
        Sandbox(rate_limit=2, rate_limit_headers=True, monotonic=lambda: now[0]) as sandbox,
        client_of(sandbox) as client,
        v2.client_of(sandbox) as older,
    ):
        assert older.get(ORGANIZATIONS_PATH).headers["x-ratelimit-remaining"] == "1"
        assert client.get(ORGANIZATIONS_PATH_V3).headers["x-ratelimit-remaining"] == "0"
        answer = client.get(ORGANIZATIONS_PATH_V3)
        check_problem(answer, 429, "Too many requests")
        assert answer.headers["retry-after"] == "1"
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("2", "0")
        now[0] = 8.0
        assert client.get(ORGANIZATIONS_PATH_V3).status_code == 200


def test_the_log_tells_the_window_in_moments_but_not_the_key(sandbox: Sandbox, client: httpx.Client) -> None:
    client.get(f"{SESSIONS_PATH_V3}?time_after=1735689600&time_before=1735776000&org_ids=a&org_ids=b&user_ids=u")
    client.get(SESSIONS_PATH_V3, params={"time_after": 1735689600000, "time_before": "soon", "start": "2025-01-01"})
    client.get(MEMBERS_PATH_V3, params={"first": 7})
    counted, refused, listed = sandbox.requests
    assert counted == Asked(
        path=SESSIONS_PATH_V3,
        params=(
            ("time_after", "1735689600"),
            ("time_before", "1735776000"),
            ("org_ids", "a"),
            ("org_ids", "b"),
            ("user_ids", "u"),
        ),
        start=FIRST,
        end=FIRST + timedelta(days=1),
        org_ids=("a", "b"),
        user_ids=("u",),
        status=200,
    )
    assert (refused.start, refused.end, refused.status) == (None, None, 422)
    assert listed == Asked(MEMBERS_PATH_V3, (("first", "7"),), None, None, (), (), 200)
    assert KEY not in repr(sandbox.requests)


# Contract: `test_sandbox` holds the comparison itself


def counting(document: dict[str, Any]) -> Any:
    return document["paths"][SESSIONS_PATH_V3]["get"]


def schema(document: dict[str, Any], name: str) -> Any:
    return document["components"]["schemas"][name]


MUTATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a path is missing": lambda it: it["paths"].pop(MEMBERS_PATH_V3),
    "a bound is optional": lambda it: counting(it)["parameters"][0].update(required=False),
    "a bound is a date": lambda it: counting(it)["parameters"][1].update(schema={"type": "string", "format": "date"}),
    "a page is larger": lambda it: it["paths"][MEMBERS_PATH_V3]["get"]["parameters"][1]["schema"].update(maximum=500),
    "an error is plain JSON": lambda it: counting(it)["responses"]["403"].update(
        content={"application/json": counting(it)["responses"]["403"]["content"]["application/problem+json"]}
    ),
    "an error has no body": lambda it: counting(it)["responses"]["422"].pop("content"),
    "a problem has no title": lambda it: schema(it, "ProblemDetail")["properties"].pop("title"),
    "a problem may lack its detail": lambda it: schema(it, "ProblemDetail")["required"].remove("detail"),
    "a breakdown is missing": lambda it: schema(it, "SessionMetrics")["properties"].pop("sessions_created_by_size"),
    "an origin is missing": lambda it: schema(it, "SessionCountsByOrigin")["properties"].pop("teams"),
    "the cursor is never null": lambda it: schema(it, "OrganizationsPage")["properties"]["end_cursor"]["anyOf"].pop(),
    "the creation time is a text": lambda it: schema(it, "Organization")["properties"]["created_at"].update(
        type="string"
    ),
    "the name is never null": lambda it: schema(it, "Member")["properties"]["name"]["anyOf"].pop(),
}


@pytest.mark.parametrize("difference", MUTATIONS)
def test_the_comparison_with_the_contract_sees_every_difference(difference: str) -> None:
    mutated = copy.deepcopy(contract("v3"))
    MUTATIONS[difference](mutated)
    assert promises(mutated) != promises(contract("v3"))
