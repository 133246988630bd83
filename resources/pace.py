"""How fast to send requests: a limit that the user sets, and one learned from the API's refusals."""

import asyncio
import collections
import contextlib
import math

from aiolimiter import AsyncLimiter

# A learned rate starts below what the API was just seen to allow and stays near it for a while, because hitting the
# limit costs a pause. Then it grows ever faster, in case the limit is gone: the curve of CUBIC (RFC 9438).
CAUTION = 0.94
PLATEAU = 0.04  # by this much the rate has grown around PLATEAU_SECONDS after the pause
PLATEAU_SECONDS = 30.0
FIRST_GUESS = 10.0  # per second, used when too few answers came to know better; halved until it fits
DOUBLED_AFTER_SECONDS = 3.0  # a guess is too low more often than not
# A busy event loop wakes up late. Turns missed by more than this are lost: catching up would cause a burst.
LATE_SECONDS = 0.02

MAX_REFUSALS = 3  # in a row, while other requests were answered


class RefusalTracker:
    """Finds the ids whose requests the API refuses with 429 at any rate, while it answers others."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, ...], tuple[int, float]] = {}

    def record_refusal(self, ids: tuple[str, ...], now: float, last_answered: float) -> bool:
        """Record that a request about `ids` was refused. Returns whether that is because of them, not of the rate."""
        if not ids:
            return False
        times, since = self._refused.get(ids, (0, -math.inf))
        if not times or last_answered > since:
            times, since = times + 1, now
            self._refused[ids] = (times, since)
        return times >= MAX_REFUSALS

    def record_answer(self, ids: tuple[str, ...]) -> None:
        """Record that a request about `ids` was answered."""
        self._refused.pop(ids, None)


class Pace:
    """One instance for all requests over a connection pool. Unlimited unless `per_minute` or the API sets a limit."""

    def __init__(self, per_minute: int | None = None) -> None:
        # A bucket of one: evenly spread, with no burst that could exceed the API's own limit per minute.
        self._limiter = AsyncLimiter(1, 60 / per_minute) if per_minute else None
        self._answered: collections.deque[float] = collections.deque()
        self._paused_until = -math.inf
        self._learned = math.inf
        self._is_guess = False
        self._next_turn = -math.inf
        self._queue = asyncio.Lock()  # first come, first served
        self._free = asyncio.Event()
        self._free.set()
        self.last_answered = -math.inf
        """When a request was last answered, on the event loop's clock."""

    async def turn(self) -> float:
        """Wait until the next request may be sent. Returns the time, for `record_refusal`."""
        loop = asyncio.get_running_loop()
        async with self._queue:
            await self._wait_until_free()
            if self._limiter:
                await self._limiter.acquire()
                await self._wait_until_free()
            now = loop.time()
            if self._learned < math.inf:
                self._next_turn = max(self._next_turn, now - LATE_SECONDS) + 1 / self._rate(now)
            return now

    async def _wait_until_free(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.wait()
            if (wait := max(self._paused_until, self._next_turn) - loop.time()) <= 0:
                return
            await asyncio.sleep(wait)

    def hold(self) -> None:
        """Give no more turns until a request is answered, or until `release`."""
        self._free.clear()

    def release(self) -> None:
        """Give turns again."""
        self._free.set()

    async def is_answered_within(self, seconds: float) -> bool:
        """While on hold: wait `seconds`, and for the probe's turn. Returns whether a request was answered meanwhile.

        The user's limit also holds for probes; requests that wait for a turn come after them.
        """
        seconds = max(seconds, self._paused_until - asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._free.wait(), max(seconds, 0.0))
        if self._limiter and not self._free.is_set():
            await self._limiter.acquire()
        return self._free.is_set()

    def record_answer(self) -> None:
        """Record that a request was answered."""
        now = asyncio.get_running_loop().time()
        self._answered.append(now)
        self._forget(now)
        self.last_answered = now
        self._free.set()

    def record_refusal(self, asked_at: float, seconds: float) -> None:
        """Pause all requests for `seconds`, and then send them no faster than the API was seen to allow.

        `asked_at` is when the refused request had its turn: a refusal of a request that was already in flight when the
        pause began does not lower the rate.
        """
        now = asyncio.get_running_loop().time()
        self._forget(now)
        at_least = self._learned
        if asked_at >= self._paused_until:
            at_least = FIRST_GUESS if self._learned == math.inf else self._rate(now) / 2
        seen = CAUTION * len(self._answered)
        self._is_guess = seen < at_least
        self._learned = max(seen, at_least)
        self._paused_until = self._next_turn = max(self._paused_until, now + seconds)

    def _rate(self, at: float) -> float:
        """Requests per second: as learned, and growing with the time since the pause."""
        calm = max(0.0, at - self._paused_until)
        if self._is_guess:
            return self._learned * 2 ** (min(calm, 60) / DOUBLED_AFTER_SECONDS)
        return self._learned * (1 + PLATEAU * (1 + (calm / PLATEAU_SECONDS - 1) ** 3))

    def _forget(self, now: float) -> None:
        while self._answered and self._answered[0] < now - 1:
            self._answered.popleft()
