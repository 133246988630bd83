"""The pace where several processes ask with one key: turns are leased from the row that they share.

A lease is at most `LEASE_SECONDS` long, so that a process learns of a refusal anywhere that soon, and one that dies
takes no more than that with it.
"""

import asyncio
import collections
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from resources.database_errors import WarehouseError
from resources.outage import Waiting, make_waiting
from resources.pace import LATE_SECONDS, USED, LearnedRate, Pace
from resources.pace_row import LEASE_SECONDS, REMEMBERED_SECONDS, Row, Shared, slot

NO_LIMIT_PER_SECOND = 10_000.0  # a learned rate that has grown to this limits nobody any more

# Before any refusal, all processes together begin slowly, and send at most twice what was answered in the last second:
# with all their connections at once, they would meet a low limit with as many refusals.
AT_FIRST_PER_SECOND = 250.0
UNCHECKED_PER_SECOND = 500.0  # from here on the connections limit them enough


@dataclass(frozen=True)
class _Pause:
    """A pause that the API wants, on the event loop's clock; `asked_at` is None unless it refused a request."""

    until: float
    asked_at: float | None = None


class SharedPace(Pace):
    """One instance for all requests over a connection pool; `per_minute` is the limit of all processes together.

    `on_wait` is called with each pause that the API asked another process for. One that ends later than
    `patience_seconds` from now is cut to that: its process is more patient, or the server's clock has been set back.
    An async context manager. `turn` and `is_answered_within` raise WarehouseError once the row can't be reached.
    """

    def __init__(
        self,
        row: Row,
        per_minute: int | None = None,
        patience_seconds: float = math.inf,
        on_wait: Callable[[Waiting], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._row = row
        self._patience = patience_seconds
        self._on_wait = on_wait
        self._own_interval = 60 / USED / per_minute if per_minute else 0.0
        self._shared: Shared | None = None
        self._ahead = 0.0  # of the server's clock: this loop's, when an answer came in, so that no turn is early
        self._turns: collections.deque[float] = collections.deque()  # leased, on the loop's clock
        self._free_until = -math.inf
        self._not_before = -math.inf  # the end of a pause, or when there may be turns to lease again
        self._waiting = 0
        self._unreported: collections.Counter[int] = collections.Counter()
        self._pauses: list[_Pause] = []
        self._exchanging: asyncio.Task[None] | None = None
        self._failed: WarehouseError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._exchanging is not None:
            self._exchanging.cancel()
            await asyncio.gather(self._exchanging, return_exceptions=True)
        if self._unreported and self._failed is None and not any(error):
            await self._lease(0)  # others would learn a limit without these requests in it

    async def turn(self) -> float:
        """Wait until the next request may be sent. Returns the time, for `record_refusal`."""
        self._waiting += 1
        try:
            async with self._queue:
                await self._free.wait()
                while not await self._take():
                    await self._free.wait()
                return asyncio.get_running_loop().time()
        finally:
            self._waiting -= 1

    async def is_answered_within(self, seconds: float) -> bool:
        """While on hold: wait `seconds`, and for the probe's turn. Returns whether a request was answered meanwhile."""
        await self._wait_for_release(max(seconds, self._not_before - asyncio.get_running_loop().time()))
        while not self._free.is_set() and not await self._take():
            pass
        return self._free.is_set()

    def record_answer(self, asked_at: float) -> None:
        """Record that a request was answered; it counts when it had its turn, at `asked_at`.

        So do requests that were in flight when another was refused: the API had let them through.
        """
        self.last_answered = asyncio.get_running_loop().time()
        self._unreported[slot(asked_at - self._ahead)] += 1
        self._free.set()

    def record_refusal(self, asked_at: float, seconds: float) -> None:
        """Pause the requests of all processes for `seconds`, and then send them no faster than the API allowed."""
        self._stop(_Pause(asyncio.get_running_loop().time() + seconds, asked_at))

    def pause(self, seconds: float) -> None:
        """Pause the requests of all processes for `seconds`, because the API said that it allows no more until then."""
        self._stop(_Pause(asyncio.get_running_loop().time() + seconds))

    def _stop(self, pause: _Pause) -> None:
        self._end_lease(pause.until)
        self._pauses.append(pause)
        self._exchange()

    def _end_lease(self, until: float) -> None:
        self._turns.clear()
        self._free_until = -math.inf
        self._not_before = max(self._not_before, until)

    async def _take(self) -> bool:
        """Take a turn if one is due; otherwise wait for what brings one nearer. Returns whether a turn was taken."""
        now = asyncio.get_running_loop().time()
        while self._turns and self._turns[0] < now - LATE_SECONDS:  # catching up would cause a burst
            self._turns.popleft()
        if now < self._free_until or (self._turns and self._turns[0] <= now):
            if self._turns:
                self._turns.popleft()
            if self._wants_more(now):
                self._exchange()
            return True
        if self._turns:
            await asyncio.sleep(self._turns[0] - now)
        elif now < self._not_before:
            await asyncio.sleep(self._not_before - now)
        elif self._failed is not None:
            raise self._failed
        else:
            await asyncio.shield(self._exchange())
        return False

    def _wants_more(self, now: float) -> bool:
        """Whether the next lease is needed soon, so that no request should have to wait for the server's answer."""
        if now < self._free_until:
            return now > self._free_until - LEASE_SECONDS / 2
        return self._waiting > len(self._turns) + 1 and now >= self._not_before

    def _exchange(self) -> "asyncio.Task[None]":
        """The task that tells the row what is new here and leases turns."""
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.create_task(self._tell_and_lease())
        return self._exchanging

    async def _tell_and_lease(self) -> None:
        try:
            wanted = self._waiting if self._free.is_set() else 1  # on hold, the probe alone
            shared = await self._lease(max(0, wanted - len(self._turns)))
            while True:
                pauses = len(self._pauses)
                revised = self._revised(shared)
                if revised == (shared.rate, shared.paused_until, shared.refused_at):
                    del self._pauses[:pauses]
                    return
                if await self._row.relearn(*revised, shared.revision):
                    del self._pauses[:pauses]
                shared = await self._lease(0)
        except WarehouseError as error:  # each request that waits for a turn raises it, and each later one
            self._failed = error

    def _revised(self, shared: Shared) -> tuple[LearnedRate, float, float]:
        """The rate, the end of the pause and the time of the refusal, as this process's pauses and answers change them.

        Answers count even after the refusal: other processes may have reported theirs only now.
        """
        rate, paused_until, refused_at = shared.rate, shared.paused_until, shared.refused_at
        for pause in self._pauses:
            until = pause.until - self._ahead
            paused_until = max(paused_until, until)
            if pause.asked_at is not None:
                asked_at = pause.asked_at - self._ahead
                refused_at = asked_at if rate.is_news(asked_at) else refused_at
                rate = rate.refused(shared.now, asked_at, until, shared.answered_before(refused_at))
        if refused_at > shared.now - REMEMBERED_SECONDS + 1:
            rate = rate.refused(shared.now, -math.inf, -math.inf, shared.answered_before(refused_at))
        latest = shared.now + self._patience
        return replace(rate, since=min(rate.since, latest)), min(paused_until, latest), refused_at

    async def _lease(self, turns: int) -> Shared:
        """Report the answers since the last time and lease up to this number of turns, or the time without a limit."""
        loop = asyncio.get_running_loop()
        sent_at, interval = loop.time(), self._interval()
        revision = self._shared.revision if self._shared else 0
        answers, self._unreported = self._unreported, collections.Counter()
        found = self._shared = await self._row.lease(answers, turns, interval, revision)
        now = loop.time()
        self._ahead = now - found.now
        if found.paused_until > found.now:
            self._hear_of(min(found.paused_until - found.now, self._patience))
        elif found.revision == revision and not self._pauses:
            if not interval:
                self._free_until = sent_at + LEASE_SECONDS
            self._turns.extend(found.first_turn + n * interval + self._ahead for n in range(found.turns))
            if interval and turns and not found.turns:  # others have leased what comes next
                self._not_before = max(self._not_before, found.first_turn + self._ahead - LEASE_SECONDS / 2)
        return found

    def _hear_of(self, seconds: float) -> None:
        """Pause for so long, as the row says; tell of it unless this process knew."""
        now = asyncio.get_running_loop().time()
        if now + seconds > self._not_before + LEASE_SECONDS:
            reason = "the API has asked another process with the same key to pause"
            self._on_wait(make_waiting(reason, now, now + seconds, now))
        self._end_lease(now + seconds)

    def _interval(self) -> float:
        """The seconds between two turns; 0 if there is no limit."""
        at, most = asyncio.get_running_loop().time() - self._ahead, NO_LIMIT_PER_SECOND
        per_second = self._shared.rate.at(at) if self._shared else math.inf
        if per_second == math.inf:
            answered = self._shared.answered_before(at) if self._shared else 0
            per_second, most = max(AT_FIRST_PER_SECOND, 2 * answered), UNCHECKED_PER_SECOND
        return self._own_interval if per_second >= most else max(self._own_interval, 1 / per_second)
