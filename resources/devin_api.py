"""How to ask the Devin Enterprise API: one verb for one count, one for each list. What to ask is not decided here."""

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
from resources.calls import Calls
from resources.devin_answers import (
    Listed,
    ListedItem,
    ListReading,
    Organization,
    Question,
    User,
    parse_count,
    parse_page,
)
from resources.devin_errors import ContractBroken, Rejected, Unauthorized
from resources.devin_key import DEFAULT_URL, KEY_VARIABLE, key_from_environment, refuse_other_address, version_for
from resources.devin_versions import V2, V3, Listing, VersionName, WindowEnd, zulu
from resources.pace import Pace
from resources.portal import blocking_portal
from resources.proxies import proxy_for
from resources.retries import Retries, RetryRules

MAX_LISTED = 100_000
# What servers and proxies take of an address is some 8,000 characters.
MAX_IDS = 100


@dataclass(frozen=True)
class DevinAPI:
    """The Devin Enterprise API, v2 or v3. `connect()` gives a client that asks.

    How often and how long it is asked is in `RetryRules`. `window_end` is whether the source counts the end of a
    window; if so, an earlier one is sent.
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

    @asynccontextmanager
    async def connect(self, calls: Calls) -> "AsyncIterator[DevinClient]":
        """A client for one event loop that counts in `calls`.

        Raises Unauthorized if no usable key is set, or if it is not for this address.
        """
        url = check_url(self.base_url)
        refuse_other_address(url)
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
            timeout=None,  # one limit holds the whole try, a reader that drips included: see Retries
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
            middlewares=(_once,),
        )


@dataclass(eq=False)
class DevinClient:
    """Asks over an open connection pool. Safe for many tasks at once; every method may raise a DevinAPIError."""

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
        )
        self._retries = Retries(rules, self.version, self.http, self.calls, self.pace)

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
        body = await self._retries.get(Question(self.version.sessions_path, params, asked, whom, (*org_ids, *user_ids)))
        return parse_count(body, self.version, asked)

    async def organizations(self) -> Listed[Organization]:
        """Every organization that the source lists, over all pages."""
        items, problem = await self._listed(self.version.organizations, "DEVIN_ORG_IDS")
        return Listed([Organization(*fields) for fields in items], problem)

    async def users(self) -> Listed[User]:
        """Every user that the source lists, over all pages."""
        items, problem = await self._listed(self.version.users, "DEVIN_USER_IDS")
        return Listed([User(user_id, created_at) for user_id, _, created_at in items], problem)

    async def _listed(self, listing: Listing, variable: str) -> "tuple[list[ListedItem], str]":
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

    async def _read(self, listing: Listing, variable: str) -> "ListReading":
        """One reading of a list, from the first page to the last."""
        reading = ListReading()
        cursor: str | None = None
        while True:
            asked = f"Listing the {listing.noun}s from number {reading.items} on"
            question = Question(listing.path, self.version.page(reading.items, cursor), asked, "list")
            try:
                page = await self._retries.get(question)
            except Rejected as error:
                if error.status not in (403, 404):
                    raise
                raise Rejected(
                    f"{error} The key may count sessions but not list {listing.noun}s: "
                    f"set {variable} to the ids to count, separated by commas.",
                    error.status,
                ) from None
            items, has_more, cursor = parse_page(page, listing, self.version, asked)
            has_news = reading.add(items, page.get("total"))
            if not has_more:
                return reading
            if not has_news or reading.items > MAX_LISTED:
                raise ContractBroken(f"{asked}: the list does not end ({len(reading.found)} {listing.noun}s so far).")


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send as it is. aiohttp would send a GET again by itself after these two; retrying is for `Retries` alone."""
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from None


def _named(org_ids: Sequence[str], user_ids: Sequence[str]) -> str:
    def some(ids: Sequence[str], noun: str) -> str:
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        return f"{noun}{'s' if len(ids) > 1 else ''} {', '.join(ids[:3])}{more}"

    parts = [some(ids, noun) for ids, noun in ((org_ids, "organization"), (user_ids, "user")) if ids]
    return " and ".join(parts) or "all organizations"
