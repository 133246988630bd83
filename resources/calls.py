"""What the HTTP requests of a process were, in numbers."""

import math
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from resources.outage import Waiting

MOST_LATENCIES = 1_000_000  # 8 MB


@dataclass
class Calls:
    """The HTTP requests that were sent: how many, how many of them were a second or later try, and how they went.

    `outcomes` counts them by status, or by why there was none. `latencies` are seconds, of those that were answered.
    The first MOST_LATENCIES are kept.
    `waited` is for how many seconds one or more questions were held back, to keep to a rate limit; until `waited_until`
    on the event loop's clock.
    `limit_headers` are what the last answer that had any told of a rate limit.
    `expected` is how many answers are wanted in all, as far as that is known: retries are allowed in proportion.
    `waiting` is why questions wait at the moment. `watchers` are called, from the thread that asks, with each wait.
    `gave_up` is whether the source was down for longer than patience: nothing else needs to be asked now.
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
    gave_up: bool = field(default=False, compare=False)
    watchers: list[Callable[[Waiting], None]] = field(default_factory=list, compare=False, repr=False)

    def wait(self, waiting: Waiting) -> None:
        """Questions wait from now on."""
        self.waiting = waiting
        for watcher in list(self.watchers):
            watcher(waiting)

    def held_back(self, since: float, until: float) -> None:
        """A question had to wait, on the event loop's clock. Those that waited at the same time count once."""
        self.waited += max(0.0, until - max(since, self.waited_until))
        self.waited_until = until

    def latency(self, share: float) -> float | None:
        """The latency that this share of the answers did not exceed, 0.5 for the median; None without an answer."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else None
