"""`devin-sessions backfill`: which days it loads, in which runs, and what it reports at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import dagster as dg

from pipelines.asset_keys import ACTIVITY_REPORT, PUBLISHED_FILES, asset_key
from pipelines.behind import behind
from pipelines.command import interrupts, runs
from pipelines.command.dagster_home import open_instance
from pipelines.command.exit_codes import MISSING
from pipelines.command.live_progress import LiveProgress
from pipelines.command.screen import complain, say
from pipelines.definitions import definitions_for
from pipelines.ledger import missing_days, open_read_only
from pipelines.loading.changed_settings import moved_days, refuse_other_version
from pipelines.loading.counted_ids import doubt_about_choice
from pipelines.loading.listed_days import ListedDays
from pipelines.lost import lost_warehouse
from pipelines.partitions import format_days
from pipelines.settings import Settings
from resources.database_errors import WarehouseError
from resources.devin_key import key_from_environment, version_for
from warehouse import migrations, reads, writes
from warehouse.dimensions import ORGANIZATIONS, Dimension
from warehouse.listing import is_list_outdated


def backfill(settings: Settings, days: list[date], command: str, *, refresh: bool) -> int:
    """Load those of `days` that are not loaded, or with `refresh` all of them. Returns the exit code.

    `command` is what the user typed, to show if it has to be run again.
    """
    _migrate(settings)
    listed_days = ListedDays()  # each load is a run of its own
    loads = [_Load(dimension, refresh, listed_days) for dimension in settings.dimensions]
    ledger = read_ledger(settings, days, refresh=refresh)
    if ledger.is_boundary_new:  # so that the runs accept these days too, and others, should this be interrupted
        boundary = settings.devin_timezone, settings.devin_day_start_hour
        settings.warehouse.write(lambda connection: writes.store_day_boundary(connection, *boundary))
    with open_instance() as instance:
        for load in loads:
            if load.dimension in ledger.outdated and not any(earlier.must_stop for earlier in loads):
                load.list_anew(settings, instance)
        is_listed = bool(ledger.outdated) and not any(load.must_stop for load in loads)
        if is_listed:
            ledger = read_ledger(settings, days, refresh=refresh)
        contradicted = ledger.contradicted
        is_behind = is_listed or bool(behind(settings).assets)
        for load in loads:
            load.wanted = days if refresh else ledger.unloaded[load.dimension]
        for load in loads:
            if any(earlier.must_stop for earlier in loads):
                break
            load.run(settings, instance)
        if is_behind and loads[0].skipped_downstream:
            definitions = definitions_for(settings, loads[0].progress)
            loads[0].outcomes.append(runs.run_downstream(definitions, instance, settings, ORGANIZATIONS))
    if any(load.wanted for load in loads):
        contradicted = []  # the loads report contradictions themselves
    elif not ledger.outdated:
        say(f"Nothing to do: {format_days(days)} already loaded. To read them again, add --refresh.", "nothing_to_do")
    has_ended_early = any(load.ended_early for load in loads)
    _report_problems(loads, contradicted, [] if has_ended_early else _doubts(settings))
    if not any(load.is_interrupted or (load.wanted and load.skipped_downstream) for load in loads):
        _say_where(settings, loads)
    return _report_missing(loads, command, is_contradicted=bool(contradicted))


@dataclass
class _Load:
    """The part of a backfill about organizations, or about users: its days, and the outcomes of its runs."""

    dimension: Dimension
    refresh: bool
    listed_days: ListedDays
    wanted: list[date] = field(default_factory=list)
    outcomes: list[runs.Outcome] = field(default_factory=list)
    progress: LiveProgress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = LiveProgress(cells_noun=self.dimension.cells_noun, listed_days=self.listed_days)

    @property
    def is_interrupted(self) -> bool:
        return any(outcome.is_interrupted for outcome in self.outcomes)

    @property
    def ended_early(self) -> bool:
        return any(outcome.failures or outcome.is_interrupted for outcome in self.outcomes)

    @property
    def must_stop(self) -> bool:
        """Whether no later load can succeed either: interrupted, the API is down, or not one day is stored."""
        stored_nothing = self.ended_early and not self.progress.result.stored
        return self.progress.calls.gave_up or self.is_interrupted or stored_nothing

    @property
    def skipped_downstream(self) -> bool:
        """Whether no run reached the rollups, the snapshot and the report, although none was interrupted."""
        if self.is_interrupted:
            return False
        return not self.wanted or (self.ended_early and not self.progress.result.stored)

    @property
    def missing(self) -> set[date]:
        return {*self.wanted} - self.progress.result.complete

    def list_anew(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        """List anew who is counted, since the settings mean others than the latest list."""
        outcome = runs.run_listing(definitions_for(settings, self.progress), instance, settings, self.dimension)
        self.outcomes.append(outcome)
        if self.ended_early:
            return
        with open_read_only(settings.warehouse) as connection:
            ids = len(reads.latest_listed(connection, self.dimension))
        number = f"1 {self.dimension.noun}" if ids == 1 else f"{ids:,} {self.dimension.plural}"
        say(f"{self.dimension.setting} has changed since the last load. It now means {number}.", "listed", ids=ids)

    def run(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        """Load the days and print a summary."""
        if not self.wanted:
            return
        with self.progress:
            definitions = definitions_for(settings, self.progress)
            self.outcomes += runs.run_days(
                definitions, instance, self.progress, settings, self.dimension, self.wanted, refresh=self.refresh
            )
        metrics = self.progress.metrics
        changes = metrics.changes
        summary = (
            f"{metrics.days} of {len(self.wanted)} days loaded{self.dimension.per_noun}: "
            f"{metrics.sessions:,} sessions; "
            f"{changes.inserted:,} {self.dimension.cells_noun} new, {changes.changed:,} changed, "
            f"{changes.unchanged:,} unchanged; "
            f"{metrics.calls:,} calls ({metrics.retries:,} retries); {metrics.seconds:.1f} s."
        )
        say(
            "\n".join([summary, *metrics.sentences(self.dimension.cells_noun)]),
            "loaded",
            counted=self.dimension.plural,
            days_wanted=len(self.wanted),
            **metrics.as_fields(),
        )


def _doubts(settings: Settings) -> list[str]:
    """Sentences about ids in the settings that may be misspelled."""
    chosen = [(dimension, ids) for dimension in settings.dimensions if (ids := settings.chosen(dimension))]
    if not chosen:
        return []
    with open_read_only(settings.warehouse) as connection:
        found = [doubt_about_choice(connection, *each) for each in chosen]
    return [sentence for sentence in found if sentence]


def _report_problems(loads: Sequence[_Load], contradicted: Sequence[date], doubts: Sequence[str]) -> None:
    """Print the problems that the loads found, each sentence once."""
    if contradicted:
        complain(
            f"Loaded, but the API contradicts itself on {format_days(contradicted)}. Run devin-sessions probe to find "
            "out why, then read these days again: "
            f"devin-sessions backfill {contradicted[0]} {contradicted[-1]} --refresh",
            "contradicted",
            days=contradicted,
        )
    results = [load.progress.result for load in loads]
    outcomes = [outcome for load in loads for outcome in load.outcomes]
    for sentence in dict.fromkeys(s for result in results for s in result.warnings):
        complain(sentence, "metrics_not_sent")
    for sentence in runs.failed_checks(outcomes, dg.AssetCheckSeverity.ERROR):
        complain(f"Check failed: {sentence}", "check_failed")
    warned = runs.failed_checks(outcomes, dg.AssetCheckSeverity.WARN)
    for sentence in dict.fromkeys([*warned, *doubts]):
        say(f"Note: {sentence}", "check_warned")
    for sentence in dict.fromkeys(s for result in results for s in result.contradictions):
        complain(sentence, "contradicted")
    for sentence in dict.fromkeys(s for outcome in outcomes for s in outcome.failures):
        complain(sentence, "not_loaded")


def _say_where(settings: Settings, loads: Sequence[_Load]) -> None:
    """Print where the counts are, and, if they are up to date, the report and what is published elsewhere."""
    has_failed = any(load.ended_early for load in loads)
    succeeded = {step for load in loads for outcome in load.outcomes for step in outcome.succeeded}

    def is_current(name: str) -> bool:
        return not has_failed or asset_key(settings, name).to_python_identifier() in succeeded

    snapshot = settings.published_snapshot
    report = settings.published_report if is_current(ACTIVITY_REPORT) else None
    folder = settings.published_folder if is_current(PUBLISHED_FILES) else None
    whose = f" of {settings.devin_enterprise}" if settings.devin_enterprise else ""
    counts = f"Counts{whose}, for SQL: {snapshot or settings.warehouse.name}"
    say(
        counts + (f"\nReport: {report}" if report else "") + (f"\nPublished: {folder.text}" if folder else ""),
        "published",
        counts=str(snapshot or ""),
        report=str(report or ""),
        **({"folder": folder.text} if folder else {}),
    )


def _report_missing(loads: Sequence[_Load], command: str, *, is_contradicted: bool) -> int:
    """Print which days are still to be loaded. Returns the exit code."""
    is_interrupted = any(load.is_interrupted for load in loads)
    still = sorted({day for load in loads for day in load.missing})
    must_be_fixed = any(outcome.must_be_fixed for load in loads for outcome in load.outcomes)
    fix = f"Fix what the message above says, then run: {command}"
    then = fix if must_be_fixed else f"Run the same command again: {command}"
    if still:
        complain(
            f"{'Interrupted. ' if is_interrupted else ''}Still to load: {format_days(still)}. {then}",
            "days_missing",
            days=still,
            is_interrupted=is_interrupted,
        )
    if is_interrupted:
        return interrupts.exit_code()
    has_failed = any(load.progress.result.contradictions or load.ended_early for load in loads)
    return MISSING if still or is_contradicted or has_failed else 0


def _migrate(settings: Settings) -> None:
    """Migrate a warehouse from an older release. If there is none yet, the first run creates it."""
    database = settings.warehouse
    if not database.is_file or database.exists():
        database.write(migrations.migrate)


@dataclass(frozen=True)
class Ledger:
    """What the warehouse has of some days: those not `unloaded`, per dimension; where the API contradicts itself.

    `outdated` are the dimensions of which others are to be counted than the latest list says, so that days may only
    seem to be loaded. `moved` are the days whose windows have moved since they were read. `is_boundary_new`: it has yet
    to record the zone and the hour at which its days begin.
    """

    unloaded: dict[Dimension, list[date]]
    contradicted: list[date]
    outdated: list[Dimension]
    moved: dict[Dimension, set[date]]
    is_boundary_new: bool


def read_ledger(settings: Settings, days: list[date], *, refresh: bool) -> Ledger:
    """Which of `days` are not loaded, per dimension, and on which the API contradicts itself.

    Raises Incompatible if the stored days have other boundaries, or come from another version of the API, and
    WarehouseError if the warehouse was lost.
    """
    if why := lost_warehouse(settings):
        raise WarehouseError(why)
    version = version_for(key_from_environment(), settings.devin_api_version)
    unloaded: dict[Dimension, list[date]] = {}
    contradicted: set[date] = set()
    outdated: list[Dimension] = []
    with open_read_only(settings.warehouse) as connection:
        refuse_other_version(reads.api_versions(connection), version, settings)
        moved = moved_days(connection, settings, to_read_again=days if refresh else ())
        is_first_record = any(moved.values()) and reads.day_boundary(connection) is None
        for dimension in settings.dimensions:
            unloaded[dimension] = missing_days(connection, settings, dimension, days)
            # If all days are loaded anyway, that load lists anew by itself.
            is_all = refresh or unloaded[dimension] == days
            if not is_all and is_list_outdated(connection, dimension, settings.chosen(dimension)):
                outdated.append(dimension)
            contradicted |= reads.contradicted_days(connection, dimension) & {*days}
    return Ledger(unloaded, sorted(contradicted), outdated, moved, is_first_record)
