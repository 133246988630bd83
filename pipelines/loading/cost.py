"""How many requests a load takes, before the first is sent. Pure: it knows nothing of HTTP, Dagster or SQL."""

import asyncio
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pipelines.loading.answers import Errors
from pipelines.loading.block_size import ORGS_PER_QUESTION, SESSIONS_PER_WINDOW, PlannedBlock
from pipelines.loading.collect import collect_differenced
from pipelines.loading.listed import windows_of
from pipelines.loading.workers import Workers
from pipelines.partitions import Day
from pipelines.settings import Strategy
from resources.devin_versions import PAGE_SIZE

Counts = Mapping[date, Mapping[str, int]]
"""The sessions of each id on each day."""


@dataclass(frozen=True)
class Cost:
    """At least and at most how many requests, while the API is consistent and none has to be retried."""

    least: int = 0
    most: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.least + other.least, self.most + other.most)


def cost_of(
    block: PlannedBlock, strategy: Strategy, *, samples: int = 0, refused: Collection[str] = (), is_known: bool = False
) -> Cost:
    """What a strategy asks about a block, depending on the sessions that it finds.

    The list of sessions is read if it is likely to cost less, or where that is forced: then `most` holds as long as it
    has no more pages than the block has counts. `samples` are as in `collect_listed`. `is_known`: another dimension's
    load in the same run may have read it already.
    The API refuses to count the `refused` ids: a total over several with one of them is narrowed down to each, and who
    is refused then is asked about on one day.
    """
    days, ids, lost = len(block.days), len(block.ids), len({*block.ids} & {*refused})
    totals = days + (2 if days == 1 else 1)
    if strategy == "direct":
        return Cost(totals + days * ids, totals + days * ids)
    others = ids - lost
    least = totals + math.ceil(others / ORGS_PER_QUESTION) + 2 * lost
    most = days * others + days + others + 2 + 3 * lost
    if strategy == "differenced":
        return Cost(least, most)
    sampled = samples if others else 0
    return Cost(least + (not is_known) + sampled if strategy == "listed" else least, most + 1 + sampled)


def is_list_cheaper(control_totals: Sequence[int], ids: Sequence[str], expected: Mapping[str, float]) -> bool:
    """Whether a block likely takes fewer requests from the list of sessions, with its proof, than differenced.

    `expected` are the sessions a day that are expected of some ids; the others share what is left of the block's.
    """
    days, sessions = len(control_totals), sum(control_totals)
    known = sum(expected.get(id_, 0.0) for id_ in ids) * days
    unknown = len([id_ for id_ in ids if id_ not in expected])
    scale = sessions / known if known > sessions or not unknown else 1.0
    rest = max(sessions - known, 0.0) / unknown / days if unknown else 0.0
    listed, differenced = math.ceil(sessions / PAGE_SIZE) + sessions / SESSIONS_PER_WINDOW + 1, 0.0
    for id_ in ids:
        rate = expected[id_] * scale if id_ in expected else rest
        active = -math.expm1(-rate)
        # The entropy of "any sessions?" is what splitting has to find out; seen: 0.55 requests a bit. Where there are
        # sessions, their number takes a request.
        bits = -(active * math.log2(active) + (1 - active) * math.log2(1 - active)) if 0 < active < 1 else 0.0
        differenced += days * max(active, 0.55 * bits)
        alone = -math.expm1(-rate * days)
        listed += alone + (1 - alone) / ORGS_PER_QUESTION
    return listed < differenced


def listed_requests(counts: Counts, samples: int) -> int:
    """How many requests `collect_listed` takes for consecutive days and ids with these counts, if the list is right."""
    totals = [sum(of_day.values()) for _, of_day in sorted(counts.items())]
    of_ids: Counter[str] = sum((Counter(of_day) for of_day in counts.values()), Counter())
    ids = {id_ for of_day in counts.values() for id_ in of_day}
    windows = windows_of(totals, SESSIONS_PER_WINDOW)
    pages = sum(max(math.ceil(sum(totals[first:after]) / PAGE_SIZE), 1) for first, after in windows)
    quiet = math.ceil((len(ids) - len(of_ids)) / ORGS_PER_QUESTION)
    return len(totals) + 1 + pages + len(of_ids) + quiet + (samples if ids else 0)


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
