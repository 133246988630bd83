"""What a fault does to a response of the sandbox."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Send

from resources.sandbox.logged_request import JSON, PROBLEM, LoggedRequest, is_v3, phrase, problem

Rewrite = Callable[[LoggedRequest, Any], Any]
"""Takes a request and the JSON of its true response, and returns other JSON to send instead."""


@dataclass
class Fault:
    """One way to fail, created by `FaultyServer.fail`. `hits` counts how often it struck; `heal` ends it."""

    status: int | None
    headers: dict[str, str]
    body: bytes | None
    delay: float
    drop: bool
    truncate: bool
    endless: bool
    reset: bool
    drip: float
    garbage: bytes | None
    rewrite: Rewrite | None
    when: Callable[[LoggedRequest], bool]
    chance: float
    times: int | None
    hits: int = 0

    @property
    def sends_no_http(self) -> bool:
        """Whether it sends nothing, or something that isn't HTTP."""
        return self.drop or self.reset or self.garbage is not None

    def heal(self) -> None:
        """Stop striking."""
        self.times = 0


@dataclass
class BufferedResponse:
    """The application's response, held back until it is known whether a fault spoils it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def collect(self, message: Message) -> None:
        """Add a message of the application. To be passed to it as its ASGI `send`."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    def spoiled(self, fault: Fault, path: str) -> "BufferedResponse":
        """The response with the fault's status, headers and body, if it has any."""
        if fault.status is None:
            return self
        body, content_type = fault.body, JSON
        if body is None:
            detail = phrase(fault.status)
            body = json.dumps(problem(fault.status, detail) if is_v3(path) else {"detail": detail}).encode()
            content_type = PROBLEM if is_v3(path) else JSON
        headers = {"content-type": content_type, **fault.headers, "content-length": str(len(body))}
        return BufferedResponse(fault.status, headers, body)

    def rewrite(self, asked: LoggedRequest, rewrite: Rewrite) -> bool:
        """Replace the body with what `rewrite` returns. Returns whether that changed it."""
        if self.status != 200:
            return False
        body = json.dumps(rewrite(asked, json.loads(self.body))).encode()
        if json.loads(body) == json.loads(self.body):
            return False
        self.body = body
        self.headers["content-length"] = str(len(body))
        return True

    async def send_head(self, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})

    async def send_body(self, send: Send, body: bytes, more: bool = False) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def send_whole(self, send: Send) -> None:
        await self.send_head(send)
        await self.send_body(send, self.body)
