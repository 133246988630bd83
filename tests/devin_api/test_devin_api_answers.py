"""The client accepts only what the contract allows, and no endless response. Over real HTTP."""

import gzip
import json
import re
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resources.calls import Calls
from resources.devin_answers import LARGEST_COUNT
from resources.devin_api import DevinClient
from resources.devin_errors import ContractBroken, DevinAPIError, Misrouted, SourceDown
from resources.retries import MAX_BODY_BYTES
from resources.sandbox.server import Sandbox
from tests.support.client import END, SAFETY_SECONDS, START, api, count, count_body, using
from tests.support.examples import examples
from tests.support.http import Send, http, raw
from tests.support.json_values import json_values

# One whole number


@pytest.mark.parametrize(
    "body",
    [
        count_body(-1),
        count_body(LARGEST_COUNT + 1),
        count_body(10**400),
        count_body(12.0),
        count_body(12.5),
        count_body(True),
        count_body(False),
        count_body("12"),
        count_body(None),
        count_body([12]),
        count_body({"count": 12}),
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
def test_a_response_that_is_not_one_whole_number_is_not_a_count(sandbox: Sandbox, body: bytes) -> None:
    sandbox.fail(body=body, times=None)
    with pytest.raises(ContractBroken, match=r"organization org-7 from 2025-03-03T.*None of it was stored") as broken:
        count(api(sandbox.url), org_ids=["org-7"])
    assert len(str(broken.value)) < 500
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("number", [0, 1, 2**31, LARGEST_COUNT])
def test_every_whole_number_in_range_is_a_count(sandbox: Sandbox, number: int) -> None:
    sandbox.fail(body=count_body(number))
    assert count(api(sandbox.url)) == number


def test_other_fields_beside_the_count_are_ignored(sandbox: Sandbox) -> None:
    sandbox.fail(body=b'{"as_of": null, "sessions_count": 7, "prs": [1]}')
    assert count(api(sandbox.url)) == 7


def test_only_whole_numbers_in_range_are_counts_whatever_the_json(sandbox: Sandbox) -> None:
    with api(sandbox.url, max_tries=1).connected(Calls()) as (client, portal):

        @examples(30)
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
    body = b"" if status in (204, 304) else count_body(5)
    with raw(http(body, f"{status} X")) as server, pytest.raises(Misrouted, match=f"returned {status}"):
        count(api(server.url))
    assert len(server.requests) == 1


# Size limits


def test_a_response_of_the_maximum_size_is_read_and_a_longer_one_is_not(sandbox: Sandbox) -> None:
    sandbox.fail(body=count_body(6).rjust(MAX_BODY_BYTES))
    sandbox.fail(body=count_body(6).rjust(MAX_BODY_BYTES + 1), times=None)

    async def ask(client: DevinClient) -> None:
        assert await client.count(START, END) == 6
        with pytest.raises(ContractBroken, match="longer than 4,194,304 bytes and was cut off"):
            await client.count(START, END)

    using(api(sandbox.url), ask)
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_response_that_never_ends_is_cut_off(status: int) -> None:
    sent = []

    def endless(head: bytes, send: Send) -> None:
        send(f"HTTP/1.1 {status} X\r\n\r\n".encode())
        while True:
            send(b" " * 65_536)
            sent.append(65_536)

    with raw(endless) as server, pytest.raises(ContractBroken, match="cut off"):
        count(api(server.url, timeout_seconds=SAFETY_SECONDS))
    assert len(server.requests) == 1
    # What was read, plus what the two sockets buffer.
    assert sum(sent) < 8 * MAX_BODY_BYTES


def test_headers_that_never_end_are_cut_off() -> None:
    def endless(head: bytes, send: Send) -> None:
        send(b"HTTP/1.1 200 OK\r\n")
        while True:
            send(b"X-Again: and again\r\n" * 1000)

    with raw(endless) as server, pytest.raises(SourceDown, match="the connection failed"):
        count(api(server.url, max_tries=1, timeout_seconds=SAFETY_SECONDS))


# What something on the way may do to a body


def raw_deflate(body: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(body) + packing.flush()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": lambda body: gzip.compress(body[:5]) + gzip.compress(body[5:]),
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "identity": lambda body: body,
    "identity, gzip": gzip.compress,
    "deflate, gzip": lambda body: gzip.compress(zlib.compress(body)),
}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_body_that_was_compressed_although_nobody_asked_for_it_is_read(encoding: str) -> None:
    with raw(http(COMPRESSED[encoding](count_body(12)), "200 OK", f"Content-Encoding: {encoding}")) as server:
        assert count(api(server.url)) == 12
    assert b"accept-encoding: identity" in server.requests[0].lower()


@pytest.mark.parametrize("kind", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_body_in_any_encoding_of_unicode_is_read(kind: str) -> None:
    with raw(http(count_body(12).decode().encode(kind))) as server:
        assert count(api(server.url)) == 12


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "\x1b[2J", "x" * 300])
def test_a_method_of_compression_that_is_not_known_ends_the_load_with_a_sentence(encoding: str) -> None:
    with raw(http(b"\x1b\xff", "200 OK", f"Content-Encoding: {encoding}")) as server, pytest.raises(Misrouted) as error:
        count(api(server.url, patience_seconds=SAFETY_SECONDS))
    assert "although no compression was asked for" in str(error.value)
    assert len(server.requests) == 1
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (count_body(12), "a body that is not gzip, although its header says so"),
        (gzip.compress(count_body(12))[:-4], "a gzip body that is cut off"),
        (gzip.compress(count_body(12)) + b"more", "a body that is not gzip"),
    ],
    ids=["plain", "cut off", "followed by more"],  # the bodies have the time in them
)
def test_a_body_that_is_not_what_its_header_says_is_retried(body: bytes, why: str) -> None:
    good = http(gzip.compress(count_body(12)), "200 OK", "Content-Encoding: gzip")
    with raw(http(body, "200 OK", "Content-Encoding: gzip"), good) as server:
        calls = Calls()
        assert count(api(server.url), calls) == 12
        assert calls.outcomes == {"not readable": 1, "200": 1}
    with raw(http(body, "200 OK", "Content-Encoding: gzip")) as server, pytest.raises(SourceDown, match=why):
        count(api(server.url, max_tries=1))


@pytest.mark.parametrize("status", ["200 OK", "500 No", "404 No", "403 No"])
def test_a_message_never_shows_what_is_not_text(status: str) -> None:
    binary = bytes(range(256)) + gzip.compress(b"?") * 20
    with raw(http(binary, status, "Content-Type: application/json")) as server, pytest.raises(DevinAPIError) as error:
        count(api(server.url, max_tries=1))
    assert re.search(r"\([\d,]+ bytes that are not text\)", str(error.value))
    assert str(error.value).isascii() and str(error.value).isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b'{"sessions_count": 999, "sessions_count": 12}',
        b'{"sessions_count": 12, "sessions_count": 12.0}',
        b'{"sessions_count": 1, "sessions_count": true}',
        b'{"sessions_count": 12, "more": [{"a": 1, "a": null}]}',
    ],
)
def test_a_response_that_has_a_key_twice_with_two_values_is_not_a_count(sandbox: Sandbox, body: bytes) -> None:
    sandbox.fail(body=body, times=None)
    with pytest.raises(ContractBroken, match=r"contradicts itself: it has '.*' more than once, with different values"):
        count(api(sandbox.url), org_ids=["org-7"])
    assert len(sandbox.requests) == 1


def test_a_key_twice_with_the_same_value_is_no_contradiction(sandbox: Sandbox) -> None:
    sandbox.fail(body=b'{"sessions_count": 12, "sessions_count": 12}', times=None)
    assert count(api(sandbox.url)) == 12


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
def test_a_decompression_bomb_does_not_fill_the_memory(encoding: str) -> None:
    body = b" " * 64 * 1024 * 1024
    for _ in encoding.split(","):
        body = gzip.compress(body)
    bomb = http(body, "200 OK", f"Content-Encoding: {encoding}")
    with raw(bomb) as server, pytest.raises(ContractBroken, match="is longer than"):
        tracemalloc.start()
        try:
            count(api(server.url, max_tries=1))
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert b"accept-encoding: identity" in server.requests[0].lower()
    assert peak < 8 * MAX_BODY_BYTES
