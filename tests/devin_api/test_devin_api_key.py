"""The key is only sent to the API, and a refusal says what to do about it. Over real HTTP."""

import json
import logging
from dataclasses import asdict

import pytest

from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, DevinAPIError, Rejected, Unauthorized
from resources.devin_key import KEY_VARIABLE
from resources.sandbox.server import Sandbox
from tests.support.client import END, KEY, START, api, count, count_body, everything_shown_by, organizations, using
from tests.support.http import Send, http, raw


def test_the_key_travels_in_the_authorization_header_and_nowhere_else() -> None:
    with raw(http(count_body(1))) as server:
        count(api(server.url), org_ids=["org-1"])
    (head,) = server.requests
    lines = head.decode().split("\r\n")
    assert [line for line in lines if KEY in line] == [f"authorization: Bearer {KEY}"]
    assert KEY not in lines[0]


def test_neither_the_resource_nor_the_client_nor_the_log_shows_the_key(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    asked = api(sandbox.url)

    async def ask(client: DevinClient) -> str:
        await client.count(START, END)
        return f"{client!r} {client}"

    with caplog.at_level(logging.DEBUG):
        shown = using(asked, ask)
    assert sandbox.url in shown
    assert KEY not in shown + repr(asked) + str(asked) + json.dumps(asdict(asked)) + caplog.text


JSON_ESCAPED_KEY = f"\\u0061{KEY[1:]}"
ECHOES: dict[str, bytes] = {
    f"{status} {kind}": http(body, f"{status} X")
    for status in (200, 302, 400, 401, 403, 404, 422, 429, 500)
    for kind, body in {
        "as JSON": json.dumps({"detail": f"You sent Authorization: Bearer {KEY}"}).encode(),
        "as text": f"You sent Authorization: Bearer {KEY}".encode(),
        "as escaped JSON": f'{{"detail": "Bearer {JSON_ESCAPED_KEY}"}}'.encode(),
        "as UTF-16": json.dumps({"detail": KEY}).encode("utf-16"),
        "as FastAPI does": json.dumps({"detail": [{"loc": ["header", KEY], "msg": KEY, "type": KEY}]}).encode(),
        "where the message is cut": f"{'x' * 190} {KEY}".encode(),
    }.items()
} | {
    "count": http(count_body(KEY)),
    "escaped count": http(f'{{"sessions_count": "{JSON_ESCAPED_KEY}"}}'.encode()),
    "count where the message is cut": http(f'{{"sessions_count": "{"x" * 50}{JSON_ESCAPED_KEY}"}}'.encode()),
    "list": http(json.dumps([KEY]).encode()),
    "status line": f"Bearer {KEY}\r\n\r\n".encode(),
    "reason": http(b"", f"500 {KEY}"),
    "header that is malformed": f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode(),
    "chunk that is malformed": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
    "encoding": http(b"{}", "200 OK", f"Content-Encoding: {KEY}"),
    "pause": http(b"", "429 X", f"Retry-After: {KEY}"),
    "location": http(b"", "302 X", f"Location: http://127.0.0.1/{KEY}"),
}
# Even a truncated key would give most of it away.
TELLING_PART = KEY[:14]


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_response_that_echoes_the_key_does_not_leak_it_into_the_error(echo: bytes) -> None:
    def answer(head: bytes, send: Send) -> None:
        assert KEY.encode() in head
        send(echo)
        raise ConnectionError("closed after one answer")

    with raw(answer) as server, pytest.raises(DevinAPIError) as refused:
        count(api(server.url, max_tries=1), org_ids=["org-1"])
    message = everything_shown_by(refused.value)
    assert TELLING_PART not in message
    assert "organization org-1 from 2025-03-03T00:00:00Z" in message


@pytest.mark.parametrize(
    "body",
    [
        f'{{"items": [{{"org_id": "{JSON_ESCAPED_KEY}", "org_name": "x", "created_at": "{JSON_ESCAPED_KEY}"}}]}}',
        f'{{"has_more": false, "items": [{{"{JSON_ESCAPED_KEY}": "x"}}]}}',
        f'{{"has_more": true, "items": ["{JSON_ESCAPED_KEY}"]}}',
    ],
    ids=["in a page that lacks a field", "as a field", "as an item"],
)
def test_a_list_that_echoes_the_key_does_not_leak_it_into_the_error(sandbox: Sandbox, body: str) -> None:
    sandbox.fail(body=body.encode())
    with pytest.raises(ContractBroken) as refused:
        organizations(api(sandbox.url))
    assert TELLING_PART not in everything_shown_by(refused.value)


@pytest.mark.parametrize("value", [None, "", "  \n"], ids=["unset", "empty", "blank"])
def test_a_missing_key_is_reported_with_the_variable_and_nothing_is_sent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    if value is not None:
        monkeypatch.setenv(KEY_VARIABLE, value)
    with pytest.raises(Unauthorized, match=r"^DEVIN_API_KEY is not set\."):
        count(api(sandbox.url))
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("5e884898da28", "it starts with neither apk_user_ nor cog_"),
        ("apk_5e884898da28", "it starts with apk_ but not apk_user_"),
        ("apk_user_5e88 4898", "spaces or characters that no key has"),
        ("apk_user_5e88\n4898", "spaces or characters that no key has"),
        ("apk_user_5e88\r\nX-Other: 4898", "spaces or characters that no key has"),
        ("apk_user_5e88\u20134898", "spaces or characters that no key has"),
    ],
    ids=["unknown kind", "organization", "blank", "line break", "header injection", "dash from a word processor"],
)
def test_an_invalid_key_is_refused_with_the_reason_but_never_shown(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, value)
    with pytest.raises(Unauthorized, match=r"^DEVIN_API_KEY is refused") as refused:
        count(api(sandbox.url))
    assert reason in str(refused.value)
    assert "5e88" not in everything_shown_by(refused.value)
    assert "4898" not in everything_shown_by(refused.value)
    assert sandbox.requests == []


def test_whitespace_around_the_key_is_ignored(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\n")
    assert count(api(sandbox.url)) == sandbox.truth(START, END)


@pytest.mark.parametrize("org_ids", [[], ["org-1"]], ids=["about everyone", "about one organization"])
def test_a_key_that_is_refused_stops_after_one_request(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, org_ids: list[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "apk_user_of_someone_else")
    with pytest.raises(Unauthorized, match=r"returned 401 \(Missing or invalid API key\).*DEVIN_API_KEY"):
        count(api(sandbox.url), org_ids=org_ids)
    assert [asked.status for asked in sandbox.requests] == [401]


def test_a_403_about_everyone_is_about_the_key(sandbox: Sandbox) -> None:
    sandbox.fail(status=403, times=None)
    with pytest.raises(Unauthorized, match=r"returned 403 .*DEVIN_API_KEY"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422])
def test_a_refused_organization_is_not_retried_and_is_reported_with_the_window(sandbox: Sandbox, status: int) -> None:
    sandbox.fail(status=status, times=None)
    with pytest.raises(Rejected) as refused:
        count(api(sandbox.url), org_ids=["org-7"])
    message = str(refused.value)
    assert f"organization org-7 from 2025-03-03T00:00:00Z to 2025-03-04T00:00:00Z: the API returned {status}" in message
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refused_request_about_everyone_is_not_retried(sandbox: Sandbox, status: int) -> None:
    sandbox.fail(status=status, times=None)
    with pytest.raises(Rejected, match=f"all organizations from 2025-03-03T.*returned {status}"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


def test_a_validation_error_is_reported_in_words(sandbox: Sandbox) -> None:
    detail = [
        {"loc": ["query", "start_date"], "msg": "Input should be a valid datetime", "type": "datetime_parsing"},
        {"loc": ["query", "org_ids", 0], "msg": "String too long", "type": "string_too_long"},
    ]
    sandbox.fail(status=422, body=json.dumps({"detail": detail}).encode())
    with pytest.raises(Rejected, match=r"422 \(start_date: Input should be a valid datetime; 0: String too long\)"):
        count(api(sandbox.url))


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"detail": null}',
        b'{"detail": 5}',
        b'{"detail": [1]}',
        b'{"detail": [{"loc": [], "msg": "x"}]}',
        b'{"detail": [{"loc": {}, "msg": "x"}]}',
        b'{"detail": "\\ud800\\u001b[2J"}',
        b'{"title": "\\u001b[2J"}',
        b'{"title": "' + b"x" * 100_000 + b'"}',
    ],
    ids=lambda body: repr(body[:36]),
)
def test_a_refusal_with_any_body_is_one_short_printable_message(sandbox: Sandbox, body: bytes) -> None:
    sandbox.fail(status=400, body=body)
    with pytest.raises(Rejected, match="returned 400") as refused:
        count(api(sandbox.url))
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 400
    message.encode()


def test_many_organizations_in_one_request_are_not_all_listed(sandbox: Sandbox) -> None:
    sandbox.fail(status=404)
    with pytest.raises(Rejected, match=r"of organizations o0, o1, o2 and 96 more and user u0 from 2025"):
        count(api(sandbox.url), org_ids=[f"o{n}" for n in range(99)], user_ids=["u0"])
