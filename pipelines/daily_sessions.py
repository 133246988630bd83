"""Asset `daily_sessions`: the source → the warehouse, one block of days at a time."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import dagster as dg

from pipelines import collect
from pipelines.catalogue import table_asset
from pipelines.organizations import organizations
from pipelines.partitions import Day, as_days, spelled
from pipelines.progress import Progress
from pipelines.settings import Settings
from resources.database import Database, WarehouseUnusable
from resources.devin_api import ContractBroken, DevinAPI, DevinAPIError, Rejected, Unavailable
from warehouse import reads, tables, writes
from warehouse.writes import Changes

API_VERSION = "v2"
DAYS_PER_BLOCK = 31


class OtherDays(Exception):
    """The warehouse holds days that begin at another hour or in another time zone. The message is for the user."""


def refuse_other_days(
    stored: dict[date, tuple[datetime, datetime]], partitions: dg.DailyPartitionsDefinition, settings: Settings
) -> None:
    """Raise OtherDays if a stored day has another window than the settings give it: two kinds of day never mix."""
    keys = [day.isoformat() for day in sorted(stored) if day >= settings.devin_start_date]
    for day in as_days(partitions, keys):
        if stored[day.day] != (day.start, day.end):
            start, end = stored[day.day]
            raise OtherDays(
                f"The warehouse holds {day.day} as {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, but "
                f"DEVIN_TIMEZONE={settings.devin_timezone} and DEVIN_DAY_START_HOUR={settings.devin_day_start_hour} "
                f"make it {day.start:%Y-%m-%d %H:%M} to {day.end:%Y-%m-%d %H:%M} UTC. Two kinds of day are never "
                "mixed in one table: set these variables back, or set WAREHOUSE_URL to a new warehouse."
            )


def daily_sessions_asset(partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset over these days. Any set of them is one run, and each is asked for with its own window."""

    @table_asset(
        tables.daily_sessions,
        "python",
        "api",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[organizations],
    )
    def daily_sessions(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        devin_api: DevinAPI,
        database: Database,
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        days = as_days(partitions, context.partition_keys)
        load = _Load(context, settings, devin_api, database, progress)
        try:
            with database.transaction() as connection:
                tables.create(connection)
                refuse_other_days(reads.windows(connection), partitions, settings)
                org_ids = reads.counted_organizations(connection)
            load.load(days, org_ids)
            problem = load.what_is_missing()
        except (DevinAPIError, WarehouseUnusable, OtherDays) as error:
            problem = str(error)
        except BaseException:  # an interrupt too: what is stored is stored
            load.record_stored_days()
            raise
        if problem:
            load.record_stored_days()
            raise dg.Failure(problem, allow_retries=False)
        for day, metadata in load.stored.items():
            context.add_asset_metadata(metadata, partition_key=day.isoformat())
        return dg.MaterializeResult()

    return daily_sessions


class _Load:
    """One run's load, and what came of it: `stored` days with their numbers, and `missing` days with the reason."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        settings: Settings,
        devin_api: DevinAPI,
        database: Database,
        progress: Progress,
    ) -> None:
        self.context = context
        self.settings = settings
        self.devin_api = devin_api
        self.database = database
        self.progress = progress
        self.stored: dict[date, dict[str, int]] = {}
        self.missing: dict[date, Exception] = {}

    def load(self, days: Sequence[Day], org_ids: Sequence[str]) -> None:
        """Ask and store `days` block by block; while one is stored, the next is asked."""
        if not org_ids:
            raise dg.Failure("No organization is known yet: materialize the asset organizations first.")
        self.progress.expect(len(days) * len(org_ids))
        with self.devin_api.connected(self.progress.calls) as (client, portal):

            async def count(day: Day, org_ids: Sequence[str]) -> int:
                return await client.count(day.start, day.end, org_ids=org_ids)

            async def ask(block: Sequence[Day]) -> list[collect.DayAnswers]:
                return await collect.direct(
                    count,
                    block,
                    org_ids,
                    workers=self.settings.devin_max_connections,
                    bearable=(Rejected, Unavailable, ContractBroken),
                    answered=self.progress.answered,
                )

            blocks = [days[i : i + DAYS_PER_BLOCK] for i in range(0, len(days), DAYS_PER_BLOCK)]
            asking = portal.start_task_soon(ask, blocks[0])
            for following in [*blocks[1:], None]:
                answers = asking.result()
                if following:
                    asking = portal.start_task_soon(ask, following)
                self._store(answers, len(org_ids))

    def _store(self, answers: Sequence[collect.DayAnswers], orgs_expected: int) -> None:
        whole = [answer for answer in answers if answer.is_whole]
        self.missing |= {a.day.day: a.failures[0] for a in answers if not a.is_whole}
        read = {"api_version": API_VERSION, "loaded_at": datetime.now(UTC), "run_id": self.context.run.run_id}
        totals = [
            {
                "day": a.day.day,
                "window_start": a.day.start,
                "window_end": a.day.end,
                "sessions_count": a.control_total,
                "orgs_expected": orgs_expected,
                "orgs_loaded": len(a.counts),
                **read,
            }
            for a in whole
        ]
        cells = [
            {"day": a.day.day, "org_id": org_id, "sessions_count": number, "is_derived": False, **read}
            for a in whole
            for org_id, number in a.counts.items()
        ]
        with self.database.transaction() as connection:
            stored = writes.store_days(connection, totals, cells)
        for a in whole:
            day = stored[a.day.day]
            self.stored[a.day.day] = {
                "sessions_count": day.sessions_count,
                "unattributed_count": day.unattributed_count,
                "calls": a.calls,
                "rows_inserted": day.changes.inserted,
                "rows_changed": day.changes.changed,
                "rows_unchanged": day.changes.unchanged,
            }
        self.progress.store(stored)
        changes = sum((day.changes for day in stored.values()), Changes())
        self.context.log.info(
            f"{answers[0].day.day} to {answers[-1].day.day}: {len(whole)} of {len(answers)} days stored, "
            f"{changes.inserted} cells new, {changes.changed} changed, {changes.unchanged} unchanged"
        )

    def record_stored_days(self) -> None:
        """Tell Dagster which days of a failing run are stored all the same: it then shows exactly the missing ones."""
        for day, metadata in self.stored.items():
            self.context.log_event(
                dg.AssetMaterialization(
                    asset_key=self.context.asset_key, partition=day.isoformat(), metadata=dict(metadata)
                )
            )

    def what_is_missing(self) -> str:
        """The missing days and why, a line per kind of failure; empty if none is missing."""
        if not self.missing:
            return ""
        reasons: dict[str, list[date]] = {}
        for day, error in self.missing.items():
            reasons.setdefault(type(error).__name__, []).append(day)
        lines = [f"{spelled(days)}: {self.missing[days[0]]}" for days in reasons.values()]
        return "\n".join([f"Not loaded: {spelled(sorted(self.missing))}. Everything else is stored.", *lines])
