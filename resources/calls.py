"""Counts and timings of the HTTP requests that a process sent."""

import math
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from resources.outage import Waiting
from resources.source_clock import SourceClock

MOST_LATENCIES = 1_000_000  # 8 MB


@dataclass
class Calls:
    """The HTTP requests that were sent: how many, how many of them were retries, and how they went.

    `outcomes` counts them by status, or by why there was no response. `latencies` are seconds until the whole response
    was read; the first MOST_LATENCIES are kept.
    `waited` is the number of seconds for which a rate limit held at least one request back, up to `waited_until` on
    the event loop's clock.
    `limit_headers` are the rate-limit headers of the last response that had any.
    `expected` is how many responses are wanted in all, as far as that is known: retries are allowed in proportion.
    `waiting` is why requests wait at the moment. `watchers` are called with each wait, from the event loop's thread.
    `clock` compares this machine's clock with the API's.
    `gave_up` is whether the API was down for longer than `patience_seconds`: no further request is worth sending.
    """

    sent: int = 0
    retried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter, compare=False)
    latencies: "array[float]" = field(default_factory=lambda: array("d"), compare=False)
    waited: float = field(default=0.0, compare=False)
    waited_until: float = field(default=-math.inf, compare=False)
    limit_headers: dict[str, str] = field(default_factory=dict, compare=False)
    expected: int = field(default=0, compare=False)
    waiting: Waiting | None = field(default=None, compare=False)
    clock: SourceClock = field(default_factory=SourceClock, compare=False)
    gave_up: bool = field(default=False, compare=False)
    watchers: list[Callable[[Waiting], None]] = field(default_factory=list, compare=False, repr=False)

    def record_wait(self, waiting: Waiting) -> None:
        """Record that requests wait from now on, and call the watchers."""
        self.waiting = waiting
        for watcher in list(self.watchers):
            watcher(waiting)

    def record_hold(self, since: float, until: float) -> None:
        """Record that a request was held back, on the event loop's clock. Overlapping waits count once."""
        self.waited += max(0.0, until - max(since, self.waited_until))
        self.waited_until = until

    def latency(self, share: float) -> float | None:
        """The latency that this share of responses did not exceed, 0.5 for the median; None without a response."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else None
