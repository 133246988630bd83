"""How to ask the Devin Enterprise API: one verb for one count, one for the organizations.

Retries, time-outs, size limits, the key and the kinds of failure are here and nowhere else. What to ask is not.
"""

import asyncio
import email.utils
import http.cookiejar
import ipaddress
import json
import math
import os
import re
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import aiohttp
import dagster as dg
import httpx
import tenacity
from anyio.from_thread import BlockingPortal, start_blocking_portal
from httpx_aiohttp import AiohttpTransport
from pydantic import Field

from resources.pace import Pace

KEY_VARIABLE = "DEVIN_API_KEY"
SESSIONS_PATH = "/v2/enterprise/metrics/sessions"
ORGANIZATIONS_PATH = "/v2/enterprise/organizations"
PAGE_SIZE = 200
MAX_ORGANIZATIONS = 100_000
MAX_BODY_BYTES = 4 * 1024 * 1024
LARGEST_COUNT = 2**63 - 1
# 408 and 429 ask for another try by definition, 5xx is the server's own trouble; any other status repeats itself.
RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))


Params = list[tuple[str, str | int | float | bool | None]]


class DevinAPIError(Exception):
    """A question that got no usable answer. The message is a sentence for the user; the subclass says who must act."""


class Unauthorized(DevinAPIError):
    """The key is missing or refused: stop at once, the user must mend the key."""


class Rejected(DevinAPIError):
    """The source refuses this question for good, for instance one organization in it. Asking again is of no use."""


class Unavailable(DevinAPIError):
    """No answer in time, or the source was in trouble, for as many tries as are allowed. A later run may succeed."""


class ContractBroken(DevinAPIError):
    """An answer with status 200 that is not what the contract says. Nothing of it may be stored."""


@dataclass(frozen=True)
class Organization:
    """One organization as the source lists it. `created_at` is None where the source gives none."""

    org_id: str
    org_name: str | None
    created_at: datetime | None


@dataclass
class Calls:
    """How many HTTP requests were sent, and how many of them were a second or later try."""

    sent: int = 0
    retried: int = 0


def check_key(key: str) -> str:
    """`key` itself if v2 can accept it. Raises ValueError, which never quotes the key."""
    if key.startswith("cog_"):
        raise ValueError("it starts with cog_: service users' keys are for v3 of the API")
    if key.startswith("apk_") and not key.startswith("apk_user_"):
        raise ValueError("it starts with apk_ but not apk_user_: keys of one organization cannot read the enterprise")
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", key):
        raise ValueError("it holds blanks or characters that no key has")
    return key


def check_url(url: str) -> str:
    """`url` without a trailing slash if the key may be sent there. Raises ValueError with the reason."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("not an address") from None
    if parsed.userinfo or "?" in url or "#" in url:
        raise ValueError("user, password, query and fragment do not belong in it")
    if not parsed.host or not (parsed.scheme == "https" or (parsed.scheme == "http" and _is_loopback(parsed.host))):
        raise ValueError("the key would travel unencrypted")
    return str(parsed).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DevinAPI(dg.ConfigurableResource["DevinAPI"]):
    """The Devin Enterprise API, v2. `connect()` gives a client that asks."""

    base_url: str = Field(default="https://api.devin.ai", description="Where the source is.")
    max_connections: int = Field(default=16, description="How many connections are kept at most.")
    timeout_seconds: float = Field(
        default=30.0, description="How long one try may take, from connecting to the last byte."
    )
    max_tries: int = Field(default=5, description="How often one question is tried in all.")
    requests_per_minute: int | None = Field(default=None, description="Upper bound, spread evenly. None: no bound.")
    backoff_seconds: float = Field(default=0.5, description="Upper bound of the first pause; doubles with each try.")
    max_backoff_seconds: float = Field(
        default=30.0, description="Upper bound of any pause that the source did not ask for."
    )
    max_retry_after_seconds: float = Field(
        default=120.0, description="Upper bound of a pause that the source asks for."
    )
    bounds: Literal["start_date", "start"] = Field(
        default="start_date",
        description="Which pair of parameters carries the window: start_date and end_date, or start and end. "
        "The contract has both and describes only the first.",
    )

    @asynccontextmanager
    async def connect(self, calls: Calls) -> "AsyncIterator[DevinClient]":
        """A client for one event loop that counts in `calls`. Raises Unauthorized if no usable key is set."""
        url = check_url(self.base_url)
        tls = httpx.create_ssl_context()
        async with httpx.AsyncClient(
            base_url=url,
            transport=AiohttpTransport(client=partial(self._session, tls), verify=tls, proxy=_proxy_for(url)),
            headers={
                "Authorization": f"Bearer {key_from_environment()}",
                "Accept": "application/json",
                # Compressed bodies would make the size limit depend on the compressor.
                "Accept-Encoding": "identity",
            },
            # httpx keeps cookies of its own, beside aiohttp's jar; this jar takes none.
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
            timeout=None,  # one limit holds the whole try, a reader that drips included: see _send
            follow_redirects=False,
        ) as asking:
            yield DevinClient(api=self, http=asking, calls=calls, pace=Pace(self.requests_per_minute))

    @contextmanager
    def connected(self, calls: Calls) -> "Iterator[tuple[DevinClient, BlockingPortal]]":
        """`connect` for code that is not async: a client, and the portal that runs its coroutines in a thread.

        So the calling thread can store while questions are under way, and a signal that interrupts it stops them.
        """
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self.connect(calls)) as client:
            yield client, portal

    def _session(self, tls: ssl.SSLContext) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.max_connections, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_once,),
        )


@dataclass(frozen=True)
class DevinClient:
    """Asks over an open connection pool. Safe for many tasks at once; every method may raise a DevinAPIError."""

    api: DevinAPI
    http: httpx.AsyncClient = field(repr=False)
    calls: Calls
    pace: Pace

    async def count(
        self, start: datetime, end: datetime, *, org_ids: Sequence[str] = (), user_ids: Sequence[str] = ()
    ) -> int:
        """How many sessions were created in [start, end), both aware; empty filters mean everyone."""
        if start.utcoffset() is None or end.utcoffset() is None or start.astimezone(UTC) >= end.astimezone(UTC):
            raise ValueError(f"not a window of aware datetimes: {start} to {end}")
        first, last = ("start_date", "end_date") if self.api.bounds == "start_date" else ("start", "end")
        params: Params = [(first, _zulu(start)), (last, _zulu(end))]
        params += [("org_ids", org_id) for org_id in org_ids]
        params += [("user_ids", user_id) for user_id in user_ids]
        asked = f"Counting the sessions of {_named(org_ids, user_ids)} from {_zulu(start)} to {_zulu(end)}"
        body = await self._get(SESSIONS_PATH, params, asked, about_everyone=not org_ids and not user_ids)
        count = body.get("sessions_count")
        if type(count) is not int or not 0 <= count <= LARGEST_COUNT:
            raise ContractBroken(
                f"{asked}: the answer's sessions_count is {_shown(count)}, not a whole number from 0 to 2^63-1. "
                "Nothing of it was stored. The API may have changed; its owner can tell."
            )
        return count

    async def organizations(self) -> list[Organization]:
        """Every organization that the source lists, over all pages, in the source's order."""
        found: dict[str, Organization] = {}
        while True:
            asked = f"Listing the organizations from number {len(found)} on"
            params: Params = [("skip", str(len(found))), ("limit", str(PAGE_SIZE))]
            try:
                page = await self._get(ORGANIZATIONS_PATH, params, asked, about_everyone=False)
            except Rejected as error:
                raise Rejected(
                    f"{error} The key may count sessions but not list organizations: "
                    "set DEVIN_ORG_IDS to the ids to count, separated by commas."
                ) from None
            organizations, has_more = _organizations_in(page, asked)
            for organization in organizations:
                if organization.org_id in found:
                    raise ContractBroken(
                        f"{asked}: {_shown(organization.org_id)} was listed twice. The list can't be trusted."
                    )
                found[organization.org_id] = organization
            if not has_more:
                return list(found.values())
            if not organizations or len(found) > MAX_ORGANIZATIONS:
                raise ContractBroken(f"{asked}: the list does not end ({len(found)} organizations so far).")

    async def _get(self, path: str, params: Params, asked: str, *, about_everyone: bool) -> dict[str, Any]:
        """The JSON object that answers, after as many tries as are allowed. The one place that retries."""
        jitter = tenacity.wait_random_exponential(self.api.backoff_seconds, self.api.max_backoff_seconds)

        def wait(state: tenacity.RetryCallState) -> float:
            # Where everybody pauses, the pace lets this question wait too.
            pauses_all = isinstance(error := state.outcome and state.outcome.exception(), _Passing) and error.pauses_all
            return 0.0 if pauses_all else float(jitter(state))

        tries = 0
        try:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception(lambda error: isinstance(error, _Passing) and self._may_retry()),
                stop=tenacity.stop_after_attempt(self.api.max_tries),
                wait=wait,
                reraise=True,
            ):
                with attempt:
                    tries = attempt.retry_state.attempt_number
                    self.calls.retried += tries > 1
                    asked_at = await self.pace.turn()
                    try:
                        status, body, retry_after = await self._send(path, params)
                        answer = _understood(status, body, retry_after, asked, about_everyone=about_everyone)
                    except _Passing as error:
                        if error.pauses_all:
                            seconds = jitter(attempt.retry_state) if error.retry_after is None else error.retry_after
                            self.pace.refused(asked_at, min(seconds, self.api.max_retry_after_seconds))
                        raise
                    self.pace.answered()
                    return answer
        except _Passing as error:
            raise Unavailable(
                f"{asked}: {error}, after {tries} {'tries' if tries > 1 else 'try'}. "
                "The source or the way to it is in trouble; run the same again later."
            ) from None
        raise AssertionError("unreachable: tenacity returns or raises")

    def _may_retry(self) -> bool:
        """Whether retries are still few among the calls, so that a dying source is not hammered."""
        return self.calls.retried < 2 * self.api.max_connections + self.calls.sent // 5

    async def _send(self, path: str, params: Params) -> tuple[int, bytes, float | None]:
        self.calls.sent += 1
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self.api.timeout_seconds),
                self.http.stream("GET", path, params=params) as response,
            ):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise ContractBroken(
                            f"Asking {path}: the answer is longer than {MAX_BODY_BYTES:,} bytes and was cut off. "
                            "Check DEVIN_API_URL: this does not look like the Devin API."
                        )
                return response.status_code, bytes(body), _retry_after(response.headers)
        except TimeoutError:
            raise _Passing(f"no whole answer within {self.api.timeout_seconds:g} s") from None
        except (httpx.TransportError, aiohttp.ClientError) as error:
            raise _Passing(f"the connection failed: {_clean(str(error)) or type(error).__name__}") from None


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send as it is. aiohttp would send a GET again by itself after these two; retrying is for `_get` alone."""
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from None


class _Passing(Exception):
    """A try that may go better next time.

    `retry_after` is the pause that the source asked for, in seconds. `pauses_all`: it wants fewer questions altogether.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, pauses_all: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.pauses_all = pauses_all


def _understood(
    status: int, body: bytes, retry_after: float | None, asked: str, *, about_everyone: bool
) -> dict[str, Any]:
    """The body's JSON object if the status is 200; else the failure, by its kind."""
    came_back = f"{asked}: the source answered {status} {_said(body)}".rstrip()
    if status == 401 or (status == 403 and about_everyone):
        raise Unauthorized(
            f"{came_back}. The key in {KEY_VARIABLE} is not accepted: set it to the personal key (apk_user_…) "
            "of an Enterprise admin who still has access."
        )
    if status in RETRIED_STATUSES:
        message = f"the source answered {status} {_said(body)}".rstrip()
        raise _Passing(message, retry_after, pauses_all=status == 429 or retry_after is not None)
    if status != 200:
        hint = " Check DEVIN_API_URL." if 300 <= status < 400 or (status == 404 and about_everyone) else ""
        raise Rejected(f"{came_back}.{hint}")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _Passing(f"the source answered 200 with a body that is not JSON: {_said(body)}") from None
    if not isinstance(answer, dict):
        raise ContractBroken(f"{came_back}, which is not a JSON object. Nothing of it was stored.")
    return answer


def _organizations_in(page: dict[str, Any], asked: str) -> tuple[list[Organization], bool]:
    try:
        has_more = page["has_more"]
        organizations = [
            Organization(
                org_id=_text(item["org_id"]),
                org_name=_text(item["org_name"]),
                created_at=None if item["created_at"] is None else _instant(item["created_at"]),
            )
            for item in page["items"]
        ]
        well_formed = (
            type(has_more) is bool and isinstance(page["items"], list) and all(o.org_id for o in organizations)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractBroken(
            f"{asked}: the page is not what the contract says ({type(error).__name__}: {_clean(str(error))})."
        ) from None
    if not well_formed:
        raise ContractBroken(f"{asked}: the page is not what the contract says (a field has another type).")
    return organizations, has_more


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()  # raises a ValueError for half a surrogate pair, which no table can hold
    return value


def key_from_environment() -> str:
    """The key that every request carries. Raises Unauthorized with what to do if there is none that can work."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise Unauthorized(
            f"{KEY_VARIABLE} is not set. Put the personal key of an Enterprise admin (apk_user_…) "
            "in the environment or in the file .env."
        )
    try:
        return check_key(key)
    except ValueError as error:
        raise Unauthorized(f"{KEY_VARIABLE} is refused: {error}. v2 takes apk_user_… keys.") from None


def _proxy_for(url: str) -> httpx.Proxy | None:
    """The environment's proxy for https. Plain http goes to loopback alone, so never to a proxy."""
    parsed = httpx.URL(url)
    proxy = urllib.request.getproxies().get("https")
    if parsed.scheme != "https" or not proxy or urllib.request.proxy_bypass(parsed.host):
        return None
    return httpx.Proxy(proxy)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait, from `Retry-After` in either form of RFC 9110; None if absent or senseless."""
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except (TypeError, ValueError, OverflowError):
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _zulu(instant: datetime) -> str:
    # A raw + of an offset would be decoded to a blank on the other side, so the bounds always go out in UTC with Z.
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _named(org_ids: Sequence[str], user_ids: Sequence[str]) -> str:
    def some(ids: Sequence[str], noun: str) -> str:
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        return f"{noun}{'s' if len(ids) > 1 else ''} {', '.join(ids[:3])}{more}"

    parts = [some(ids, noun) for ids, noun in ((org_ids, "organization"), (user_ids, "user")) if ids]
    return " and ".join(parts) or "all organizations"


def _said(body: bytes) -> str:
    """What the body says, short enough for a sentence."""
    text = body.decode("utf-8", "replace")
    try:
        detail = json.loads(body)["detail"]
        text = detail if isinstance(detail, str) else "; ".join(f"{d['loc'][-1]}: {d['msg']}" for d in detail)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        pass
    text = _clean(text)
    return f"({text})" if text else ""


def _shown(value: object) -> str:
    return "missing" if value is None else _clean(repr(value), 60)


def _clean(text: str, length: int = 200) -> str:
    """`text` from outside, fit for a message: without the key, which a source or proxy may echo, and on one line."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    text = text.replace(key, "[key]") if key else text
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]
