"""The client asks exactly, believes only the contract, retries what may pass and keeps the key. Over real HTTP."""

import asyncio
import email.utils
import gzip
import ipaddress
import json
import logging
import os
import re
import socket
import socketserver
import ssl
import threading
import time
import traceback
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resources.addresses import check_url
from resources.calls import Calls
from resources.devin_answers import LARGEST_COUNT, Organization
from resources.devin_api import DevinAPI, DevinClient
from resources.devin_errors import (
    ContractBroken,
    DevinAPIError,
    Misrouted,
    Rejected,
    SourceDown,
    Unauthorized,
    Unavailable,
)
from resources.devin_key import KEY_VARIABLE, URL_VARIABLE
from resources.retries import MAX_BODY_BYTES
from resources.sandbox.asked import Asked
from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.server import Sandbox

KEY = "apk_user_4f1d7c9a0b2e86"
NOW = datetime(2025, 7, 16, 13, 45, 30, 250_000, tzinfo=UTC)
START = datetime(2025, 3, 3, tzinfo=UTC)
END = datetime(2025, 3, 4, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
SAFETY_SECONDS = 30
"""No test waits so long; one that would hang for ever fails instead."""

T = TypeVar("T")
Send = Callable[[bytes], object]


def api(url: str, **fields: Any) -> DevinAPI:
    # The key goes there alone; the fixture `environment` takes it back. No variable can hold a NUL.
    os.environ[URL_VARIABLE] = url.replace("\0", "")
    return DevinAPI(base_url=url, **{"backoff_seconds": 0, "patience_seconds": 0, **fields})


def using(api: DevinAPI, ask: Callable[[DevinClient], Awaitable[T]], calls: Calls | None = None) -> T:
    async def main() -> T:
        async with asyncio.timeout(SAFETY_SECONDS), api.connect(calls or Calls()) as client:
            return await ask(client)

    return asyncio.run(main())


def count(
    api: DevinAPI, calls: Calls | None = None, *, start: datetime = START, end: datetime = END, **filters: list[str]
) -> int:
    return using(api, lambda client: client.count(start, end, **filters), calls)


def organizations(api: DevinAPI, calls: Calls | None = None) -> list[Organization]:
    return using(api, lambda client: client.organizations(), calls).items


def counted(value: object) -> bytes:
    return json.dumps({"sessions_count": value}).encode()


def http(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody signed but itself, and its private key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    signed = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(private, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(URL_VARIABLE, "")
    # To load every root certificate takes longer than a question.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture(scope="module")
def serving() -> Iterator[Sandbox]:
    with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(serving: Sandbox) -> Iterator[Sandbox]:
    yield serving
    serving.heal()
    serving.requests.clear()


class RawServer(socketserver.ThreadingTCPServer):
    """A server that answers with any bytes, and keeps every request's head. For what no proper server does."""

    daemon_threads = True

    def __init__(self, answer: Callable[[bytes, Send], object], tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self._tls = tls
        super().__init__(("127.0.0.1", 0), _RawHandler)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections += 1
        if self._tls:
            # The handshake is made by the handler's first read, in its own thread.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


class _RawHandler(socketserver.StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        with suppress(OSError):
            while head := self._head():
                self.server.requests.append(head)
                self.server.answer(head, self.wfile.write)

    def _head(self) -> bytes:
        lines = []
        while line := self.rfile.readline():
            lines.append(line)
            if line == b"\r\n":
                break
        return b"".join(lines)


@contextmanager
def raw(*answers: bytes | Callable[[bytes, Send], object], tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """A RawServer that gives these answers in turn, and the last one from then on."""

    def answer(head: bytes, send: Send) -> None:
        following = answers[min(len(server.requests), len(answers)) - 1]
        if isinstance(following, bytes):
            send(following)
        else:
            following(head, send)

    with RawServer(answer, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def everything_told_by(error: BaseException) -> str:
    """Whatever a log, a screen or a debugger shows of an error, its hidden causes included."""
    seen: BaseException | None = error
    told = ["".join(traceback.format_exception(error))]
    while seen is not None:
        told += [str(seen), repr(seen), repr(seen.args), repr(getattr(seen, "__notes__", None))]
        seen = seen.__cause__
    return "\n".join(told)


# One question


def test_one_count_sends_both_bounds_in_utc_and_each_id_under_its_own_name(sandbox: Sandbox) -> None:
    count(api(sandbox.url), org_ids=["org-b", "org-a"], user_ids=["user-2", "user-1"])
    (asked,) = sandbox.requests
    assert asked.path == SESSIONS_PATH
    assert asked.params == (
        ("start_date", "2025-03-03T00:00:00Z"),
        ("end_date", "2025-03-04T00:00:00Z"),
        ("org_ids", "org-b"),
        ("org_ids", "org-a"),
        ("user_ids", "user-2"),
        ("user_ids", "user-1"),
    )


def test_filters_that_are_empty_are_left_out(sandbox: Sandbox) -> None:
    count(api(sandbox.url), org_ids=[], user_ids=[])
    assert sandbox.requests[0].params == (("start_date", "2025-03-03T00:00:00Z"), ("end_date", "2025-03-04T00:00:00Z"))


def test_a_window_in_another_zone_is_asked_in_utc_to_the_microsecond(sandbox: Sandbox) -> None:
    start = datetime(2025, 3, 29, 23, 59, 59, 123_456, tzinfo=BERLIN)
    end = datetime(2025, 3, 31, 0, 0, 0, 1, tzinfo=BERLIN)
    assert count(api(sandbox.url), start=start, end=end) == sandbox.truth(start, end) > 0
    assert dict(sandbox.requests[0].params) == {
        "start_date": "2025-03-29T22:59:59.123456Z",
        "end_date": "2025-03-30T22:00:00.000001Z",
    }


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (START.replace(tzinfo=None), END),
        (START, END.replace(tzinfo=None)),
        (START.replace(tzinfo=None), END.replace(tzinfo=None)),
        (START, START),
        (END, START),
        # Reversed in time, though not on the clock: the hour is repeated when summer time ends.
        (datetime(2025, 10, 26, 2, 15, tzinfo=BERLIN, fold=1), datetime(2025, 10, 26, 2, 45, tzinfo=BERLIN)),
    ],
    ids=["start naive", "end naive", "both naive", "empty", "reversed", "reversed by the clock change"],
)
def test_a_window_that_is_none_is_refused_before_anything_is_sent(
    sandbox: Sandbox, start: datetime, end: datetime
) -> None:
    calls = Calls()
    with pytest.raises(ValueError, match="not a window of aware datetimes"):
        count(api(sandbox.url), calls, start=start, end=end)
    assert sandbox.requests == []
    assert calls == Calls(sent=0, retried=0)


def test_the_hour_that_is_repeated_when_summer_time_ends_is_a_window(sandbox: Sandbox) -> None:
    start = datetime(2025, 10, 26, 2, 0, tzinfo=BERLIN)
    count(api(sandbox.url), start=start, end=start.replace(fold=1))
    assert dict(sandbox.requests[0].params) == {
        "start_date": "2025-10-26T00:00:00Z",
        "end_date": "2025-10-26T01:00:00Z",
    }


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
            await client.count(START, END, org_ids=both, user_ids=user_ids),
        ]

    assert using(api(sandbox.url), ask) == [
        sandbox.truth(START, END),
        sandbox.truth(START, END, both),
        sandbox.truth(START, END, [third.org_id]),
        sandbox.truth(START, END, user_ids=user_ids),
        sandbox.truth(START, END, both, user_ids),
    ]
    assert sandbox.truth(START, END) > sandbox.truth(START, END, both) > sandbox.truth(START, END, both, user_ids) > 0


def test_many_questions_at_once_share_the_connections_that_are_allowed() -> None:
    both_connections_in_use = threading.Barrier(2)

    def answer(head: bytes, send: Send) -> None:
        both_connections_in_use.wait(SAFETY_SECONDS)
        send(http(counted(3)))

    async def ask(client: DevinClient) -> list[int]:
        return await asyncio.gather(*(client.count(START, END) for _ in range(8)))

    with raw(answer) as server:
        assert using(api(server.url, max_connections=2), ask) == [3] * 8
    assert server.connections == 2


def test_calls_counts_every_request_and_every_second_try(sandbox: Sandbox) -> None:
    calls = Calls()
    sandbox.fail(status=503, times=2)
    count(api(sandbox.url, patience_seconds=SAFETY_SECONDS), calls)
    assert calls == Calls(sent=3, retried=2)
    organizations(api(sandbox.url), calls)
    assert calls == Calls(sent=4, retried=2)


# From code that is not async


def test_code_that_is_not_async_asks_through_a_portal(sandbox: Sandbox) -> None:
    calls = Calls()
    with api(sandbox.url).connected(calls) as (client, portal):
        asking = portal.start_task_soon(client.count, START, END)
        listing = portal.start_task_soon(client.organizations)
        assert asking.result(SAFETY_SECONDS) == sandbox.truth(START, END)
        assert [o.org_id for o in listing.result(SAFETY_SECONDS).items] == [o.org_id for o in sandbox.organizations]
    assert calls == Calls(sent=2, retried=0)


def test_an_interrupt_of_the_calling_thread_stops_the_questions_under_way(sandbox: Sandbox) -> None:
    arrived = threading.Event()

    def note(asked: Asked) -> bool:
        arrived.set()
        return True

    sandbox.fail(delay=SAFETY_SECONDS, when=note)
    with (
        pytest.raises(KeyboardInterrupt),
        api(sandbox.url, timeout_seconds=SAFETY_SECONDS).connected(Calls()) as (client, portal),
    ):
        asking = portal.start_task_soon(client.count, START, END)
        assert arrived.wait(SAFETY_SECONDS)
        raise KeyboardInterrupt
    # Cancelled, or failed since its client was closed: which of the two comes first is open.
    assert asking.cancelled() or isinstance(asking.exception(timeout=0), RuntimeError)


# The organizations


def page(*items: object, has_more: object = False) -> bytes:
    return json.dumps({"items": items, "has_more": has_more}).encode()


def item(org_id: object = "org-1", org_name: object = "One", created_at: object = None) -> dict[str, object]:
    return {"org_id": org_id, "org_name": org_name, "created_at": created_at}


def test_organizations_are_listed_over_all_pages_in_the_sources_order() -> None:
    with Sandbox(api_key=KEY, organizations=450, clock=lambda: NOW) as sandbox:
        listed = organizations(api(sandbox.url))
        assert listed == [Organization(o.org_id, o.org_name, o.created_at) for o in sandbox.organizations]
        assert [dict(asked.params) for asked in sandbox.requests] == [
            {"skip": "0", "limit": "200"},
            {"skip": "200", "limit": "200"},
            {"skip": "400", "limit": "200"},
        ]
    assert len(listed) == 450


def test_a_source_that_gives_smaller_pages_than_asked_for_is_listed_whole(sandbox: Sandbox) -> None:
    sandbox.fail(body=page(item("a"), has_more=True))
    sandbox.fail(body=page(item("b"), item("c"), has_more=True))
    sandbox.fail(body=page(item("d")))
    assert [o.org_id for o in organizations(api(sandbox.url))] == ["a", "b", "c", "d"]
    assert [dict(asked.params)["skip"] for asked in sandbox.requests] == ["0", "1", "3"]


def test_an_empty_list_of_organizations_is_an_answer(sandbox: Sandbox) -> None:
    sandbox.fail(body=page())
    assert organizations(api(sandbox.url)) == []


def test_the_date_of_creation_is_an_instant_or_none(sandbox: Sandbox) -> None:
    sandbox.fail(
        body=page(
            item("a", created_at="2024-05-06T07:08:09.5Z"),
            item("b", created_at="2024-05-06T07:08:09+02:00"),
            item("c", created_at="2024-05-06T07:08:09"),
            item("d", created_at=None),
        )
    )
    assert [o.created_at for o in organizations(api(sandbox.url))] == [
        datetime(2024, 5, 6, 7, 8, 9, 500_000, tzinfo=UTC),
        datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC),
        datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        None,
    ]


def with_total(total: object, *ids: str, more: bool = False) -> bytes:
    return json.dumps({"items": [item(id_) for id_ in ids], "has_more": more, "total": total}).encode()


CONTRADICTIONS: dict[str, list[bytes]] = {
    "fewer than the total": [with_total(3, "a", "b")],
    "more than the total": [with_total(1, "a", "b")],
    "one twice": [with_total(3, "a", "b", "b")],
    "one twice and no total": [with_total(None, "a", "b", "a")],
    "one twice over two pages": [with_total(3, "a", "b", more=True), with_total(3, "b")],
    "a total that changes": [with_total(3, "a", more=True), with_total(2, "b")],
}


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_list_that_contradicts_itself_is_read_once_more(sandbox: Sandbox, pages: list[bytes]) -> None:
    for body in [*pages, with_total(3, "a", "b", "c")]:
        sandbox.fail(body=body)
    listed = using(api(sandbox.url), lambda client: client.organizations())
    assert [o.org_id for o in listed.items] == ["a", "b", "c"]
    assert listed.problem == ""
    assert len(sandbox.requests) == len(pages) + 1
    assert dict(sandbox.requests[-1].params)["skip"] == "0"


@pytest.mark.parametrize("pages", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_of_a_list_that_goes_on_contradicting_itself_all_are_taken_and_it_is_told(
    sandbox: Sandbox, pages: list[bytes]
) -> None:
    for body in [*pages, with_total(7, "b", "c")]:
        sandbox.fail(body=body)
    listed = using(api(sandbox.url), lambda client: client.organizations())
    assert [o.org_id for o in listed.items] == ["a", "b", "c"]
    assert re.search(
        r"list of organizations contradicts itself: .*2 different.*; read again, its total is 7, and it lists 2 "
        r"different ones\. All 3 that were listed either time are counted.*set DEVIN_ORG_IDS",
        listed.problem,
    )
    assert len(sandbox.requests) == len(pages) + 1


@pytest.mark.parametrize("total", [None, "3", 3.0, True, [3]])
def test_a_total_that_is_no_whole_number_is_not_believed(sandbox: Sandbox, total: object) -> None:
    sandbox.fail(body=with_total(total, "a", "b"))
    assert using(api(sandbox.url), lambda client: client.organizations()).problem == ""
    assert len(sandbox.requests) == 1


json_leaves = st.none() | st.booleans() | st.integers() | st.integers(-2, 2**64) | st.floats() | st.text()
names = json_leaves | st.text(st.characters(exclude_categories=())) | st.lists(st.none())


def test_an_odd_name_or_date_of_one_never_stops_the_others(sandbox: Sandbox) -> None:
    with api(sandbox.url, max_tries=1).connected(Calls()) as (client, portal):

        @settings(max_examples=150, deadline=None)
        @given(names, names, st.sets(st.sampled_from(["org_name", "created_at"])))
        @example("Team \ud83d", "", set())
        @example("a\0b", "2024-05-06T07:08:09Z", set())
        def ask(name: object, created_at: object, absent: set[str]) -> None:
            odd = {k: v for k, v in item("b", name, created_at).items() if k not in absent}
            sandbox.heal()
            sandbox.fail(body=page(item("a"), odd, item("c")))
            a, b, c = portal.call(client.organizations).items
            assert (a.org_id, b.org_id, c.org_id) == ("a", "b", "c")
            assert (b.org_name is None) == ("org_name" in absent or not isinstance(name, str))
            if isinstance(b.org_name, str) and isinstance(name, str):
                assert len(b.org_name) == len(name)
                assert "\0" not in b.org_name
                b.org_name.encode()
            if "created_at" in absent or not isinstance(created_at, str):
                assert b.created_at is None

        ask()


def test_an_odd_id_is_named_by_its_place(sandbox: Sandbox) -> None:
    sandbox.fail(body=page(item("a"), item(""), item("c")))
    with pytest.raises(ContractBroken, match="from number 0 on, item 2 of the page"):
        organizations(api(sandbox.url))


def test_a_page_that_is_empty_and_promises_more_breaks_the_contract(sandbox: Sandbox) -> None:
    sandbox.fail(body=page(item("org-1"), has_more=True))
    sandbox.fail(body=page(has_more=True), times=None)
    with pytest.raises(ContractBroken, match=r"the list does not end \(1 organizations so far\)"):
        organizations(api(sandbox.url))
    assert len(sandbox.requests) == 2


def test_a_list_that_always_promises_more_breaks_the_contract() -> None:
    def answer(head: bytes, send: Send) -> None:
        match = re.search(rb"skip=(\d+)", head)
        assert match
        skip = int(match[1])
        send(http(page(*(item(f"org-{n}") for n in range(skip, skip + 40_000)), has_more=True)))

    with raw(answer) as server, pytest.raises(ContractBroken, match="the list does not end"):
        organizations(api(server.url))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"items": []},
        {"has_more": False},
        {"items": None, "has_more": False},
        {"items": {}, "has_more": False},
        {"items": "", "has_more": False},
        {"items": 0, "has_more": False},
        {"items": [], "has_more": None},
        {"items": [], "has_more": 0},
        {"items": [], "has_more": "false"},
        {"items": [None], "has_more": False},
        {"items": ["org-1"], "has_more": False},
        {"items": [["org-1"]], "has_more": False},
        {"items": [{"org_name": "One", "created_at": None}], "has_more": False},
        {"items": [item(org_id=None)], "has_more": False},
        {"items": [item(org_id=1)], "has_more": False},
        {"items": [item(org_id="")], "has_more": False},
        {"items": [item(org_id=["org-1"])], "has_more": False},
        {"items": [item(org_id="\ud800")], "has_more": False},
    ],
    ids=json.dumps,
)
def test_a_page_that_lacks_a_field_or_has_another_type_breaks_the_contract(sandbox: Sandbox, body: object) -> None:
    sandbox.fail(body=json.dumps(body).encode())
    with pytest.raises(ContractBroken, match="Listing the organizations from number 0 on"):
        organizations(api(sandbox.url))
    assert len(sandbox.requests) == 1


def test_a_key_that_may_not_list_organizations_is_told_of_the_setting_that_names_them() -> None:
    with Sandbox(api_key=KEY, lists_organizations=False) as sandbox:
        with pytest.raises(Rejected, match=r"403 \(This key may not list organizations\).* set DEVIN_ORG_IDS"):
            organizations(api(sandbox.url))
        assert len(sandbox.requests) == 1


def test_listing_is_tried_again_like_counting(sandbox: Sandbox) -> None:
    sandbox.fail(status=503)
    assert len(organizations(api(sandbox.url))) == len(sandbox.organizations)
    assert len(sandbox.requests) == 2


# The key


def test_the_key_travels_in_the_authorization_header_and_nowhere_else() -> None:
    with raw(http(counted(1))) as server:
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
    "count": http(counted(KEY)),
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
# Whatever is left of a key that was cut still tells most of it.
TELLING_PART = KEY[:14]


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_an_answer_that_echoes_the_key_does_not_bring_it_into_the_error(echo: bytes) -> None:
    def answer(head: bytes, send: Send) -> None:
        assert KEY.encode() in head
        send(echo)
        raise ConnectionError("closed after one answer")

    with raw(answer) as server, pytest.raises(DevinAPIError) as refused:
        count(api(server.url, max_tries=1), org_ids=["org-1"])
    told = everything_told_by(refused.value)
    assert TELLING_PART not in told
    assert "organization org-1 from 2025-03-03T00:00:00Z" in told


@pytest.mark.parametrize(
    "body",
    [
        f'{{"items": [{{"org_id": "{JSON_ESCAPED_KEY}", "org_name": "x", "created_at": "{JSON_ESCAPED_KEY}"}}]}}',
        f'{{"has_more": false, "items": [{{"{JSON_ESCAPED_KEY}": "x"}}]}}',
        f'{{"has_more": true, "items": ["{JSON_ESCAPED_KEY}"]}}',
    ],
    ids=["in a page that lacks a field", "as a field", "as an item"],
)
def test_a_list_that_echoes_the_key_does_not_bring_it_into_the_error(sandbox: Sandbox, body: str) -> None:
    sandbox.fail(body=body.encode())
    with pytest.raises(ContractBroken) as refused:
        organizations(api(sandbox.url))
    assert TELLING_PART not in everything_told_by(refused.value)


@pytest.mark.parametrize("value", [None, "", "  \n"], ids=["unset", "empty", "blank"])
def test_a_missing_key_names_the_variable_and_sends_nothing(
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
        ("apk_user_5e88 4898", "blanks or characters that no key has"),
        ("apk_user_5e88\n4898", "blanks or characters that no key has"),
        ("apk_user_5e88\r\nX-Other: 4898", "blanks or characters that no key has"),
        ("apk_user_5e88\u20134898", "blanks or characters that no key has"),
    ],
    ids=["unknown kind", "organization", "blank", "line break", "header injection", "dash from a word processor"],
)
def test_a_key_that_cannot_work_is_refused_with_the_reason_but_not_the_key(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, value)
    with pytest.raises(Unauthorized, match=r"^DEVIN_API_KEY is refused") as refused:
        count(api(sandbox.url))
    assert reason in str(refused.value)
    assert "5e88" not in everything_told_by(refused.value)
    assert "4898" not in everything_told_by(refused.value)
    assert sandbox.requests == []


def test_blanks_around_the_key_are_not_part_of_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\n")
    assert count(api(sandbox.url)) == sandbox.truth(START, END)


@pytest.mark.parametrize("org_ids", [[], ["org-1"]], ids=["about everyone", "about one organization"])
def test_a_key_that_is_refused_stops_after_one_request(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, org_ids: list[str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "apk_user_of_someone_else")
    with pytest.raises(Unauthorized, match=r"answered 401 \(Missing or invalid API key\).*DEVIN_API_KEY"):
        count(api(sandbox.url), org_ids=org_ids)
    assert [asked.status for asked in sandbox.requests] == [401]


def test_a_403_about_everyone_is_about_the_key(sandbox: Sandbox) -> None:
    sandbox.fail(status=403, times=None)
    with pytest.raises(Unauthorized, match=r"answered 403 .*DEVIN_API_KEY"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422])
def test_a_refused_organization_is_asked_once_and_named_with_the_window(sandbox: Sandbox, status: int) -> None:
    sandbox.fail(status=status, times=None)
    with pytest.raises(Rejected) as refused:
        count(api(sandbox.url), org_ids=["org-7"])
    told = str(refused.value)
    assert f"organization org-7 from 2025-03-03T00:00:00Z to 2025-03-04T00:00:00Z: the source answered {status}" in told
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refused_question_about_everyone_is_asked_once(sandbox: Sandbox, status: int) -> None:
    sandbox.fail(status=status, times=None)
    with pytest.raises(Rejected, match=f"all organizations from 2025-03-03T.*answered {status}"):
        count(api(sandbox.url))
    assert len(sandbox.requests) == 1


def test_a_validation_error_is_told_in_words(sandbox: Sandbox) -> None:
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
def test_a_refusal_with_any_body_is_one_short_sentence_that_every_screen_can_show(
    sandbox: Sandbox, body: bytes
) -> None:
    sandbox.fail(status=400, body=body)
    with pytest.raises(Rejected, match="answered 400") as refused:
        count(api(sandbox.url))
    told = str(refused.value)
    assert told.isprintable()
    assert len(told) < 400
    told.encode()


def test_many_organizations_in_one_question_are_not_all_spelled_out(sandbox: Sandbox) -> None:
    sandbox.fail(status=404)
    with pytest.raises(Rejected, match=r"of organizations o0, o1, o2 and 96 more and user u0 from 2025"):
        count(api(sandbox.url), org_ids=[f"o{n}" for n in range(99)], user_ids=["u0"])


# What only stands between here and the API

PAGE: dict[str, Any] = {"body": b"<html><title>Just a moment</title></html>", "content_type": "text/html"}
NOT_OF_THE_API: dict[str, dict[str, Any]] = {
    **{
        f"{status} page": {"status": status, **PAGE}
        for status in (301, 400, 404, 405, 407, 410, 413, 414, 422, 431, 451)
    },
    **{f"{status}": {"status": status} for status in (202, 206, 300, 405, 407, 409, 413, 414, 431, 451)},
    "404 of text": {"status": 404, "body": b'{"detail": "no"}', "content_type": "text/plain"},
    "422 of a list": {"status": 422, "body": b"[]"},
    "400 of nothing": {"status": 400, "body": b""},
}


@pytest.mark.parametrize("fault", NOT_OF_THE_API.values(), ids=NOT_OF_THE_API.keys())
def test_what_is_not_the_apis_own_answer_refuses_no_organization(sandbox: Sandbox, fault: dict[str, Any]) -> None:
    sandbox.fail(**fault, times=None)
    told = rf"organization org-7 from 2025-03-03T.*something between you and the API.*answered {fault['status']}"
    with pytest.raises(Unavailable, match=told):
        count(api(sandbox.url), org_ids=["org-7"])
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("fault", NOT_OF_THE_API.values(), ids=NOT_OF_THE_API.keys())
def test_what_is_not_the_apis_own_answer_to_everyone_or_a_list_ends_the_load(
    sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    sandbox.fail(**fault, times=None)
    for ask in (count, organizations):
        with pytest.raises(Misrouted, match=f"something between you and the API.*answered {fault['status']}"):
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
        (451, "the administrator of your network"),
    ],
)
def test_who_can_fix_it_is_told(sandbox: Sandbox, status: int, advice: str) -> None:
    sandbox.fail(status=status, **PAGE)
    with pytest.raises(Unavailable, match=f"as text/html .*{advice}.*asked again by the next command"):
        count(api(sandbox.url), org_ids=["org-7"])


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/Problem+JSON"])
def test_any_json_object_that_is_marked_as_one_is_the_apis(sandbox: Sandbox, kind: str) -> None:
    sandbox.fail(status=404, body=b'{"detail": "unknown"}', content_type=kind)
    with pytest.raises(Rejected):
        count(api(sandbox.url), org_ids=["org-7"])


@pytest.mark.parametrize("org_ids", [[], ["org-7"]], ids=["about everyone", "about one organization"])
def test_a_firewalls_403_may_pass_and_says_nothing_of_the_key(sandbox: Sandbox, org_ids: list[str]) -> None:
    sandbox.fail(status=403, **PAGE)
    assert count(api(sandbox.url), org_ids=org_ids) == sandbox.truth(START, END, org_ids or None)
    sandbox.fail(status=403, **PAGE, times=None)
    with pytest.raises(SourceDown, match=r"answered 403 as text/html \(<html><title>Just a moment") as down:
        count(api(sandbox.url), org_ids=org_ids)
    assert KEY_VARIABLE not in str(down.value)


def test_a_log_in_page_is_not_taken_for_the_api_that_refuses_the_key(sandbox: Sandbox) -> None:
    sandbox.fail(status=401, **PAGE)
    with pytest.raises(Misrouted, match="If nothing is on the way, the key in DEVIN_API_KEY may have ended"):
        count(api(sandbox.url))


# Where the key may go


def test_plain_http_to_another_host_is_refused_before_a_connection(sandbox: Sandbox) -> None:
    # 0.0.0.0 is no loopback address, but a connection to it would reach the sandbox.
    port = urlsplit(sandbox.url).port
    calls = Calls()
    with pytest.raises(ValueError, match="the key would travel unencrypted"):
        count(api(f"http://0.0.0.0:{port}"), calls)
    assert calls == Calls(sent=0, retried=0)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://api.devin.ai",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "http://[2001:db8::1]",
    ],
)
def test_an_address_that_is_neither_https_nor_this_machine_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="the key would travel unencrypted"):
        check_url(url)
    with pytest.raises(ValueError, match="the key would travel unencrypted"):
        count(api(url))


@pytest.mark.parametrize(
    "url",
    [
        "https://user@api.devin.ai",
        "https://user:password@api.devin.ai",
        "http://:password@127.0.0.1",
        "https://api.devin.ai/?org=1",
        "https://api.devin.ai/?",
        "https://api.devin.ai#top",
        "https://api.devin.ai#",
    ],
)
def test_an_address_with_user_query_or_fragment_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="user, password, query and fragment do not belong in it") as refused:
        count(api(url))
    assert "password@" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1",
        "api.devin.ai",
        "https://",
        "",
        "https://api.devin.ai:port",
        "https://api.devin.ai:65536",
        "https://[::1",
        "https://[::g]",
        "https://a\x00b",
        "https://api.devin.ai\\@example.com",
        "https://bücher.example",
        " https://api.devin.ai",
        "https://api.devin.ai/a b",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        count(api(url))


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("https://api.devin.ai/", "https://api.devin.ai"),
        ("https://proxy.example.com/devin//", "https://proxy.example.com/devin"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.8.7.6", "http://127.8.7.6"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_https_and_this_machine_are_usable_addresses(url: str, usable: str) -> None:
    assert check_url(url) == usable


def test_a_path_in_the_address_comes_before_the_sources_own() -> None:
    with raw(http(counted(1))) as server:
        count(api(f"{server.url}/gateway/"))
    assert server.requests[0].startswith(f"GET /gateway{SESSIONS_PATH}?start_date=".encode())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(sandbox: Sandbox, status: int) -> None:
    with raw(http(counted(1))) as elsewhere:
        sandbox.fail(status=status, redirect_to=f"{elsewhere.url}{SESSIONS_PATH}", times=None)
        with pytest.raises(Unavailable, match=rf"answered {status} .*check DEVIN_API_URL"):
            count(api(sandbox.url), org_ids=["org-1"])
        with pytest.raises(Misrouted, match=rf"answered {status} .*check DEVIN_API_URL"):
            count(api(sandbox.url))
    assert elsewhere.requests == []
    assert elsewhere.connections == 0
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_cookie_that_the_source_sets_is_never_sent_back(host: str) -> None:
    async def ask(client: DevinClient) -> None:
        await client.count(START, END)
        await client.organizations()
        await client.count(START, END)

    answer = http(counted(1), "200 OK", "Set-Cookie: session=1; Path=/")
    listing = http(page(), "200 OK", "Set-Cookie: listed=1; Path=/")
    with raw(answer, listing, answer) as server:
        using(api(server.url.replace("127.0.0.1", host)), ask)
    assert len(server.requests) == 3
    assert not any(b"cookie" in head.lower() for head in server.requests)


def set_proxies(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, url)
        monkeypatch.setenv(name.lower(), url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


def test_the_environments_proxies_never_see_a_question_to_this_machine(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw(http(counted(99))) as proxy:
        set_proxies(monkeypatch, proxy.url)
        assert count(api(sandbox.url)) == sandbox.truth(START, END)
    assert proxy.connections == 0


def test_the_environments_proxy_is_used_for_https_and_never_sees_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw(http(b"", "403 No")) as proxy:
        set_proxies(monkeypatch, proxy.url)
        with pytest.raises(SourceDown):
            count(api("https://devin.invalid", max_tries=1))
    assert [head.split(b"\r\n")[0] for head in proxy.requests] == [b"CONNECT devin.invalid:443 HTTP/1.1"]
    assert KEY.encode() not in proxy.requests[0]


def test_a_host_that_the_environment_excepts_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw(http(b"", "403 No")) as proxy:
        set_proxies(monkeypatch, proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with raw(b"") as source, pytest.raises(SourceDown):
            count(api(source.url.replace("http:", "https:"), max_tries=1, timeout_seconds=0.2))
    assert proxy.connections == 0


def test_a_server_that_cannot_prove_who_it_is_gets_no_request(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SSL_CERT_FILE")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with raw(http(counted(8)), tls=tls) as server:
        with pytest.raises(SourceDown, match="certificate"):
            count(api(server.url, max_tries=2))
        assert server.connections == 2
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert count(api(server.url)) == 8


# What may pass is tried again

PASSING: dict[str, dict[str, Any]] = {
    **{str(status): {"status": status} for status in (408, 429, 500, 502, 503, 504)},
    "dropped connection": {"drop": True},
    "truncated body": {"truncate": True},
    "web page": {"body": b"<html>Sign in</html>", "content_type": "text/html"},
    "empty body": {"body": b""},
    "half a JSON": {"body": b'{"sessions_count": 1'},
    "two JSONs": {"body": b'{"sessions_count": 1}{"sessions_count": 1}'},
    "number too long to read": {"body": b'{"sessions_count": ' + b"9" * 10_000 + b"}"},
    "JSON too deep to read": {"body": b'{"sessions_count": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"},
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_trouble_that_passes_costs_one_more_request(sandbox: Sandbox, fault: dict[str, Any]) -> None:
    calls = Calls()
    org_id = sandbox.organizations[0].org_id
    sandbox.fail(**fault)
    assert count(api(sandbox.url), calls, org_ids=[org_id]) == sandbox.truth(START, END, [org_id]) > 0
    assert len(sandbox.requests) == 2
    assert len(set(asked.params for asked in sandbox.requests)) == 1
    assert calls == Calls(sent=2, retried=1)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_trouble_that_stays_is_given_up_after_the_tries_that_are_allowed(
    sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    calls = Calls()
    sandbox.fail(**fault, org_id="org-7", times=None)

    async def ask(client: DevinClient) -> None:
        await client.count(START, END)
        with pytest.raises(Unavailable) as refused:
            await client.count(START, END, org_ids=["org-7"])
        told = str(refused.value)
        assert "organization org-7 from 2025-03-03T00:00:00Z to 2025-03-04T00:00:00Z" in told
        assert "after 3 tries" in told

    using(api(sandbox.url, max_tries=3), ask, calls)
    assert [asked.org_ids for asked in sandbox.requests].count(("org-7",)) == 3
    # Whether the source answers anybody is asked as often as nobody else tells.
    assert calls == Calls(sent=6, retried=4)


def test_a_connection_that_was_kept_and_is_dropped_costs_one_more_request(sandbox: Sandbox) -> None:
    calls = Calls()

    async def ask(client: DevinClient) -> None:
        await client.count(START, END)
        sandbox.fail(drop=True)
        assert await client.count(START, END) == sandbox.truth(START, END)

    using(api(sandbox.url), ask, calls)
    assert [asked.status for asked in sandbox.requests] == [200, None, 200]
    assert calls == Calls(sent=3, retried=1)


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(sandbox: Sandbox) -> None:
    calls = Calls()
    sandbox.fail(delay=SAFETY_SECONDS)
    assert count(api(sandbox.url, timeout_seconds=1), calls) == sandbox.truth(START, END)
    assert len(sandbox.requests) == 2
    assert calls == Calls(sent=2, retried=1)


def test_an_answer_that_drips_for_ever_is_given_up_though_no_single_byte_is_late() -> None:
    def drip(head: bytes, send: Send) -> None:
        send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            send(b" ")
            time.sleep(0.01)  # a drip, not a flood

    with raw(drip) as server, pytest.raises(SourceDown, match=r"no whole answer within 0\.2 s"):
        count(api(server.url, timeout_seconds=0.2, max_tries=2))
    assert server.connections == 2


def test_a_source_that_is_not_there_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    calls = Calls()
    with pytest.raises(SourceDown, match=r"the connection failed: .*nothing was answered for"):
        count(api(url, max_tries=3), calls)
    assert calls == Calls(sent=2, retried=1)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        http(b"not gzip", "200 OK", "Content-Encoding: gzip", "Connection: close"),
    ],
)
def test_an_answer_that_is_not_http_is_none(answer: bytes) -> None:
    def once(head: bytes, send: Send) -> None:
        send(answer)
        raise ConnectionError("closed after one answer")

    with raw(once) as server, pytest.raises(SourceDown):
        count(api(server.url, max_tries=2))
    assert len(server.requests) == 2


def test_a_trouble_in_one_question_does_not_disturb_the_others_under_way(sandbox: Sandbox) -> None:
    sandbox.fail(status=404, org_id="org-broken", times=None)
    org_ids = [o.org_id for o in sandbox.organizations]

    async def ask(client: DevinClient) -> list[int | BaseException]:
        asked = [client.count(START, END, org_ids=[org_id]) for org_id in ["org-broken", *org_ids]]
        return await asyncio.gather(*asked, return_exceptions=True)

    broken, *counts = using(api(sandbox.url), ask)
    assert isinstance(broken, Rejected)
    assert counts == [sandbox.truth(START, END, [org_id]) for org_id in org_ids]


# The pause that the source asks for


def http_date(after: timedelta) -> str:
    return email.utils.format_datetime(datetime.now(UTC) + after, usegmt=True)


@pytest.mark.parametrize("wanted", ["0", http_date(-timedelta(days=1))], ids=["in seconds", "as a date"])
def test_a_source_that_asks_for_no_pause_is_asked_again_at_once(sandbox: Sandbox, wanted: str) -> None:
    sandbox.fail(retry_after=wanted)
    count(api(sandbox.url, backoff_seconds=3600, max_backoff_seconds=3600))
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "soon",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "0x10",
        "Wed, 99 Foo 2099 00:00:00 GMT",
        "Wed, 21 Oct 99999999999 07:28:00 GMT",
        "Wed, 21 Oct 2099 99999999999999999999:28:00 GMT",
        "\u00ff",
    ],
)
def test_a_pause_that_makes_no_sense_is_ignored(wanted: str) -> None:
    refusal = http(b"", "429 Too Many Requests", f"Retry-After: {wanted}")
    with raw(refusal, http(counted(4))) as server:
        assert count(api(server.url)) == 4
    assert len(server.requests) == 2


# Only the contract is believed


@pytest.mark.parametrize(
    "body",
    [
        counted(-1),
        counted(LARGEST_COUNT + 1),
        counted(10**400),
        counted(12.0),
        counted(12.5),
        counted(True),
        counted(False),
        counted("12"),
        counted(None),
        counted([12]),
        counted({"count": 12}),
        b'{"sessions_count": 1e2}',
        b'{"sessions_count": NaN}',
        b'{"sessions_count": Infinity}',
        b'{"sessions_count": ' + b"[" * 400 + b"]" * 400 + b"}",
        b"{}",
        b'{"Sessions_count": 12}',
        b'{"sessions_created_count": 12}',
        b'{"detail": "not today"}',
        b"12",
        b"null",
        b"[]",
        b'[{"sessions_count": 12}]',
        b'"sessions_count"',
    ],
    ids=lambda body: body.decode()[:50],
)
def test_an_answer_that_is_not_one_whole_number_is_no_count(sandbox: Sandbox, body: bytes) -> None:
    sandbox.fail(body=body, times=None)
    with pytest.raises(
        ContractBroken, match=r"organization org-7 from 2025-03-03T.*Nothing of it was stored"
    ) as broken:
        count(api(sandbox.url), org_ids=["org-7"])
    assert len(str(broken.value)) < 500
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("number", [0, 1, 2**31, LARGEST_COUNT])
def test_every_whole_number_that_sums_can_hold_is_a_count(sandbox: Sandbox, number: int) -> None:
    sandbox.fail(body=counted(number))
    assert count(api(sandbox.url)) == number


def test_fields_beside_the_count_are_no_harm(sandbox: Sandbox) -> None:
    sandbox.fail(body=b'{"as_of": null, "sessions_count": 7, "prs": [1]}')
    assert count(api(sandbox.url)) == 7


json_values = st.recursive(json_leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def test_of_all_json_only_whole_numbers_in_range_are_counts(sandbox: Sandbox) -> None:
    with api(sandbox.url, max_tries=1).connected(Calls()) as (client, portal):

        @settings(max_examples=150, deadline=None)
        @given(st.fixed_dictionaries({"sessions_count": json_values}) | json_values)
        @example({"sessions_count": LARGEST_COUNT})
        @example({"sessions_count": True})
        def ask(body: object) -> None:
            value = body.get("sessions_count") if isinstance(body, dict) else None
            sandbox.heal()
            sandbox.fail(body=json.dumps(body).encode())
            if type(value) is int and 0 <= value <= 10**12:
                answer = portal.call(client.count, START, END)
                assert (type(answer), answer) == (int, value)
            else:
                with pytest.raises(ContractBroken):
                    portal.call(client.count, START, END)

        ask()


@pytest.mark.parametrize("status", [202, 204, 206, 304, 600, 999])
def test_only_a_200_carries_a_count(status: int) -> None:
    body = b"" if status in (204, 304) else counted(5)
    with raw(http(body, f"{status} X")) as server, pytest.raises(Misrouted, match=f"answered {status}"):
        count(api(server.url))
    assert len(server.requests) == 1


# An answer has a size


def test_an_answer_of_the_largest_size_is_read_and_a_longer_one_is_not(sandbox: Sandbox) -> None:
    sandbox.fail(body=counted(6).rjust(MAX_BODY_BYTES))
    sandbox.fail(body=counted(6).rjust(MAX_BODY_BYTES + 1), times=None)

    async def ask(client: DevinClient) -> None:
        assert await client.count(START, END) == 6
        with pytest.raises(ContractBroken, match="longer than 4,194,304 bytes and was cut off"):
            await client.count(START, END)

    using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_that_never_ends_is_cut_off(status: int) -> None:
    sent = []

    def endless(head: bytes, send: Send) -> None:
        send(f"HTTP/1.1 {status} X\r\n\r\n".encode())
        while True:
            send(b" " * 65_536)
            sent.append(65_536)

    with raw(endless) as server, pytest.raises(ContractBroken, match="cut off"):
        count(api(server.url, timeout_seconds=SAFETY_SECONDS))
    assert len(server.requests) == 1
    # What was read, and what the two sockets hold on the way.
    assert sum(sent) < 8 * MAX_BODY_BYTES


def test_headers_that_never_end_are_cut_off() -> None:
    def endless(head: bytes, send: Send) -> None:
        send(b"HTTP/1.1 200 OK\r\n")
        while True:
            send(b"X-Again: and again\r\n" * 1000)

    with raw(endless) as server, pytest.raises(SourceDown, match="the connection failed"):
        count(api(server.url, max_tries=1, timeout_seconds=SAFETY_SECONDS))


def test_a_small_answer_that_unpacks_to_a_huge_one_does_not_fill_the_memory() -> None:
    bomb = http(gzip.compress(b" " * 64 * 1024 * 1024), "200 OK", "Content-Encoding: gzip")
    with raw(bomb) as server, pytest.raises(DevinAPIError):
        tracemalloc.start()
        try:
            count(api(server.url, max_tries=1))
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert b"accept-encoding: identity" in server.requests[0].lower()
    assert peak < 8 * MAX_BODY_BYTES
