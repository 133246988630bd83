"""The invented sessions that the benchmark's stand-in for the API counts."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import accumulate

WEEKEND_FACTOR = 0.3
STARTS_LATE, STOPS_EARLY = 0.15, 0.10


@dataclass(frozen=True)
class World:
    """Invented sessions by organization and day, determined by these fields.

    The sizes of organizations are lognormal (`spread` is sigma), some start late or stop early, weekends are quiet, and
    everything is scaled so that about `nonzero` of all cells have sessions. Every organization is listed as created
    before the first day, so that its creation date says nothing about which cells are zero.
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
        """Every organization, in list order."""
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
        """The factor on all sizes for which the expected share of cells with sessions is `nonzero`."""
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
