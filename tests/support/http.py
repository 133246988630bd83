"""A server that sends any bytes, for what no well-behaved server does."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

Send = Callable[[bytes], object]


def http(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


class RawServer(socketserver.ThreadingTCPServer):
    """A server that sends whatever bytes `answer` writes, and keeps the head of every request."""

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
            # The first read does the handshake, in the handler's own thread.
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
    """A RawServer that sends these answers in turn, then repeats the last one."""

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


def set_proxies(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, url)
        monkeypatch.setenv(name.lower(), url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
