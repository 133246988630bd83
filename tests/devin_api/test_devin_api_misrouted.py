"""A response from something between here and the API is not taken for the API's own. Over real HTTP."""

from typing import Any

import pytest

from resources.devin_errors import Misrouted, Rejected, SourceDown, Unavailable
from resources.devin_key import KEY_VARIABLE
from resources.sandbox.server import Sandbox
from tests.support.client import END, START, api, count, organizations

PAGE: dict[str, Any] = {"body": b"<html><title>Just a moment</title></html>", "content_type": "text/html"}
NOT_FROM_THE_API: dict[str, dict[str, Any]] = {
    **{
        f"{status} page": {"status": status, **PAGE}
        for status in (301, 400, 404, 405, 407, 410, 413, 414, 422, 431, 451)
    },
    **{f"{status}": {"status": status} for status in (202, 206, 300, 405, 407, 409, 413, 414, 431, 451)},
    "404 of text": {"status": 404, "body": b'{"detail": "no"}', "content_type": "text/plain"},
    "422 of a list": {"status": 422, "body": b"[]"},
    "400 of nothing": {"status": 400, "body": b""},
}


@pytest.mark.parametrize("fault", NOT_FROM_THE_API.values(), ids=NOT_FROM_THE_API.keys())
def test_a_response_that_is_not_the_apis_own_does_not_refuse_an_organization(
    sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    sandbox.fail(**fault, times=None)
    pattern = rf"organization org-7 from 2025-03-03T.*something between you and the API.*returned {fault['status']}"
    with pytest.raises(Unavailable, match=pattern):
        count(api(sandbox.url), org_ids=["org-7"])
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("fault", NOT_FROM_THE_API.values(), ids=NOT_FROM_THE_API.keys())
def test_a_response_that_is_not_the_apis_own_about_everyone_or_a_list_ends_the_load(
    sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    sandbox.fail(**fault, times=None)
    for ask in (count, organizations):
        with pytest.raises(Misrouted, match=f"something between you and the API.*returned {fault['status']}"):
            ask(api(sandbox.url))
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (302, "check DEVIN_API_URL"),
        (407, "set both in HTTPS_PROXY"),
        (413, "DEVIN_FETCH=direct"),
        (414, "DEVIN_FETCH=direct"),
        (431, "DEVIN_FETCH=direct"),
        (451, "ask your network administrator"),
    ],
)
def test_the_message_says_what_to_fix_or_whom_to_ask(sandbox: Sandbox, status: int, advice: str) -> None:
    sandbox.fail(status=status, **PAGE)
    with pytest.raises(Unavailable, match=f"as text/html .*{advice}.*The next run will retry it"):
        count(api(sandbox.url), org_ids=["org-7"])


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/Problem+JSON"])
def test_a_json_object_with_any_json_content_type_is_the_apis(sandbox: Sandbox, kind: str) -> None:
    sandbox.fail(status=404, body=b'{"detail": "unknown"}', content_type=kind)
    with pytest.raises(Rejected):
        count(api(sandbox.url), org_ids=["org-7"])


@pytest.mark.parametrize("org_ids", [[], ["org-7"]], ids=["about everyone", "about one organization"])
def test_a_403_from_a_firewall_is_retried_and_not_blamed_on_the_key(sandbox: Sandbox, org_ids: list[str]) -> None:
    sandbox.fail(status=403, **PAGE)
    assert count(api(sandbox.url), org_ids=org_ids) == sandbox.truth(START, END, org_ids or None)
    sandbox.fail(status=403, **PAGE, times=None)
    with pytest.raises(SourceDown, match=r"returned 403 as text/html \(<html><title>Just a moment") as down:
        count(api(sandbox.url), org_ids=org_ids)
    assert KEY_VARIABLE not in str(down.value)


def test_a_login_page_is_not_taken_for_the_api_refusing_the_key(sandbox: Sandbox) -> None:
    sandbox.fail(status=401, **PAGE)
    with pytest.raises(Misrouted, match="If there is nothing in between, the key in DEVIN_API_KEY may have expired"):
        count(api(sandbox.url))
