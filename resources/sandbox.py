"""A stand-in of the Devin Enterprise API v2 on a loopback port, as strict as the published contract, that
can be told to fail. The sessions it counts are made in `sandbox_data`; nothing here knows the client."""

import asyncio
import contextlib
import json
import random
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from resources.sandbox_data import MICROSECOND, SandboxOrganization, Sessions

SESSIONS_PATH = "/v2/enterprise/metrics/sessions"
ORGANIZATIONS_PATH = "/v2/enterprise/organizations"
ENDLESS_BYTES = 50_000_000

JSON = "application/json"
DATETIME = TypeAdapter(datetime)

Moment = Annotated[datetime | None, Query()]
Ids = Annotated[list[str] | None, Query()]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))]


class SessionsCount(BaseModel):
    sessions_count: int


class Organization(BaseModel):
    org_id: str
    org_name: str
    created_at: datetime | None


class OrganizationsPage(BaseModel):
    items: list[Organization]
    total: int
    skip: int
    limit: int
    has_more: bool
    next_cursor: str | None


class InvalidParameter(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class InvalidParameters(BaseModel):
    # Not required in any document that FastAPI writes, so not in the contract either.
    detail: list[InvalidParameter] = Field(default_factory=list)


Responses = dict[int | str, dict[str, Any]]
INVALID: Responses = {422: {"model": InvalidParameters, "description": "Validation Error"}}
REFUSED: Responses = {code: {"description": HTTPStatus(code).phrase} for code in (400, 401, 403, 404, 429)}


@dataclass(frozen=True)
class Asked:
    """One request as it arrived, and the status of its answer (None: it got none). Never holds the key."""

    path: str
    params: tuple[tuple[str, str], ...]
    start: datetime | None
    end: datetime | None
    org_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    status: int | None = None


@dataclass
class Fault:
    """One way to fail, made by `Sandbox.fail`. `hits` counts how often it struck; `heal` ends it."""

    status: int | None
    headers: dict[str, str]
    body: bytes | None
    delay: float
    drop: bool
    truncate: bool
    endless: bool
    when: Callable[[Asked], bool]
    chance: float
    times: int | None
    hits: int = 0

    def heal(self) -> None:
        """Strike no more."""
        self.times = 0


@dataclass
class _Answer:
    """What the application answered, held back until it is known whether to spoil it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    def spoiled(self, fault: Fault) -> "_Answer":
        if fault.status is None:
            return self
        detail = HTTPStatus(fault.status).phrase
        body = json.dumps({"detail": detail}).encode() if fault.body is None else fault.body
        return _Answer(fault.status, {**fault.headers, "content-length": str(len(body))}, body)

    async def send_head(self, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})

    async def send_body(self, send: Send, body: bytes, more: bool = False) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def send_whole(self, send: Send) -> None:
        await self.send_head(send)
        await self.send_body(send, self.body)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _asked(scope: Scope) -> Asked:
    params = tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))

    def moment(*names: str) -> datetime | None:
        sent = [value for name, value in params if name in names]
        with contextlib.suppress(ValidationError):
            return _aware(DATETIME.validate_python(sent[-1])) if sent else None
        return None

    return Asked(
        path=scope["path"],
        params=params,
        start=moment("start_date", "start"),
        end=moment("end_date", "end"),
        org_ids=tuple(value for name, value in params if name == "org_ids"),
        user_ids=tuple(value for name, value in params if name == "user_ids"),
    )


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC)


class Sandbox:
    """A source on 127.0.0.1 with invented organizations and sessions: `with Sandbox() as it: it.url`.

    The same seed, number of organizations and first day give the same sessions. None is later than the clock,
    which must tell a time zone. `port=0` takes a free port, which is kept over `stop` and `start`.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        organizations: int = 12,
        first_day: date = date(2025, 1, 1),
        api_key: str = "apk_user_sandbox",
        lists_organizations: bool = True,
        end_is_inclusive: bool = False,
        unknown_organization: Literal["zero", "forbidden", "not_found"] = "zero",
        port: int = 0,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self._sessions = Sessions(seed, organizations, first_day)
        self.api_key = api_key
        self._lists_organizations = lists_organizations
        self._end_is_inclusive = end_is_inclusive
        self._unknown_organization = unknown_organization
        self._port = port
        self._clock = clock
        self._dice = random.Random(f"{seed}/faults")
        self._connections: dict[tuple[str, int], H11Protocol] = {}
        self._application = self._build_application()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address to ask, known once it was started."""
        if not self._port:
            raise RuntimeError("the sandbox was not started")
        return f"http://127.0.0.1:{self._port}"

    @property
    def organizations(self) -> Sequence[SandboxOrganization]:
        """Every organization that the source lists, busiest first."""
        return self._sessions.organizations

    def truth(
        self,
        start: datetime,
        end: datetime,
        org_ids: Iterable[str] | None = None,
        user_ids: Iterable[str] | None = None,
    ) -> int:
        """Sessions created in [start, end) and not after the clock. Moments need a time zone."""
        return self._sessions.count(
            start,
            min(end, self._clock()),
            None if org_ids is None else tuple(org_ids),
            None if user_ids is None else tuple(user_ids),
        )

    def add_sessions(self, org_id: str, at: datetime, count: int = 1, user_id: str | None = None) -> None:
        """A later change at the source. An id not listed makes an organization counted but not listed."""
        self._sessions.add(org_id, at, count, user_id)

    def remove_sessions(self, org_id: str, at_or_after: datetime, before: datetime) -> int:
        """Take away one organization's sessions in [at_or_after, before); how many they were."""
        return self._sessions.remove(org_id, at_or_after, before)

    def fail(
        self,
        *,
        status: int | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        retry_after: str | None = None,
        redirect_to: str | None = None,
        delay: float = 0.0,
        drop: bool = False,
        truncate: bool = False,
        endless: bool = False,
        when: Callable[[Asked], bool] | None = None,
        org_id: str | None = None,
        path: str | None = None,
        chance: float = 1.0,
        times: int | None = 1,
    ) -> Fault:
        """Spoil the next answers to requests with a good key that pass every filter; `times=None`: for ever.

        Without a status, or an argument that implies one, it is the true answer that is delayed (seconds),
        cut short, dropped or made endless. The oldest fault that matches strikes, one a request.
        """
        if status is None:
            implied = ((retry_after, 429), (redirect_to, 302), (body, 200))
            status = next((code for argument, code in implied if argument is not None), None)
        if status is None and not (delay or drop or truncate or endless):
            raise ValueError("this fault would change nothing")
        optional = {"retry-after": retry_after, "location": redirect_to}
        fault = Fault(
            status=status,
            headers={"content-type": content_type}
            | {name: value for name, value in optional.items() if value is not None},
            body=body,
            delay=delay,
            drop=drop,
            truncate=truncate,
            endless=endless,
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
        """Forget every fault."""
        self.faults.clear()

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of what is served."""
        return self._application.openapi()

    def start(self) -> None:
        """Serve in a thread. A request made from now on waits until it is answered."""
        if self._thread is not None:
            raise RuntimeError("the sandbox is already serving")
        # Bound and listening before the thread runs: early connections queue in the backlog.
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
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and cut every connection, as if unplugged. Sessions, faults and log are kept."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        for connection in list(self._connections.values()):
            connection.loop.call_soon_threadsafe(connection.transport.abort)
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
            """Makes each connection known by its peer, so that a fault can cut it."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if self.client:
                    connections[self.client] = self

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client:
                    connections.pop(self.client, None)
                super().connection_lost(exc)

        return Protocol

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer()
        state = scope.setdefault("state", {})
        await self._application(scope, receive, answer.take)
        asked = _asked(scope)
        fault = self._strike(asked) if state.get("authorized") else None
        if fault is not None:
            answer = answer.spoiled(fault)
        # Logged before the first byte leaves: whoever has the answer, or gave up waiting, finds the entry.
        self.requests.append(replace(asked, status=None if fault and fault.drop else answer.status))
        if fault is None:
            await answer.send_whole(send)
        else:
            await self._deliver_spoiled(answer, fault, scope, receive, send)

    def _strike(self, asked: Asked) -> Fault | None:
        for fault in list(self.faults):
            if fault.times == 0 or not fault.when(asked) or self._dice.random() >= fault.chance:
                continue
            fault.hits += 1
            if fault.times is not None:
                fault.times -= 1
            return fault
        return None

    async def _deliver_spoiled(self, answer: _Answer, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.delay:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_client_left(receive), fault.delay)
        connection = self._connections.get(scope["client"])
        if connection is None:
            return
        if fault.drop:
            connection.transport.abort()
            await _client_left(receive)
        elif fault.truncate:
            answer.headers["content-length"] = str(max(len(answer.body), 1))
            await answer.send_head(send)
            await answer.send_body(send, answer.body[: len(answer.body) // 2], more=True)
            connection.transport.close()
            await _client_left(receive)
        elif fault.endless:
            del answer.headers["content-length"]
            await answer.send_head(send)
            for _ in range(ENDLESS_BYTES // 50_000):
                await answer.send_body(send, b" " * 50_000, more=True)
            await answer.send_body(send, answer.body)
        else:
            await answer.send_whole(send)

    async def _authorize(self, request: Request, bearer: Bearer) -> None:
        key = bearer.credentials if bearer else ""
        if key.startswith("cog_") or (key.startswith("apk_") and not key.startswith("apk_user_")):
            raise HTTPException(403, "This kind of key is not accepted here")
        if key != self.api_key:
            raise HTTPException(401, "Missing or invalid API key")
        request.state.authorized = True

    def _build_application(self) -> FastAPI:
        application = FastAPI(
            title="Devin Enterprise API",
            version="v2",
            openapi_url=None,
            dependencies=[Depends(self._authorize)],
        )

        @application.get(SESSIONS_PATH, responses=REFUSED | INVALID)
        async def sessions(
            start_date: Moment = None,
            end_date: Moment = None,
            start: Moment = None,
            end: Moment = None,
            org_ids: Ids = None,
            user_ids: Ids = None,
        ) -> SessionsCount:
            if (start_date or end_date) and (start or end):
                raise HTTPException(400, "Send start_date and end_date, or start and end, not both pairs")
            return self._count(start_date or start, end_date or end, org_ids, user_ids)

        @application.get(ORGANIZATIONS_PATH, responses=INVALID)
        async def organizations(
            skip: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=200)] = 100
        ) -> OrganizationsPage:
            if not self._lists_organizations:
                raise HTTPException(403, "This key may not list organizations")
            return self._page(skip, limit)

        return application

    def _count(
        self,
        start: datetime | None,
        end: datetime | None,
        org_ids: list[str] | None,
        user_ids: list[str] | None,
    ) -> SessionsCount:
        now = self._clock().astimezone(UTC)
        # Omitted bounds mean the billing cycle so far.
        since = _aware(start or now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
        until = _aware(end or now)
        if until <= since:
            raise HTTPException(400, "The end must be later than the start")
        refusal = {"zero": None, "forbidden": 403, "not_found": 404}[self._unknown_organization]
        if refusal and not all(map(self._sessions.knows, org_ids or ())):
            raise HTTPException(refusal, "Unknown organization")
        if self._end_is_inclusive:
            until = min(until, now) + MICROSECOND
        return SessionsCount(sessions_count=self.truth(since, until, org_ids, user_ids))

    def _page(self, skip: int, limit: int) -> OrganizationsPage:
        total = len(self.organizations)
        items = [
            Organization(org_id=item.org_id, org_name=item.org_name, created_at=item.created_at)
            for item in self.organizations[skip : skip + limit]
        ]
        following = skip + limit
        return OrganizationsPage(
            items=items,
            total=total,
            skip=skip,
            limit=limit,
            has_more=following < total,
            next_cursor=str(following) if following < total else None,
        )
