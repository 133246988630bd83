"""Where the key may go: addresses, redirects, cookies, proxies and certificates. Over real HTTP."""

import base64
import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resources.addresses import check_url
from resources.authorities import VARIABLES, tls_context
from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.devin_errors import Misrouted, NetworkRefused, SourceDown, Unavailable
from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.server import Sandbox
from tests.support.client import END, KEY, SAFETY_SECONDS, START, api, count, count_body, page, using
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


def only(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set these variables about proxies, and no others."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("form", ["http://{}", "{}", "HTTP://{}/", "http://user:pass%40word@{}", "user:pass%40word@{}"])
def test_every_variable_and_form_of_a_proxy_that_curl_takes_is_used_and_never_sees_the_key(
    monkeypatch: pytest.MonkeyPatch, variable: str, form: str
) -> None:
    with raw(http(b"", "502 No")) as proxy:
        only(monkeypatch, **{variable: form.format(proxy.url.removeprefix("http://"))})
        with pytest.raises(SourceDown) as down:
            count(api("https://devin.invalid", max_tries=1))
    head = proxy.requests[0]
    assert head.startswith(b"CONNECT devin.invalid:443 HTTP/1.1\r\n")
    assert (base64.b64encode(b"user:pass@word") in head) is ("user" in form)
    assert KEY.encode() not in head
    assert "pass" not in str(down.value)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("socks5://127.0.0.1:1080", "socks5:// proxies are not supported"),
        ("socks5h://user:secret@127.0.0.1:1080", "socks5h:// proxies are not supported"),
        ("ftp://127.0.0.1:1", "it is not the address of a proxy"),
        ("http://", "it names no host"),
        ("http://127.0.0.1:port", "it is not the address of a proxy"),
        ("http://user:secret@[::1", "it is not the address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_with_its_variable_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    only(monkeypatch, HTTPS_PROXY=value)
    calls = Calls()
    with pytest.raises(NetworkRefused) as refused:
        count(api("https://devin.invalid"), calls)
    assert str(refused.value).startswith(f"HTTPS_PROXY is refused: {why}")
    assert "It must be like http://host:port" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert calls.sent == 0


@pytest.mark.parametrize(
    ("status", "what_to_do"),
    [("407 Who", "set both in HTTPS_PROXY"), ("403 No", "Check HTTPS_PROXY and NO_PROXY"), ("404 No", "Check HTTPS")],
)
def test_a_proxy_that_refuses_is_asked_once(monkeypatch: pytest.MonkeyPatch, status: str, what_to_do: str) -> None:
    with raw(http(b"", status)) as proxy:
        only(monkeypatch, HTTPS_PROXY=proxy.url)
        with pytest.raises(Misrouted, match=f"{status[:3]}.*{what_to_do}"):
            count(api("https://devin.invalid", patience_seconds=SAFETY_SECONDS))
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    "listed", ["127.0.0.1", "127.0.0.1:{port}", "*", "example.com, 127.0.0.1", "127.0.0.0/8", "10.0.0.0/8,127.0.0.1/32"]
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_a_host_in_no_proxy_is_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str, listed: str
) -> None:
    with raw(http(b"", "502 No")) as proxy, raw(b"") as source:
        port = source.url.rpartition(":")[2]
        only(monkeypatch, HTTPS_PROXY=proxy.url, **{variable: listed.format(port=port)})
        with pytest.raises(SourceDown):
            count(api(source.url.replace("http:", "https:"), max_tries=1, timeout_seconds=0.2))
    assert proxy.connections == 0


@pytest.mark.parametrize("listed", ["devin.example", ".invalid.example", "10.0.0.0/8", "devin.invalid:444", ","])
def test_no_proxy_for_others_does_not_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    with raw(http(b"", "502 No")) as proxy:
        only(monkeypatch, HTTPS_PROXY=proxy.url, NO_PROXY=listed)
        with pytest.raises(SourceDown):
            count(api("https://devin.invalid", max_tries=1))
    assert proxy.connections


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's TLS with a certificate that no authority has signed; no variable says which to trust."""
    only(monkeypatch)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_server_with_an_untrusted_certificate_gets_no_request_and_is_not_tried_again(tls: ssl.SSLContext) -> None:
    with raw(http(count_body(8)), tls=tls) as server:
        with pytest.raises(Misrouted, match=r"certificate at its address is not accepted \(self.signed.*SSL_CERT_FILE"):
            count(api(server.url, patience_seconds=SAFETY_SECONDS))
        assert server.connections == 1
        assert server.requests == []


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_variable_for_authorities_is_used(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    trusted = certificate
    if variable == "SSL_CERT_DIR":
        shutil.copy(certificate, tmp_path / "own.pem")
        subprocess.run(["openssl", "rehash", tmp_path], check=True)
        trusted = tmp_path
    monkeypatch.setenv(variable, str(trusted))
    with raw(http(count_body(8)), tls=tls) as server:
        assert count(api(server.url)) == 8


def test_without_a_variable_the_known_authorities_are_trusted_and_for_plain_http_nobody_is(tls: ssl.SSLContext) -> None:
    trusting = tls_context("https://devin.invalid"), tls_context("http://127.0.0.1:8000")
    assert [len(context.get_ca_certs()) > 50 for context in trusting] == [True, False]
    assert all((context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True) for context in trusting)


@pytest.mark.parametrize("variable", VARIABLES)
def test_authorities_that_cannot_be_read_are_refused_with_their_variable(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    for path, why in ((tmp_path / "none.pem", "No such file"), (Path(__file__), "it holds no certificate")):
        monkeypatch.setenv(variable, str(path))
        calls = Calls()
        with pytest.raises(NetworkRefused, match=f"^{variable}={path} is refused: {why}"):
            count(api("https://devin.invalid"), calls)
        assert calls.sent == 0
