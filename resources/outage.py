"""While the source answers nobody: everybody pauses, one question probes, and patience comes to an end.

Which answers mean that, and how a question travels, is in `devin_api`; how fast questions go otherwise, in `pace`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from resources.pace import Pace


class Passing(Exception):
    """A try that may go better next time.

    `retry_after` is the pause that the source asked for, in seconds. `pauses_all`: it wants fewer questions altogether.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, pauses_all: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.pauses_all = pauses_all


class GivenUp(Exception):
    """Patience is at its end. The message is a part of a sentence: what came back last, and for how long.

    `when` says when to come back.
    """

    def __init__(self, message: str, when: str) -> None:
        super().__init__(message)
        self.when = when


@dataclass(frozen=True)
class Waiting:
    """Why questions wait, and until when.

    `since` and `until` are seconds on the event loop's clock. `until_at` is the same instant in UTC, and at
    `gives_up_at` the load ends if nothing is answered by then; None where others are answered.
    """

    reason: str
    since: float
    until: float
    until_at: datetime
    gives_up_at: datetime | None = None

    def __str__(self) -> str:
        """The sentence for the one who watches."""
        patience = f"; without an answer, the load ends at {self.gives_up_at:%H:%M:%S} UTC" if self.gives_up_at else ""
        return f"Waiting: {self.reason}. The next try is at {self.until_at:%H:%M:%S} UTC{patience}."


class Outage:
    """One for all questions over a connection pool. `tell` hears of each pause.

    Pauses between probes are random, up to `backoff_seconds` doubled with each probe, but never beyond
    `max_backoff_seconds`: many machines that lost the same source do not come back at the same instant.
    """

    def __init__(
        self,
        pace: Pace,
        patience_seconds: float,
        backoff_seconds: float,
        max_backoff_seconds: float,
        tell: Callable[[Waiting], None],
    ) -> None:
        self.known_good: Any = None
        """A question that was answered: if it is not any more, that is not the question's fault."""
        self.excused = 0
        """Failed tries that an outage explains."""
        self._pace = pace
        self._patience = patience_seconds
        self._backoff = backoff_seconds
        self._max_backoff = max_backoff_seconds
        self._tell = tell
        self._over: asyncio.Future[bool] | None = None
        self._ended: Exception | None = None

    def check(self) -> None:
        """Raise what ended the load, if anything did: nothing more is to be asked."""
        if self._ended is not None:
            raise self._ended

    def pause(self, tries: int) -> float:
        """Seconds before the try that follows so many."""
        return random.uniform(0, min(self._max_backoff, self._backoff * 2 ** min(tries - 1, 60)))

    def is_beyond(self, failure: Passing) -> bool:
        """Whether the source asks for a longer pause than patience has."""
        return failure.retry_after is not None and failure.retry_after > self._patience

    async def sit_out(
        self, failure: Passing, since: float, probe: Callable[[], Awaitable[None]], *, is_known_good: bool
    ) -> bool:
        """Wait until the source answers somebody. Returns whether it had answered nobody, so that `failure` is excused.

        Nothing was answered `since`. `probe` asks, and raises Passing while it gets no answer; `is_known_good`: it asks
        what was answered before, so that its failure proves the outage. Where somebody probes already, that is waited
        for instead. Raises GivenUp, and whatever else `probe` raises; then nobody may ask any more.
        """
        if self._over is not None:
            was_out = await asyncio.shield(self._over)
            self.check()
        else:
            over = self._over = asyncio.get_running_loop().create_future()
            was_out = False
            self._pace.hold()
            try:
                was_out = await self._probe(failure, since, probe, is_known_good=is_known_good)
            except Exception as error:
                self._ended = error
                raise
            finally:
                self._over = None
                over.set_result(was_out)
                self._pace.release()
        self.excused += was_out
        return was_out

    async def _probe(
        self, failure: Passing, since: float, probe: Callable[[], Awaitable[None]], *, is_known_good: bool
    ) -> bool:
        now = asyncio.get_running_loop().time
        deadline = since + self._patience
        if failure.retry_after is not None and not self.is_beyond(failure):
            deadline = max(deadline, now() + failure.retry_after)
        probes = 0
        while True:
            left = max(0.0, deadline - now())
            is_proven = probes > 0 or not is_known_good
            asked_for = failure.retry_after
            if is_proven and (left == 0 or (asked_for is not None and asked_for > left)):
                raise _given_up(failure, now() - since)
            if asked_for is not None and asked_for <= left:
                pause = asked_for
            else:
                pause = min(left, self.pause(probes + 1)) if is_proven else 0.0
            if pause:
                self._tell(waiting(str(failure), since, now() + pause, now(), deadline))
            if await self._pace.is_answered_within(pause):
                return is_known_good and probes > 0
            try:
                await probe()
            except Passing as error:
                failure = error
                probes += 1
            else:
                return probes > 0 or not is_known_good


def _given_up(failure: Passing, silent: float) -> GivenUp:
    if not failure.retry_after:
        return GivenUp(f"{failure}, and nothing was answered for {spelled(silent)}", "later")
    wanted = f"{failure}, with Retry-After: {failure.retry_after:.0f}"
    try:
        at = datetime.now(UTC) + timedelta(seconds=failure.retry_after)
    except OverflowError:
        return GivenUp(wanted, f"in {spelled(failure.retry_after)}")
    return GivenUp(wanted, f"at {at:%Y-%m-%d %H:%M:%S} UTC, in {spelled(failure.retry_after)}")


def waiting(reason: str, since: float, until: float, now: float, gives_up: float | None = None) -> Waiting:
    """A Waiting from times on the event loop's clock."""
    clock = datetime.now(UTC)
    return Waiting(
        reason,
        since,
        until,
        clock + timedelta(seconds=until - now),
        None if gives_up is None else clock + timedelta(seconds=gives_up - now),
    )


def spelled(seconds: float) -> str:
    """A duration in the two largest units that it fills."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
