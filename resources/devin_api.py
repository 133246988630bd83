"""How to ask the Devin Enterprise API: one verb for one count, one for the organizations.

Retries, time-outs, size limits, the key and the kinds of failure are here and nowhere else. What to ask is not.
"""

import asyncio
import email.utils
import http.cookiejar
import json
import math
import os
import ssl
from array import array
from collections import Counter
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

from resources.devin_versions import V2, V3, Listing, Params, VersionName, WindowEnd, check_key, version_for, zulu
from resources.hosts import is_loopback, proxy_for
from resources.pace import Pace

KEY_VARIABLE = "DEVIN_API_KEY"
MAX_LISTED = 100_000
# What servers and proxies take of an address is some 8,000 characters.
MAX_IDS = 100
LONGEST_ID = 256
MAX_BODY_BYTES = 4 * 1024 * 1024
MOST_LATENCIES = 1_000_000  # 8 MB
LARGEST_COUNT = 2**63 - 1
# 408 and 429 ask for another try by definition, 5xx is the server's own trouble; any other status repeats itself.
RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))


class DevinAPIError(Exception):
    """A question that got no usable answer. The message is a sentence for the user; the subclass says who must act."""


class Unauthorized(DevinAPIError):
    """The key is missing or refused: stop at once, the user must mend the key."""


class Rejected(DevinAPIError):
    """The source refuses this question for good, for instance one organization in it. Asking again is of no use."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


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


@dataclass(frozen=True)
class User:
    """One user as the source lists it. Names and addresses are not read: the counts need none."""

    user_id: str
    created_at: datetime | None


@dataclass
class Calls:
    """The HTTP requests that were sent: how many, how many of them were a second or later try, and how they went.

    `outcomes` counts them by status, or by why there was none. `latencies` are seconds, of those that were answered.
    The first MOST_LATENCIES are kept.
    `waited` is for how many seconds one or more questions were held back, to keep to a rate limit; until `waited_until`
    on the event loop's clock.
    `limit_headers` are what the last answer that had any told of a rate limit.
    """

    sent: int = 0
    retried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter, compare=False)
    latencies: "array[float]" = field(default_factory=lambda: array("d"), compare=False)
    waited: float = field(default=0.0, compare=False)
    waited_until: float = field(default=-math.inf, compare=False)
    limit_headers: dict[str, str] = field(default_factory=dict, compare=False)

    def held_back(self, since: float, until: float) -> None:
        """A question had to wait, on the event loop's clock. Those that waited at the same time count once."""
        self.waited += max(0.0, until - max(since, self.waited_until))
        self.waited_until = until

    def latency(self, share: float) -> float | None:
        """The latency that this share of the answers did not exceed, 0.5 for the median; None without an answer."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else None


def check_url(url: str) -> str:
    """`url` without a trailing slash if the key may be sent there. Raises ValueError with the reason."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("not an address") from None
    if parsed.userinfo or "?" in url or "#" in url:
        raise ValueError("user, password, query and fragment do not belong in it")
    if not parsed.host or not (parsed.scheme == "https" or (parsed.scheme == "http" and is_loopback(parsed.host))):
        raise ValueError("the key would travel unencrypted")
    return str(parsed).rstrip("/")


class DevinAPI(dg.ConfigurableResource["DevinAPI"]):
    """The Devin Enterprise API, v2 or v3. `connect()` gives a client that asks."""

    base_url: str = Field(default="https://api.devin.ai", description="Where the source is.")
    version: Literal["auto", "v2", "v3"] = Field(
        default="auto", description="Which version of the API is asked; auto goes by the key."
    )
    max_connections: int = Field(default=64, description="How many connections are kept at most.")
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
        description="Which pair of parameters carries the window in v2: start_date and end_date, or start and end. "
        "The contract has both and describes only the first.",
    )

    window_end: WindowEnd = Field(
        default="exclusive",
        description="Whether the source counts the end of a window as part of it. If so, an earlier one is sent.",
    )

    @asynccontextmanager
    async def connect(self, calls: Calls) -> "AsyncIterator[DevinClient]":
        """A client for one event loop that counts in `calls`. Raises Unauthorized if no usable key is set."""
        url = check_url(self.base_url)
        key, version = self._key_and_version()
        tls = httpx.create_ssl_context()
        async with httpx.AsyncClient(
            base_url=url,
            transport=AiohttpTransport(client=partial(self._session, tls), verify=tls, proxy=proxy_for(url)),
            headers={
                "Authorization": f"Bearer {key}",
                "Accept": "application/json",
                # Compressed bodies would make the size limit depend on the compressor.
                "Accept-Encoding": "identity",
            },
            # httpx keeps cookies of its own, beside aiohttp's jar; this jar takes none.
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
            timeout=None,  # one limit holds the whole try, a reader that drips included: see _send
            follow_redirects=False,
        ) as asking:
            yield DevinClient(self, version, asking, calls, Pace(self.requests_per_minute))

    @contextmanager
    def connected(self, calls: Calls) -> "Iterator[tuple[DevinClient, BlockingPortal]]":
        """`connect` for code that is not async: a client, and the portal that runs its coroutines in a thread.

        So the calling thread can store while questions are under way, and a signal that interrupts it stops them.
        """
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self.connect(calls)) as client:
            yield client, portal

    @property
    def version_name(self) -> str:
        """The version that is asked, v2 or v3. Raises Unauthorized if no usable key is set."""
        return self._key_and_version()[1].name

    @property
    def _versions(self) -> dict[VersionName, V2 | V3]:
        return {"v2": V2(self.bounds, self.window_end), "v3": V3(self.window_end)}

    def _key_and_version(self) -> tuple[str, V2 | V3]:
        key = key_from_environment()
        try:
            return key, self._versions[version_for(key, self.version)]
        except ValueError as error:
            raise Unauthorized(f"{KEY_VARIABLE} is refused: {error}.") from None

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
    version: V2 | V3
    http: httpx.AsyncClient = field(repr=False)
    calls: Calls
    pace: Pace

    async def count(
        self, start: datetime, end: datetime, *, org_ids: Sequence[str] = (), user_ids: Sequence[str] = ()
    ) -> int:
        """How many sessions were created in [start, end), both aware; empty filters mean everyone.

        Raises ValueError for what is no such window, and for more than MAX_IDS ids.
        """
        if start.utcoffset() is None or end.utcoffset() is None or start.astimezone(UTC) >= end.astimezone(UTC):
            raise ValueError(f"not a window of aware datetimes: {start} to {end}")
        if len(org_ids) + len(user_ids) > MAX_IDS:
            raise ValueError(f"{len(org_ids) + len(user_ids):,} ids in one question; {MAX_IDS} are the most")
        params = self.version.window(start, end)
        params += [("org_ids", org_id) for org_id in org_ids]
        params += [("user_ids", user_id) for user_id in user_ids]
        asked = f"Counting the sessions of {_named(org_ids, user_ids)} from {zulu(start)} to {zulu(end)}"
        body = await self._get(self.version.sessions_path, params, asked, about_everyone=not org_ids and not user_ids)
        count = body.get(self.version.count_field)
        if type(count) is not int or not 0 <= count <= LARGEST_COUNT:
            raise ContractBroken(
                f"{asked}: the answer's {self.version.count_field} is {_shown(count)}, "
                "not a whole number from 0 to 2^63-1. "
                "Nothing of it was stored. The API may have changed; its owner can tell."
            )
        return count

    async def organizations(self) -> list[Organization]:
        """Every organization that the source lists, over all pages, in the source's order."""
        return [Organization(*fields) for fields in await self._listed(self.version.organizations, "DEVIN_ORG_IDS")]

    async def users(self) -> list[User]:
        """Every user that the source lists, over all pages, in the source's order."""
        listed = await self._listed(self.version.users, "DEVIN_USER_IDS")
        return [User(user_id, created_at) for user_id, _, created_at in listed]

    async def _listed(self, listing: Listing, variable: str) -> list[tuple[str, str | None, datetime | None]]:
        """Id, name and creation of each item. `variable` is what the user can set where the key may not list them."""
        found: dict[str, tuple[str, str | None, datetime | None]] = {}
        cursor: str | None = None
        while True:
            asked = f"Listing the {listing.noun}s from number {len(found)} on"
            params = self.version.page(len(found), cursor)
            try:
                page = await self._get(listing.path, params, asked, about_everyone=False)
            except Rejected as error:
                if error.status not in (403, 404):
                    raise
                raise Rejected(
                    f"{error} The key may count sessions but not list {listing.noun}s: "
                    f"set {variable} to the ids to count, separated by commas.",
                    error.status,
                ) from None
            items, has_more, cursor = _items_in(page, listing, self.version, asked)
            for item in items:
                if item[0] in found:
                    raise ContractBroken(f"{asked}: {_shown(item[0])} was listed twice. The list can't be trusted.")
                found[item[0]] = item
            if not has_more:
                return list(found.values())
            if not items or len(found) > MAX_LISTED:
                raise ContractBroken(f"{asked}: the list does not end ({len(found)} {listing.noun}s so far).")

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
                    wanted_at = asyncio.get_running_loop().time()
                    asked_at = await self.pace.turn()
                    self.calls.held_back(wanted_at, asked_at)
                    try:
                        status, body, retry_after = await self._send(path, params)
                        answer = _understood(
                            status, body, retry_after, asked, self.version, about_everyone=about_everyone
                        )
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
        sent_at = asyncio.get_running_loop().time()
        body = bytearray()
        outcome = "given up"
        try:
            async with (
                asyncio.timeout(self.api.timeout_seconds),
                self.http.stream("GET", path, params=params) as response,
            ):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        outcome = "answer too long"
                        raise ContractBroken(
                            f"Asking {path}: the answer is longer than {MAX_BODY_BYTES:,} bytes and was cut off. "
                            "Check DEVIN_API_URL: this does not look like the Devin API."
                        )
                outcome = str(response.status_code)
                if len(self.calls.latencies) < MOST_LATENCIES:
                    self.calls.latencies.append(asyncio.get_running_loop().time() - sent_at)
                self.calls.limit_headers = _limit_headers(response.headers) or self.calls.limit_headers
                return response.status_code, bytes(body), _retry_after(response.headers)
        except TimeoutError:
            outcome = "no answer in time"
            raise _Passing(f"no whole answer within {self.api.timeout_seconds:g} s") from None
        except (httpx.TransportError, aiohttp.ClientError) as error:
            outcome = "connection failed"
            raise _Passing(f"the connection failed: {_clean(str(error)) or type(error).__name__}") from None
        finally:
            self.calls.outcomes[outcome] += 1


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
    status: int, body: bytes, retry_after: float | None, asked: str, version: V2 | V3, *, about_everyone: bool
) -> dict[str, Any]:
    """The body's JSON object if the status is 200; else the failure, by its kind."""
    came_back = f"{asked}: the source answered {status} {_said(body)}".rstrip()
    if status == 401 or (status == 403 and about_everyone):
        raise Unauthorized(
            f"{came_back}. The key in {KEY_VARIABLE} is not accepted by {version.name} of the API: "
            f"set it to {version.key_to_set}."
        )
    if status in RETRIED_STATUSES:
        message = f"the source answered {status} {_said(body)}".rstrip()
        raise _Passing(message, retry_after, pauses_all=status == 429 or retry_after is not None)
    if status != 200:
        hint = " Check DEVIN_API_URL." if 300 <= status < 400 or (status == 404 and about_everyone) else ""
        raise Rejected(f"{came_back}.{hint}", status)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _Passing(f"the source answered 200 with a body that is not JSON: {_said(body)}") from None
    if not isinstance(answer, dict):
        raise ContractBroken(f"{came_back}, which is not a JSON object. Nothing of it was stored.")
    return answer


def _items_in(
    page: dict[str, Any], listing: Listing, version: V2 | V3, asked: str
) -> tuple[list[tuple[str, str | None, datetime | None]], bool, str | None]:
    """Id, name and creation of each item, whether a page follows, and its cursor."""
    try:
        has_more, cursor = version.has_more(page)
        if not isinstance(page["items"], list):
            raise TypeError("items is no list")
        items = [
            (
                _id(item[listing.id_field]),
                _text(item[listing.name_field]) if listing.name_field else None,
                None
                if listing.created_field is None or item[listing.created_field] is None
                else version.instant(item[listing.created_field]),
            )
            for item in page["items"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractBroken(
            f"{asked}: the page is not what the contract says ({type(error).__name__}: {_clean(str(error))})."
        ) from None
    return items, has_more, cursor


def _id(value: object) -> str:
    id_ = _text(value)
    if not (id_.isprintable() and 0 < len(id_) <= LONGEST_ID):
        raise ValueError("an id that cannot be asked about")
    return id_


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
            f"{KEY_VARIABLE} is not set. Put the personal key of an Enterprise admin (apk_user_…), or the key of a "
            "service user (cog_…), in the environment or in the file .env."
        )
    try:
        return check_key(key)
    except ValueError as error:
        raise Unauthorized(f"{KEY_VARIABLE} is refused: {error}.") from None


def _limit_headers(headers: httpx.Headers) -> dict[str, str]:
    return {name: _clean(value, 60) for name, value in headers.items() if "ratelimit" in name.replace("-", "")}


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
        answer = json.loads(body)
        detail = answer.get("detail") or answer["title"]
        text = detail if isinstance(detail, str) else "; ".join(f"{d['loc'][-1]}: {d['msg']}" for d in detail)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        pass
    text = _clean(text)
    return f"({text})" if text else ""


def _shown(value: object) -> str:
    return "missing" if value is None else _clean(repr(value), 60)


def _clean(text: str, length: int = 200) -> str:
    """`text` from outside, fit for a message: without the key, which a source or proxy may echo, and on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in without_key(text)).split())[:length]


def without_key(text: str) -> str:
    """`text` with `[key]` wherever it holds the key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return text.replace(key, "[key]") if key else text
