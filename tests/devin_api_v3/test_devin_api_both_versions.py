"""Bad responses on both versions: each kind raises its own kind of error, and none of it is returned."""

import json
from typing import Any

import pytest

from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, DevinAPIError, Rejected, SourceDown, Unauthorized
from resources.devin_key import KEY_VARIABLE
from resources.devin_lists import Organization
from resources.sandbox.server import Sandbox
from tests.support.client import END, START, api, count, everything_shown_by, organizations, using
from tests.support.dialects import V3, Ask, Dialect, both_lists, counting, every_question, some

TEN_MEGABYTES = 10 * 1024 * 1024

NO_COUNTS: list[object] = [-1, -(2**63), 12.5, 12.0, True, False, "12", "", None, [12], {}, 10**12 + 1, 2**63, 10**400]


@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: repr(value)[:30])
def test_only_a_whole_number_from_0_to_10_to_the_12_is_a_count(
    sandbox: Sandbox, dialect: Dialect, value: object
) -> None:
    sandbox.fail(body=dialect.count_body(value), times=None)
    with pytest.raises(
        ContractBroken, match=rf"the response's {dialect.count_field} is .*not a whole number.*None of it was stored"
    ):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("value", [0, 2**31, 10**12])
def test_a_whole_number_up_to_10_to_the_12_is_a_count(sandbox: Sandbox, dialect: Dialect, value: int) -> None:
    sandbox.fail(body=dialect.count_body(value))
    assert count(api(sandbox.url)) == value


@pytest.mark.parametrize("body", [b"{}", b"null", b"12", b'[{"sessions_created_count": 12}]'], ids=bytes.decode)
def test_a_response_without_the_count_is_not_a_count(sandbox: Sandbox, dialect: Dialect, body: bytes) -> None:
    sandbox.fail(body=body, times=None)
    with pytest.raises(ContractBroken, match="None of it was stored"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@every_question
def test_a_web_page_instead_of_json_is_not_accepted(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    sandbox.fail(body=b"<html>Sign in</html>", content_type="text/html", times=None)
    with pytest.raises(
        SourceDown, match=r"returned 200 with a body that is not JSON: \(<html>Sign in</html>\), and no request"
    ):
        using(api(sandbox.url, max_tries=2), ask)
    assert len(sandbox.requests) == 2


CUT_PAGES = [b'{"items": [{"title": "private-title', b'[{"title": "private-title"}]', b"private-title"]


@pytest.mark.parametrize("status", [200, 203, 400, 500, 502])
@pytest.mark.parametrize("body", CUT_PAGES, ids=["cut", "no object", "no JSON"])
def test_what_may_be_part_of_the_list_of_sessions_is_not_quoted(
    sandbox: Sandbox, dialect: Dialect, status: int, body: bytes
) -> None:
    async def listing(client: DevinClient) -> int:
        return sum([len(sessions) async for sessions in client.sessions(START, END, 1)])

    sandbox.fail(status=status, body=body, times=None)
    with pytest.raises(DevinAPIError) as raised:
        using(api(sandbox.url, max_tries=2), listing)
    assert f"({len(body)} bytes)" in str(raised.value)
    assert "private-title" not in everything_shown_by(raised.value)


@every_question
def test_a_body_of_10_megabytes_is_cut_off(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    # A valid response except for its size.
    body = dialect.count_body(6) if ask is counting else dialect.page("a")
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
def test_a_list_whose_second_page_fails_is_not_returned_in_part(
    sandbox: Sandbox, dialect: Dialect, ask: Ask, fault: dict[str, Any], error: type[DevinAPIError], requests: int
) -> None:
    sandbox.fail(body=dialect.page("a", more=True))
    sandbox.fail(**fault, times=None)
    with pytest.raises(error):
        using(api(sandbox.url, max_tries=2), ask)
    assert len(sandbox.requests) == requests


@both_lists
def test_a_page_that_repeats_forever_breaks_the_contract(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
    sandbox.fail(body=dialect.page("a", "b", more=True, cursor="the same"), times=None)
    with pytest.raises(ContractBroken, match=r"from offset 2: the list does not end \(2 \w+s so far\)"):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 2


@both_lists
def test_an_empty_page_that_promises_more_breaks_the_contract(sandbox: Sandbox, dialect: Dialect, ask: Ask) -> None:
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


def test_organizations_on_many_pages_are_listed_in_full(dialect: Dialect) -> None:
    with Sandbox(organizations=2_000) as sandbox:
        listed = organizations(api(sandbox.url))
        assert [o.org_id for o in listed] == [o.org_id for o in sandbox.organizations]
        assert len(sandbox.requests) == 10
    assert len({o.org_id for o in listed}) == 2_000


@pytest.mark.parametrize("cursor", ["\ud800", "x" * 70_000], ids=["half a surrogate pair", "longer than an address"])
@both_lists
def test_a_cursor_that_cannot_be_sent_back_breaks_the_contract(sandbox: Sandbox, ask: Ask, cursor: str) -> None:
    sandbox.fail(body=V3.page("a", more=True, cursor=cursor))
    with pytest.raises(ContractBroken):
        using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("id_", ["", "a\x00b", "a\nb", "x" * 257], ids=["empty", "NUL", "line break", "too long"])
@both_lists
def test_an_unusable_id_breaks_the_contract(sandbox: Sandbox, ask: Ask, id_: str) -> None:
    sandbox.fail(body=V3.page(id_))
    with pytest.raises(ContractBroken):
        using(api(sandbox.url), ask)


def test_only_a_refusal_that_may_be_about_permissions_advises_to_set_the_ids(sandbox: Sandbox) -> None:
    sandbox.fail(status=422)
    with pytest.raises(Rejected) as refused:
        using(api(sandbox.url), DevinClient.organizations)
    assert "DEVIN_ORG_IDS" not in str(refused.value)


@pytest.mark.parametrize("created_at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_date_outside_the_calendar_is_none_in_v2(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, created_at: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, sandbox.api_key)
    item = {"org_id": "a", "org_name": "A", "created_at": created_at}
    page = {"items": [item], "total": 1, "skip": 0, "limit": 200, "has_more": False, "next_cursor": None}
    sandbox.fail(body=json.dumps(page).encode())
    assert organizations(api(sandbox.url)) == [Organization("a", "A", None)]
