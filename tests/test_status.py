"""What `devin-sessions status` reports: the state of each day, the runs, and what to do."""

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from pipelines.alive import MARKS, marked_as_alive
from pipelines.command import exit_codes
from pipelines.command.status import status
from pipelines.command.status_screen import show_runs
from pipelines.names import JOB
from pipelines.schedules import next_tick, range_tags
from resources.sandbox.faults import Fault
from tests.support.command import devin_sessions, in_this_process
from tests.support.loads import fill, publish
from tests.support.world import World, template_world
from warehouse import writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.reads import DayState

FIRST, THIRD, LAST = "2025-03-03", "2025-03-05", "2025-03-07"


@pytest.fixture(scope="module")
def five_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a backfill of five days: the third has sessions of an organization that is not listed."""
    directory = tmp_path_factory.mktemp("five-days")
    with template_world(directory) as world:
        world.source.add_sessions("org-unlisted", world.days(THIRD, THIRD)[0].start, count=2)
        assert devin_sessions("backfill", FIRST, LAST)[0] == 0
    return directory


@pytest.fixture
def loaded(world: World, five_days: Path) -> World:
    """A world of its own with those files."""
    shutil.copytree(five_days, world.directory, dirs_exist_ok=True)
    return world


def states(world: World) -> dict[str, DayState]:
    found = status(world.settings, None).dimensions[ORGANIZATIONS].days
    return {f"{day}": state for day, state in found.items() if FIRST <= f"{day}" <= LAST}


def to_do(world: World) -> list[str]:
    return status(world.settings, None).to_do


def lie_about(world: World, day: str) -> Fault:
    """Let the API count no sessions on this day unless it is asked about an organization."""
    (of,) = world.days(day, day)
    return world.source.fail(
        body=b'{"sessions_count": 0}', times=None, when=lambda asked: not asked.org_ids and asked.start == of.start
    )


def test_each_day_has_a_state(loaded: World) -> None:
    world = loaded
    lie_about(world, "2025-03-06")
    assert world.load("2025-03-06", "2025-03-06").success
    with world.database.transaction() as connection:
        connection.execute(sa.text(f"delete from daily_totals where day = '{LAST}'"))
    assert states(world) == {
        "2025-03-03": "proven",
        "2025-03-04": "proven",
        "2025-03-05": "unattributed",
        "2025-03-06": "contradiction",
        "2025-03-07": "missing",
    }
    two = [o.org_id for o in world.source.organizations[:2]]
    world.configure(devin_org_ids=f"{two[0]},{two[1]},org-new")
    assert world.load(LAST, LAST).success
    assert states(world)["2025-03-03"] == "partial"


def test_what_to_do_has_the_command_and_is_empty_when_all_is_well(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.configure(devin_start_date=f"{date.today() - timedelta(days=4)}")  # noqa: DTZ011  # a day off does no harm
    closed = status(world.settings, None).dimensions[ORGANIZATIONS].days
    assert set(closed.values()) == {"missing"}
    first, last = f"{min(closed)}", f"{max(closed)}"
    (advice,) = to_do(world)
    assert advice.endswith(f"To load: devin-sessions backfill {first} {last}")
    fill(world, first, last)
    publish(world)
    assert to_do(world) == []
    for option in ([], ["--json"]):
        assert in_this_process(capsys, world.environment, "status", *option)[0] == 0
    refused = world.source.organizations[0].org_id
    with world.database.transaction() as connection:
        writes.store_availability(connection, ORGANIZATIONS, {refused: f"{last}: 404."}, (), datetime.now(UTC))
    publish(world)
    (advice,) = to_do(world)
    assert refused in advice


def test_one_command_loads_several_ranges_of_missing_days(loaded: World) -> None:
    (advice,) = to_do(loaded)
    assert advice.endswith("devin-sessions backfill --missing")


def test_the_command_given_for_a_contradiction_fixes_it(loaded: World) -> None:
    lie = lie_about(loaded, "2025-03-06")
    assert loaded.load("2025-03-06", "2025-03-06").success
    lie.heal()

    def contradicted() -> list[str]:
        return [sentence for sentence in to_do(loaded) if sentence.startswith("Contradicted")]

    command = "devin-sessions backfill 2025-03-06 2025-03-06 --refresh"
    assert contradicted() == [f"Contradicted: 2025-03-06. To read again: {command}"], "unattributed days are not"
    assert devin_sessions(*command.split()[1:])[0] == 0
    assert contradicted() == []


def test_missing_days_per_user_are_reported_separately(loaded: World) -> None:
    loaded.configure(devin_user_ids="discover", devin_start_date=FIRST)
    organizations, users = to_do(loaded)
    assert organizations.startswith("Missing: 2025-03-08…")
    assert users.startswith(f"Missing per user: {FIRST}…")


def test_the_last_runs_are_listed_with_their_days_and_outcome(world: World) -> None:
    since = datetime.now(UTC)
    assert world.load(FIRST, LAST).success
    world.source.fail(status=503, times=None)
    assert not world.load(FIRST, FIRST).success
    failed, succeeded = status(world.settings, world.instance).runs
    assert (failed.outcome, failed.days) == ("failure", FIRST)
    assert (succeeded.outcome, succeeded.days) == ("success", f"{FIRST}…{LAST}")
    assert succeeded.seconds is not None and succeeded.seconds > 0
    assert succeeded.started_at and failed.started_at
    assert since <= succeeded.started_at < failed.started_at <= datetime.now(UTC)


def test_only_the_last_five_runs_of_the_job_and_of_its_assets_in_the_ui_are_listed(world: World) -> None:
    @dg.job
    def another() -> None:
        """Nothing."""

    jobs = [world.definitions.resolve_job_def(JOB), world.definitions.resolve_implicit_global_asset_job_def()]
    for day in range(1, 8):
        world.instance.create_run_for_job(jobs[day % 2], tags=range_tags(f"2025-03-0{day}", f"2025-03-0{day}"))
    assert another.execute_in_process(instance=world.instance).success
    days = [run.days for run in status(world.settings, world.instance).runs]
    assert days == [f"2025-03-0{day}" for day in (7, 6, 5, 4, 3)]


def test_a_run_whose_process_was_killed_is_not_shown_as_one_in_progress(world: World) -> None:
    job = world.definitions.resolve_job_def(JOB)
    alive, killed = (
        world.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": day})
        for day in ("2025-03-04", "2025-03-05")
    )
    with marked_as_alive(world.instance, alive.run_id):
        mark = Path(world.instance.root_directory) / MARKS / killed.run_id
        mark.touch()  # which the process would have locked
        runs = status(world.settings, world.instance).runs
        assert [run.outcome for run in runs] == ["killed", "started"]
        assert mark.exists(), "so that the run is closed later"


def test_a_run_without_days_is_listed_with_what_it_rebuilt(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    job = world.definitions.resolve_job_def(JOB)
    keys = [["weekly_sessions"], ["monthly_sessions"], ["published_snapshot"]]
    for names in (keys, [["organizations"]]):
        selected = job.get_subset(asset_selection={dg.AssetKey(name) for name in names})
        world.instance.create_run_for_job(selected, asset_selection=frozenset(dg.AssetKey(name) for name in names))
    world.instance.create_run_for_job(job, tags={"dagster/partition": "2025-03-04"})
    found = status(world.settings, world.instance)
    assert [(run.days, run.rebuilt) for run in found.runs] == [
        ("2025-03-04", ""),
        ("", "organizations"),
        ("", "rollups, snapshot"),
    ]
    show_runs(found)
    assert "none: rollups, snapshot" in capsys.readouterr().out


def test_a_long_queue_hides_neither_the_run_in_progress_nor_how_the_last_ones_ended(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    job, instance = world.definitions.resolve_job_def(JOB), world.instance
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("own"), "__repository__"), JOB)
    statuses = ["FAILURE", "CANCELED", "STARTED", *["QUEUED"] * 60]
    for number, outcome in enumerate(statuses, start=1):
        day = (date(2025, 3, 1) + timedelta(number)).isoformat()
        instance.create_run_for_job(
            job, status=dg.DagsterRunStatus(outcome), tags={"dagster/partition": day}, remote_job_origin=origin
        )
    asked = PartitionBackfill(
        "thebackf",
        BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=0.0,
        asset_selection=[dg.AssetKey(ORGANIZATIONS.cells.name)],
    )
    instance.add_backfill(asked)
    found = status(world.settings, instance)
    assert [run.outcome for run in found.runs] == ["started", "canceled", "failure"]
    assert (len(found.queued), found.backfills) == (60, ["thebackf"])
    show_runs(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Queued: 2025-03-05…2025-05-03 (60 days)." in shown
    assert "never │ 2025-03-03 │ canceled" in shown
    assert "Not finished: backfill thebackf of the Dagster UI." in shown


def test_the_next_tick_is_that_of_the_schedule(world: World) -> None:
    for zone, hour, at in (("UTC", "0", 2), ("Europe/Berlin", "22", 0), ("Asia/Tokyo", "8", 10)):
        world.configure(devin_timezone=zone, devin_day_start_hour=hour)
        tick = next_tick(world.settings, datetime.now(UTC))
        assert (tick.hour, tick.minute) == (at, 30), zone
        assert timedelta(0) < tick - datetime.now(ZoneInfo(zone)) <= timedelta(days=1), zone
    before = next_tick(world.settings, datetime.now(UTC))
    shown = status(world.settings, None).next_tick
    assert before <= shown <= next_tick(world.settings, datetime.now(UTC))


def test_programs_get_the_whole_status_as_json(loaded: World, capsys: pytest.CaptureFixture[str]) -> None:
    refused = loaded.source.organizations[0].org_id
    with loaded.database.transaction() as connection:
        writes.store_availability(connection, ORGANIZATIONS, {refused: "2025-03-08: 404."}, (), datetime.now(UTC))
    code, shown = in_this_process(capsys, loaded.environment, "status", "--json")
    whole = json.loads(shown)
    assert code == exit_codes.MISSING
    assert list(whole) == ["organizations", "runs", "schedule", "next_tick", "queued", "backfills", "behind", "to_do"]
    assert whole["behind"] == ["published_snapshot"]
    of_organizations = whole["organizations"]
    assert (of_organizations["days"][FIRST], of_organizations["days"][THIRD]) == ("proven", "unattributed")
    assert (of_organizations["days_loaded"], of_organizations["days_reconciled"]) == (5, 4)
    assert of_organizations["unavailable"] == {refused: "2025-03-08: 404."}
    (run,) = whole["runs"]
    assert (run["days"], run["outcome"]) == (f"{FIRST}…{LAST}", "success")
    assert datetime.fromisoformat(run["started_at"]).utcoffset() == timedelta(0)
    assert run["seconds"] > 0
    assert datetime.fromisoformat(whole["next_tick"]) > datetime.now(UTC)
    assert len(whole["to_do"]) == 3, "days are missing, one organization is refused, and the snapshot is older"


def test_people_see_what_is_loaded_a_mark_for_each_day_the_last_runs_and_what_to_do(
    loaded: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = in_this_process(capsys, loaded.environment, "status")
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    assert code == exit_codes.MISSING
    assert "days reconciled with the API's total 4 of 5" in lines
    assert any(f"{FIRST}…{LAST} success" in line for line in lines)
    assert any(line.startswith("Next run: ") for line in lines)
    assert "To load: devin-sessions backfill --missing" in " ".join(lines)
    (march,) = (line for line in shown.splitlines() if line.strip().startswith("2025-03"))
    assert march.split()[1] == "··■■▲■■" + "·" * 24
    assert "■ loaded and proven (4)" in shown
    assert "▲ loaded, sessions unattributed (1)" in shown
