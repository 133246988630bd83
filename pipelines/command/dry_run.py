"""`devin-sessions backfill --dry-run`: how many requests a backfill would send, and how long that would take."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

import sqlalchemy as sa

from pipelines.command.backfill import Ledger, read_ledger
from pipelines.command.probe import impatient
from pipelines.command.screen import is_json, say, show_table
from pipelines.ledger import open_read_only
from pipelines.loading.asking import asking_alone
from pipelines.loading.block_size import DAYS_PER_BLOCK, DAYS_PER_LISTED_BLOCK, Wanted, in_blocks
from pipelines.loading.cost import Cost, Counts, cost_of, differenced_requests, listed_requests
from pipelines.loading.counted_ids import as_organization, as_user, chosen_entries
from pipelines.loading.naming import MOST_PAGES
from pipelines.loading.stored_before import StoredBefore
from pipelines.partitions import as_days, daily_partitions, format_days, parts, ranges
from pipelines.settings import Settings
from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.devin_versions import PAGE_SIZE
from resources.outage import format_duration
from warehouse import reads, tables, writes
from warehouse.dimensions import ORGANIZATIONS, Dimension
from warehouse.listing import is_list_outdated, refused_ids
from warehouse.writes import Entry

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

    Stores nothing. The API is asked for its list of organizations or users only if no load has stored it yet, or if
    the stored one is no longer what the settings mean.
    """
    ledger = read_ledger(settings, days, refresh=refresh)
    for dimension in settings.dimensions:
        chosen = settings.chosen(dimension)
        with open_read_only(settings.warehouse) as connection:
            listed = reads.latest_listed(connection, dimension)
            is_outdated = not listed or is_list_outdated(connection, dimension, chosen)
        entries = (chosen_entries(chosen) or _listed_by_api(settings, dimension)) if is_outdated else []
        with open_read_only(settings.warehouse) as connection:
            plan = _plan(connection, settings, dimension, days, entries, ledger, refresh=refresh)
        if plan.days:
            _show(plan, dimension, settings)
        else:
            say(f"Nothing to do: {format_days(days)} already loaded{dimension.per_noun}.", "nothing_to_do")


def _plan(
    connection: sa.Connection,
    settings: Settings,
    dimension: Dimension,
    days: list[date],
    entries: Sequence[Entry],
    ledger: Ledger,
    *,
    refresh: bool,
) -> Plan:
    """The plan for those of `days` that are not loaded; `entries` are the list that replaces the stored one, if any."""
    chosen, now = settings.chosen(dimension), datetime.now(UTC)
    rows = writes.listed_rows(connection, dimension, entries, now)
    lacking = reads.missing_ids(connection, dimension, days, chosen, rows)
    asked_for, days = days, [day for day in days if refresh or lacking.get(day, {""})]
    spans = parts(days, settings.devin_days_per_run)
    # A run also reads the moved days among its own, although they are loaded.
    spanned = [day for day in asked_for if any(first <= day <= last for first, last in spans)]
    moved = ledger.moved[dimension].intersection(spanned)
    ids = sorted(entry.id for entry in entries) or reads.latest_listed(connection, dimension)
    refused = refused_ids(connection, dimension)
    stored = StoredBefore(
        ids, set(), lacking, refused.intersection(ids), reads.counted_on(connection, dimension, moved)
    )
    recent = _recent(connection, dimension)
    pages = 0 if chosen else math.ceil(len(ids) / PAGE_SIZE)
    listings = pages * ((dimension in ledger.outdated) + bool(days))
    names = Cost(0, MOST_PAGES if _are_sessions_named(connection, settings, dimension, recent) else 0)
    cost, cells, inferred_cells, inferred_most = Cost(listings, listings), 0, 0, 0
    for first, last in spans:
        in_run = as_days(daily_partitions(settings), (f"{day}" for day in spanned if first <= day <= last))
        to_complete = {} if refresh else stored.to_complete(f"{last + timedelta(days=1)}")
        wanted = stored.wanted(in_run, to_complete)
        strategy = settings.strategy(sum(map(bool, wanted.values())))
        alone, asked = _without_refused(wanted, stored, to_complete.keys(), refused)
        samples, is_known = settings.devin_list_samples, dimension is not settings.dimensions[0]
        cost_of_block = partial(cost_of, strategy=strategy, samples=samples, refused=refused, is_known=is_known)
        of_run = sum(map(cost_of_block, in_blocks(asked)), Cost())
        if strategy not in ("direct", "differenced"):  # blocks are longer while the list of sessions is used
            longer = sum(map(cost_of_block, in_blocks(asked, lambda: True)), Cost())
            of_run = Cost(min(longer.least, of_run.least), of_run.most)
        of_run += Cost(alone, alone) + names
        cost += of_run
        number = sum(map(len, asked.values()))
        cells += number
        if strategy != "direct":
            inferred_cells += number
            inferred_most += of_run.most
    likely = None
    if recent and cost.least < cost.most:
        newest = {day: recent[day] for day in sorted(recent)[-DAYS_PER_BLOCK:]}
        ways: dict[str, Callable[[], float]] = {
            "differenced": lambda: differenced_requests(newest) / sum(map(len, newest.values())),
            "listed": lambda: listed_requests(recent, settings.devin_list_samples) / sum(map(len, recent.values())),
        }
        share = min(share_of() for way, share_of in ways.items() if settings.devin_fetch in ("auto", way))
        likely = round(min(max(cost.most - inferred_most + inferred_cells * share, cost.least), cost.most))
    return Plan(days, len(ids), cells, cost, likely, sorted(recent))


def _without_refused(
    wanted: Wanted, stored: StoredBefore, to_complete: Collection[date], refused: set[str]
) -> tuple[int, Wanted]:
    """How many requests a load spends on single `refused` ids, if all still are; and what it asks for in blocks.

    It asks once whether they still are: of those no longer counted and those that days lack at its beginning, of the
    others at its end.
    """
    wanted = {day: ids for day, ids in wanted.items() if not day.is_skipped}
    no_longer = stored.no_longer_counted & {id_ for ids in wanted.values() for id_ in ids}
    lacked = stored.refused & {id_ for day, ids in wanted.items() if day.day in to_complete for id_ in ids}
    first = no_longer | lacked
    gone = first & refused
    asked: Wanted = {
        day: [id_ for id_ in ids if id_ not in (lacked if day.day in to_complete else gone & no_longer)]
        for day, ids in wanted.items()
    }
    last = {id_ for ids in asked.values() for id_ in ids} & refused - gone
    return len(first) + len(last), asked


def _recent(connection: sa.Connection, dimension: Dimension) -> Counts:
    """The counts of the newest consecutive stored days, as many as a block can have."""
    read = reads.read_days(connection, dimension)
    if not read:
        return {}
    first, last = ranges(read)[-1]
    first = max(first, last - timedelta(days=DAYS_PER_LISTED_BLOCK - 1))
    return reads.counts(connection, dimension, [day for day in read if first <= day <= last])


def _are_sessions_named(connection: sa.Connection, settings: Settings, dimension: Dimension, recent: Counts) -> bool:
    """Whether the list of sessions is likely to be asked whose the unattributed sessions are; see `naming`."""
    if settings.devin_fetch != "auto" or settings.chosen(dimension):
        return False
    totals = dimension.totals.c
    some_left = sa.exists().where(tables.is_among(totals.day, recent), totals.unattributed_count > 0)
    return bool(connection.scalar(sa.select(some_left)))


def _listed_by_api(settings: Settings, dimension: Dimension) -> list[Entry]:
    calls = Calls()
    with (
        asking_alone(settings, "devin-sessions backfill --dry-run", say, leaves_no_file=True),
        impatient(settings, "dry run").connected(calls) as (client, portal),
    ):
        if dimension is ORGANIZATIONS:
            entries = [as_organization(item) for item in portal.call(DevinClient.organizations, client).items]
        else:
            entries = [as_user(item) for item in portal.call(DevinClient.users, client).items]
    requests = "1 request" if calls.sent == 1 else f"{calls.sent:,} requests"
    say(
        f"No load has stored this list of {dimension.plural} yet. The API lists {len(entries):,}: {requests}.",
        "listed",
    )
    return entries


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
