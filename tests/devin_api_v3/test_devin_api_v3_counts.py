"""The client requests counts from v3 as exactly as from v2, with the keys for it."""

from datetime import UTC, datetime

import pytest

from resources.calls import Calls
from resources.devin_api import MAX_IDS, DevinClient
from resources.devin_errors import ContractBroken, Unauthorized
from resources.devin_key import KEY_VARIABLE
from resources.sandbox.contract import SESSIONS_PATH_V3
from resources.sandbox.server import Sandbox
from tests.support.client import BERLIN, END, START, api, count, everything_shown_by, using
from tests.support.dialects import NOW, V2, V3, Dialect, everything, some

# The version depends on the key


def test_the_kind_of_key_decides_which_version_is_used(sandbox: Sandbox, dialect: Dialect) -> None:
    asking = api(sandbox.url)
    assert asking.version_name == dialect.name
    assert sandbox.requests == []
    using(asking, everything)
    assert [(asked.path, asked.status) for asked in sandbox.requests] == [
        (dialect.sessions_path, 200),
        (dialect.organizations_path, 200),
        (dialect.users_path, 200),
    ]


def test_the_version_that_matches_the_key_may_be_set(sandbox: Sandbox, dialect: Dialect) -> None:
    asking = api(sandbox.url, version=dialect.name)
    assert asking.version_name == dialect.name
    assert count(asking) == sandbox.truth(START, END)
    assert [asked.path for asked in sandbox.requests] == [dialect.sessions_path]


@pytest.mark.parametrize(
    ("key", "version", "reason"),
    [
        ("apk_user_5e884898", "v3", "personal keys (apk_user_…) are for v2 of the API, but DEVIN_API_VERSION=v3"),
        ("cog_5e884898", "v2", "service user keys (cog_…) are for v3 of the API, but DEVIN_API_VERSION=v2"),
    ],
    ids=["v3 with a personal key", "v2 with a service user's key"],
)
def test_a_version_that_does_not_match_the_key_is_refused_without_quoting_the_key(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, key: str, version: str, reason: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    asking, calls = api(sandbox.url, version=version), Calls()
    with pytest.raises(Unauthorized) as refused:
        count(asking, calls)
    with pytest.raises(Unauthorized) as refused_name:
        _ = asking.version_name
    assert str(refused.value) == str(refused_name.value) == f"DEVIN_API_KEY is refused: {reason}."
    assert "5e88" not in everything_shown_by(refused.value) + everything_shown_by(refused_name.value)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


def test_a_key_of_unknown_kind_needs_a_version_to_be_set(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "svc_5e884898")
    asking, calls = api(sandbox.url, version="auto"), Calls()
    with pytest.raises(Unauthorized, match="so DEVIN_API_VERSION must be v2 or v3") as refused:
        count(asking, calls)
    with pytest.raises(Unauthorized, match="so DEVIN_API_VERSION must be v2 or v3"):
        _ = asking.version_name
    assert "5e88" not in everything_shown_by(refused.value)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


def test_a_key_of_unknown_kind_uses_the_version_that_is_set(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "svc_5e884898"
    monkeypatch.setenv(KEY_VARIABLE, key)
    with Sandbox(api_key=key, service_key=key) as sandbox:
        asking = api(sandbox.url, version=dialect.name)
        assert asking.version_name == dialect.name
        assert count(asking) == sandbox.truth(START, END) > 0
        assert [asked.path for asked in sandbox.requests] == [dialect.sessions_path]


# Windows


def test_a_window_is_sent_in_unix_seconds(sandbox: Sandbox) -> None:
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
def test_a_window_across_a_clock_change_is_sent_in_unix_seconds(
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
def test_a_fraction_of_a_second_is_refused_before_anything_is_sent(
    sandbox: Sandbox, start: datetime, end: datetime
) -> None:
    calls = Calls()
    with pytest.raises(ValueError, match="v3 accepts whole seconds only"):
        count(api(sandbox.url), calls, start=start, end=end)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


@pytest.mark.parametrize("org_ids", [0, 1, MAX_IDS + 1])
def test_more_ids_than_one_request_can_hold_are_refused_before_anything_is_sent(
    sandbox: Sandbox, dialect: Dialect, org_ids: int
) -> None:
    calls = Calls()
    with pytest.raises(ValueError, match=f"{MAX_IDS + 1} ids in one request; the maximum is {MAX_IDS}"):
        count(api(sandbox.url), calls, org_ids=some(org_ids), user_ids=some(MAX_IDS + 1 - org_ids))
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


@pytest.mark.parametrize("org_ids", [0, 1, MAX_IDS])
def test_the_maximum_number_of_ids_fits_in_one_request(sandbox: Sandbox, dialect: Dialect, org_ids: int) -> None:
    count(api(sandbox.url), org_ids=some(org_ids), user_ids=some(MAX_IDS - org_ids))
    (asked,) = sandbox.requests
    assert asked.org_ids == tuple(some(org_ids))
    assert asked.user_ids == tuple(some(MAX_IDS - org_ids))
    assert asked.status == 200


# Counts


def test_counts_are_those_of_the_api(sandbox: Sandbox) -> None:
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


def test_a_response_of_the_other_version_is_not_a_count(sandbox: Sandbox, dialect: Dialect) -> None:
    other = V3 if dialect is V2 else V2
    sandbox.fail(body=other.count_body(12))
    with pytest.raises(ContractBroken, match=f"the response's {dialect.count_field} is missing"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1
