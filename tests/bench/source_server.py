"""The server process of the stand-in for the API.

    python -m tests.bench.source_server OPTIONS

OPTIONS is JSON with the fields of the world, `latency`, `limit` and `lists_sessions`. Prints the port it listens on,
and ends when its standard input does. Uses only the standard library, so that it starts at once.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.bench.session_lines import session_lines
from tests.bench.source import (
    AFTER_PATH,
    KEY,
    LIST_PATH,
    LONGEST_REQUEST_LINE,
    ORGANIZATIONS_PATH,
    RESET_PATH,
    SESSIONS_PATH,
    Counters,
)
from tests.bench.world import World


class _Refused(Exception):
    """A request that gets a response other than 200."""

    def __init__(self, status: str, detail: str | list[dict[str, Any]], headers: bytes = b"") -> None:
        self.response = _response(json.dumps({"detail": detail}).encode(), status, headers)


def _response(body: bytes, status: str = "200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (
        status.encode(),
        headers,
        len(body),
        body,
    )


def _invalid(name: str, message: str) -> _Refused:
    return _Refused("422 Unprocessable Entity", [{"loc": ["query", name], "msg": message, "type": "value_error"}])


class _Server:
    """The world as prefix sums, and the requests received."""

    def __init__(self, world: World, latency: float, limit: int | None, lists_sessions: bool) -> None:
        self.latency = latency
        self._limit = limit
        self._first = datetime.fromisoformat(world.first_day).replace(tzinfo=UTC)
        self._days = world.days
        self._org_ids = world.org_ids
        self._number = {org_id.encode(): n for n, org_id in enumerate(world.org_ids)}
        self._sums = [[0, *accumulate(row)] for row in world.counts]
        self._total_sums = [0, *accumulate(map(sum, zip(*world.counts, strict=True)))]
        self._lines = list(session_lines(world)) if lists_sessions else None
        self._day_of: dict[bytes, int] = {}
        self._let_through: deque[float] = deque()
        self._arrived: deque[float] = deque()
        self._waiting: list[tuple[int, Callable[[bytes], None]]] = []
        self.reset()

    def reset(self) -> None:
        self.seen = Counters()
        self._cpu_before = time.process_time()
        self._requests: Counter[tuple[int, int, tuple[int, ...]]] = Counter()

    def receive(self, head: bytes, reply: Callable[[bytes], None], late: Callable[[bytes], None]) -> None:
        """Respond through `late`, which adds the latency, or through `reply` if the request is the benchmark's own."""
        line = head.partition(b"\r\n")[0]
        target = line.split(b" ")[1]
        path, _, query = target.partition(b"?")
        if path.startswith(b"/bench/"):
            self._control(path.decode(), query, reply)
            return
        is_count = path == SESSIONS_PATH.encode()
        is_list = path == LIST_PATH.encode()
        now = time.monotonic()
        self.seen.session_calls += is_count
        self.seen.list_calls += is_list
        if is_count or is_list:
            self.seen.first_at = self.seen.first_at or now
        else:
            self.seen.organization_calls += 1
        self._count_within_a_minute(now)
        if self._waiting:
            self._wake()
        try:
            self._let_pass(now)
            if len(line) > LONGEST_REQUEST_LINE:
                raise _Refused("414 URI Too Long", "Request-URI Too Large")
            if f"Bearer {KEY}".encode() not in head:
                raise _Refused("401 Unauthorized", "Missing or invalid API key")
            if is_count:
                late(_response(b'{"sessions_count":%d}' % self._count(query)))
            elif is_list and self._lines is not None:
                late(_response(self._listed(query)))
            elif path == ORGANIZATIONS_PATH.encode():
                late(_response(self._page(query)))
            else:
                raise _Refused("404 Not Found", "Not Found")
        except _Refused as refusal:
            late(refusal.response)

    def _count_within_a_minute(self, now: float) -> None:
        self._arrived.append(now)
        while self._arrived[0] <= now - 60:
            self._arrived.popleft()
        self.seen.fullest_minute = max(self.seen.fullest_minute, len(self._arrived))

    def _let_pass(self, now: float) -> None:
        if self._limit is None:
            return
        while self._let_through and self._let_through[0] <= now - 1:
            self._let_through.popleft()
        if len(self._let_through) >= self._limit:
            self.seen.refused += 1
            raise _Refused("429 Too Many Requests", "Too many requests", b"retry-after: 1\r\n")
        self._let_through.append(now)

    def _count(self, query: bytes) -> int:
        start = end = None
        numbers: set[int] = set()
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if name == b"org_ids":
                number = self._number.get(value)
                if number is None:
                    raise _Refused("404 Not Found", "Unknown organization")
                numbers.add(number)
            elif name == b"start_date":
                start = self._day(name, value)
            elif name == b"end_date":
                end = self._day(name, value)
        if start is None or end is None:
            raise _invalid("start_date" if start is None else "end_date", "a benchmark always requests a window")
        if start >= end:
            raise _Refused("400 Bad Request", "The end must be later than the start")
        request = (start, end, tuple(sorted(numbers)))
        self._requests[request] += 1
        self.seen.repeated += self._requests[request] > 1
        low, high = (min(max(day, 0), self._days) for day in (start, end))
        if not numbers:
            return self._total_sums[high] - self._total_sums[low]
        return sum(self._sums[n][high] - self._sums[n][low] for n in numbers)

    def _day(self, name: bytes, value: bytes) -> int:
        """The number of the day that begins at this time; 0 is the world's first."""
        number = self._day_of.get(value)
        if number is None:
            text = unquote_to_bytes(value).decode()
            try:
                since = datetime.fromisoformat(text) - self._first
            except (ValueError, TypeError):
                raise _invalid(name.decode(), "not a time with a time zone") from None
            if not text.endswith("Z") or since % timedelta(1):
                raise _invalid(name.decode(), "not midnight in UTC, written with Z")
            number = self._day_of[value] = since // timedelta(1)
        return number

    def _listed(self, query: bytes) -> bytes:
        """A page of the list of sessions, oldest first."""
        assert self._lines is not None
        days: dict[bytes, int] = {}
        rest = []
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            if name in (b"created_date_from", b"created_date_to"):
                days[name] = min(max(self._day(name, value), 0), self._days)
            else:
                rest.append(part)
        if len(days) < 2:
            raise _invalid("created_date_from", "a benchmark always requests a window")
        skip, limit = self._skip_and_limit(b"&".join(rest))
        first, last = self._total_sums[days[b"created_date_from"]], self._total_sums[days[b"created_date_to"]]
        following = skip + limit
        total = max(last - first, 0)
        has_more = following < total
        return b'{"items":[%s],"total":%d,"skip":%d,"limit":%d,"has_more":%s,"next_cursor":%s}' % (
            b",".join(self._lines[first + skip : min(first + following, last)]),
            total,
            skip,
            limit,
            b"true" if has_more else b"false",
            b"%d" % following if has_more else b"null",
        )

    def _skip_and_limit(self, query: bytes) -> tuple[int, int]:
        """How much of a list to leave out and to return."""
        numbers = {"skip": 0, "limit": 100}
        for part in query.decode().split("&") if query else ():
            name, _, value = part.partition("=")
            if name not in numbers:
                raise _invalid(name, "a benchmark pages through all of a list")
            if not value.isdecimal():
                raise _invalid(name, "not a whole number")
            numbers[name] = int(value)
        skip, limit = numbers.values()
        if not 1 <= limit <= 200:
            raise _invalid("limit", "not from 1 to 200")
        return skip, limit

    def _page(self, query: bytes) -> bytes:
        skip, limit = self._skip_and_limit(query)
        total, following = len(self._org_ids), skip + limit
        created_at = (self._first - timedelta(30)).isoformat().replace("+00:00", "Z")
        items = [
            {"org_id": org_id, "org_name": f"Organization {skip + n + 1}", "created_at": created_at}
            for n, org_id in enumerate(self._org_ids[skip:following])
        ]
        has_more = following < total
        cursor = str(following) if has_more else None
        page = {"items": items, "total": total, "skip": skip, "limit": limit}
        return json.dumps({**page, "has_more": has_more, "next_cursor": cursor}).encode()

    def _control(self, path: str, query: bytes, reply: Callable[[bytes], None]) -> None:
        if path == AFTER_PATH:
            self._waiting.append((int(query.partition(b"=")[2]), reply))
            self._wake()
            return
        if path == RESET_PATH:
            self.reset()
        self.seen.cpu_seconds = time.process_time() - self._cpu_before
        reply(_response(json.dumps(asdict(self.seen)).encode()))

    def _wake(self) -> None:
        for calls, reply in [waiter for waiter in self._waiting if waiter[0] <= self.seen.calls]:
            self._waiting.remove((calls, reply))
            reply(_response(b"{}"))


class _Connection(asyncio.Protocol):
    """One keep-alive connection. Requests have no bodies, and responses are sent in order."""

    def __init__(self, server: _Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.seen.connections += 1

    def data_received(self, data: bytes) -> None:
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            self._server.receive(head, self._reply, self._reply_late)

    def _reply(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)

    def _reply_late(self, response: bytes) -> None:
        if self._server.latency:
            self._loop.call_later(self._server.latency, self._reply_now, response)
        else:
            self._reply_now(response)

    def _reply_now(self, response: bytes) -> None:
        self._server.seen.last_at = time.monotonic()
        self._reply(response)


async def _serve(world: World, latency: float, limit: int | None, lists_sessions: bool) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(world, latency, limit, lists_sessions)
    is_over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), is_over.set)
    listening = await loop.create_server(lambda: _Connection(server, loop), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await is_over.wait()
    loop.remove_reader(sys.stdin.fileno())
    listening.close()


if __name__ == "__main__":
    _options = json.loads(sys.argv[1])
    asyncio.run(_serve(World(**_options.pop("world")), **_options))
