"""How fast to ask: a limit that the user sets, and one that is learned from the source's refusals."""

import asyncio
import collections
import math

from aiolimiter import AsyncLimiter

# A learned rate begins a little below what the source was just seen to allow, so that its limit is met seldom: each
# meeting costs a pause. It then grows, slowly at first, and faster the longer the source puts up with it.
CAUTION = 0.95
FIRST_GUESS = 10.0  # a second, where too little was answered to know; halved until it fits


class Pace:
    """One for all questions over a connection pool. Unlimited until `per_minute` or the source says otherwise."""

    def __init__(self, per_minute: int | None = None) -> None:
        # A bucket of one: spread evenly, with no burst that a source's own count of the minute might take amiss.
        self._limiter = AsyncLimiter(1, 60 / per_minute) if per_minute else None
        self._answered: collections.deque[float] = collections.deque()
        self._paused_until = -math.inf
        self._learned = math.inf
        self._next_turn = -math.inf

    async def turn(self) -> float:
        """Wait until the next question may be asked. Returns the time, for `refused`."""
        if self._limiter:
            await self._limiter.acquire()
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            if now < self._paused_until:
                await asyncio.sleep(self._paused_until - now)
                continue
            if self._learned == math.inf:
                return now
            start = max(now, self._next_turn)
            self._next_turn = start + 1 / self._rate(start)
            pause = self._paused_until
            if start > now:
                await asyncio.sleep(start - now)
            if self._paused_until == pause:  # else turns were given anew
                return start

    def answered(self) -> None:
        """A question was answered."""
        now = asyncio.get_running_loop().time()
        self._answered.append(now)
        self._forget(now)

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
        self._learned = max(CAUTION * len(self._answered), at_least)
        self._paused_until = self._next_turn = max(self._paused_until, now + seconds)

    def _rate(self, at: float) -> float:
        """Questions a second: as learned, and more with the time since the pause."""
        calm = max(0.0, at - self._paused_until)
        return self._learned * (1 + 0.003 * calm + 0.0002 * calm**2) + 0.002 * calm**2

    def _forget(self, now: float) -> None:
        while self._answered and self._answered[0] < now - 1:
            self._answered.popleft()
