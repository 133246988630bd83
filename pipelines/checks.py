"""Every claim that must hold of the stored counts, and the verdict on it: for the asset checks and for the report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from pipelines.loading.listing import LIST_IS_WHOLE
from pipelines.partitions import closed_days, daily_partitions, spelled
from pipelines.settings import Settings
from resources.database import Database
from warehouse import reads
from warehouse.tables import ORGANIZATIONS, USERS, Counted


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, how severe it is if not, and a sentence about how things stand, with what to do."""

    passed: bool
    sentence: str
    metadata: dict[str, int | str]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


Judge = Callable[[sa.Connection, Counted, Settings], Verdict]


@dataclass(frozen=True)
class Claim:
    """One check: its name in Dagster, its `title` for people, and what decides."""

    name: str
    title: str
    description: str
    judge: Judge


def claims_of(counted: Counted) -> list[Claim]:
    """What must hold of the cells of `counted`."""
    noun = counted.noun
    return [
        Claim(
            "counts_sum_to_control_totals",
            "Control totals",
            f"Each day's counts per {noun} sum to the source's own total.",
            counts_sum_to_control_totals,
        ),
        Claim(
            "blocks_add_up",
            "Blocks of days",
            "Days sum to what the source counts over several of them in one question.",
            blocks_add_up,
        ),
        Claim(
            "every_cell_is_present",
            "Coverage",
            f"Every day between the first and the last loaded one has every {noun}.",
            every_cell_is_present,
        ),
        Claim(
            "latest_closed_day_is_present",
            "Latest day",
            "The latest day whose window is over is loaded.",
            latest_closed_day_is_present,
        ),
        Claim(
            f"every_{noun}_is_available",
            "Availability",
            f"The source counts every {noun}.",
            every_one_is_available,
        ),
        Claim(
            "no_count_is_negative",
            "No negative counts",
            "No count of the days that were read last is negative.",
            no_count_is_negative,
        ),
    ]


def checks_of(counted: Counted) -> list[dg.AssetChecksDefinition]:
    """The checks of the asset that holds the cells of `counted`."""
    return [_as_check(claim, counted) for claim in claims_of(counted)]


def _as_check(claim: Claim, counted: Counted, *deps: dg.AssetKey) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(counted.cells.name),
        name=claim.name,
        description=claim.description,
        additional_deps=deps or None,
    )
    def check(database: dg.ResourceParam[Database], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        with database.transaction(read_only=True) as connection:
            verdict = claim.judge(connection, counted, settings)
        return dg.AssetCheckResult(
            passed=verdict.passed,
            severity=verdict.severity,
            description=verdict.sentence,
            metadata=verdict.metadata,
        )

    return check


def verdicts(connection: sa.Connection, settings: Settings) -> Iterator[tuple[str, Verdict]]:
    """What each check says of what is stored now, with its title."""
    for counted in settings.counted:
        of_users = " (users)" if counted is USERS else ""
        for claim in claims_of(counted):
            yield f"{claim.title}{of_users}", claim.judge(connection, counted, settings)
    if USERS in settings.counted:
        yield CONTROL_TOTALS_AGREE.title, CONTROL_TOTALS_AGREE.judge(connection, USERS, settings)


def listing_verdicts(instance: dg.DagsterInstance, settings: Settings) -> Iterator[tuple[str, Verdict]]:
    """What the check of each list said last, with its title; none if this record of runs has no result of it."""
    ended = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    for counted in settings.counted:
        key = dg.AssetCheckKey(dg.AssetKey(counted.listed.name), LIST_IS_WHOLE)
        for result in instance.event_log_storage.get_asset_check_execution_history(key, 1, status=ended):
            if result.event and result.event.dagster_event:
                found = result.event.dagster_event.asset_check_evaluation_data
                agrees = f"The list of {counted.listed.name} agrees with its own total, or you chose whom to count."
                yield (
                    f"List of {counted.listed.name}",
                    Verdict(found.passed, found.description or agrees, {}, found.severity),
                )


def counts_sum_to_control_totals(connection: sa.Connection, counted: Counted, settings: Settings) -> Verdict:
    """More in the total is a warning if all were listed, and to be expected if the user chose whom to count."""
    totals = counted.totals.c
    rows = connection.execute(
        sa.select(totals.day, totals.unattributed_count).where(totals.day >= settings.devin_start_date)
    ).all()
    noun = counted.noun
    over = [row.day for row in rows if row.unattributed_count < 0]
    under = [row.day for row in rows if row.unattributed_count > 0]
    unattributed = sum(row.unattributed_count for row in rows if row.unattributed_count > 0)
    metadata: dict[str, int | str] = {
        "days_with_unattributed_sessions": len(under),
        "unattributed_sessions": unattributed,
        f"days_with_more_in_{noun}s_than_in_total": len(over),
    }
    if over:
        return Verdict(
            False,
            f"The {noun}s add up to more than the source's own total on {spelled(sorted(over))}. "
            f"Read again: devin-sessions backfill {min(over)} {max(over)} --refresh",
            metadata,
        )
    if under and not settings.chosen(counted):
        return Verdict(
            False,
            f"The source counts sessions of no listed {noun} on {spelled(sorted(under))}. {_WHOSE[noun]}",
            metadata,
            dg.AssetCheckSeverity.WARN,
        )
    chosen = f" {unattributed:,} sessions are of {noun}s that {_VARIABLE[noun]} does not name." if unattributed else ""
    proven = len(rows) - len(under)
    return Verdict(
        True,
        f"On {proven:,} of {len(rows):,} loaded days the {noun}s add up to the source's own total.{chosen}",
        metadata,
    )


def blocks_add_up(connection: sa.Connection, counted: Counted, settings: Settings) -> Verdict:
    """Each difference was there in two readings, one after the other."""
    off = reads.days_off_their_block(connection, counted)
    days = sorted(day for day in off if day >= settings.devin_start_date)
    return Verdict(
        not days,
        f"The source counts {spelled(days)} differently in one question than day by day; "
        f"{counted.contradictions.name} has both counts. Find out why: devin-sessions probe. "
        f"Then read again: devin-sessions backfill {days[0]} {days[-1]} --refresh"
        if days
        else "Days that were read together add up to what the source counts over all of them.",
        {"days_contradicted": len(days)},
    )


def every_cell_is_present(connection: sa.Connection, counted: Counted, settings: Settings) -> Verdict:
    """One is expected on the days since its creation."""
    gaps = reads.missing_cells(connection, counted, settings.chosen(counted))
    gaps = {day: number for day, number in gaps.items() if day >= settings.devin_start_date}
    loaded = {day for day in reads.read_days(connection, counted) if day >= settings.devin_start_date}
    between = [d for d in closed_days(daily_partitions(settings)) if loaded and min(loaded) <= d <= max(loaded)]
    missing = sorted({d for d in between if d not in loaded} | gaps.keys())
    complete = (
        f"Every day from {min(loaded)} to {max(loaded)} is loaded, with every {counted.noun} that is to be counted."
        if loaded
        else "No day is loaded."
    )
    return Verdict(
        not missing,
        _reload("Days that lack counts", missing) or complete,
        {"days_with_missing_counts": len(missing), "missing_counts_in_read_days": sum(gaps.values())},
    )


def latest_closed_day_is_present(connection: sa.Connection, counted: Counted, settings: Settings) -> Verdict:
    """A warning only: while history is backfilled, the latest day may still be to come."""
    latest = closed_days(daily_partitions(settings))[-1]
    is_loaded = latest in reads.read_days(connection, counted)
    return Verdict(
        is_loaded,
        _reload("The latest closed day is not loaded yet", [] if is_loaded else [latest])
        or f"{latest}, the latest day that was over, is loaded.",
        {"latest_closed_day": latest.isoformat()},
        dg.AssetCheckSeverity.WARN,
    )


def every_one_is_available(connection: sa.Connection, counted: Counted, settings: Settings) -> Verdict:
    """One that it refuses for good does not hold up the others, is tried again on each run, and is shown here."""
    noun = counted.noun
    refused = reads.unavailable(connection, counted)
    shown = "; ".join(f"{id_} on {reason}" for id_, reason in list(refused.items())[:5])
    return Verdict(
        not refused,
        f"The source refuses to count {len(refused)} of the {noun}s: {shown} They are tried again on each run. "
        f"Whoever made the key can let it count them; {_VARIABLE[noun]} can leave out what is gone for good."
        if refused
        else f"The source counts every {noun}.",
        {f"unavailable_{noun}s": len(refused)},
    )


def no_count_is_negative(connection: sa.Connection, counted: Counted, settings: Settings) -> Verdict:
    """The tables refuse negative counts; this finds what got in by another way on the days that were read last."""
    cells, totals = counted.cells.c, counted.totals.c
    last_run = sa.select(totals.run_id).order_by(totals.loaded_at.desc()).limit(1).scalar_subquery()
    # The days by name: for a subquery, PostgreSQL looks at every cell there is.
    read_last = sa.select(totals.day).where(totals.run_id == last_run, totals.day >= settings.devin_start_date)
    days = connection.scalars(read_last).all()
    of_these = sa.select(cells.day).where(cells.day.in_(days), cells.sessions_count < 0)
    negative = connection.scalars(of_these.distinct().order_by(cells.day)).all()
    return Verdict(
        not negative,
        _reload("Negative counts", negative, "--refresh") or "No count that was read last is negative.",
        {"days_with_negative_counts": len(negative)},
    )


def _control_totals_agree(connection: sa.Connection, counted: Counted, settings: Settings) -> Verdict:
    """A warning: the source changed a total between the two readings, and the older one is out of date."""
    of_users, of_organizations = USERS.totals.c, ORGANIZATIONS.totals.c
    both = USERS.totals.join(ORGANIZATIONS.totals, of_users.day == of_organizations.day)
    differs = of_users.sessions_count != of_organizations.sessions_count
    found = sa.select(of_users.day).select_from(both).where(differs, of_users.day >= settings.devin_start_date)
    days = connection.scalars(found.order_by(of_users.day)).all()
    return Verdict(
        not days,
        f"The source's total changed between two readings of {spelled(days)}. "
        f"Read again: devin-sessions backfill {days[0]} {days[-1]} --refresh"
        if days
        else "The days' totals were the same when users and when organizations were counted.",
        {"days_with_two_totals": len(days)},
        dg.AssetCheckSeverity.WARN,
    )


CONTROL_TOTALS_AGREE = Claim(
    "control_totals_agree",
    "Users and organizations",
    "The day's total was the same when users and when organizations were counted.",
    _control_totals_agree,
)
control_totals_agree = _as_check(CONTROL_TOTALS_AGREE, USERS, dg.AssetKey(ORGANIZATIONS.cells.name))

_WHOSE = {
    "organization": "The key may not be allowed to list every organization. If you know of others, name all in "
    "DEVIN_ORG_IDS, then: devin-sessions backfill --missing",
    "user": "They may be those of service users or of former members; then nothing is to be done.",
}
_VARIABLE = {"organization": "DEVIN_ORG_IDS", "user": "DEVIN_USER_IDS"}


def _reload(problem: str, days: Sequence[date], *options: str) -> str:
    """What to do about `days`; empty if there are none."""
    if not days:
        return ""
    command = " ".join([f"devin-sessions backfill {days[0]} {days[-1]}", *options])
    return f"{problem}: {spelled(days)}. To load: {command}"
