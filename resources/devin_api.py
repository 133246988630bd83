"""Client for the Devin Enterprise API: one method for a count, one for each list. Callers decide what to request."""

import http.cookiejar
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import aiohttp
import httpx
from anyio.from_thread import BlockingPortal
from httpx_aiohttp import AiohttpTransport

from resources.addresses import check_url
from resources.authorities import AuthoritiesRefused, tls_context
from resources.calls import Calls
from resources.devin_answers import Request, parse_count
from resources.devin_errors import ContractBroken, NetworkRefused, Rejected, Unauthorized
from resources.devin_key import DEFAULT_URL, KEY_VARIABLE, key_from_environment, refuse_other_address, version_for
from resources.devin_lists import (
    Listed,
    ListedItem,
    ListedSession,
    ListReading,
    Organization,
    User,
    parse_page,
    parse_sessions,
)
from resources.devin_versions import PAGE_SIZE, V2, V3, Listing, VersionName, WindowEnd, zulu
from resources.first_few import first_few
from resources.pace import Pace
from resources.pace_row import PaceRows
from resources.portal import blocking_portal
from resources.proxies import ProxyRefused, proxy_for
from resources.retries import Retries, RetryRules
from resources.shared_pace import SharedPace

MAX_LISTED = 100_000
# Servers and proxies accept URLs of some 8,000 characters.
MAX_IDS = 100


@dataclass(frozen=True)
class DevinAPI:
    """The Devin Enterprise API, v2 or v3. `connect()` returns a client.

    `RetryRules` explains the fields about retries and timeouts, and `activity`. `window_end` is whether the API counts
    the end of a window; if it does, an earlier end is sent. `pace_rows` is where all processes with the same key share
    `requests_per_minute` and what they learn of the API's limit; without it, each process has its own.
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
    window_end: WindowEnd = "exclusive"
    activity: str = "load"
    pace_rows: PaceRows | None = None

    @asynccontextmanager
    async def connect(self, calls: Calls) -> "AsyncIterator[DevinClient]":
        """A client for one event loop, which records its requests in `calls`.

        Raises Unauthorized if no usable key is set, or if the key is not for this address, NetworkRefused if the
        environment's proxy or certificate authorities can't be used, and WarehouseError if the shared pace can't be.
        """
        url = check_url(self.base_url)
        refuse_other_address(url)
        key, version = self._key_and_version()
        try:
            tls, proxy = tls_context(url), proxy_for(url)
        except (AuthoritiesRefused, ProxyRefused) as error:
            raise NetworkRefused(str(error)) from None
        async with (
            self._pace(key, url, calls) as pace,
            httpx.AsyncClient(
                base_url=url,
                transport=AiohttpTransport(client=partial(self._session, tls), verify=tls, proxy=proxy),
                headers={
                    "Authorization": f"Bearer {key}",
                    "Accept": "application/json",
                    # Compression would save nothing: a count has some 25 bytes.
                    "Accept-Encoding": "identity",
                },
                # httpx keeps cookies of its own besides aiohttp's jar; this jar accepts none.
                cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
                timeout=None,  # a single limit covers the whole try, even a body that trickles in: see Retries
                follow_redirects=False,
            ) as http_client,
        ):
            yield DevinClient(self, version, http_client, calls, pace)

    @asynccontextmanager
    async def _pace(self, key: str, url: str, calls: Calls) -> "AsyncIterator[Pace]":
        if self.pace_rows is None:
            yield Pace(self.requests_per_minute)
            return
        async with (
            self.pace_rows.row(key, url) as row,
            SharedPace(row, self.requests_per_minute, self.patience_seconds, calls.record_wait) as pace,
        ):
            yield pace

    @contextmanager
    def connected(self, calls: Calls) -> "Iterator[tuple[DevinClient, BlockingPortal]]":
        """`connect` for synchronous code: a client, and the portal that runs its coroutines in a thread.

        The calling thread can thus store while requests are in flight, and a signal that interrupts it cancels them.
        """
        with blocking_portal() as portal, portal.wrap_async_context_manager(self.connect(calls)) as client:
            yield client, portal

    @property
    def version_name(self) -> str:
        """The API version in use, v2 or v3. Raises Unauthorized if no usable key is set."""
        return self._key_and_version()[1].name

    @property
    def _versions(self) -> dict[VersionName, V2 | V3]:
        return {"v2": V2(self.window_end), "v3": V3(self.window_end)}

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
            middlewares=(_send_once,),
        )


@dataclass(eq=False)
class DevinClient:
    """Sends requests over a connection pool. Safe for concurrent tasks; every method may raise a DevinAPIError."""

    api: DevinAPI
    version: V2 | V3
    http: httpx.AsyncClient = field(repr=False)
    calls: Calls
    pace: Pace

    def __post_init__(self) -> None:
        rules = RetryRules(
            self.api.max_tries,
            self.api.timeout_seconds,
            self.api.backoff_seconds,
            self.api.max_backoff_seconds,
            self.api.patience_seconds,
            self.api.max_connections,
            self.api.activity,
        )
        self._retries = Retries(rules, self.version, self.http, self.calls, self.pace)

    async def count(
        self, start: datetime, end: datetime, *, org_ids: Sequence[str] = (), user_ids: Sequence[str] = ()
    ) -> int:
        """The number of sessions created in [start, end), both aware; empty filters mean everyone.

        Raises ValueError if that isn't a window, and for more than MAX_IDS ids.
        """
        if start.utcoffset() is None or end.utcoffset() is None or start.astimezone(UTC) >= end.astimezone(UTC):
            raise ValueError(f"not a window of aware datetimes: {start} to {end}")
        if len(org_ids) + len(user_ids) > MAX_IDS:
            raise ValueError(f"{len(org_ids) + len(user_ids):,} ids in one request; the maximum is {MAX_IDS}")
        params = self.version.window(start, end)
        params += [("org_ids", org_id) for org_id in org_ids]
        params += [("user_ids", user_id) for user_id in user_ids]
        description = f"Counting sessions of {_describe(org_ids, user_ids)} from {zulu(start)} to {zulu(end)}"
        scope: Literal["some", "everyone"] = "some" if org_ids or user_ids else "everyone"
        request = Request(self.version.sessions_path, params, description, scope, (*org_ids, *user_ids))
        return parse_count(await self._retries.get(request), self.version, description)

    async def count_by_start_and_end(self, start: datetime, end: datetime) -> int:
        """What the API counts if the period is sent as `start` and `end`, which it may ignore: nothing describes them.

        Raises Rejected if it refuses them.
        """
        period = [value for _, value in self.version.window(start, end)]
        params = list(zip(("start", "end"), period, strict=True))
        description = f"Counting sessions by start and end from {zulu(start)} to {zulu(end)}"
        request = Request(self.version.sessions_path, params, description, "form")
        return parse_count(await self._retries.get(request), self.version, description)

    async def organizations(self) -> Listed[Organization]:
        """Every organization that the API lists, over all pages."""
        items, problem = await self._list(self.version.organizations, "DEVIN_ORG_IDS")
        return Listed([Organization(*fields) for fields in items], problem)

    async def users(self) -> Listed[User]:
        """Every user that the API lists, over all pages."""
        items, problem = await self._list(self.version.users, "DEVIN_USER_IDS")
        return Listed([User(user_id, created_at) for user_id, _, created_at in items], problem)

    async def sessions(self, start: datetime, end: datetime, most: int) -> AsyncIterator[list[ListedSession]]:
        """The sessions that the API lists as created in [start, end), page by page, each session_id once.

        It may leave out, double or misplace some: nothing here proves them. Raises ContractBroken for a list that does
        not end, or has many more items than `most`, and Rejected if the key may not read it.
        """
        path, window = self.version.session_list_path, self.version.created_within(start, end)
        seen, items, cursor = set[int](), 0, None
        while True:
            description = f"Listing sessions from {zulu(start)} to {zulu(end)} from offset {items}"
            params = [*window, *self.version.page(items, cursor)]
            body = await self._retries.get(Request(path, params, description, "list", is_private=True))
            page = parse_sessions(body, self.version, description)
            items, cursor = items + page.number, page.cursor
            within = {hash(session.session_id): session for session in page.items if start <= session.created_at < end}
            new = within.keys() - seen
            seen |= new
            yield [within[key] for key in new]
            if not page.has_more:
                return
            if not page.number or items > 2 * most + 2 * PAGE_SIZE:
                raise ContractBroken(f"{description}: the list does not end.")

    async def _list(self, listing: Listing, variable: str) -> "tuple[list[ListedItem], str]":
        """The items, and what is wrong with the list. A list that contradicts itself is read a second time, in full.

        `variable` is the setting to use instead if the key may not list them or the list can't be trusted.
        """
        first = await self._read(listing, variable)
        if not first.contradiction:
            return list(first.found.values()), ""
        second = await self._read(listing, variable)
        if not second.contradiction:
            return list(second.found.values()), ""
        found = first.found | second.found
        problem = (
            f"The API's list of {listing.noun}s contradicts itself: {first.contradiction}; on a second "
            f"read, {second.contradiction}. All {len(found):,} listed either time are counted; sessions of others show "
            f"up as unattributed. Run the same command again, or set {variable} to the ids to count."
        )
        return list(found.values()), problem

    async def _read(self, listing: Listing, variable: str) -> "ListReading":
        """Read a list once, from the first page to the last."""
        reading = ListReading()
        cursor: str | None = None
        while True:
            description = f"Listing {listing.noun}s from offset {reading.items}"
            request = Request(listing.path, self.version.page(reading.items, cursor), description, "list")
            try:
                body = await self._retries.get(request)
            except Rejected as error:
                if error.status not in (403, 404):
                    raise
                raise Rejected(
                    f"{error} The key may count sessions but not list {listing.noun}s: "
                    f"set {variable} to the ids to count, separated by commas.",
                    error.status,
                ) from None
            page = parse_page(body, listing, self.version, description)
            cursor = page.cursor
            has_news = reading.add(page.items, body.get("total"))
            if not page.has_more:
                return reading
            if not has_news or reading.items > MAX_LISTED:
                raise ContractBroken(
                    f"{description}: the list does not end ({len(reading.found)} {listing.noun}s so far)."
                )


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request once. aiohttp would resend a GET by itself after these two errors, but only `Retries` retries."""
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from None


def _describe(org_ids: Sequence[str], user_ids: Sequence[str]) -> str:
    filters = (org_ids, "organization"), (user_ids, "user")
    parts = [f"{noun}{'s' if len(ids) > 1 else ''} {first_few(ids)}" for ids, noun in filters if ids]
    return " and ".join(parts) or "all organizations"
