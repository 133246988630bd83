"""Where the key may go: addresses, redirects, cookies, proxies and certificates. Over real HTTP."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resources.addresses import check_url
from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.devin_errors import Misrouted, SourceDown, Unavailable
from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.server import Sandbox
from tests.support.client import END, KEY, START, api, count, count_body, page, using
from tests.support.http import http, raw, set_proxies


def test_plain_http_to_another_host_is_refused_before_a_connection(sandbox: Sandbox) -> None:
    # 0.0.0.0 is not a loopback address, but a connection to it would reach the sandbox.
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
def test_an_invalid_address_is_refused(url: str) -> None:
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


def test_a_path_in_the_address_precedes_the_apis_own() -> None:
    with raw(http(count_body(1))) as server:
        count(api(f"{server.url}/gateway/"))
    assert server.requests[0].startswith(f"GET /gateway{SESSIONS_PATH}?start_date=".encode())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(sandbox: Sandbox, status: int) -> None:
    with raw(http(count_body(1))) as elsewhere:
        sandbox.fail(status=status, redirect_to=f"{elsewhere.url}{SESSIONS_PATH}", times=None)
        with pytest.raises(Unavailable, match=rf"returned {status} .*check DEVIN_API_URL"):
            count(api(sandbox.url), org_ids=["org-1"])
        with pytest.raises(Misrouted, match=rf"returned {status} .*check DEVIN_API_URL"):
            count(api(sandbox.url))
    assert elsewhere.requests == []
    assert elsewhere.connections == 0
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_cookie_that_the_api_sets_is_never_sent_back(host: str) -> None:
    async def ask(client: DevinClient) -> None:
        await client.count(START, END)
        await client.organizations()
        await client.count(START, END)

    answer = http(count_body(1), "200 OK", "Set-Cookie: session=1; Path=/")
    listing = http(page(), "200 OK", "Set-Cookie: listed=1; Path=/")
    with raw(answer, listing, answer) as server:
        using(api(server.url.replace("127.0.0.1", host)), ask)
    assert len(server.requests) == 3
    assert not any(b"cookie" in head.lower() for head in server.requests)


def test_requests_to_this_machine_never_go_through_the_environments_proxies(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw(http(count_body(99))) as proxy:
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


def test_a_host_in_no_proxy_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw(http(b"", "403 No")) as proxy:
        set_proxies(monkeypatch, proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with raw(b"") as source, pytest.raises(SourceDown):
            count(api(source.url.replace("http:", "https:"), max_tries=1, timeout_seconds=0.2))
    assert proxy.connections == 0


def test_a_server_with_an_untrusted_certificate_gets_no_request(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SSL_CERT_FILE")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with raw(http(count_body(8)), tls=tls) as server:
        with pytest.raises(SourceDown, match="certificate"):
            count(api(server.url, max_tries=2))
        assert server.connections == 2
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert count(api(server.url)) == 8
