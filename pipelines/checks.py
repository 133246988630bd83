"""Every asset check: what must hold of the stored counts. Each reads as the claim it makes."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import sqlalchemy as sa

from pipelines.partitions import closed_days, daily_partitions, spelled
from pipelines.rollups import DAILY_SESSIONS
from pipelines.settings import Settings
from resources.database import Database
from warehouse import reads, tables


@dg.asset_check(asset=DAILY_SESSIONS, description="Each day's counts per organization sum to the source's own total.")
def counts_sum_to_control_totals(database: Database, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """More in the total is a warning if the organizations were listed, and to be expected if the user chose them."""
    totals = tables.daily_totals.c
    with database.transaction() as connection:
        off = connection.execute(
            sa.select(totals.day, totals.unattributed_count).where(totals.unattributed_count != 0)
        ).all()
    over = [row.day for row in off if row.unattributed_count < 0]
    under = [row.day for row in off if row.unattributed_count > 0]
    metadata = {
        "days_with_unattributed_sessions": len(under),
        "unattributed_sessions": sum(row.unattributed_count for row in off if row.unattributed_count > 0),
        "days_with_more_in_organizations_than_in_total": len(over),
    }
    if over:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"The organizations add up to more than the source's own total on {spelled(over)}. "
            f"Read again: devin-sessions backfill {min(over)} {max(over)} --refresh",
            metadata=metadata,
        )
    if under and not settings.devin_org_ids:
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"The source counts sessions in no listed organization on {spelled(under)}. "
            "The key may not see every organization.",
            metadata=metadata,
        )
    return dg.AssetCheckResult(passed=True, metadata=metadata)


@dg.asset_check(
    asset=DAILY_SESSIONS, description="Every day between the first and the last loaded one has every organization."
)
def every_cell_is_present(database: Database, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """An organization is expected on the days since it was created, or on all if the source does not say when."""
    with database.transaction() as connection:
        gaps = reads.missing_cells(connection, settings.devin_org_ids)
        loaded = set(reads.windows(connection))
    between = [d for d in closed_days(daily_partitions(settings)) if loaded and min(loaded) <= d <= max(loaded)]
    missing = sorted({d for d in between if d not in loaded} | gaps.keys())
    return dg.AssetCheckResult(
        passed=not missing,
        description=_reload("Days that lack counts", missing),
        metadata={"days_with_missing_counts": len(missing), "missing_counts_in_read_days": sum(gaps.values())},
    )


@dg.asset_check(asset=DAILY_SESSIONS, description="The latest day whose window is over is loaded.")
def latest_closed_day_is_present(database: Database, settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """A warning only: while history is backfilled, the latest day may still be to come."""
    latest = closed_days(daily_partitions(settings))[-1]
    with database.transaction() as connection:
        loaded = reads.windows(connection)
    return dg.AssetCheckResult(
        passed=latest in loaded,
        severity=dg.AssetCheckSeverity.WARN,
        description=_reload("Not loaded yet", [] if latest in loaded else [latest]),
        metadata={"latest_closed_day": latest.isoformat()},
    )


@dg.asset_check(asset=DAILY_SESSIONS, description="The source counts every organization.")
def every_organization_is_available(database: Database) -> dg.AssetCheckResult:
    """One that it refuses for good does not hold up the others, is tried again on each run, and is shown here."""
    with database.transaction() as connection:
        refused = reads.unavailable_organizations(connection)
    shown = "; ".join(f"{org_id} on {reason}" for org_id, reason in list(refused.items())[:5])
    return dg.AssetCheckResult(
        passed=not refused,
        description=f"The source refuses to count {len(refused)} of the organizations: {shown}" if refused else None,
        metadata={"unavailable_organizations": len(refused)},
    )


@dg.asset_check(asset=DAILY_SESSIONS, description="No count is negative.")
def no_count_is_negative(database: Database) -> dg.AssetCheckResult:
    """The tables refuse negative counts; this finds what got in by another way."""
    cells = tables.daily_sessions.c
    with database.transaction() as connection:
        negative = connection.scalars(
            sa.select(cells.day).where(cells.sessions_count < 0).distinct().order_by(cells.day)
        ).all()
    return dg.AssetCheckResult(
        passed=not negative,
        description=_reload("Negative counts", negative),
        metadata={"days_with_negative_counts": len(negative)},
    )


def _reload(problem: str, days: Sequence[date]) -> str | None:
    if not days:
        return None
    return f"{problem}: {spelled(days)}. To load: devin-sessions backfill {days[0]} {days[-1]}"
