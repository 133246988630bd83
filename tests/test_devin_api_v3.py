"""The client asks v3 as exactly as v2, each with the keys that are for it, and no bad input passes on either."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from resources.calls import Calls
from resources.devin_answers import Organization, User
from resources.devin_api import MAX_IDS, DevinAPI, DevinClient
from resources.devin_errors import ContractBroken, DevinAPIError, Rejected, SourceDown, Unauthorized
from resources.devin_key import KEY_VARIABLE
from resources.sandbox.contract import (
    MEMBERS_PATH,
    MEMBERS_PATH_V3,
    ORGANIZATIONS_PATH,
    ORGANIZATIONS_PATH_V3,
    SESSIONS_PATH,
    SESSIONS_PATH_V3,
)
from resources.sandbox.server import Sandbox
from tests.test_devin_api import BERLIN, END, START, api, count, everything_told_by, organizations, using

KEY = "cog_sandbox"
NOW = datetime(2026, 1, 10, 13, 45, 30, 250_000, tzinfo=UTC)
PROBLEM = "application/problem+json"
TEN_MEGABYTES = 10 * 1024 * 1024

Ask = Callable[[DevinClient], Awaitable[object]]


@dataclass(frozen=True)
class Dialect:
    """A version of the API as its source speaks it, for tests that answer in the source's place."""

    name: Literal["v2", "v3"]
    key: str
    key_wanted: str
    sessions_path: str
    organizations_path: str
    users_path: str
    count_field: str
    org_name_field: str
    created_at: object

    def counted(self, value: object) -> bytes:
        return json.dumps({self.count_field: value}).encode()

    def page(self, *ids: str, more: bool = False, cursor: str = "more") -> bytes:
        """A page of items that are organization and user at once, so that it fits in either list."""
        items = [
            {"org_id": id_, "user_id": id_, self.org_name_field: "One", "created_at": self.created_at} for id_ in ids
        ]
        if self.name == "v2":
            return json.dumps({"items": items, "has_more": more}).encode()
        return page_v3(*items, has_next_page=more, end_cursor=cursor if more else None)


V2 = Dialect(
    "v2",
    "apk_user_sandbox",
    r"the personal key \(apk_user_…\) of an Enterprise admin",
    SESSIONS_PATH,
    ORGANIZATIONS_PATH,
    MEMBERS_PATH,
    "sessions_count",
    "org_name",
    "2024-05-06T07:08:09Z",
)
V3 = Dialect(
    "v3",
    KEY,
    r"the key \(cog_…\) of an enterprise service user that has the permission ViewAccountMetrics",
    SESSIONS_PATH_V3,
    ORGANIZATIONS_PATH_V3,
    MEMBERS_PATH_V3,
    "sessions_created_count",
    "name",
    1_714_979_289,
)


def page_v3(*items: object, has_next_page: object = False, end_cursor: object = None) -> bytes:
    return json.dumps({"items": items, "has_next_page": has_next_page, "end_cursor": end_cursor}).encode()


def organization_v3(org_id: object = "org-1", name: object = "One", created_at: object = 0) -> dict[str, object]:
    return {"org_id": org_id, "name": name, "created_at": created_at}


async def counting(client: DevinClient) -> object:
    return await client.count(START, END)


async def listing_organizations(client: DevinClient) -> object:
    return [o.org_id for o in (await client.organizations()).items]


async def listing_users(client: DevinClient) -> object:
    return [user.user_id for user in (await client.users()).items]


async def everything(client: DevinClient) -> object:
    return [await ask(client) for ask in (counting, listing_organizations, listing_users)]


def users(api: DevinAPI) -> list[User]:
    return using(api, lambda client: client.users()).items


def some(number: int, first: int = 0) -> list[str]:
    return [f"id-{n}" for n in range(first, first + number)]


both_lists = pytest.mark.parametrize("ask", [listing_organizations, listing_users])
every_question = pytest.mark.parametrize("ask", [counting, listing_organizations, listing_users])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    # To load every root certificate takes longer than a question; in an empty folder there are none.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture(params=[V2, V3], ids=["v2", "v3"])
def dialect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Dialect:
    """Either version in turn, with its key set."""
    spoken: Dialect = request.param
    monkeypatch.setenv(KEY_VARIABLE, spoken.key)
    return spoken


@pytest.fixture(scope="module")
def serving() -> Iterator[Sandbox]:
    with Sandbox(clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(serving: Sandbox) -> Iterator[Sandbox]:
    yield serving
    serving.heal()
    serving.requests.clear()


# The version goes with the key


def test_the_kind_of_key_decides_which_version_is_asked(sandbox: Sandbox, dialect: Dialect) -> None:
    asking = api(sandbox.url)
    assert asking.version_name == dialect.name
    assert sandbox.requests == []
    using(asking, everything)
    assert [(asked.path, asked.status) for asked in sandbox.requests] == [
        (dialect.sessions_path, 200),
        (dialect.organizations_path, 200),
        (dialect.users_path, 200),
    ]


def test_the_version_that_fits_the_key_may_be_named(sandbox: Sandbox, dialect: Dialect) -> None:
    asking = api(sandbox.url, version=dialect.name)
    assert asking.version_name == dialect.name
    assert count(asking) == sandbox.truth(START, END)
    assert [asked.path for asked in sandbox.requests] == [dialect.sessions_path]


@pytest.mark.parametrize(
    ("key", "version", "reason"),
    [
        ("apk_user_5e884898", "v3", "personal keys, apk_user_, are for v2 of the API, but DEVIN_API_VERSION=v3"),
        ("cog_5e884898", "v2", "service users' keys, cog_, are for v3 of the API, but DEVIN_API_VERSION=v2"),
    ],
    ids=["v3 with a personal key", "v2 with a service user's key"],
)
def test_a_version_that_does_not_fit_the_key_is_refused_without_quoting_the_key(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, key: str, version: str, reason: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    asking, calls = api(sandbox.url, version=version), Calls()
    with pytest.raises(Unauthorized) as refused:
        count(asking, calls)
    with pytest.raises(Unauthorized) as refused_name:
        _ = asking.version_name
    assert str(refused.value) == str(refused_name.value) == f"DEVIN_API_KEY is refused: {reason}."
    assert "5e88" not in everything_told_by(refused.value) + everything_told_by(refused_name.value)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


def test_a_key_of_no_known_kind_needs_a_version_that_is_named(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "svc_5e884898")
    asking, calls = api(sandbox.url, version="auto"), Calls()
    with pytest.raises(Unauthorized, match="so DEVIN_API_VERSION must say v2 or v3") as refused:
        count(asking, calls)
    with pytest.raises(Unauthorized, match="so DEVIN_API_VERSION must say v2 or v3"):
        _ = asking.version_name
    assert "5e88" not in everything_told_by(refused.value)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


def test_a_key_of_no_known_kind_asks_the_version_that_is_named(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "svc_5e884898"
    monkeypatch.setenv(KEY_VARIABLE, key)
    with Sandbox(api_key=key, service_key=key) as sandbox:
        asking = api(sandbox.url, version=dialect.name)
        assert asking.version_name == dialect.name
        assert count(asking) == sandbox.truth(START, END) > 0
        assert [asked.path for asked in sandbox.requests] == [dialect.sessions_path]


# Windows


def test_a_window_is_asked_in_unix_seconds(sandbox: Sandbox) -> None:
    count(api(sandbox.url), org_ids=["org-b", "org-a"], user_ids=["user-2", "user-1"])
    count(api(sandbox.url), org_ids=[], user_ids=[])
    bounds = (("time_after", "1740960000"), ("time_before", "1741046400"))
    ids = (("org_ids", "org-b"), ("org_ids", "org-a"), ("user_ids", "user-2"), ("user_ids", "user-1"))
    assert [asked.params for asked in sandbox.requests] == [(*bounds, *ids), bounds]


@pytest.mark.parametrize(
    ("start", "end", "bounds"),
    [
        (datetime(2025, 3, 30, tzinfo=BERLIN), datetime(2025, 3, 31, tzinfo=BERLIN), (1_743_289_200, 1_743_372_000)),
        (datetime(2025, 10, 26, tzinfo=BERLIN), datetime(2025, 10, 27, tzinfo=BERLIN), (1_761_429_600, 1_761_519_600)),
        (
            datetime(2025, 10, 26, 2, tzinfo=BERLIN),
            datetime(2025, 10, 26, 2, tzinfo=BERLIN, fold=1),
            (1_761_436_800, 1_761_440_400),
        ),
        (
            datetime(2025, 3, 3, 23, 59, 58, tzinfo=BERLIN),
            datetime(2025, 3, 3, 23, 59, 59, tzinfo=UTC),
            (1_741_042_798, 1_741_046_399),
        ),
    ],
    ids=["the day of 23 hours", "the day of 25 hours", "the hour that is repeated", "from one zone to another"],
)
def test_a_window_in_a_zone_that_changes_its_clock_is_asked_in_unix_seconds(
    start: datetime, end: datetime, bounds: tuple[int, int]
) -> None:
    with Sandbox(clock=lambda: NOW) as sandbox:
        for at in (start, end):
            sandbox.add_sessions("org-clock", at)
        assert count(api(sandbox.url), start=start, end=end, org_ids=["org-clock"]) == 1
        assert count(api(sandbox.url), start=start, end=end) == sandbox.truth(start, end)
        asked = sandbox.requests[-1]
    assert asked.params == (("time_after", str(bounds[0])), ("time_before", str(bounds[1])))


@pytest.mark.parametrize(
    ("start", "end"),
    [(START.replace(microsecond=1), END), (START, END.replace(microsecond=999_999))],
    ids=["at the start", "at the end"],
)
def test_a_part_of_a_second_is_refused_before_anything_is_sent(
    sandbox: Sandbox, start: datetime, end: datetime
) -> None:
    calls = Calls()
    with pytest.raises(ValueError, match="v3 knows whole seconds only"):
        count(api(sandbox.url), calls, start=start, end=end)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


@pytest.mark.parametrize("org_ids", [0, 1, MAX_IDS + 1])
def test_more_ids_than_one_question_holds_are_refused_before_anything_is_sent(
    sandbox: Sandbox, dialect: Dialect, org_ids: int
) -> None:
    calls = Calls()
    with pytest.raises(ValueError, match=f"{MAX_IDS + 1} ids in one question; {MAX_IDS} are the most"):
        count(api(sandbox.url), calls, org_ids=some(org_ids), user_ids=some(MAX_IDS + 1 - org_ids))
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


@pytest.mark.parametrize("org_ids", [0, 1, MAX_IDS])
def test_as_many_ids_as_one_question_holds_are_all_asked(sandbox: Sandbox, dialect: Dialect, org_ids: int) -> None:
    count(api(sandbox.url), org_ids=some(org_ids), user_ids=some(MAX_IDS - org_ids))
    (asked,) = sandbox.requests
    assert asked.org_ids == tuple(some(org_ids))
    assert asked.user_ids == tuple(some(MAX_IDS - org_ids))
    assert asked.status == 200


# Counts


def test_counts_are_the_sources_truth(sandbox: Sandbox) -> None:
    first, second, third = sandbox.organizations[:3]
    user_ids = list(first.user_ids[:1])
    both = [first.org_id, second.org_id]

    async def ask(client: DevinClient) -> list[int]:
        return [
            await client.count(START, END),
            await client.count(START, END, org_ids=both),
            await client.count(START, END, org_ids=[third.org_id]),
            await client.count(START, END, user_ids=user_ids),
            await client.count(START, END, user_ids=[user_ids[0], second.user_ids[0]]),
            await client.count(START, END, org_ids=[second.org_id], user_ids=user_ids),
        ]

    assert using(api(sandbox.url), ask) == [
        sandbox.truth(START, END),
        sandbox.truth(START, END, both),
        sandbox.truth(START, END, [third.org_id]),
        sandbox.truth(START, END, user_ids=user_ids),
        sandbox.truth(START, END, user_ids=[user_ids[0], second.user_ids[0]]),
        0,
    ]
    assert (
        sandbox.truth(START, END) > sandbox.truth(START, END, both) > sandbox.truth(START, END, user_ids=user_ids) > 0
    )
    assert {asked.path for asked in sandbox.requests} == {SESSIONS_PATH_V3}


def test_the_other_versions_answer_is_no_count(sandbox: Sandbox, dialect: Dialect) -> None:
    other = V3 if dialect is V2 else V2
    sandbox.fail(body=other.counted(12))
    with pytest.raises(ContractBroken, match=f"the answer's {dialect.count_field} is missing"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


# Lists


def test_organizations_are_listed_over_all_pages_in_the_sources_order() -> None:
    with Sandbox(organizations=450, clock=lambda: NOW) as sandbox:
        listed = organizations(api(sandbox.url))
        assert listed == [
            # The source of v3 tells whole seconds, and has a creation for every organization.
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


def test_users_are_listed_over_all_pages_in_the_sources_order(dialect: Dialect) -> None:
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
def test_a_cursor_is_sent_back_as_it_came(sandbox: Sandbox, ask: Ask, cursor: str) -> None:
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
def test_an_empty_list_is_an_answer(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    sandbox.fail(body=dialect.page())
    assert using(api(sandbox.url), ask) == []


def test_the_creation_of_an_organization_is_an_instant_or_none(sandbox: Sandbox) -> None:
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
def test_a_creation_that_is_not_unix_seconds_is_none(sandbox: Sandbox, created_at: object) -> None:
    sandbox.fail(body=page_v3(organization_v3(), organization_v3("org-2", created_at=created_at)))
    assert [o.created_at is None for o in organizations(api(sandbox.url))] == [False, True]


@pytest.mark.parametrize("cursor", [None, "", 0, 7, True, ["more"], {"after": "more"}], ids=repr)
@both_lists
def test_a_page_that_promises_more_without_a_cursor_breaks_the_contract(
    sandbox: Sandbox, ask: Ask, cursor: object
) -> None:
    page: dict[str, Any] = json.loads(V3.page("a", more=True))
    sandbox.fail(body=json.dumps(page | {"end_cursor": cursor}).encode())
    with pytest.raises(ContractBroken, match=r"from number 0 on: .*another page but no usable cursor"):
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
def test_a_page_that_lacks_a_field_or_has_another_type_breaks_the_contract(
    sandbox: Sandbox, ask: Ask, body: object
) -> None:
    sandbox.fail(body=json.dumps(body).encode())
    with pytest.raises(ContractBroken, match=r"Listing the \w+s from number 0 on"):
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
def test_an_organization_without_an_id_that_can_be_asked_about_breaks_the_contract(
    sandbox: Sandbox, item: object
) -> None:
    sandbox.fail(body=page_v3(organization_v3("org-0"), item))
    with pytest.raises(ContractBroken, match="Listing the organizations from number 0 on, item 2 of the page:"):
        organizations(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("user_id", [None, 1, "", ["user-1"], "\ud800"], ids=ascii)
def test_a_user_without_an_id_breaks_the_contract(sandbox: Sandbox, dialect: Dialect, user_id: object) -> None:
    page: dict[str, Any] = json.loads(dialect.page("user-0", "user-1"))
    page["items"][1]["user_id"] = user_id
    sandbox.fail(body=json.dumps(page).encode())
    with pytest.raises(ContractBroken, match="Listing the users from number 0 on"):
        users(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("ids", [[], ["a"]], ids=["empty", "of one"])
@both_lists
def test_the_other_versions_page_is_no_list(sandbox: Sandbox, dialect: Dialect, ask: Ask, ids: list[str]) -> None:
    other = V3 if dialect is V2 else V2
    sandbox.fail(body=other.page(*ids))
    with pytest.raises(ContractBroken, match="the page is not what the contract says"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1


# Refusals


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"type": "about:blank", "title": "Conflict", "status": 400, "detail": "Ask for less"}, "Ask for less"),
        ({"type": "about:blank", "title": "Conflict", "status": 400}, "Conflict"),
    ],
    ids=["by its detail", "by its title where there is no detail"],
)
def test_a_problem_is_told_in_words(sandbox: Sandbox, body: object, words: str) -> None:
    sandbox.fail(status=400, body=json.dumps(body).encode(), content_type=PROBLEM)
    with pytest.raises(Rejected) as refused:
        count(api(sandbox.url), org_ids=["org-7"])
    assert str(refused.value) == (
        "Counting the sessions of organization org-7 from 2025-03-03T00:00:00Z to 2025-03-04T00:00:00Z: "
        f"the source answered 400 ({words})."
    )


def test_a_window_that_the_source_does_not_take_is_told_in_its_words(sandbox: Sandbox) -> None:
    with pytest.raises(Rejected, match=r"answered 422 \(time_after: .*not Unix seconds of the years 1970 to 9999\)\.$"):
        count(api(sandbox.url), start=datetime(1969, 12, 31, tzinfo=UTC))
    assert [asked.status for asked in sandbox.requests] == [422]


@pytest.mark.parametrize("org_ids", [[], ["org-1"]], ids=["about everyone", "about one organization"])
def test_a_key_that_is_refused_is_told_what_key_to_set(
    sandbox: Sandbox, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, org_ids: list[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{dialect.key}_5e884898")
    with pytest.raises(
        Unauthorized,
        match=r"answered 401 \(Missing or invalid API key\)\. The key in DEVIN_API_KEY is not accepted by "
        rf"{dialect.name} of the API: set it to {dialect.key_wanted}",
    ) as refused:
        count(api(sandbox.url), org_ids=org_ids)
    assert "5e88" not in everything_told_by(refused.value)
    assert [asked.status for asked in sandbox.requests] == [401]


def test_a_403_about_everyone_is_about_the_key(sandbox: Sandbox, dialect: Dialect) -> None:
    sandbox.fail(status=403, times=None)
    with pytest.raises(
        Unauthorized, match=rf"answered 403 \(Forbidden\)\. The key in DEVIN_API_KEY .* {dialect.key_wanted}"
    ):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize(
    ("org_ids", "user_ids", "named"), [(["org-7"], [], "organization org-7"), ([], ["user-7"], "user user-7")]
)
def test_a_403_about_somebody_is_not_about_the_key(
    sandbox: Sandbox, dialect: Dialect, org_ids: list[str], user_ids: list[str], named: str
) -> None:
    sandbox.fail(status=403, times=None)
    with pytest.raises(Rejected, match=rf"of {named} from .*answered 403 \(Forbidden\)\.$"):
        count(api(sandbox.url), org_ids=org_ids, user_ids=user_ids)
    assert len(sandbox.requests) == 1


@both_lists
def test_a_key_that_is_refused_for_a_list_is_told_of_the_key(
    sandbox: Sandbox, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{dialect.key}_of_someone_else")
    with pytest.raises(Unauthorized, match=f"answered 401 .*DEVIN_API_KEY .*{dialect.key_wanted}"):
        using(api(sandbox.url), ask)
    assert [asked.status for asked in sandbox.requests] == [401]


@pytest.mark.parametrize(
    ("ask", "noun", "variable"),
    [(listing_organizations, "organization", "DEVIN_ORG_IDS"), (listing_users, "user", "DEVIN_USER_IDS")],
    ids=["organizations", "users"],
)
def test_a_key_that_may_not_list_is_told_of_the_setting_that_names_the_ids(
    dialect: Dialect, ask: Ask, noun: str, variable: str
) -> None:
    with Sandbox(lists_organizations=noun != "organization", lists_members=noun != "user") as sandbox:
        with pytest.raises(
            Rejected,
            match=rf"Listing the {noun}s .*answered 403 \(This key may not list \w+\)\. "
            rf"The key may count sessions but not list {noun}s: set {variable} to the ids to count",
        ):
            using(api(sandbox.url), ask)
        assert [asked.status for asked in sandbox.requests] == [403]
        other = listing_users if ask is listing_organizations else listing_organizations
        assert using(api(sandbox.url), other)


def test_a_source_that_has_no_list_of_users_is_told_of_the_setting_that_names_them(
    sandbox: Sandbox, dialect: Dialect
) -> None:
    sandbox.fail(status=404, path=dialect.users_path, times=None)
    with pytest.raises(Rejected, match=r"answered 404 \(Not Found\)\. .*set DEVIN_USER_IDS"):
        users(api(sandbox.url))
    assert len(sandbox.requests) == 1


# What may pass is tried again

PASSING: dict[str, dict[str, Any]] = {
    **{str(status): {"status": status} for status in (408, 429, 500, 502, 503, 504)},
    "a pause that is asked for": {"status": 429, "retry_after": "0"},
    "dropped connection": {"drop": True},
    "truncated body": {"truncate": True},
    "web page": {"body": b"<html>Sign in</html>", "content_type": "text/html"},
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
@every_question
def test_a_trouble_that_passes_costs_one_more_request(sandbox: Sandbox, ask: Ask, fault: dict[str, Any]) -> None:
    sandbox.fail(**fault)
    calls = Calls()
    answer = using(api(sandbox.url), ask, calls)
    assert calls == Calls(sent=2, retried=1)
    first, second = sandbox.requests
    assert (first.path, first.params) == (second.path, second.params)
    truth: dict[Ask, object] = {
        counting: sandbox.truth(START, END),
        listing_organizations: [o.org_id for o in sandbox.organizations],
        listing_users: [member.user_id for member in sandbox.members],
    }
    assert answer == truth[ask]


@every_question
def test_a_trouble_that_stays_is_given_up_when_patience_is_over(sandbox: Sandbox, ask: Ask) -> None:
    calls = Calls()
    sandbox.fail(status=503, times=None)
    with pytest.raises(SourceDown, match=r"the source answered 503 \(Service Unavailable\), and nothing was answered"):
        using(api(sandbox.url, max_tries=3), ask, calls)
    assert calls == Calls(sent=2, retried=1)


@both_lists
def test_a_page_that_fails_is_asked_for_again_and_none_before_it(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.fail(body=V3.page("a", more=True, cursor="to b"))
    sandbox.fail(status=503)
    sandbox.fail(body=V3.page("b"))
    assert using(api(sandbox.url), ask) == ["a", "b"]
    assert [dict(asked.params).get("after") for asked in sandbox.requests] == [None, "to b", "to b"]


# Bad input, on both versions: each kind ends in its kind of error, and nothing of it is returned

NO_COUNTS: list[object] = [-1, -(2**63), 12.5, 12.0, True, False, "12", "", None, [12], {}, 10**12 + 1, 2**63, 10**400]


@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: repr(value)[:30])
def test_what_is_no_whole_number_from_0_to_10_to_the_12_is_no_count(
    sandbox: Sandbox, dialect: Dialect, value: object
) -> None:
    sandbox.fail(body=dialect.counted(value), times=None)
    with pytest.raises(
        ContractBroken, match=rf"the answer's {dialect.count_field} is .*not a whole number.*Nothing of it was stored"
    ):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("value", [0, 2**31, 10**12])
def test_a_whole_number_up_to_10_to_the_12_is_a_count(sandbox: Sandbox, dialect: Dialect, value: int) -> None:
    sandbox.fail(body=dialect.counted(value))
    assert count(api(sandbox.url)) == value


@pytest.mark.parametrize("body", [b"{}", b"null", b"12", b'[{"sessions_created_count": 12}]'], ids=bytes.decode)
def test_an_answer_without_the_count_is_no_count(sandbox: Sandbox, dialect: Dialect, body: bytes) -> None:
    sandbox.fail(body=body, times=None)
    with pytest.raises(ContractBroken, match="Nothing of it was stored"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@every_question
def test_a_web_page_instead_of_json_is_no_answer(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    sandbox.fail(body=b"<html>Sign in</html>", content_type="text/html", times=None)
    with pytest.raises(
        SourceDown, match=r"answered 200 with a body that is not JSON: \(<html>Sign in</html>\), and nothing"
    ):
        using(api(sandbox.url, max_tries=2), ask)
    assert len(sandbox.requests) == 2


@every_question
def test_a_body_of_10_megabytes_is_cut_off(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    # As good an answer as any, but for its size.
    body = dialect.counted(6) if ask is counting else dialect.page("a")
    sandbox.fail(body=body.rjust(TEN_MEGABYTES), times=None)
    with pytest.raises(ContractBroken, match="longer than 4,194,304 bytes and was cut off"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1


@every_question
def test_a_body_that_does_not_end_is_cut_off(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    sandbox.fail(endless=True, times=None)
    with pytest.raises(ContractBroken, match="longer than 4,194,304 bytes and was cut off"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        ({"body": b"<html>Sign in</html>", "content_type": "text/html"}, SourceDown, 4),
        ({"body": b" " * TEN_MEGABYTES}, ContractBroken, 2),
        ({"endless": True}, ContractBroken, 2),
        ({"status": 503}, SourceDown, 4),
        ({"status": 404}, Rejected, 2),
        ({"status": 401}, Unauthorized, 2),
    ],
    ids=["web page", "10 megabytes", "endless", "503", "404", "401"],
)
@both_lists
def test_a_list_whose_second_page_is_no_answer_is_no_list(
    sandbox: Sandbox, dialect: Dialect, ask: Ask, fault: dict[str, Any], error: type[DevinAPIError], requests: int
) -> None:
    sandbox.fail(body=dialect.page("a", more=True))
    sandbox.fail(**fault, times=None)
    with pytest.raises(error):
        using(api(sandbox.url, max_tries=2), ask)
    assert len(sandbox.requests) == requests


@both_lists
def test_a_page_that_comes_again_and_again_breaks_the_contract(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    sandbox.fail(body=dialect.page("a", "b", more=True, cursor="the same"), times=None)
    with pytest.raises(ContractBroken, match=r"from number 2 on: the list does not end \(2 \w+s so far\)"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 2


@both_lists
def test_a_page_that_is_empty_and_promises_more_breaks_the_contract(
    sandbox: Sandbox, dialect: Dialect, ask: Ask
) -> None:
    sandbox.fail(body=dialect.page("a", more=True))
    sandbox.fail(body=dialect.page(more=True), times=None)
    with pytest.raises(ContractBroken, match=r"the list does not end \(1 \w+s so far\)"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 2


@both_lists
def test_a_list_that_always_promises_more_breaks_the_contract(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    for page in range(4):
        sandbox.fail(body=dialect.page(*some(34_000, 34_000 * page), more=True))
    with pytest.raises(ContractBroken, match=r"the list does not end \(102000 \w+s so far\)"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 3


def test_10_000_organizations_are_listed_whole(dialect: Dialect) -> None:
    with Sandbox(organizations=10_000) as sandbox:
        listed = organizations(api(sandbox.url))
        assert [o.org_id for o in listed] == [o.org_id for o in sandbox.organizations]
        assert len(sandbox.requests) == 50
    assert len({o.org_id for o in listed}) == 10_000


@pytest.mark.parametrize("cursor", ["\ud800", "x" * 70_000], ids=["half a surrogate pair", "longer than an address"])
@both_lists
def test_a_cursor_that_cannot_be_sent_back_breaks_the_contract(sandbox: Sandbox, ask: Ask, cursor: str) -> None:
    sandbox.fail(body=V3.page("a", more=True, cursor=cursor))
    with pytest.raises(ContractBroken):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("id_", ["", "a\x00b", "a\nb", "x" * 257], ids=["empty", "NUL", "line break", "too long"])
@both_lists
def test_an_id_that_cannot_be_asked_about_breaks_the_contract(sandbox: Sandbox, ask: Ask, id_: str) -> None:
    sandbox.fail(body=V3.page(id_))
    with pytest.raises(ContractBroken):
        using(api(sandbox.url), ask)


def test_only_a_refusal_that_may_be_about_rights_advises_to_name_the_ids(sandbox: Sandbox) -> None:
    sandbox.fail(status=422)
    with pytest.raises(Rejected) as refused:
        using(api(sandbox.url), DevinClient.organizations)
    assert "DEVIN_ORG_IDS" not in str(refused.value)


@pytest.mark.parametrize("created_at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_outside_the_calendar_is_none_in_v2(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, created_at: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, sandbox.api_key)
    item = {"org_id": "a", "org_name": "A", "created_at": created_at}
    page = {"items": [item], "total": 1, "skip": 0, "limit": 200, "has_more": False, "next_cursor": None}
    sandbox.fail(body=json.dumps(page).encode())
    assert organizations(api(sandbox.url)) == [Organization("a", "A", None)]
