"""A stand-in of the Devin Enterprise API v2 that costs next to nothing, so that a benchmark measures the client.

It answers whole UTC days only, and is strict where the real source would let a benchmark's mistake pass as a number.
Run as a process of its own by `Source`; needs nothing but the standard library.
"""

import asyncio
import json
import math
import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from http.client import HTTPConnection
from itertools import accumulate
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote_to_bytes

SESSIONS_PATH = "/v2/enterprise/metrics/sessions"
ORGANIZATIONS_PATH = "/v2/enterprise/organizations"
COUNTERS_PATH, RESET_PATH, AFTER_PATH = "/bench/counters", "/bench/reset", "/bench/after"
KEY = "apk_user_bench"

WEEKEND_FACTOR = 0.3
STARTS_LATE, STOPS_EARLY = 0.15, 0.10
# What nginx lets pass unless told otherwise; a filter of a thousand organizations would not reach a real source.
LONGEST_REQUEST_LINE = 8192


@dataclass(frozen=True)
class World:
    """Sessions of each organization and day, the same for the same values here.

    Organizations are lognormal (`spread` is its sigma), some start late or stop early, weekends are quiet, and the
    whole is scaled so that about `nonzero` of all cells have sessions. Each is listed as created before the first day,
    so that when an organization was created tells nothing about which cells are zero.
    """

    orgs: int
    days: int
    nonzero: float = 1 / 3
    seed: int = 1
    spread: float = 2.0
    first_day: str = "2025-01-01"

    @cached_property
    def dates(self) -> list[date]:
        """Every day, in order."""
        first = date.fromisoformat(self.first_day)
        return [first + timedelta(n) for n in range(self.days)]

    @cached_property
    def org_ids(self) -> list[str]:
        """Every organization, in the order of the list."""
        dice = random.Random(f"{self.seed}/ids")
        return [f"org-{dice.getrandbits(128):032x}" for _ in range(self.orgs)]

    @cached_property
    def counts(self) -> list[list[int]]:
        """Sessions by organization, then day."""
        dice = random.Random(f"{self.seed}/counts")
        sizes = [dice.lognormvariate(0, self.spread) for _ in range(self.orgs)]
        lives = [self._life(dice) for _ in range(self.orgs)]
        scale = self._scale(sizes, lives)
        return [
            [
                _poisson(dice, size * scale * self._factor(day)) if life.start <= day < life.stop else 0
                for day in range(self.days)
            ]
            for size, life in zip(sizes, lives, strict=True)
        ]

    @cached_property
    def cells(self) -> dict[tuple[date, str], int]:
        """Every cell by day and organization."""
        return {
            (day, org_id): row[n]
            for org_id, row in zip(self.org_ids, self.counts, strict=True)
            for n, day in enumerate(self.dates)
        }

    def _life(self, dice: random.Random) -> range:
        start = dice.randrange(self.days) if dice.random() < STARTS_LATE else 0
        stop = dice.randrange(start, self.days) + 1 if dice.random() < STOPS_EARLY else self.days
        return range(start, stop)

    def _factor(self, day: int) -> float:
        return WEEKEND_FACTOR if self.dates[day].weekday() >= 5 else 1.0

    def _scale(self, sizes: Sequence[float], lives: Sequence[range]) -> float:
        """The factor over all sizes at which the expected share of cells with sessions is `nonzero`."""
        wanted = self.nonzero * self.orgs * self.days
        weekends = [0, *accumulate(int(self._factor(day) < 1) for day in range(self.days))]
        quiet = [weekends[life.stop] - weekends[life.start] for life in lives]

        def expected(scale: float) -> float:
            return sum(
                (len(life) - q) * -math.expm1(-size * scale) + q * -math.expm1(-size * scale * WEEKEND_FACTOR)
                for size, life, q in zip(sizes, lives, quiet, strict=True)
            )

        low, high = -30.0, 30.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if expected(math.exp(middle)) < wanted else (low, middle)
        return math.exp(low)


def _poisson(dice: random.Random, mean: float) -> int:
    if mean > 30:
        return max(0, round(dice.gauss(mean, math.sqrt(mean))))
    floor, product, drawn = math.exp(-mean), dice.random(), 0
    while product > floor:
        product *= dice.random()
        drawn += 1
    return drawn


@dataclass
class Counters:
    """What the stand-in has seen since it started or was reset. Times are of the machine's monotonic clock."""

    session_calls: int = 0
    organization_calls: int = 0
    refused: int = 0
    """How many of both were answered 429."""
    repeated: int = 0
    """How many answered session calls had the window and filter of an earlier one."""
    first_at: float = 0.0
    """When the first session call arrived."""
    last_at: float = 0.0
    """When the last session call was answered."""
    connections: int = 0
    """How many were opened, the benchmark's own included."""
    cpu_seconds: float = 0.0
    """What the stand-in itself used."""

    @property
    def calls(self) -> int:
        """Every call, of both paths, the refused ones included."""
        return self.session_calls + self.organization_calls

    @property
    def seconds(self) -> float:
        """From the first session call to the last answer."""
        return self.last_at - self.first_at


class Source:
    """The stand-in in a process of its own: `with Source(World(60, 365)) as it: it.url`.

    `latency` is in seconds and delays every answer. `limit` is a sliding window: a call is answered 429 with
    `Retry-After: 1` if that many were let through in the second before it; refused calls do not count.
    """

    def __init__(self, world: World, *, latency: float = 0.05, limit: int | None = None) -> None:
        self.world = world
        self.latency = latency
        self.limit = limit

    def __enter__(self) -> Self:
        told = json.dumps({"world": asdict(self.world), "latency": self.latency, "limit": self.limit})
        # The process ends when its standard input does, so that it never outlives this one.
        self._process = subprocess.Popen(
            [sys.executable, __file__, told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError("the stand-in did not start; its error is above")
        self.port = int(line)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    @property
    def url(self) -> str:
        """The address to ask."""
        return f"http://127.0.0.1:{self.port}"

    def counters(self) -> Counters:
        """What was seen so far."""
        return Counters(**self._get(COUNTERS_PATH))

    def reset(self) -> None:
        """Count from nothing again, and forget what was asked."""
        self._get(RESET_PATH)

    def wait_for_calls(self, calls: int, timeout: float) -> bool:
        """Return True at the call of this number, or False after `timeout` seconds without it."""
        try:
            self._get(f"{AFTER_PATH}?calls={calls}", timeout)
        except TimeoutError:
            return False
        return True

    def _get(self, target: str, timeout: float = 60.0) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", target)
            body: dict[str, Any] = json.loads(connection.getresponse().read())
            return body
        finally:
            connection.close()


class _Refused(Exception):
    """A request that gets an answer other than 200."""

    def __init__(self, status: str, detail: str | list[dict[str, Any]], headers: bytes = b"") -> None:
        self.answer = _answer(json.dumps({"detail": detail}).encode(), status, headers)


def _answer(body: bytes, status: str = "200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (
        status.encode(),
        headers,
        len(body),
        body,
    )


def _invalid(name: str, message: str) -> _Refused:
    return _Refused("422 Unprocessable Entity", [{"loc": ["query", name], "msg": message, "type": "value_error"}])


class _Server:
    """The world as prefix sums, and what was asked of it."""

    def __init__(self, world: World, latency: float, limit: int | None) -> None:
        self.latency = latency
        self._limit = limit
        self._first = datetime.fromisoformat(world.first_day).replace(tzinfo=UTC)
        self._days = world.days
        self._org_ids = world.org_ids
        self._number = {org_id.encode(): n for n, org_id in enumerate(world.org_ids)}
        self._sums = [[0, *accumulate(row)] for row in world.counts]
        self._total_sums = [0, *accumulate(map(sum, zip(*world.counts, strict=True)))]
        self._day_of: dict[bytes, int] = {}
        self._let_through: deque[float] = deque()
        self._waiting: list[tuple[int, Callable[[bytes], None]]] = []
        self.reset()

    def reset(self) -> None:
        self.seen = Counters()
        self._cpu_before = time.process_time()
        self._asked: Counter[tuple[int, int, tuple[int, ...]]] = Counter()

    def receive(self, head: bytes, reply: Callable[[bytes], None], late: Callable[[bytes], None]) -> None:
        """Answer a request through `late`, after the latency, or through `reply` at once if it is the benchmark's."""
        line = head.partition(b"\r\n")[0]
        target = line.split(b" ")[1]
        path, _, query = target.partition(b"?")
        if path.startswith(b"/bench/"):
            self._control(path.decode(), query, reply)
            return
        is_count = path == SESSIONS_PATH.encode()
        now = time.monotonic()
        if is_count:
            self.seen.session_calls += 1
            self.seen.first_at = self.seen.first_at or now
        else:
            self.seen.organization_calls += 1
        if self._waiting:
            self._wake()
        try:
            self._let_pass(now)
            if len(line) > LONGEST_REQUEST_LINE:
                raise _Refused("414 URI Too Long", "Request-URI Too Large")
            if b"Bearer apk_user_" not in head:
                raise _Refused("401 Unauthorized", "Missing or invalid API key")
            if is_count:
                late(_answer(b'{"sessions_count":%d}' % self._count(query)))
            elif path == ORGANIZATIONS_PATH.encode():
                late(_answer(self._page(query)))
            else:
                raise _Refused("404 Not Found", "Not Found")
        except _Refused as refusal:
            late(refusal.answer)

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
            raise _invalid("start_date" if start is None else "end_date", "a benchmark always asks for a window")
        if start >= end:
            raise _Refused("400 Bad Request", "The end must be later than the start")
        asked = (start, end, tuple(sorted(numbers)))
        self._asked[asked] += 1
        self.seen.repeated += self._asked[asked] > 1
        low, high = (min(max(day, 0), self._days) for day in (start, end))
        if not numbers:
            return self._total_sums[high] - self._total_sums[low]
        return sum(self._sums[n][high] - self._sums[n][low] for n in numbers)

    def _day(self, name: bytes, value: bytes) -> int:
        """The number of the day that begins at this moment; 0 is the world's first."""
        number = self._day_of.get(value)
        if number is None:
            text = unquote_to_bytes(value).decode()
            try:
                since = datetime.fromisoformat(text) - self._first
            except (ValueError, TypeError):
                raise _invalid(name.decode(), "not a moment with a time zone") from None
            if not text.endswith("Z") or since % timedelta(1):
                raise _invalid(name.decode(), "not midnight in UTC, written with Z")
            number = self._day_of[value] = since // timedelta(1)
        return number

    def _page(self, query: bytes) -> bytes:
        numbers = {"skip": 0, "limit": 100}
        for part in query.decode().split("&") if query else ():
            name, _, value = part.partition("=")
            if name in numbers:
                if not value.isdecimal():
                    raise _invalid(name, "not a whole number")
                numbers[name] = int(value)
        skip, limit = numbers.values()
        if not 1 <= limit <= 200:
            raise _invalid("limit", "not from 1 to 200")
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
        reply(_answer(json.dumps(asdict(self.seen)).encode()))

    def _wake(self) -> None:
        for calls, reply in [waiter for waiter in self._waiting if waiter[0] <= self.seen.calls]:
            self._waiting.remove((calls, reply))
            reply(_answer(b"{}"))


class _Connection(asyncio.Protocol):
    """One connection that is kept alive. Requests have no bodies, and are answered in order."""

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

    def _reply(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _reply_late(self, answer: bytes) -> None:
        if self._server.latency:
            self._loop.call_later(self._server.latency, self._reply_now, answer)
        else:
            self._reply_now(answer)

    def _reply_now(self, answer: bytes) -> None:
        self._server.seen.last_at = time.monotonic()
        self._reply(answer)


async def _serve(world: World, latency: float, limit: int | None) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(world, latency, limit)
    is_over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), is_over.set)
    listening = await loop.create_server(lambda: _Connection(server, loop), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await is_over.wait()
    loop.remove_reader(sys.stdin.fileno())
    listening.close()


if __name__ == "__main__":
    # The folder of a script comes first on its path, where modules of this benchmark could hide others.
    sys.path.remove(str(Path(__file__).parent))
    _told = json.loads(sys.argv[1])
    asyncio.run(_serve(World(**_told["world"]), _told["latency"], _told["limit"]))
