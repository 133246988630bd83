"""How much the benchmark measures."""

from dataclasses import dataclass

from tests.bench.world import World


@dataclass(frozen=True)
class Sizes:
    """How much each row measures. The targets are for the full sizes."""

    seed: int
    ratio: tuple[int, int] = (60, 365)
    whole: tuple[int, int] = (20, 365)
    memory: tuple[int, int] = (1000, 365)
    killed: tuple[int, int] = (20, 365)
    requests: int = 4000
    upserted: tuple[int, int] = (1000, 100)
    by_row: int = 1000
    writers: int = 8
    by_writer: tuple[int, int] = (10_000, 31)
    failing: int = 365
    history: int = 10_000_000
    nightly: int = 500
    shown: tuple[int, int] = (200, 16)
    several: tuple[int, int] = (20, 124)
    runs_killed: tuple[int, int] = (8, 248)
    kills: int = 20
    clustered: tuple[int, int] = (200, 365)
    queued: int = 50
    times: int = 3

    def world(self, orgs_and_days: tuple[int, int], nonzero: float = 1 / 3) -> World:
        """A world of this many organizations and days."""
        orgs, days = orgs_and_days
        return World(orgs, days, nonzero, self.seed)

    @classmethod
    def quick(cls, seed: int) -> "Sizes":
        """Small sizes, each measured once, to see that everything works."""
        small = (10, 93)
        return cls(
            seed,
            ratio=(20, 93),
            whole=small,
            memory=(100, 93),
            killed=small,
            requests=1000,
            upserted=(100, 31),
            by_row=100,
            writers=3,
            by_writer=(100, 31),
            failing=31,
            history=100_000,
            nightly=20,
            shown=(30, 5),
            several=(6, 40),
            runs_killed=(6, 248),
            kills=1,
            clustered=(20, 93),
            queued=5,
            times=1,
        )
