"""`devin-sessions backfill --dry-run`: how many requests a backfill would send, and how long that would take."""

import math
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa

from pipelines.command.backfill import read_ledger
from pipelines.command.probe import impatient
from pipelines.command.screen import is_json, say, show_table
from pipelines.ledger import open_read_only
from pipelines.loading.block_size import DAYS_PER_BLOCK, Wanted, in_blocks
from pipelines.loading.cost import Cost, Counts, cost_of, differenced_requests
from pipelines.partitions import as_days, daily_partitions, format_days, ranges
from pipelines.settings import Settings
from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.devin_versions import PAGE_SIZE
from resources.outage import format_duration
from warehouse import reads
from warehouse.dimensions import ORGANIZATIONS, Dimension

RATES = (30, 60, 300, 600, 3_000)
"""The requests a minute for which the duration is shown, if none is set."""


@dataclass(frozen=True)
class Plan:
    """What is to be loaded of a dimension, and its cost. `likely` is None without stored counts to judge by."""

    days: list[date]
    ids: int
    cells: int
    cost: Cost
    likely: int | None
    judged_by: list[date]


def dry_run(settings: Settings, days: list[date], *, refresh: bool) -> None:
    """Show what `backfill` would request to load those of `days` that are not loaded, or with `refresh` all of them.

    Stores nothing. The API is asked for its list of organizations or users only if no load has stored it yet.
    """
    unloaded = read_ledger(settings, days, refresh=refresh).unloaded
    for dimension in settings.dimensions:
        wanted = days if refresh else unloaded[dimension]
        if not wanted:
            say(f"Nothing to do: {format_days(days)} already loaded{dimension.per_noun}.", "nothing_to_do")
            continue
        _show(_plan(settings, dimension, wanted, refresh=refresh), dimension, settings)


def _plan(settings: Settings, dimension: Dimension, days: list[date], *, refresh: bool) -> Plan:
    chosen = settings.chosen(dimension)
    with open_read_only(settings.warehouse) as connection:
        ids = list(chosen) or reads.latest_listed(connection, dimension)
        unknown = reads.unknown_ids(connection, dimension, chosen)
        gaps = {} if refresh else reads.missing_ids(connection, dimension, days, chosen)
        recent = _recent(connection, dimension)
    if not ids:
        ids = _listed_by_api(settings, dimension)
    cost, cells, differenced_cells = Cost(), 0, 0
    for first, last in ranges(days):
        in_run = as_days(daily_partitions(settings), (f"{day}" for day in days if first <= day <= last))
        is_differenced = settings.is_differenced(len(in_run))
        wanted: Wanted = {day: sorted(gaps[day.day] | unknown if day.day in gaps else ids) for day in in_run}
        pages = 0 if chosen else math.ceil(len(ids) / PAGE_SIZE)
        cost += sum((cost_of(block, is_differenced=is_differenced) for block in in_blocks(wanted)), Cost(pages, pages))
        number = sum(map(len, wanted.values()))
        cells += number
        differenced_cells += number if is_differenced else 0
    likely = None
    if recent and cost.least < cost.most:
        share = differenced_requests(recent) / sum(map(len, recent.values()))
        likely = round(min(max(cost.most - differenced_cells * (1 - share), cost.least), cost.most))
    return Plan(days, len(ids), cells, cost, likely, sorted(recent))


def _recent(connection: sa.Connection, dimension: Dimension) -> Counts:
    """The counts of the newest block of consecutive stored days."""
    read = reads.read_days(connection, dimension)
    if not read:
        return {}
    first, last = ranges(read)[-1]
    first = max(first, last - timedelta(days=DAYS_PER_BLOCK - 1))
    return reads.counts(connection, dimension, [day for day in read if first <= day <= last])


def _listed_by_api(settings: Settings, dimension: Dimension) -> list[str]:
    calls = Calls()
    with impatient(settings, "dry run").connected(calls) as (client, portal):
        if dimension is ORGANIZATIONS:
            ids = [organization.org_id for organization in portal.call(DevinClient.organizations, client).items]
        else:
            ids = [user.user_id for user in portal.call(DevinClient.users, client).items]
    requests = "1 request" if calls.sent == 1 else f"{calls.sent:,} requests"
    say(f"No load has stored the list of {dimension.plural} yet. The API lists {len(ids):,}: {requests}.", "listed")
    return ids


def _show(plan: Plan, dimension: Dimension, settings: Settings) -> None:
    least, most, likely = plan.cost.least, plan.cost.most, plan.likely
    if likely is not None:
        requests = (
            f"about {likely:,} if these days are as busy as {format_days(plan.judged_by)}; at least {least:,}, at most "
            f"{most:,}."
        )
    elif least < most:
        requests = (
            f"at least {least:,}, at most {most:,}. The fewer {dimension.plural} have sessions on a day, the fewer "
            "requests it takes."
        )
    else:
        requests = f"{most:,}."
    say(
        f"To load{dimension.per_noun}: {format_days(plan.days)} for {plan.ids:,} {dimension.plural}, which are "
        f"{plan.cells:,} {dimension.cells_noun}.\nRequests: {requests}",
        "planned",
        counted=dimension.plural,
        days=plan.days,
        ids=plan.ids,
        cells=plan.cells,
        requests_least=least,
        requests_most=most,
        requests_likely=likely,
    )
    if is_json():
        return
    rates = (settings.devin_requests_per_minute,) if settings.devin_requests_per_minute else RATES
    takes = "takes at most" if likely is None and least < most else "takes about"
    number = most if likely is None else likely
    show_table("", ["requests a minute", takes], [(rate, format_duration(60 * number / rate)) for rate in rates])
