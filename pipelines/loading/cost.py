"""How many requests a load takes, before the first is sent. Pure: it knows nothing of HTTP, Dagster or SQL."""

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pipelines.loading.answers import Errors
from pipelines.loading.block_size import ORGS_PER_QUESTION, PlannedBlock
from pipelines.loading.collect import collect_differenced
from pipelines.loading.workers import Workers
from pipelines.partitions import Day

Counts = Mapping[date, Mapping[str, int]]
"""The sessions of each id on each day."""


@dataclass(frozen=True)
class Cost:
    """At least and at most how many requests, while the API is consistent and none has to be retried."""

    least: int = 0
    most: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.least + other.least, self.most + other.most)


def cost_of(block: PlannedBlock, *, is_differenced: bool, refused: Collection[str] = ()) -> Cost:
    """What `collect_direct` or `collect_differenced` asks about a block, depending on the sessions that it finds.

    The API refuses to count the `refused` ids: a total over several with one of them is narrowed down to each, and who
    is refused then is asked about on one day.
    """
    days, ids, lost = len(block.days), len(block.ids), len({*block.ids} & {*refused})
    totals = days + (2 if days == 1 else 1)
    if is_differenced:
        others = ids - lost
        least = totals + math.ceil(others / ORGS_PER_QUESTION) + 2 * lost
        return Cost(least, days * others + days + others + 2 + 3 * lost)
    return Cost(totals + days * ids, totals + days * ids)


def differenced_requests(counts: Counts) -> int:
    """How many requests `collect_differenced` takes for consecutive days and ids with these counts."""
    days = [_utc_day(day) for day in sorted(counts)]
    ids = sorted({id_ for of_day in counts.values() for id_ in of_day})
    expected = {id_: (sum(of_day.get(id_, 0) for of_day in counts.values()) + 0.5) / (len(counts) + 1) for id_ in ids}
    asked = 0

    async def count(start: datetime, end: datetime, wanted: Sequence[str], /) -> int:
        nonlocal asked
        asked += 1
        within = (counts[day.day] for day in days if start <= day.start < end)
        return sum(sum(of_day.get(id_, 0) for id_ in wanted or of_day) for of_day in within)

    async def at_once() -> None: ...

    async def ask() -> None:
        async with Workers(1) as workers:
            before = _utc_day(days[0].day - timedelta(days=1))
            await collect_differenced(
                count,
                days,
                ids,
                before=before,
                expected=expected,
                workers=workers,
                errors=Errors((), ()),
                answered=lambda: None,
                may_proceed=at_once,
            )

    asyncio.run(ask())
    return asked


def _utc_day(day: date) -> Day:
    start = datetime.combine(day, time(), UTC)
    return Day(day, start, start + timedelta(days=1))
