"""Every asset check: what must hold of the stored counts. Each reads as the claim it makes."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import sqlalchemy as sa

from pipelines.partitions import closed_days, daily_partitions, spelled
from pipelines.settings import Settings
from resources.database import Database
from warehouse import reads
from warehouse.tables import ORGANIZATIONS, USERS, Counted

Checks = list[dg.AssetChecksDefinition]


def checks_of(counted: Counted) -> Checks:
    """The checks of the asset that holds the cells of `counted`."""
    asset = dg.AssetKey(counted.cells.name)
    noun = counted.noun

    @dg.asset_check(asset=asset, description=f"Each day's counts per {noun} sum to the source's own total.")
    def counts_sum_to_control_totals(
        database: dg.ResourceParam[Database], settings: dg.ResourceParam[Settings]
    ) -> dg.AssetCheckResult:
        """More in the total is a warning if all were listed, and to be expected if the user chose whom to count."""
        totals = counted.totals.c
        with database.transaction(read_only=True) as connection:
            off = connection.execute(
                sa.select(totals.day, totals.unattributed_count).where(totals.unattributed_count != 0)
            ).all()
        over = [row.day for row in off if row.unattributed_count < 0]
        under = [row.day for row in off if row.unattributed_count > 0]
        metadata = {
            "days_with_unattributed_sessions": len(under),
            "unattributed_sessions": sum(row.unattributed_count for row in off if row.unattributed_count > 0),
            f"days_with_more_in_{noun}s_than_in_total": len(over),
        }
        if over:
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"The {noun}s add up to more than the source's own total on {spelled(over)}. "
                f"Read again: devin-sessions backfill {min(over)} {max(over)} --refresh",
                metadata=metadata,
            )
        if under and not settings.chosen(counted):
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"The source counts sessions of no listed {noun} on {spelled(under)}. {_WHOSE[noun]}",
                metadata=metadata,
            )
        return dg.AssetCheckResult(passed=True, metadata=metadata)

    @dg.asset_check(asset=asset, description="Days sum to what the source counts over several of them in one question.")
    def blocks_add_up(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
        """Each difference was there in two readings, one after the other."""
        claims = counted.contradictions.c
        with database.transaction(read_only=True) as connection:
            days = connection.scalars(sa.select(claims.day).distinct().order_by(claims.day)).all()
        return dg.AssetCheckResult(
            passed=not days,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"The source counts {spelled(days)} differently in one question than day by day; "
            f"{counted.contradictions.name} has both counts. Find out why: devin-sessions probe. "
            f"Then read again: devin-sessions backfill {days[0]} {days[-1]} --refresh"
            if days
            else None,
            metadata={"days_contradicted": len(days)},
        )

    @dg.asset_check(asset=asset, description=f"Every day between the first and the last loaded one has every {noun}.")
    def every_cell_is_present(
        database: dg.ResourceParam[Database], settings: dg.ResourceParam[Settings]
    ) -> dg.AssetCheckResult:
        """One is expected on the days since its creation."""
        with database.transaction(read_only=True) as connection:
            gaps = reads.missing_cells(connection, counted, settings.chosen(counted))
            loaded = reads.read_days(connection, counted)
        between = [d for d in closed_days(daily_partitions(settings)) if loaded and min(loaded) <= d <= max(loaded)]
        missing = sorted({d for d in between if d not in loaded} | gaps.keys())
        return dg.AssetCheckResult(
            passed=not missing,
            description=_reload("Days that lack counts", missing),
            metadata={"days_with_missing_counts": len(missing), "missing_counts_in_read_days": sum(gaps.values())},
        )

    @dg.asset_check(asset=asset, description="The latest day whose window is over is loaded.")
    def latest_closed_day_is_present(
        database: dg.ResourceParam[Database], settings: dg.ResourceParam[Settings]
    ) -> dg.AssetCheckResult:
        """A warning only: while history is backfilled, the latest day may still be to come."""
        latest = closed_days(daily_partitions(settings))[-1]
        with database.transaction(read_only=True) as connection:
            loaded = reads.read_days(connection, counted)
        return dg.AssetCheckResult(
            passed=latest in loaded,
            severity=dg.AssetCheckSeverity.WARN,
            description=_reload("The latest closed day is not loaded yet", [] if latest in loaded else [latest]),
            metadata={"latest_closed_day": latest.isoformat()},
        )

    @dg.asset_check(asset=asset, name=f"every_{noun}_is_available", description=f"The source counts every {noun}.")
    def every_one_is_available(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
        """One that it refuses for good does not hold up the others, is tried again on each run, and is shown here."""
        with database.transaction(read_only=True) as connection:
            refused = reads.unavailable(connection, counted)
        shown = "; ".join(f"{id_} on {reason}" for id_, reason in list(refused.items())[:5])
        told = (
            f"The source refuses to count {len(refused)} of the {noun}s: {shown} They are tried again on each run. "
            f"Whoever made the key can let it count them; {_VARIABLE[noun]} can leave out what is gone for good."
        )
        return dg.AssetCheckResult(
            passed=not refused,
            description=told if refused else None,
            metadata={f"unavailable_{noun}s": len(refused)},
        )

    @dg.asset_check(asset=asset, description="No count of the days that were read last is negative.")
    def no_count_is_negative(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
        """The tables refuse negative counts; this finds what got in by another way on the days that were read last."""
        cells, totals = counted.cells.c, counted.totals.c
        last_run = sa.select(totals.run_id).order_by(totals.loaded_at.desc()).limit(1).scalar_subquery()
        with database.transaction(read_only=True) as connection:
            # The days by name: for a subquery, PostgreSQL looks at every cell there is.
            days = connection.scalars(sa.select(totals.day).where(totals.run_id == last_run)).all()
            of_these = sa.select(cells.day).where(cells.day.in_(days), cells.sessions_count < 0)
            negative = connection.scalars(of_these.distinct().order_by(cells.day)).all()
        return dg.AssetCheckResult(
            passed=not negative,
            description=_reload("Negative counts", negative, "--refresh"),
            metadata={"days_with_negative_counts": len(negative)},
        )

    return [
        counts_sum_to_control_totals,
        blocks_add_up,
        every_cell_is_present,
        latest_closed_day_is_present,
        every_one_is_available,
        no_count_is_negative,
    ]


@dg.asset_check(
    asset=dg.AssetKey(USERS.cells.name),
    additional_deps=[dg.AssetKey(ORGANIZATIONS.cells.name)],
    description="The day's total was the same when users and when organizations were counted.",
)
def control_totals_agree(database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
    """A warning: the source changed a total between the two readings, and the older one is out of date."""
    of_users, of_organizations = USERS.totals.c, ORGANIZATIONS.totals.c
    both = USERS.totals.join(ORGANIZATIONS.totals, of_users.day == of_organizations.day)
    differs = of_users.sessions_count != of_organizations.sessions_count
    with database.transaction(read_only=True) as connection:
        days = connection.scalars(sa.select(of_users.day).select_from(both).where(differs).order_by(of_users.day)).all()
    return dg.AssetCheckResult(
        passed=not days,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"The source's total changed between two readings of {spelled(days)}. "
        f"Read again: devin-sessions backfill {days[0]} {days[-1]} --refresh"
        if days
        else None,
        metadata={"days_with_two_totals": len(days)},
    )


_WHOSE = {
    "organization": "The key may not be allowed to list every organization. If you know of others, name all in "
    "DEVIN_ORG_IDS, then: devin-sessions backfill --missing",
    "user": "They may be those of service users or of former members; then nothing is to be done.",
}
_VARIABLE = {"organization": "DEVIN_ORG_IDS", "user": "DEVIN_USER_IDS"}


def _reload(problem: str, days: Sequence[date], *options: str) -> str | None:
    if not days:
        return None
    command = " ".join([f"devin-sessions backfill {days[0]} {days[-1]}", *options])
    return f"{problem}: {spelled(days)}. To load: {command}"
