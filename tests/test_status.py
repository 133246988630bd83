"""What `devin-sessions status` reports: the state of each day, the runs, and what to do."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from pipelines.command import exit_codes
from pipelines.command.status import status
from tests.support.command import devin_sessions, in_this_process
from tests.support.world import World
from warehouse.dimensions import ORGANIZATIONS
from warehouse.reads import DayState

FIRST, LAST = "2025-03-03", "2025-03-07"


def states(world: World) -> dict[str, DayState]:
    found = status(world.settings, world.instance).dimensions[ORGANIZATIONS].days
    return {f"{day}": state for day, state in found.items() if FIRST <= f"{day}" <= LAST}


def test_each_day_has_a_state(each_world: World) -> None:
    world = each_world
    two = [o.org_id for o in world.source.organizations[:2]]
    assert set(states(world).values()) == {"missing"}
    assert world.run("2025-03-03", "2025-03-04").success
    third, fourth = world.days("2025-03-05", "2025-03-06")
    world.source.add_sessions("org-unlisted", third.start, count=2)
    world.source.fail(
        body=b'{"sessions_count": 0}', times=None, when=lambda a: not a.org_ids and a.start == fourth.start
    )
    assert world.run("2025-03-05", "2025-03-05").success
    assert world.run("2025-03-06", "2025-03-06").success
    assert states(world) == {
        "2025-03-03": "proven",
        "2025-03-04": "proven",
        "2025-03-05": "unattributed",
        "2025-03-06": "contradiction",
        "2025-03-07": "missing",
    }
    world.configure(devin_org_ids=f"{two[0]},{two[1]},org-new")
    assert world.run("2025-03-07", "2025-03-07").success
    assert states(world)["2025-03-03"] == "partial"


def test_what_to_do_has_the_command_and_is_empty_when_all_is_well(world: World) -> None:
    world.configure(devin_start_date=f"{date.today() - timedelta(days=4)}")  # noqa: DTZ011  # a day off does no harm
    closed = status(world.settings, None).dimensions[ORGANIZATIONS].days
    first, last = f"{min(closed)}", f"{max(closed)}"
    (advice,) = status(world.settings, None).to_do
    assert advice.endswith(f"To load: devin-sessions backfill {first} {last}")
    assert world.run(first, last).success
    assert status(world.settings, None).to_do == []
    world.source.fail(status=404, org_id=world.source.organizations[0].org_id, times=None)
    world.run(first, last)
    (advice,) = status(world.settings, None).to_do
    assert world.source.organizations[0].org_id in advice


def test_one_command_loads_several_ranges_of_missing_days(world: World) -> None:
    assert world.run("2025-03-04", "2025-03-04").success
    (advice,) = status(world.settings, None).to_do
    assert advice.endswith("devin-sessions backfill --missing")


def test_the_command_given_for_a_contradiction_fixes_it(world: World) -> None:
    days = world.days("2025-03-05", "2025-03-06")
    lie = world.source.fail(
        body=b'{"sessions_count": 0}', when=lambda a: not a.org_ids and a.start == days[0].start, times=None
    )
    world.source.add_sessions("org-unlisted", days[1].start, count=2)
    assert world.run("2025-03-05", "2025-03-05").success
    lie.heal()
    assert world.run("2025-03-06", "2025-03-06").success

    def contradicted() -> list[str]:
        return [sentence for sentence in status(world.settings, None).to_do if sentence.startswith("Contradicted")]

    command = "devin-sessions backfill 2025-03-05 2025-03-05 --refresh"
    assert contradicted() == [f"Contradicted: 2025-03-05. To read again: {command}"]
    assert devin_sessions(*command.split()[1:])[0] == 0
    assert contradicted() == []


def test_missing_days_per_user_are_reported_separately(world: World) -> None:
    assert world.run(FIRST, LAST).success
    world.configure(devin_user_ids="discover", devin_start_date=FIRST)
    organizations, users = status(world.settings, None).to_do
    assert organizations.startswith("Missing: 2025-03-08…")
    assert users.startswith(f"Missing per user: {FIRST}…")


def test_the_last_runs_are_listed_with_their_days_and_outcome(world: World) -> None:
    since = datetime.now(UTC)
    assert world.run(FIRST, LAST).success
    world.source.fail(status=503, times=None)
    assert not world.run(FIRST, FIRST).success
    failed, succeeded = status(world.settings, world.instance).runs
    assert (failed.outcome, failed.days) == ("failure", FIRST)
    assert (succeeded.outcome, succeeded.days) == ("success", f"{FIRST}…{LAST}")
    assert succeeded.seconds is not None and succeeded.seconds > 0
    assert succeeded.started_at and failed.started_at
    assert since <= succeeded.started_at < failed.started_at <= datetime.now(UTC)


def test_only_the_last_five_runs_of_the_job_are_listed(world: World) -> None:
    @dg.job
    def another() -> None:
        """Nothing."""

    for day in range(1, 8):
        assert world.run(f"2025-03-0{day}", f"2025-03-0{day}").success
    assert another.execute_in_process(instance=world.instance).success
    days = [run.days for run in status(world.settings, world.instance).runs]
    assert days == [f"2025-03-0{day}" for day in (7, 6, 5, 4, 3)]


@pytest.mark.parametrize(("zone", "hour", "at"), [("UTC", "0", 2), ("Europe/Berlin", "22", 0), ("Asia/Tokyo", "8", 10)])
def test_the_next_tick_is_that_of_the_schedule(world: World, zone: str, hour: str, at: int) -> None:
    world.configure(devin_timezone=zone, devin_day_start_hour=hour)
    tick = status(world.settings, None).next_tick
    assert (tick.hour, tick.minute) == (at, 30)
    assert timedelta(0) < tick - datetime.now(ZoneInfo(zone)) <= timedelta(days=1)


def test_programs_get_the_whole_status_as_json(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    refused = world.source.organizations[0].org_id
    world.source.fail(status=404, org_id=refused, times=None)
    assert devin_sessions("backfill", FIRST, LAST)[0] == exit_codes.MISSING
    code, shown = in_this_process(capsys, world.environment, "status", "--json")
    whole = json.loads(shown)
    assert code == exit_codes.MISSING
    assert list(whole) == ["organizations", "runs", "schedule", "next_tick", "behind", "to_do"]
    assert whole["behind"] == []
    of_organizations = whole["organizations"]
    assert of_organizations["days"][FIRST] == "partial"
    assert (of_organizations["days_loaded"], of_organizations["days_reconciled"]) == (0, 0)
    assert list(of_organizations["unavailable"]) == [refused]
    assert "404" in of_organizations["unavailable"][refused]
    (run,) = whole["runs"]
    assert (run["days"], run["outcome"]) == (f"{FIRST}…{LAST}", "success")
    assert datetime.fromisoformat(run["started_at"]).utcoffset() == timedelta(0)
    assert run["seconds"] > 0
    assert datetime.fromisoformat(whole["next_tick"]) > datetime.now(UTC)
    assert len(whole["to_do"]) == 2


def test_people_see_what_is_loaded_the_last_runs_and_what_to_do(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    third = world.days("2025-03-05", "2025-03-05")[0]
    world.source.add_sessions("org-unlisted", third.start, count=2)
    assert devin_sessions("backfill", FIRST, LAST)[0] == 0
    code, shown = in_this_process(capsys, world.environment, "status")
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    assert code == exit_codes.MISSING
    assert "days reconciled with the API's total 4 of 5" in lines
    assert any(f"{FIRST}…{LAST} success" in line for line in lines)
    assert any(line.startswith("Next run: ") for line in lines)
    assert "To load: devin-sessions backfill --missing" in " ".join(lines)


def test_the_exit_code_is_0_when_there_is_nothing_to_do(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.configure(devin_start_date=f"{date.today() - timedelta(days=3)}")  # noqa: DTZ011  # a day off does no harm
    closed = status(world.settings, None).dimensions[ORGANIZATIONS].days
    assert world.run(f"{min(closed)}", f"{max(closed)}").success
    for option in ([], ["--json"]):
        assert in_this_process(capsys, world.environment, "status", *option)[0] == 0


def test_people_see_a_mark_for_each_day(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("2025-03-03", "2025-03-07").success
    _, shown = in_this_process(capsys, world.environment, "status")
    (march,) = (line for line in shown.splitlines() if line.strip().startswith("2025-03"))
    assert march.split()[1] == "··■■■■■" + "·" * 24
    assert "■ loaded and proven (5)" in shown


def test_status_creates_no_files(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    in_this_process(capsys, world.environment, "status")
    assert list(Path(world.folder).iterdir()) == []
