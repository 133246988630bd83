"""How to ask the Devin Enterprise API: one verb for one count, one for the organizations.

Retries, time-outs, size limits, the key and the kinds of failure are here and nowhere else. What to ask is not.
"""

import asyncio
import email.utils
import http.cookiejar
import json
import math
import os
import re
import ssl
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import aiohttp
import httpx
from anyio.from_thread import BlockingPortal
from httpx_aiohttp import AiohttpTransport

from resources.devin_versions import V2, V3, Listing, Params, VersionName, WindowEnd, check_key, version_for, zulu
from resources.hosts import is_loopback, proxy_for
from resources.outage import GivenUp, Outage, Passing, Waiting, waiting
from resources.pace import Pace, RefusedAlone
from resources.portal import blocking_portal

KEY_VARIABLE = "DEVIN_API_KEY"
URL_VARIABLE = "DEVIN_API_URL"
DEFAULT_URL = "https://api.devin.ai"
MAX_LISTED = 100_000
# What servers and proxies take of an address is some 8,000 characters.
MAX_IDS = 100
LONGEST_ID = 256
MAX_BODY_BYTES = 4 * 1024 * 1024
MOST_LATENCIES = 1_000_000  # 8 MB
# No enterprise has so many sessions, and a database can still add up millions of them.
LARGEST_COUNT = 10**12
# 408 and 429 ask for another try by definition, 5xx is the server's own trouble; any other status repeats itself.
RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))
# With these the API itself refuses a question. A 401 is about the key.
REFUSALS = frozenset({400, 403, 404, 410, 422})


class DevinAPIError(Exception):
    """A question that got no usable answer. The message is a sentence for the user; the subclass says who must act."""


class Unauthorized(DevinAPIError):
    """The key is missing or refused: stop at once, the user must mend the key."""


class Rejected(DevinAPIError):
    """The API itself refuses this question, for instance one organization in it. Asking again is of no use."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(DevinAPIError):
    """No answer of the API's to this question for as many tries as are allowed. A later run may succeed."""


class SourceDown(DevinAPIError):
    """The API answered nobody for as long as patience has: stop, and run the same again later."""


class Misrouted(DevinAPIError):
    """Something else than the API answers at its address: stop, the user must see to the address or the network."""


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


Item = TypeVar("Item")


@dataclass(frozen=True)
class Listed(Generic[Item]):
    """Everything that a list holds, in the source's order.

    `problem` is a sentence for the user where the list contradicted itself each time that it was read, else empty.
    """

    items: list[Item]
    problem: str = ""


@dataclass
class Calls:
    """The HTTP requests that were sent: how many, how many of them were a second or later try, and how they went.

    `outcomes` counts them by status, or by why there was none. `latencies` are seconds, of those that were answered.
    The first MOST_LATENCIES are kept.
    `waited` is for how many seconds one or more questions were held back, to keep to a rate limit; until `waited_until`
    on the event loop's clock.
    `limit_headers` are what the last answer that had any told of a rate limit.
    `expected` is how many answers are wanted in all, as far as that is known: retries are allowed in proportion.
    `waiting` is why questions wait at the moment. `watchers` are called, from the thread that asks, with each wait.
    `gave_up` is whether the source was down for longer than patience: nothing else needs to be asked now.
    """

    sent: int = 0
    retried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter, compare=False)
    latencies: "array[float]" = field(default_factory=lambda: array("d"), compare=False)
    waited: float = field(default=0.0, compare=False)
    waited_until: float = field(default=-math.inf, compare=False)
    limit_headers: dict[str, str] = field(default_factory=dict, compare=False)
    expected: int = field(default=0, compare=False)
    waiting: Waiting | None = field(default=None, compare=False)
    gave_up: bool = field(default=False, compare=False)
    watchers: list[Callable[[Waiting], None]] = field(default_factory=list, compare=False, repr=False)

    def wait(self, waiting: Waiting) -> None:
        """Questions wait from now on."""
        self.waiting = waiting
        for watcher in list(self.watchers):
            watcher(waiting)

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


@dataclass(frozen=True)
class DevinAPI:
    """The Devin Enterprise API, v2 or v3. `connect()` gives a client that asks.

    `max_tries` is how often one question is tried in all, `timeout_seconds` how long one try may take, from
    connecting to the last byte. `max_backoff_seconds` bounds a pause that the source did not ask for,
    `patience_seconds` one that it did, and how long nobody may be answered. `bounds` is the pair of parameters that
    carries the window in v2: the contract has both, and describes only start_date. `window_end` is whether the
    source counts the end of a window; if so, an earlier one is sent.
    """

    base_url: str = DEFAULT_URL
    version: Literal["auto", "v2", "v3"] = "auto"
    max_connections: int = 64
    timeout_seconds: float = 30.0
    max_tries: int = 5
    requests_per_minute: int | None = None
    backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    patience_seconds: float = 300.0
    bounds: Literal["start_date", "start"] = "start_date"
    window_end: WindowEnd = "exclusive"

    @asynccontextmanager
    async def connect(self, calls: Calls) -> "AsyncIterator[DevinClient]":
        """A client for one event loop that counts in `calls`.

        Raises Unauthorized if no usable key is set, or if it is not for this address.
        """
        url = check_url(self.base_url)
        _refuse_other_address(url)
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
        with blocking_portal() as portal, portal.wrap_async_context_manager(self.connect(calls)) as client:
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
class _Question:
    """One question as it is sent, and as a sentence has it. `whom`: whom a refusal of it is about; `ids` names some."""

    path: str
    params: Params
    asked: str
    whom: Literal["everyone", "some", "list"]
    ids: tuple[str, ...] = ()


@dataclass(eq=False)
class DevinClient:
    """Asks over an open connection pool. Safe for many tasks at once; every method may raise a DevinAPIError."""

    api: DevinAPI
    version: V2 | V3
    http: httpx.AsyncClient = field(repr=False)
    calls: Calls
    pace: Pace

    def __post_init__(self) -> None:
        self._outage = Outage(
            self.pace,
            self.api.patience_seconds,
            self.api.backoff_seconds,
            self.api.max_backoff_seconds,
            self.calls.wait,
        )
        self._refused_alone = RefusedAlone()

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
        whom: Literal["some", "everyone"] = "some" if org_ids or user_ids else "everyone"
        body = await self._get(_Question(self.version.sessions_path, params, asked, whom, (*org_ids, *user_ids)))
        count = body.get(self.version.count_field)
        if type(count) is not int or not 0 <= count <= LARGEST_COUNT:
            raise ContractBroken(
                f"{asked}: the answer's {self.version.count_field} is {_shown(count)}, "
                f"not a whole number from 0 to {LARGEST_COUNT:,}. "
                "Nothing of it was stored. The API may have changed; its owner can tell."
            )
        return count

    async def organizations(self) -> Listed[Organization]:
        """Every organization that the source lists, over all pages."""
        items, problem = await self._listed(self.version.organizations, "DEVIN_ORG_IDS")
        return Listed([Organization(*fields) for fields in items], problem)

    async def users(self) -> Listed[User]:
        """Every user that the source lists, over all pages."""
        items, problem = await self._listed(self.version.users, "DEVIN_USER_IDS")
        return Listed([User(user_id, created_at) for user_id, _, created_at in items], problem)

    async def _listed(self, listing: Listing, variable: str) -> "tuple[list[_Item], str]":
        """The items, and what is wrong with the list. One that contradicts itself is read once more, whole.

        `variable` is what the user can set where the key may not list them, or the list can't be trusted.
        """
        first = await self._read(listing, variable)
        if not first.contradiction:
            return list(first.found.values()), ""
        second = await self._read(listing, variable)
        if not second.contradiction:
            return list(second.found.values()), ""
        found = first.found | second.found
        problem = (
            f"The API's list of {listing.noun}s contradicts itself: {first.contradiction}; read again, "
            f"{second.contradiction}. All {len(found):,} that were listed either time are counted; sessions of others "
            f"show up as unattributed. Run the same command again, or set {variable} to the ids to count."
        )
        return list(found.values()), problem

    async def _read(self, listing: Listing, variable: str) -> "_Reading":
        """One reading of a list, from the first page to the last."""
        reading = _Reading()
        cursor: str | None = None
        while True:
            asked = f"Listing the {listing.noun}s from number {reading.items} on"
            question = _Question(listing.path, self.version.page(reading.items, cursor), asked, "list")
            try:
                page = await self._get(question)
            except Rejected as error:
                if error.status not in (403, 404):
                    raise
                raise Rejected(
                    f"{error} The key may count sessions but not list {listing.noun}s: "
                    f"set {variable} to the ids to count, separated by commas.",
                    error.status,
                ) from None
            items, has_more, cursor = _items_in(page, listing, self.version, asked)
            has_news = reading.add(items, page.get("total"))
            if not has_more:
                return reading
            if not has_news or reading.items > MAX_LISTED:
                raise ContractBroken(f"{asked}: the list does not end ({len(reading.found)} {listing.noun}s so far).")

    async def _get(self, question: _Question) -> dict[str, Any]:
        """The JSON object that answers, after as many tries as are allowed. The one place that retries.

        Tries that failed because the source answered nobody don't count, up to as many again.
        """
        tries = excused = 0
        began: float | None = None
        while True:
            tries += 1
            self.calls.retried += tries > 1
            asked_at = await self._turn(question)
            began = asked_at if began is None else began
            try:
                answer = await self._answer(question)
                self._refused_alone.answered(question.ids)
                return answer
            except Passing as error:
                failure = error
            now = asyncio.get_running_loop().time()
            is_beyond = self._outage.is_beyond(failure)
            pause = self._outage.pause(tries)
            if failure.pauses_all and failure.retry_after is not None:
                pause = failure.retry_after
            pauses_all = failure.pauses_all and not self._refused_alone.refused(
                question.ids, now, self.pace.last_answered
            )
            if pauses_all and not is_beyond:
                self.pace.refused(asked_at, pause)
                self.calls.wait(waiting(str(failure), now, now + pause, now))
            is_last = is_beyond or tries - excused >= self.api.max_tries or not self._may_retry()
            if is_beyond or ((tries > 1 or is_last) and self.pace.last_answered < asked_at):
                found, was_out = await self._sit_out(question, failure, max(began, self.pace.last_answered))
                if found is not None:
                    return found
                if was_out and excused < self.api.max_tries:
                    excused += 1
                    continue
            if is_last:
                raise Unavailable(
                    f"{question.asked}: {failure}, after {tries} {'tries' if tries > 1 else 'try'}. "
                    "The source or the way to it is in trouble; run the same again later."
                )
            if not pauses_all:  # where everybody pauses, the pace lets this question wait too
                await asyncio.sleep(pause)

    async def _turn(self, question: _Question) -> float:
        """Wait until `question` may be asked. Returns when, on the event loop's clock."""
        wanted_at = asyncio.get_running_loop().time()
        asked_at = await self.pace.turn()
        self.calls.held_back(wanted_at, asked_at)
        try:
            self._outage.check()
        except GivenUp as error:
            raise self._down(question.asked, error) from None
        return asked_at

    async def _sit_out(self, question: _Question, failure: Passing, since: float) -> tuple[dict[str, Any] | None, bool]:
        """Wait until the source answers somebody: the answer, if it was to this question, and whether it was out.

        Whether the question or the source is at fault is told by a question that was answered before, if any was.
        """
        known_good: _Question | None = self._outage.known_good
        answer: dict[str, Any] | None = None
        refusal: DevinAPIError | None = None

        async def probe() -> None:
            nonlocal answer, refusal
            self.calls.retried += 1
            try:
                found = await self._answer(known_good or question)
                answer = found if known_good is None else None
            except (Rejected, ContractBroken, Unavailable) as error:
                if known_good is None:
                    refusal = error
                elif isinstance(error, Unavailable):
                    raise Passing(str(error)) from None

        try:
            was_out = await self._outage.sit_out(failure, since, probe, is_known_good=known_good is not None)
        except GivenUp as error:
            raise self._down(question.asked, error) from None
        if refusal is not None:
            raise refusal
        return answer, was_out

    def _down(self, asked: str, error: GivenUp) -> SourceDown:
        self.calls.gave_up = True
        return SourceDown(
            f"{asked}: {error}. The load ended here, because DEVIN_PATIENCE_SECONDS={self.api.patience_seconds:g}. "
            f"What was stored before is kept; run the same command again {error.when}."
        )

    def _may_retry(self) -> bool:
        """Whether retries are still few for the size of the load, so that a dying source is not hammered."""
        size = max(self.calls.expected, self.calls.sent)
        allowance = max(self.api.max_tries, 2 * min(self.api.max_connections, size)) + size // 5
        return self.calls.retried - self._outage.excused < allowance

    async def _answer(self, question: _Question) -> dict[str, Any]:
        """One try. Raises Passing if another may go better."""
        came_back = await self._send(question.path, question.params)
        try:
            answer = _understood(came_back, question, self.version)
        except (Rejected, ContractBroken):
            self._answered()
            raise
        self._outage.known_good = question
        self._answered()
        return answer

    def _answered(self) -> None:
        self.calls.waiting = None
        self.pace.answered()

    async def _send(self, path: str, params: Params) -> "_CameBack":
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
                content_type = response.headers.get("Content-Type", "")
                return _CameBack(response.status_code, content_type, bytes(body), _retry_after(response.headers))
        except TimeoutError:
            outcome = "no answer in time"
            raise Passing(f"no whole answer within {self.api.timeout_seconds:g} s") from None
        except (httpx.TransportError, aiohttp.ClientError) as error:
            outcome = "connection failed"
            raise Passing(f"the connection failed: {_clean(str(error)) or type(error).__name__}") from None
        finally:
            self.calls.outcomes[outcome] += 1


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send as it is. aiohttp would send a GET again by itself after these two; retrying is for `_get` alone."""
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from None


@dataclass(frozen=True)
class _CameBack:
    """What came back, from the API or from something on the way to it. `retry_after` is in seconds."""

    status: int
    content_type: str
    body: bytes
    retry_after: float | None

    @property
    def is_of_the_api(self) -> bool:
        """Whether the API itself may have said it: a JSON object that is marked as one. Web pages are not."""
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            return False
        try:
            return isinstance(json.loads(self.body), dict)
        except (ValueError, RecursionError):
            return False

    def __str__(self) -> str:
        kind = "" if self.is_of_the_api else f" as {_clean(self.content_type, 60) or 'nothing that has a type'}"
        return f"{self.status}{kind} {_said(self.body)}".rstrip()


# What to do about an answer that is not the API's own. Any other 3xx is as 302.
_ON_THE_WAY = {
    302: "It sends elsewhere, which is never followed: check DEVIN_API_URL.",
    407: "A proxy asks for a user and a password: set both in HTTPS_PROXY.",
    **dict.fromkeys(
        (413, 414, 431),
        "It takes no question so long: set DEVIN_FETCH=direct, which asks about one organization at a time.",
    ),
}
_NETWORK = "Check DEVIN_API_URL and the proxy, and ask the administrator of your network."


def _understood(came_back: _CameBack, question: _Question, version: V2 | V3) -> dict[str, Any]:
    """The body's JSON object if the status is 200; else the failure, by its kind."""
    asked, status, body = question.asked, came_back.status, came_back.body
    if status == 200:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise Passing(f"the source answered 200 with a body that is not JSON: {_said(body)}") from None
        if not isinstance(answer, dict):
            raise ContractBroken(
                f"{asked}: the source answered {came_back}, which is not a JSON object. Nothing of it was stored."
            )
        return answer
    retry_after = came_back.retry_after
    if status in RETRIED_STATUSES:
        message = f"the source answered {status} {_said(body)}".rstrip()
        raise Passing(message, retry_after, pauses_all=status == 429 or retry_after is not None)
    if came_back.is_of_the_api:
        if status == 401 or (status == 403 and question.whom == "everyone"):
            raise Unauthorized(
                f"{asked}: the source answered {came_back}. The key in {KEY_VARIABLE} is not accepted by "
                f"{version.name} of the API: set it to {version.key_to_set}."
            )
        if status in REFUSALS:
            hint = " Check DEVIN_API_URL." if status == 404 and question.whom == "everyone" else ""
            raise Rejected(f"{asked}: the source answered {came_back}.{hint}", status)
    not_the_api = f"something between you and the API, such as a firewall or a proxy, answered {came_back}"
    if status == 403:
        # Firewalls let through after a while what they took for a flood. It says nothing about the key.
        raise Passing(not_the_api, retry_after, pauses_all=retry_after is not None)
    hint = _ON_THE_WAY.get(302 if 300 <= status < 400 else status, _NETWORK)
    if status == 401:
        hint += f" If nothing is on the way, the key in {KEY_VARIABLE} may have ended."
    told = f"{asked}: {not_the_api}. {hint} Nothing of it was stored."
    if question.whom == "some":
        raise Unavailable(f"{told} It is asked again by the next command.")
    raise Misrouted(told)


_Item = tuple[str, str | None, datetime | None]


@dataclass
class _Reading:
    """One reading of a list. `items` is how many were listed, `found` are the distinct ones by id."""

    found: dict[str, _Item] = field(default_factory=dict)
    items: int = 0
    totals: set[int] = field(default_factory=set)

    def add(self, items: Sequence[_Item], total: object) -> bool:
        """Take in a page, and how many the list says that it has; whether any item is new."""
        before = len(self.found)
        self.items += len(items)
        self.found |= {item[0]: item for item in items}
        if type(total) is int:  # only v2 promises one
            self.totals.add(total)
        return len(self.found) > before

    @property
    def contradiction(self) -> str:
        """What is wrong with it, as a part of a sentence; empty if nothing is."""
        distinct = len(self.found)
        if self.totals <= {distinct} and self.items == distinct:
            return ""
        said = f"its total is {' and then '.join(f'{n:,}' for n in sorted(self.totals))}, and " if self.totals else ""
        twice = f" ({self.items - distinct:,} more than once)" if self.items > distinct else ""
        return f"{said}it lists {distinct:,} different ones{twice}"


def _items_in(
    page: dict[str, Any], listing: Listing, version: V2 | V3, asked: str
) -> tuple[list[_Item], bool, str | None]:
    """Id, name and creation of each item, whether a page follows, and its cursor.

    Ids are what is asked about, so an odd one breaks the contract; names and dates only adorn, and an odd one is None.
    """
    at = ""
    try:
        has_more, cursor = version.has_more(page)
        if not isinstance(page["items"], list):
            raise TypeError("items is no list")
        items: list[_Item] = []
        for number, item in enumerate(page["items"], 1):
            at = f", item {number} of the page"
            items.append((_id(item[listing.id_field]), _name_of(item, listing), _creation_of(item, listing, version)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractBroken(
            f"{asked}{at}: the page is not what the contract says ({type(error).__name__}: {_clean(str(error))})."
        ) from None
    return items, has_more, cursor


def _id(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()  # raises a ValueError for half a surrogate pair, which no table can hold
    if not (value.isprintable() and 0 < len(value) <= LONGEST_ID):
        raise ValueError("an id that cannot be asked about")
    return value


def _name_of(item: dict[str, Any], listing: Listing) -> str | None:
    name = item.get(listing.name_field) if listing.name_field else None
    # No table holds half a surrogate pair, and not every one a NUL.
    return re.sub("[\\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", name) if isinstance(name, str) else None


def _creation_of(item: dict[str, Any], listing: Listing, version: V2 | V3) -> datetime | None:
    try:
        return version.instant(item[listing.created_field]) if listing.created_field else None
    except (KeyError, TypeError, ValueError):
        return None


def _refuse_other_address(url: str) -> None:
    """Raise Unauthorized unless the environment says that the key is for `url`, which `check_url` returned.

    No caller can release the key to another address: it comes from the environment, so its address does too.
    """
    try:
        allowed = check_url(os.environ.get(URL_VARIABLE) or DEFAULT_URL)
    except ValueError as error:
        raise Unauthorized(f"{URL_VARIABLE} is refused: {error}. Nothing was asked.") from None
    if url != allowed:
        raise Unauthorized(
            f"Nothing was asked of {url}: {KEY_VARIABLE} is sent to {allowed} alone. "
            f"If {url} is the right address, set {URL_VARIABLE} to it in the environment of every process that runs "
            "the job."
        )


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
    """Seconds to wait, from `Retry-After` in either form of RFC 9110; None if absent or senseless.

    A date is read against the answer's own, if it has one: this machine's clock may be wrong.
    """
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = _http_date(value)
        if until is None:
            return None
        seconds = (until - (_http_date(headers.get("Date", "")) or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _http_date(value: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


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
