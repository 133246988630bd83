"""A receiver of messages, like a chat service's webhook."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET_PATH = "/services/T0/B0/very-secret-path"


class Receiver:
    """A webhook on this machine that keeps what it receives. It returns `status`, or hangs if that is None."""

    def __init__(self) -> None:
        self.status: int | None = 200
        self.bodies: list[Any] = []
        self.paths: list[str] = []
        self._unplugged = threading.Event()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{SECRET_PATH}"

    @property
    def texts(self) -> list[str]:
        return [body["text"] for body in self.bodies]

    def start(self) -> None:
        receiver = self
        self._unplugged.clear()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                if receiver.status is None:
                    receiver._unplugged.wait()
                    return
                if receiver.status == 200:
                    assert self.headers["Content-Type"] == "application/json"
                    receiver.bodies.append(json.loads(body))
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def unplug(self) -> None:
        self._unplugged.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
