"""What v3 refuses is reported in words, and transient failures are retried."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from resources.calls import Calls
from resources.devin_errors import Rejected, SourceDown, Unauthorized
from resources.devin_key import KEY_VARIABLE
from resources.sandbox.server import Sandbox
from tests.support.client import END, START, api, count, everything_shown_by, using
from tests.support.dialects import (
    PROBLEM,
    V3,
    Ask,
    Dialect,
    both_lists,
    counting,
    every_question,
    listing_organizations,
    listing_users,
    users,
)

# Refusals


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"type": "about:blank", "title": "Conflict", "status": 400, "detail": "Ask for less"}, "Ask for less"),
        ({"type": "about:blank", "title": "Conflict", "status": 400}, "Conflict"),
    ],
    ids=["by its detail", "by its title if there is no detail"],
)
def test_a_problem_is_reported_in_words(sandbox: Sandbox, body: object, words: str) -> None:
    sandbox.fail(status=400, body=json.dumps(body).encode(), content_type=PROBLEM)
    with pytest.raises(Rejected) as refused:
        count(api(sandbox.url), org_ids=["org-7"])
    assert str(refused.value) == (
        "Counting sessions of organization org-7 from 2025-03-03T00:00:00Z to 2025-03-04T00:00:00Z: "
        f"the API returned 400 ({words})."
    )


def test_a_window_that_the_api_refuses_is_reported_in_its_words(sandbox: Sandbox) -> None:
    with pytest.raises(Rejected, match=r"returned 422 \(time_after: .*not Unix seconds in the years 1970 to 9999\)\.$"):
        count(api(sandbox.url), start=datetime(1969, 12, 31, tzinfo=UTC))
    assert [asked.status for asked in sandbox.requests] == [422]


@pytest.mark.parametrize("org_ids", [[], ["org-1"]], ids=["about everyone", "about one organization"])
def test_a_refused_key_is_reported_with_the_kind_of_key_to_set(
    sandbox: Sandbox, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, org_ids: list[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{dialect.key}_5e884898")
    with pytest.raises(
        Unauthorized,
        match=r"returned 401 \(Missing or invalid API key\)\. The key in DEVIN_API_KEY is not accepted by "
        rf"{dialect.name} of the API: set it to {dialect.key_wanted}",
    ) as refused:
        count(api(sandbox.url), org_ids=org_ids)
    assert "5e88" not in everything_shown_by(refused.value)
    assert [asked.status for asked in sandbox.requests] == [401]


def test_a_403_about_everyone_is_about_the_key(sandbox: Sandbox, dialect: Dialect) -> None:
    sandbox.fail(status=403, times=None)
    with pytest.raises(
        Unauthorized, match=rf"returned 403 \(Forbidden\)\. The key in DEVIN_API_KEY .* {dialect.key_wanted}"
    ):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize(
    ("org_ids", "user_ids", "named"), [(["org-7"], [], "organization org-7"), ([], ["user-7"], "user user-7")]
)
def test_a_403_about_one_organization_or_user_is_not_about_the_key(
    sandbox: Sandbox, dialect: Dialect, org_ids: list[str], user_ids: list[str], named: str
) -> None:
    sandbox.fail(status=403, times=None)
    with pytest.raises(Rejected, match=rf"of {named} from .*returned 403 \(Forbidden\)\.$"):
        count(api(sandbox.url), org_ids=org_ids, user_ids=user_ids)
    assert len(sandbox.requests) == 1


@both_lists
def test_a_refused_key_is_reported_for_lists_too(
    sandbox: Sandbox, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{dialect.key}_of_someone_else")
    with pytest.raises(Unauthorized, match=f"returned 401 .*DEVIN_API_KEY .*{dialect.key_wanted}"):
        using(api(sandbox.url), ask)
    assert [asked.status for asked in sandbox.requests] == [401]


@pytest.mark.parametrize(
    ("ask", "noun", "variable"),
    [(listing_organizations, "organization", "DEVIN_ORG_IDS"), (listing_users, "user", "DEVIN_USER_IDS")],
    ids=["organizations", "users"],
)
def test_a_key_that_may_not_list_is_reported_with_the_setting_to_use(
    dialect: Dialect, ask: Ask, noun: str, variable: str
) -> None:
    with Sandbox(lists_organizations=noun != "organization", lists_members=noun != "user") as sandbox:
        with pytest.raises(
            Rejected,
            match=rf"Listing {noun}s .*returned 403 \(This key may not list \w+\)\. "
            rf"The key may count sessions but not list {noun}s: set {variable} to the ids to count",
        ):
            using(api(sandbox.url), ask)
        assert [asked.status for asked in sandbox.requests] == [403]
        other = listing_users if ask is listing_organizations else listing_organizations
        assert using(api(sandbox.url), other)


def test_an_api_without_a_list_of_users_is_reported_with_the_setting_to_use(sandbox: Sandbox, dialect: Dialect) -> None:
    sandbox.fail(status=404, path=dialect.users_path, times=None)
    with pytest.raises(Rejected, match=r"returned 404 \(Not Found\)\. .*set DEVIN_USER_IDS"):
        users(api(sandbox.url))
    assert len(sandbox.requests) == 1


# Transient failures are retried
TRANSIENT: dict[str, dict[str, Any]] = {
    **{str(status): {"status": status} for status in (408, 429, 500, 502, 503, 504)},
    "a requested pause": {"status": 429, "retry_after": "0"},
    "dropped connection": {"drop": True},
    "truncated body": {"truncate": True},
    "web page": {"body": b"<html>Sign in</html>", "content_type": "text/html"},
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
@every_question
def test_a_transient_failure_costs_one_more_request(sandbox: Sandbox, ask: Ask, fault: dict[str, Any]) -> None:
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
def test_a_permanent_failure_is_given_up_when_patience_runs_out(sandbox: Sandbox, ask: Ask) -> None:
    calls = Calls()
    sandbox.fail(status=503, times=None)
    with pytest.raises(SourceDown, match=r"the API returned 503 \(Service Unavailable\), and no request succeeded"):
        using(api(sandbox.url, max_tries=3), ask, calls)
    assert calls == Calls(sent=2, retried=1)


@both_lists
def test_a_page_that_fails_is_retried_and_no_earlier_page_is(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.fail(body=V3.page("a", more=True, cursor="to b"))
    sandbox.fail(status=503)
    sandbox.fail(body=V3.page("b"))
    assert using(api(sandbox.url), ask) == ["a", "b"]
    assert [dict(asked.params).get("after") for asked in sandbox.requests] == [None, "to b", "to b"]
