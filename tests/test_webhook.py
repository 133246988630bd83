"""How a message is sent: where to, through what, in which form, and what it never contains."""

import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from resources import webhook
from resources.devin_key import KEY_VARIABLE
from resources.webhook import URL_VARIABLE, Undelivered, as_text, send
from tests.support.http import Send, http, raw, set_proxies

SECRET_PATH = "/services/T0/B0/very-secret-path"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv(KEY_VARIABLE, "cog_key")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def refusal(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    monkeypatch.setenv(URL_VARIABLE, address)
    with pytest.raises(Undelivered) as refused:
        send("x")
    assert SECRET_PATH not in str(refused.value)
    return str(refused.value)


def test_a_message_is_posted_once_as_slack_json_whatever_the_response_body(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw(http(b"\xff" * 100, "204 No Content")) as server:
        monkeypatch.setenv(URL_VARIABLE, f" {server.url}{SECRET_PATH}?a=b ")
        send("x")
    assert server.connections == 1
    head = server.requests[0]
    assert head.startswith(f"POST {SECRET_PATH}?a=b HTTP/1.1\r\n".encode())
    assert b"content-type: application/json" in head.lower()
    assert b"cog_key" not in head


def test_a_receiver_that_trickles_its_response_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.5)
    pause = threading.Event()

    def drip(_: bytes, send_bytes: Send) -> None:
        with suppress(OSError):  # once the client has given up
            for byte in http():
                pause.wait(0.05)
                send_bytes(bytes([byte]))

    with raw(drip) as server:
        assert refusal(monkeypatch, server.url + SECRET_PATH) == "127.0.0.1 did not respond within 0.5 s"


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw(http()) as elsewhere, raw(http(b"", "307 There", f"Location: {elsewhere.url}")) as server:
        assert refusal(monkeypatch, server.url + SECRET_PATH) == "127.0.0.1 returned 307"
    assert elsewhere.connections == 0


def test_a_receiver_with_an_untrusted_certificate_gets_no_message(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with raw(http(), tls=tls) as server:
        monkeypatch.delenv("SSL_CERT_FILE")
        address = server.url.replace("http:", "https:") + SECRET_PATH
        assert refusal(monkeypatch, address) == "the connection to 127.0.0.1 failed (ConnectError)"
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send("x")
        assert server.requests[0].startswith(b"POST ")


def test_the_environments_proxy_is_used_for_https_and_sees_only_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw(http(b"", "403 No")) as proxy:
        set_proxies(monkeypatch, proxy.url)
        message = refusal(monkeypatch, f"https://hooks.invalid{SECRET_PATH}")
    assert message == "the connection to hooks.invalid failed (ProxyError)"
    assert [head.split(b"\r\n")[0] for head in proxy.requests] == [b"CONNECT hooks.invalid:443 HTTP/1.1"]
    assert SECRET_PATH.encode() not in proxy.requests[0]


@pytest.mark.parametrize(
    ("address", "why"),
    [(f"http://192.0.2.1{SECRET_PATH}", "messages would travel unencrypted"), ("", "not an address")],
)
def test_nothing_is_sent_unencrypted_to_another_machine(
    monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    assert refusal(monkeypatch, address) == f"{URL_VARIABLE} is refused: {why}"


def test_a_message_is_no_longer_than_slack_accepts_and_says_what_it_leaves_out() -> None:
    text = as_text(["First", *(f"{number} {'&' * 40}" for number in range(100))])
    assert len(text) <= 3_000
    *shown, left_out = text.splitlines()
    assert left_out == f"… and {101 - len(shown)} more lines"
    assert len(shown) > 10
    assert as_text(["x" * 700]) == f"{'x' * 600}… and 100 more characters"
    assert as_text(["two\nlines"]) == "two\nlines"


def test_a_message_contains_neither_markup_nor_any_part_of_the_key_even_where_it_is_cut() -> None:
    assert as_text(["<!channel> & cog_key", "x" * 597 + "cog_key"]) == (
        f"&lt;!channel&gt; &amp; [key]\n{'x' * 597}[ke… and 2 more characters"
    )
