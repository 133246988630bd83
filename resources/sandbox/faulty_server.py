"""A server on a loopback port that logs its requests and spoils responses on demand.

The true responses come from a subclass; see `server`.
"""

import asyncio
import contextlib
import email.utils
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Self

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from resources.sandbox.faults import BufferedResponse, Fault, Rewrite
from resources.sandbox.logged_request import LoggedRequest, parse_request

ENDLESS_BYTES = 50_000_000


class _Server(uvicorn.Server):
    """Stops at once, as if unplugged: uvicorn waits twice for a tenth of a second, and for what is in progress."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Stop serving; for another thread."""
        self.should_exit = True
        if self._loop:
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class FaultyServer:
    """Serves the responses of a subclass's `_respond_truthfully` on 127.0.0.1. `port=0` picks a free port once.

    `_respond_truthfully` sets `authorized` in the scope's state for requests with a valid key. It may also set
    `headers` there, which are added to every response, spoiled or not.
    """

    def __init__(self, *, seed: int, port: int) -> None:
        self.requests: list[LoggedRequest] = []
        self.faults: list[Fault] = []
        self.date: Callable[[], str] = partial(email.utils.formatdate, usegmt=True)
        """The `Date` of a response, by the clock of this machine unless set otherwise; none if empty."""
        self._port = port
        self._dice = random.Random(f"{seed}/faults")
        self._connections: dict[tuple[str, int], H11Protocol] = {}
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, known once the server has been started."""
        if not self._port:
            raise RuntimeError("the sandbox was not started")
        return f"http://127.0.0.1:{self._port}"

    def fail(
        self,
        *,
        status: int | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        retry_after: str | None = None,
        redirect_to: str | None = None,
        delay: float = 0.0,
        drop: bool = False,
        truncate: bool = False,
        endless: bool = False,
        reset: bool = False,
        drip: float = 0.0,
        garbage: bytes | None = None,
        rewrite: Rewrite | None = None,
        when: Callable[[LoggedRequest], bool] | None = None,
        org_id: str | None = None,
        path: str | None = None,
        chance: float = 1.0,
        times: int | None = 1,
    ) -> Fault:
        """Spoil the next `times` responses to requests with a valid key that pass every filter; None: all of them.

        Without a status, or an argument that implies one, the true response is delayed by `delay` seconds, truncated,
        dropped, made endless, or its body sent byte by byte over `drip` seconds. `reset` ends the connection with a TCP
        reset; `garbage` is sent instead of HTTP. A status without a body gets one in the form of the requested API
        version: problem+json for v3. One fault strikes per request, the oldest that matches.

        `rewrite` turns a true response with status 200 into a lie; if it returns the truth, the fault hasn't struck.

        Raises ValueError if the fault would change nothing.
        """
        if status is None:
            implied = ((retry_after, 429), (redirect_to, 302), (body, 200))
            status = next((code for argument, code in implied if argument is not None), None)
        other = delay or drop or truncate or endless or reset or drip or garbage is not None or rewrite
        if status is None and not other:
            raise ValueError("this fault would change nothing")
        optional = {"content-type": content_type, "retry-after": retry_after, "location": redirect_to}
        fault = Fault(
            status=status,
            headers={name: value for name, value in optional.items() if value is not None},
            body=body,
            delay=delay,
            drop=drop,
            truncate=truncate,
            endless=endless,
            reset=reset,
            drip=drip,
            garbage=garbage,
            rewrite=rewrite,
            when=lambda asked: (
                (path is None or asked.path == path)
                and (org_id is None or org_id in asked.org_ids)
                and (when is None or when(asked))
            ),
            chance=chance,
            times=times,
        )
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Remove every fault."""
        self.faults.clear()

    def start(self) -> None:
        """Serve in a thread. Requests are accepted from now on, and wait until the thread serves them."""
        if self._thread is not None:
            raise RuntimeError("the sandbox is already serving")
        # Bound and listening before the thread runs, so that early connections queue in the backlog.
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._answer,
            http=self._protocol(),
            interface="asgi3",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            log_level="critical",
            access_log=False,
            date_header=False,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and cut every connection, as if unplugged. Sessions, faults and log are kept."""
        if self._server is None or self._thread is None:
            return
        self._server.stop()
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _protocol(self) -> type[H11Protocol]:
        connections = self._connections

        class Protocol(H11Protocol):
            """Registers each connection under its peer's address, so that a fault can cut it."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
                super().connection_made(transport)
                if self.client:
                    connections[self.client] = self

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client:
                    connections.pop(self.client, None)
                super().connection_lost(exc)

        return Protocol

    async def _respond_truthfully(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = BufferedResponse()
        state = scope.setdefault("state", {})
        await self._respond_truthfully(scope, receive, answer.collect)
        asked = parse_request(scope)
        fault = self._strike(asked, answer) if state.get("authorized") else None
        if fault is not None:
            answer = answer.spoiled(fault, asked.path)
        if date := self.date():
            answer.headers["date"] = date
        answer.headers |= state.get("headers", {})
        # Logged before the first byte is sent, so that a client that got its response, or gave up, finds the entry.
        self.requests.append(replace(asked, status=None if fault and fault.sends_no_http else answer.status))
        if fault is None:
            await answer.send_whole(send)
        else:
            await self._deliver_spoiled(answer, fault, scope, receive, send)

    def _strike(self, asked: LoggedRequest, answer: BufferedResponse) -> Fault | None:
        """The fault that strikes this request, if any, with its `hits` and `times` updated."""
        for fault in list(self.faults):
            if fault.times == 0 or not fault.when(asked) or self._dice.random() >= fault.chance:
                continue
            if fault.rewrite and not answer.rewrite(asked, fault.rewrite):
                continue
            fault.hits += 1
            if fault.times is not None:
                fault.times -= 1
            return fault
        return None

    async def _deliver_spoiled(
        self, answer: BufferedResponse, fault: Fault, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if fault.delay:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_wait_for_disconnect(receive), fault.delay)
        connection = self._connections.get(scope["client"])
        if connection is None:
            return
        if fault.sends_no_http:
            if fault.garbage is not None:
                connection.transport.write(fault.garbage)
                connection.transport.close()
            else:
                if fault.reset:
                    # Closed without lingering, a socket sends RST instead of FIN.
                    wire = connection.transport.get_extra_info("socket")
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.transport.abort()
            await _wait_for_disconnect(receive)
        elif fault.drip:
            await answer.send_head(send)
            for byte in answer.body:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(_wait_for_disconnect(receive), fault.drip / len(answer.body))
                await answer.send_body(send, bytes([byte]), more=True)
            await answer.send_body(send, b"")
        elif fault.truncate:
            answer.headers["content-length"] = str(max(len(answer.body), 1))
            await answer.send_head(send)
            await answer.send_body(send, answer.body[: len(answer.body) // 2], more=True)
            connection.transport.close()
            await _wait_for_disconnect(receive)
        elif fault.endless:
            del answer.headers["content-length"]
            await answer.send_head(send)
            for _ in range(ENDLESS_BYTES // 50_000):
                await answer.send_body(send, b" " * 50_000, more=True)
            await answer.send_body(send, answer.body)
        else:
            await answer.send_whole(send)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
