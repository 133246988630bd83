"""How much of history is loaded and proven, how the last runs ended, when the next one is, and what to do."""

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import dagster as dg

from pipelines import home, names
from pipelines.behind import CATCH_UP, behind
from pipelines.code_locations import clashes
from pipelines.command.dagster_home import using_run_record
from pipelines.command.recorded_runs import Run, last_runs, queued_runs
from pipelines.follow import unfinished_backfills
from pipelines.launching import file_out_of_reach
from pipelines.ledger import missing_days, open_read_only
from pipelines.loading.changed_settings import Incompatible, describe_moved, moved_days
from pipelines.lost import lost_warehouse
from pipelines.partitions import closed_days, daily_partitions, format_days, ranges
from pipelines.schedules import next_tick
from pipelines.settings import Settings
from warehouse import reads
from warehouse.dimensions import Dimension
from warehouse.listing import is_list_outdated

Schedule = Literal["running", "switched off", "not running", "unknown"]
_MAX_SILENCE = timedelta(minutes=3)  # the daemon sends a heartbeat every 30 seconds


@dataclass(frozen=True)
class DimensionStatus:
    """The state of the counts per organization, or per user.

    `days` has the state of each day of history; `moved` are those whose windows have moved since they were read.
    """

    coverage: reads.Coverage
    days: dict[date, reads.DayState]
    unavailable: dict[str, str]
    moved: list[date]


@dataclass(frozen=True)
class Status:
    """The whole status. `to_do` is empty if there is nothing to do; `next_tick` is when the schedule starts a run next.

    `queued` are the runs that wait for others to end, and `backfills` the ids of those in the UI that have not ended.
    `behind` lists the assets that are older than the stored days. `enterprise` is empty if the settings name none.
    """

    dimensions: dict[Dimension, DimensionStatus]
    runs: list[Run]
    schedule: Schedule
    next_tick: datetime
    queued: list[Run] = field(default_factory=list)
    backfills: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)
    enterprise: str = ""

    def as_fields(self) -> dict[str, Any]:
        """All of it as `devin-sessions status --json` shows it; days and times are still those of Python."""
        return {
            **({"enterprise": self.enterprise} if self.enterprise else {}),
            **{
                dimension.plural: asdict(state.coverage)
                | {"days": {f"{day}": is_ for day, is_ in state.days.items()}, "unavailable": state.unavailable}
                | {"moved": state.moved}
                for dimension, state in self.dimensions.items()
            },
            "runs": [asdict(run) for run in self.runs],
            "schedule": self.schedule,
            "next_tick": self.next_tick,
            "queued": [asdict(run) for run in self.queued],
            "backfills": self.backfills,
            "behind": self.behind,
            "to_do": self.to_do,
        }


def status(settings: Settings, instance: dg.DagsterInstance | None) -> Status:
    """The status of the warehouse, and of the runs in `instance` if given. Changes nothing.

    Raises HomeUnusable if the runs can't be read.
    """
    days = closed_days(daily_partitions(settings))
    dimensions: dict[Dimension, DimensionStatus] = {}
    to_do = _warehouse_without_enterprise(settings)
    with open_read_only(settings.warehouse) as connection:
        try:
            moved = moved_days(connection, settings)
        except Incompatible as error:
            moved = {}
            to_do.append(str(error))
        for each in settings.dimensions:
            missing = missing_days(connection, settings, each, days)
            loaded = set(days) - set(missing)
            state = DimensionStatus(
                reads.coverage(connection, each, days, loaded, settings.chosen(each)),
                reads.day_states(connection, each, days, loaded),
                reads.unavailable(connection, each),
                [day for day in days if day in moved.get(each, ())],
            )
            dimensions[each] = state
            if is_list_outdated(connection, each, settings.chosen(each)):
                command = "devin-sessions backfill --missing"
                to_do.append(f"{each.setting} has changed since the last load. To load: {command}")
            to_do += _to_do(each, missing, state, settings)
    if why := lost_warehouse(settings):
        to_do = [why]  # to load what is missing would replace the copies
    late = behind(settings).assets
    if late:
        to_do.append(f"Behind the stored days: {', '.join(late)}. To catch up: {CATCH_UP}")
    found = Status(
        dimensions,
        [],
        "not running",
        next_tick(settings, datetime.now(UTC)),
        behind=late,
        to_do=to_do,
        enterprise=settings.devin_enterprise,
    )
    if instance is None:
        return found
    with using_run_record():
        unreachable = file_out_of_reach(instance, settings)
        return replace(
            found,
            runs=last_runs(instance, settings),
            schedule=_schedule(instance, settings),
            queued=queued_runs(instance, settings),
            backfills=unfinished_backfills(instance, settings),
            to_do=[
                *to_do,
                *([unreachable] if unreachable else []),
                *clashes(instance, settings, datetime.now(UTC)),
            ],
        )


def _warehouse_without_enterprise(settings: Settings) -> list[str]:
    """A sentence if this enterprise is about to begin anew beside what was loaded before it had a name."""
    own, former = settings.warehouse, home.home() / "warehouse.duckdb"
    is_default = own.is_file and own.path == former.parent / settings.devin_enterprise / former.name
    if not settings.devin_enterprise or not is_default or own.exists() or not former.exists():
        return []
    return [
        f"{settings.devin_enterprise} has no warehouse yet, but there is one of no enterprise, {former}. If its counts "
        f"are those of {settings.devin_enterprise}, keep it: set WAREHOUSE_URL=duckdb:///{former}"
    ]


def _to_do(dimension: Dimension, missing: list[date], state: DimensionStatus, settings: Settings) -> list[str]:
    per_noun = dimension.per_noun
    to_do = []
    if missing:
        days = ranges(missing)
        command = "--missing" if len(days) > 1 else f"{missing[0]} {missing[-1]}"
        to_do.append(f"Missing{per_noun}: {format_days(missing)}. To load: devin-sessions backfill {command}")
    contradicted = [day for day, state_of_day in state.days.items() if state_of_day == "contradiction"]
    if contradicted:
        to_do.append(
            f"Contradicted{per_noun}: {format_days(contradicted)}. To read again: "
            f"devin-sessions backfill {contradicted[0]} {contradicted[-1]} --refresh"
        )
    if state.moved:
        to_do.append(f"Moved{per_noun}: {describe_moved(state.moved, settings)}")
    for id_, reason in state.unavailable.items():
        to_do.append(f"Not counted: {id_}, refused on {reason} It will be retried on every run.")
    return to_do


def _schedule(instance: dg.DagsterInstance, settings: Settings) -> Schedule:
    """Whether the daemon that starts scheduled runs is alive, and whether the schedule is switched off in the UI."""
    if not instance.schedule_storage:  # an instance that is only in memory
        return "not running"
    own = [state for state in instance.all_instigator_state() if state.name == names.schedule(settings)]
    if any(not state.is_running for state in own):
        return "switched off"
    heartbeat = instance.get_daemon_heartbeats().get("SCHEDULER")
    is_alive = heartbeat and datetime.now(UTC) - datetime.fromtimestamp(heartbeat.timestamp, UTC) < _MAX_SILENCE
    return "running" if is_alive else "not running"
