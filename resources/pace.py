"""How fast to send requests: a limit that the user sets, and one learned from the API's refusals."""

import asyncio
import collections
import contextlib
import math
from dataclasses import dataclass

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

# Of a configured limit, so much is used: requests arrive a few milliseconds early or late, and the API may count them
# in each second. A request above the limit would cost a pause.
USED = 0.98
CONNECTING_SECONDS = 0.1  # by so much later does the first request arrive, since it has to connect

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


@dataclass(frozen=True)
class LearnedRate:
    """What refusals have taught about the API's limit. Times are in seconds, all on one clock.

    `since` is when the pause ended that followed the last refusal. `is_guess`: too few answers came to know better.
    """

    per_second: float = math.inf
    is_guess: bool = False
    since: float = -math.inf

    def at(self, now: float) -> float:
        """Requests per second: as learned, and growing with the time since the pause."""
        calm = max(0.0, now - self.since)
        if self.is_guess:
            return self.per_second * 2 ** (min(calm, 60) / DOUBLED_AFTER_SECONDS)
        return self.per_second * (1 + PLATEAU * (1 + (calm / PLATEAU_SECONDS - 1) ** 3))

    def is_news(self, asked_at: float) -> bool:
        """Whether a refused request had its turn after the pause, rather than being in flight when that began."""
        return asked_at >= self.since

    def refused(self, now: float, asked_at: float, until: float, answered: float) -> "LearnedRate":
        """The rate after a refusal that pauses all requests `until` then.

        `asked_at` is when the refused request had its turn: unless that `is_news`, it does not lower the rate.
        `answered` is how many requests were answered within the second before the refusal.
        """
        at_least, is_guess = self.per_second, self.is_guess
        if self.is_news(asked_at):
            at_least, is_guess = FIRST_GUESS if self.per_second == math.inf else self.at(now) / 2, True
        seen = CAUTION * answered
        return LearnedRate(max(seen, at_least), is_guess and seen < at_least, max(self.since, until))


class Pace:
    """One instance for all requests over a connection pool. Unlimited unless `per_minute` or the API sets a limit."""

    def __init__(self, per_minute: int | None = None) -> None:
        # A bucket of one: evenly spread, with no burst that could exceed the API's own limit per minute.
        self._limiter = AsyncLimiter(1, 60 / USED / per_minute) if per_minute else None
        self._answered: collections.deque[float] = collections.deque()
        self._rate = LearnedRate()
        self._paused_until = -math.inf
        self._next_turn = -math.inf
        self._is_first = True
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
            if self._limiter and self._is_first:
                self._is_first = False
                self._next_turn = now + self._limiter.time_period + CONNECTING_SECONDS
            if self._rate.per_second < math.inf:
                self._next_turn = max(self._next_turn, now - LATE_SECONDS) + 1 / self._rate.at(now)
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
        await self._wait_for_release(max(seconds, self._paused_until - asyncio.get_running_loop().time()))
        if self._limiter and not self._free.is_set():
            await self._limiter.acquire()
        return self._free.is_set()

    async def _wait_for_release(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._free.wait(), max(seconds, 0.0))

    def record_answer(self, asked_at: float) -> None:
        """Record that a request was answered; `asked_at` is when it had its turn."""
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
        self._rate = self._rate.refused(now, asked_at, now + seconds, len(self._answered))
        self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Pause all requests for `seconds`, because the API said that it allows no more until then."""
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = self._next_turn = max(self._paused_until, until)

    def _forget(self, now: float) -> None:
        while self._answered and self._answered[0] < now - 1:
            self._answered.popleft()
