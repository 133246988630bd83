"""Asks the list of sessions whose the unattributed sessions of a load are, where it was not read for the counts."""

import math
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
import sqlalchemy as sa

from pipelines.loading.answers import DayAnswers
from pipelines.loading.fetching import BlockFetcher
from pipelines.loading.listed import Proposal
from pipelines.partitions import Day
from resources.database import Database
from resources.devin_versions import PAGE_SIZE
from warehouse import reads, unattributed
from warehouse.unattributed import Others

MOST_PAGES = 5
"""More of the list is not read to name sessions that no count depends on."""


def name_unattributed(
    days: Sequence[Day], fetcher: BlockFetcher, database: Database, context: dg.AssetExecutionContext
) -> None:
    """Store whose the unattributed sessions of these stored days are, the latest days first, for a few pages.

    A day is named only where the list agrees with its control total and with each of its counts.
    """
    if not days:
        return
    dimension, dates = fetcher.dimension, [day.day for day in days]
    totals = database.write(
        lambda connection: unattributed.days_without_names(connection, dimension, dates), alone=False
    )
    chosen = _affordable([DayAnswers(day, totals[day.day]) for day in days if day.day in totals])
    if not chosen:
        return
    read = {of_day.day.day: (of_day, fetcher.read_list(of_day)) for of_day in chosen}
    if fetcher.list.why_not:
        context.log.info(f"Nobody knows whose the unattributed sessions are. {fetcher.list.why_not}")
    counts = database.write(lambda connection: reads.counts(connection, dimension, list(read)), alone=False)
    others = {
        day: Others(found, fetcher.progress.listed_days.service_users)
        for day, (of_day, proposal) in read.items()
        if proposal and (found := _others(of_day, proposal, counts.get(day, {})))
    }
    now, run_id = fetcher.progress.calls.clock.now(), context.run.run_id

    def store(connection: sa.Connection) -> None:
        database.lock_days(connection, list(others))
        unattributed.store(connection, dimension, others, loaded_at=now, run_id=run_id)

    if others:
        database.write(store, alone=False)


def _affordable(answers: Iterable[DayAnswers]) -> list[DayAnswers]:
    """The latest of these days, as many as MOST_PAGES show."""
    found: list[DayAnswers] = []
    left = MOST_PAGES
    for of_day in sorted(answers, key=lambda of_day: of_day.day.day, reverse=True):
        left -= max(math.ceil((of_day.control_total or 0) / PAGE_SIZE), 1)
        if left < 0:
            break
        found.append(of_day)
    return found


def _others(of_day: DayAnswers, proposal: Proposal, counts: Mapping[str, int]) -> dict[str | None, int]:
    """The sessions of ids without a count; none if the list disagrees with what is known of the day."""
    (listed,) = proposal
    agrees = listed.total() == of_day.control_total and all(listed[id_] == n for id_, n in counts.items())
    return {id_: number for id_, number in listed.items() if id_ not in counts} if agrees else {}
