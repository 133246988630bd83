"""Every claim that must hold for the stored counts, and its verdict, for the asset checks and the report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from pipelines.asset_keys import asset_key
from pipelines.loading.changed_settings import Incompatible, describe_moved, moved_days
from pipelines.loading.counted_ids import LIST_IS_WHOLE, doubt_about_choice
from pipelines.partitions import closed_days, daily_partitions, format_days
from pipelines.produced import results_of
from pipelines.settings import Settings
from pipelines.unattributed import Named
from warehouse import reads, tables
from warehouse.dimensions import ORGANIZATIONS, Dimension


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, how severe it is if not, and a sentence that says so, with what to do."""

    passed: bool
    sentence: str
    metadata: dict[str, Any]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


Judge = Callable[[sa.Connection, Dimension, Settings], Verdict]


@dataclass(frozen=True)
class Claim:
    """One check: its name in Dagster, its `title` in the report, and the function that decides.

    `also` are other assets whose counts it reads.
    """

    name: str
    title: str
    description: str
    judge: Judge
    also: tuple[str, ...] = ()


def claims_of(dimension: Dimension) -> list[Claim]:
    """What must hold for the cells of `dimension`."""
    noun = dimension.noun
    of_whom = f" ({dimension.plural})" if dimension.is_extra else ""
    claims = [
        Claim(
            "counts_sum_to_control_totals",
            f"Control totals{of_whom}",
            f"Each day's counts per {noun} add up to the API's own total.",
            counts_sum_to_control_totals,
        ),
        Claim(
            "blocks_add_up",
            f"Blocks of days{of_whom}",
            "Single days add up to the API's count of several days in one question.",
            blocks_add_up,
        ),
        Claim(
            "every_cell_is_present",
            f"Coverage{of_whom}",
            f"Every day from the first to the last loaded one has a count for every {noun}.",
            every_cell_is_present,
        ),
        Claim(
            "latest_closed_day_is_present",
            f"Latest day{of_whom}",
            "The latest closed day is loaded.",
            latest_closed_day_is_present,
        ),
        Claim(
            "windows_are_current",
            f"Bounds of days{of_whom}",
            "Each day was read between the instants at which it begins and ends by the time zone's rules of today.",
            windows_are_current,
        ),
        Claim(
            f"every_{noun}_is_available",
            f"Availability{of_whom}",
            f"The API counts every {noun}.",
            every_one_is_available,
        ),
        Claim(
            "no_count_is_negative",
            f"No negative counts{of_whom}",
            "No count read by the last run is negative.",
            no_count_is_negative,
        ),
    ]
    return [*claims, CONTROL_TOTALS_AGREE] if dimension.is_extra else claims


def verdicts(connection: sa.Connection, settings: Settings) -> Iterator[tuple[str, Verdict]]:
    """The title of each check, and its verdict on what is stored now."""
    for dimension in settings.dimensions:
        for claim in claims_of(dimension):
            yield claim.title, claim.judge(connection, dimension, settings)


def listing_verdicts(instance: dg.DagsterInstance, settings: Settings) -> Iterator[tuple[str, Verdict]]:
    """The title of each list's check, and its last recorded verdict; nothing for a check that has none."""
    for dimension in settings.dimensions:
        key = dg.AssetCheckKey(asset_key(settings, dimension.listed.name), LIST_IS_WHOLE)
        for result in results_of(instance, key, 1):
            if result.event and result.event.dagster_event:
                found = result.event.dagster_event.asset_check_evaluation_data
                agrees = f"The list of {dimension.listed.name} agrees with its own total, or you chose which to count."
                yield (
                    f"List of {dimension.listed.name}",
                    Verdict(found.passed, found.description or agrees, {}, found.severity),
                )


def counts_sum_to_control_totals(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """A larger total is a warning if all were listed, and is expected if the user chose which ids to count.

    Where the list of sessions says who created the sessions that are in no count, the sentence names them. Where users
    are counted, sessions of service users and sessions without a user are expected.
    """
    totals = dimension.totals.c
    columns = totals.day, totals.unattributed_count, totals.sessions_count
    rows = connection.execute(sa.select(*columns).where(totals.day >= settings.devin_start_date)).all()
    noun, plural = dimension.noun, dimension.plural
    over = [row.day for row in rows if row.unattributed_count < 0]
    under = [row.day for row in rows if row.unattributed_count > 0]
    unattributed = sum(row.unattributed_count for row in rows if row.unattributed_count > 0)
    named = Named.read(connection, dimension, settings.devin_start_date)
    metadata: dict[str, Any] = {
        "days_with_unattributed_sessions": len(under),
        "unattributed_sessions": unattributed,
        f"days_with_more_in_{plural}_than_in_total": len(over),
        **named.metadata(dimension),
    }
    if over:
        return Verdict(
            False,
            f"The {plural} add up to more than the API's own total on {format_days(sorted(over))}. "
            f"To read again: devin-sessions backfill {min(over)} {max(over)} --refresh",
            metadata,
        )
    expected, whose = named.expected(dimension)
    chosen = settings.chosen(dimension)
    if not chosen and unattributed > expected:
        return Verdict(
            False,
            f"The API counts sessions that belong to no listed {noun} on {format_days(sorted(under))}. "
            f"{named.advice(dimension)}",
            metadata,
            dg.AssetCheckSeverity.WARN,
        )
    others = f" {unattributed:,} sessions belong to {plural} that are not in {dimension.setting}{named.in_brief()}."
    if not chosen:
        others = f" The rest is expected: {whose}."
    doubt = doubt_about_choice(connection, dimension, chosen)
    if doubt and unattributed == sum(row.sessions_count for row in rows):
        return Verdict(False, doubt, metadata, dg.AssetCheckSeverity.WARN)
    proven = len(rows) - len(under)
    return Verdict(
        True,
        f"On {proven:,} of {len(rows):,} loaded days the {plural} add up to the API's own total."
        f"{others if unattributed else ''}",
        metadata,
    )


def blocks_add_up(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """Only differences that showed up in two readings in a row count."""
    off = reads.days_off_their_block(connection, dimension)
    days = sorted(day for day in off if day >= settings.devin_start_date)
    return Verdict(
        not days,
        f"The API counts {format_days(days)} differently in one question than day by day; the table "
        f"{dimension.contradictions.name} has both counts. Run devin-sessions probe to find out why, "
        f"then read the days again: devin-sessions backfill {days[0]} {days[-1]} --refresh"
        if days
        else "Days that were read together add up to the API's own count of all of them.",
        {"days_contradicted": len(days)},
    )


def every_cell_is_present(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """An id is expected on every day since its creation."""
    gaps = reads.missing_cells(connection, dimension, settings.chosen(dimension))
    gaps = {day: number for day, number in gaps.items() if day >= settings.devin_start_date}
    loaded = {day for day in reads.read_days(connection, dimension) if day >= settings.devin_start_date}
    between = [d for d in closed_days(daily_partitions(settings)) if loaded and min(loaded) <= d <= max(loaded)]
    missing = sorted({d for d in between if d not in loaded} | gaps.keys())
    complete = (
        f"Every day from {min(loaded)} to {max(loaded)} is loaded, with a count for every {dimension.noun}."
        if loaded
        else "No day is loaded."
    )
    return Verdict(
        not missing,
        _reload(f"Days with missing counts{dimension.per_noun}", missing) or complete,
        {"days_with_missing_counts": len(missing), "missing_counts_in_read_days": sum(gaps.values())},
    )


def latest_closed_day_is_present(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """Only a warning: while history is backfilled, the latest day may not be loaded yet."""
    latest = closed_days(daily_partitions(settings))[-1]
    is_loaded = latest in reads.read_days(connection, dimension)
    return Verdict(
        is_loaded,
        _reload(f"The latest closed day is not loaded yet{dimension.per_noun}", [] if is_loaded else [latest])
        or f"{latest}, the latest closed day, is loaded.",
        {"latest_closed_day": latest.isoformat()},
        dg.AssetCheckSeverity.WARN,
    )


def windows_are_current(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """Only a warning for days that can be read again; where the settings have changed, no load would go on."""
    try:
        days = sorted(moved_days(connection, settings)[dimension])
    except Incompatible as error:
        return Verdict(False, str(error), {})
    return Verdict(
        not days,
        f"Bounds have moved{dimension.per_noun}: {describe_moved(days, settings)}"
        if days
        else f"Every loaded day begins and ends as the rules of {settings.devin_timezone} say.",
        {"days_with_moved_bounds": len(days)},
        dg.AssetCheckSeverity.WARN,
    )


def every_one_is_available(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """Refused ids don't hold up the others; they are retried on every run and shown here."""
    noun, plural = dimension.noun, dimension.plural
    refused = reads.unavailable(connection, dimension)
    shown = "; ".join(f"{id_} on {reason}" for id_, reason in list(refused.items())[:5])
    number = f"1 {noun}" if len(refused) == 1 else f"{len(refused):,} {plural}"
    return Verdict(
        not refused,
        f"The API refused to count {number}: {shown} They will be retried on every run. Ask the key's owner to grant "
        f"access, or remove deleted ones from {dimension.setting}."
        if refused
        else f"The API counts every {noun}.",
        {f"unavailable_{plural}": len(refused)},
    )


def no_count_is_negative(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """The tables refuse negative counts; this finds those that got in another way, on the days the last run read."""
    cells, totals = dimension.cells.c, dimension.totals.c
    # Without readings in the future: the clock was ahead, and they would be the last ones for as long as that.
    is_past = totals.loaded_at <= datetime.now(UTC)
    last_run = sa.select(totals.run_id).where(is_past).order_by(totals.loaded_at.desc()).limit(1).scalar_subquery()
    # A list of days: for a subquery, PostgreSQL scans every cell.
    read_last = sa.select(totals.day).where(totals.run_id == last_run, totals.day >= settings.devin_start_date)
    days = connection.scalars(read_last).all()
    of_these = sa.select(cells.day).where(tables.is_among(cells.day, days), cells.sessions_count < 0)
    negative = connection.scalars(of_these.distinct().order_by(cells.day)).all()
    return Verdict(
        not negative,
        _reload(f"Negative counts{dimension.per_noun}", negative, "--refresh")
        or "No count read by the last run is negative.",
        {"days_with_negative_counts": len(negative)},
    )


def _control_totals_agree(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """Only a warning: the API changed a total between the two readings, and the older one is out of date."""
    these, those = dimension.totals, ORGANIZATIONS.totals
    both = these.join(those, these.c.day == those.c.day)
    # A day whose window has moved is read again per organization first, then per user.
    is_same_window = (these.c.window_start == those.c.window_start) & (these.c.window_end == those.c.window_end)
    differs = is_same_window & (these.c.sessions_count != those.c.sessions_count)
    found = sa.select(these.c.day).select_from(both).where(differs, these.c.day >= settings.devin_start_date)
    days = connection.scalars(found.order_by(these.c.day)).all()
    return Verdict(
        not days,
        f"The API's total changed between two readings of {format_days(days)}. "
        f"To read again: devin-sessions backfill {days[0]} {days[-1]} --refresh"
        if days
        else "Each day's total was the same when users and when organizations were counted.",
        {"days_with_two_totals": len(days)},
        dg.AssetCheckSeverity.WARN,
    )


CONTROL_TOTALS_AGREE = Claim(
    "control_totals_agree",
    "Users and organizations",
    "Each day's total was the same when users and when organizations were counted.",
    _control_totals_agree,
    also=(ORGANIZATIONS.cells.name,),
)


def _reload(problem: str, days: Sequence[date], *options: str) -> str:
    """What to do about `days`; empty if there are none."""
    if not days:
        return ""
    command = " ".join([f"devin-sessions backfill {days[0]} {days[-1]}", *options])
    return f"{problem}: {format_days(days)}. To load: {command}"
