"""A bucket of S3 on this machine: moto's server over HTTP, its log of requests, answers spoiled on demand."""

import http.client
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "reports"
KEY, SECRET = "AKIAPUBLISHEXAMPLE00", "wJalrSecretOfTheBucketEXAMPLEKEY"

Spoil = Callable[[str, str], tuple[int, str] | None]


@dataclass
class BucketServer:
    """`spoil` gets each request's method and path; the status and the code that it returns are the answer, if any."""

    port: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    spoil: Spoil = lambda method, path: None

    def __post_init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.port = self._server.port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """An empty bucket and no faults."""
        self.spoil = lambda method, path: None
        self.send("POST", "/moto-api/reset")
        self.send("PUT", f"/{BUCKET}")
        self.requests.clear()

    def send(self, method: str, path: str) -> tuple[int, dict[str, str]]:
        """Send a request as anyone could, without credentials; returns the status and the headers of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        spoiled = self.spoil(method, path)
        if spoiled is None:
            return self._moto(environ, start_response)
        status, code = spoiled
        quoted = f"{KEY} {SECRET}"  # a service may repeat what it was sent
        body = f"<Error><Code>{code}</Code><Message>{quoted}</Message></Error>" if method != "HEAD" else ""
        start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body.encode()]


@contextmanager
def reached(server: BucketServer, environment: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder in an empty bucket, for which this process has the credentials."""
    server.reset()
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.port}",
    }.items():
        environment.setenv(name, value)
    yield f"s3://{BUCKET}/devin"
    server.spoil = lambda method, path: None
