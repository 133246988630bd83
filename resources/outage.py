"""What happens while the API is down: all requests pause, one of them probes, and in the end patience runs out.

`retries` decides which responses mean that; `pace` decides how fast requests go otherwise.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from resources.pace import Pace


class TransientFailure(Exception):
    """A failed try; another one may succeed.

    `retry_after` is the pause that the API asked for, in seconds. `pauses_all`: the API wants fewer requests overall.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, pauses_all: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.pauses_all = pauses_all


class GaveUp(Exception):
    """Patience has run out. The message is part of a sentence: the last response, and for how long there was none.

    `when` says when to try again, as part of a sentence.
    """

    def __init__(self, message: str, when: str) -> None:
        super().__init__(message)
        self.when = when


@dataclass(frozen=True)
class Waiting:
    """Why requests wait, and until when.

    `since` and `until` are seconds on the event loop's clock. `until_at` is the latter in UTC. At `gives_up_at` the
    load stops if no request has been answered by then; it is None while other requests are answered.
    """

    reason: str
    since: float
    until: float
    until_at: datetime
    gives_up_at: datetime | None = None

    @property
    def since_at(self) -> datetime:
        """`since` in UTC."""
        return self.until_at - timedelta(seconds=self.until - self.since)

    def __str__(self) -> str:
        """The message for whoever watches the load."""
        patience = f" Without an answer, the load stops at {self.gives_up_at:%H:%M:%S} UTC." if self.gives_up_at else ""
        since, until = f"{self.since_at:%H:%M:%S}", f"{self.until_at:%H:%M:%S}"
        return f"Waiting since {since}, next try at {until} UTC: {self.reason}.{patience}"


class Outage:
    """One instance for all requests over a connection pool. `on_wait` is called with each pause.

    Pauses between probes are random, up to `backoff_seconds` doubled with each probe, but never beyond
    `max_backoff_seconds`, so that many machines that lost the API don't all return at the same instant.
    """

    def __init__(
        self,
        pace: Pace,
        patience_seconds: float,
        backoff_seconds: float,
        max_backoff_seconds: float,
        on_wait: Callable[[Waiting], None],
    ) -> None:
        self.known_good: Any = None
        """A request that was answered before: if it fails now, the request is not to blame."""
        self.excused = 0
        """The number of failed tries that an outage explains."""
        self._pace = pace
        self._patience = patience_seconds
        self._backoff = backoff_seconds
        self._max_backoff = max_backoff_seconds
        self._on_wait = on_wait
        self._probing: asyncio.Future[bool] | None = None
        self._fatal: Exception | None = None

    def check(self) -> None:
        """Raise the error that ended the load, if any: no more requests may be sent."""
        if self._fatal is not None:
            raise self._fatal

    def pause(self, tries: int) -> float:
        """Seconds to wait after this number of tries."""
        return random.uniform(0, min(self._max_backoff, self._backoff * 2 ** min(tries - 1, 60)))

    def exceeds_patience(self, failure: TransientFailure) -> bool:
        """Whether the API asks for a longer pause than patience allows."""
        return failure.retry_after is not None and failure.retry_after > self._patience

    async def sit_out(
        self, failure: TransientFailure, since: float, probe: Callable[[], Awaitable[None]], *, is_known_good: bool
    ) -> bool:
        """Wait until the API answers again. Returns whether there was an outage, so that `failure` is excused.

        No request has been answered since `since`. `probe` sends one and raises TransientFailure while it gets no
        answer. `is_known_good`: that request was answered before, so its failure proves the outage. If another task is
        probing already, this one waits for it. Raises GaveUp, and whatever else `probe` raises; after that, no request
        may be sent any more.
        """
        if self._probing is not None:
            was_out = await asyncio.shield(self._probing)
            self.check()
        else:
            probing = self._probing = asyncio.get_running_loop().create_future()
            was_out = False
            self._pace.hold()
            try:
                was_out = await self._probe(failure, since, probe, is_known_good=is_known_good)
            except Exception as error:
                self._fatal = error
                raise
            finally:
                self._probing = None
                probing.set_result(was_out)
                self._pace.release()
        self.excused += was_out
        return was_out

    async def _probe(
        self, failure: TransientFailure, since: float, probe: Callable[[], Awaitable[None]], *, is_known_good: bool
    ) -> bool:
        now = asyncio.get_running_loop().time
        deadline = since + self._patience
        if failure.retry_after is not None and not self.exceeds_patience(failure):
            deadline = max(deadline, now() + failure.retry_after)
        probes = 0
        while True:
            left = max(0.0, deadline - now())
            is_proven = probes > 0 or not is_known_good
            asked_for = failure.retry_after
            if is_proven and (left == 0 or (asked_for is not None and asked_for > left)):
                raise _gave_up(failure, now() - since)
            if asked_for is not None and asked_for <= left:
                pause = asked_for
            else:
                pause = min(left, self.pause(probes + 1)) if is_proven else 0.0
            if pause:
                self._on_wait(make_waiting(str(failure), since, now() + pause, now(), deadline))
            if await self._pace.is_answered_within(pause):
                return is_known_good and probes > 0
            try:
                await probe()
            except TransientFailure as error:
                failure = error
                probes += 1
            else:
                return probes > 0 or not is_known_good


def _gave_up(failure: TransientFailure, silent: float) -> GaveUp:
    if not failure.retry_after:
        return GaveUp(f"{failure}, and no request succeeded for {format_duration(silent)}", "later")
    wanted = f"{failure}, with Retry-After: {failure.retry_after:.0f}"
    try:
        at = datetime.now(UTC) + timedelta(seconds=failure.retry_after)
    except OverflowError:
        return GaveUp(wanted, f"in {format_duration(failure.retry_after)}")
    return GaveUp(wanted, f"at {at:%Y-%m-%d %H:%M:%S} UTC, in {format_duration(failure.retry_after)}")


def make_waiting(reason: str, since: float, until: float, now: float, gives_up: float | None = None) -> Waiting:
    """A Waiting from times on the event loop's clock."""
    clock = datetime.now(UTC)
    return Waiting(
        reason,
        since,
        until,
        clock + timedelta(seconds=until - now),
        None if gives_up is None else clock + timedelta(seconds=gives_up - now),
    )


def format_duration(seconds: float) -> str:
    """A duration in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
