"""How fast to ask: a limit that the user sets, and one that is learned from the source's refusals."""

import asyncio
import collections
import contextlib
import math

from aiolimiter import AsyncLimiter

# A learned rate begins below what the source was just seen to allow, stays below for long, because each meeting with
# the limit costs a pause, and then grows ever faster, in case the limit is gone: the curve of CUBIC (RFC 9438).
CAUTION = 0.94
PLATEAU = 0.04  # so much more than at first is asked around PLATEAU_SECONDS after the pause
PLATEAU_SECONDS = 30.0
FIRST_GUESS = 10.0  # a second, where too little was answered to know; halved until it fits
DOUBLED_AFTER_SECONDS = 3.0  # a guess is too low more often than not
# A busy event loop wakes up late. Turns missed by more than this are lost: made up for, they would be a burst.
LATE_SECONDS = 0.02

REFUSED_ALONE = 3  # times in a row, while others were answered


class RefusedAlone:
    """Whose questions the source refuses with 429 whatever the rate, as it does not when it wants fewer of them."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, ...], tuple[int, float]] = {}

    def refused(self, ids: tuple[str, ...], now: float, last_answered: float) -> bool:
        """A question about `ids` was refused. Returns whether that is about them, and not about the rate."""
        if not ids:
            return False
        times, since = self._refused.get(ids, (0, -math.inf))
        if not times or last_answered > since:
            times, since = times + 1, now
            self._refused[ids] = (times, since)
        return times >= REFUSED_ALONE

    def answered(self, ids: tuple[str, ...]) -> None:
        """A question about `ids` was answered."""
        self._refused.pop(ids, None)


class Pace:
    """One for all questions over a connection pool. Unlimited until `per_minute` or the source says otherwise."""

    def __init__(self, per_minute: int | None = None) -> None:
        # A bucket of one: spread evenly, with no burst that a source's own count of the minute might take amiss.
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
        """When a question was answered last, on the event loop's clock."""

    async def turn(self) -> float:
        """Wait until the next question may be asked. Returns the time, for `refused`."""
        loop = asyncio.get_running_loop()
        async with self._queue:
            await self._may_go()
            if self._limiter:
                await self._limiter.acquire()
                await self._may_go()
            now = loop.time()
            if self._learned < math.inf:
                self._next_turn = max(self._next_turn, now - LATE_SECONDS) + 1 / self._rate(now)
            return now

    async def _may_go(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.wait()
            if (wait := max(self._paused_until, self._next_turn) - loop.time()) <= 0:
                return
            await asyncio.sleep(wait)

    def hold(self) -> None:
        """Nobody gets a turn until a question is answered, or `release`."""
        self._free.clear()

    def release(self) -> None:
        """Turns are given again."""
        self._free.set()

    async def is_answered_within(self, seconds: float) -> bool:
        """On hold: wait so long, and for the turn of the one that probes. False if nothing was answered meanwhile.

        The user's limit holds for probes too; those who wait for a turn stand behind.
        """
        seconds = max(seconds, self._paused_until - asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._free.wait(), max(seconds, 0.0))
        if self._limiter and not self._free.is_set():
            await self._limiter.acquire()
        return self._free.is_set()

    def answered(self) -> None:
        """A question was answered."""
        now = asyncio.get_running_loop().time()
        self._answered.append(now)
        self._forget(now)
        self.last_answered = now
        self._free.set()

    def refused(self, asked_at: float, seconds: float) -> None:
        """The source wants fewer questions: nobody asks for so long, and then not faster than it was seen to allow.

        `asked_at` is when the refused question had its turn: what was under way already when the pause began says
        nothing against the rate.
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
        """Questions a second: as learned, and more with the time since the pause."""
        calm = max(0.0, at - self._paused_until)
        if self._is_guess:
            return self._learned * 2 ** (min(calm, 60) / DOUBLED_AFTER_SECONDS)
        return self._learned * (1 + PLATEAU * (1 + (calm / PLATEAU_SECONDS - 1) ** 3))

    def _forget(self, now: float) -> None:
        while self._answered and self._answered[0] < now - 1:
            self._answered.popleft()
