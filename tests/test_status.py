"""What `devin-sessions status` tells: of each day, of the runs, and what to do."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipelines import cli
from pipelines.status import status
from tests.conftest import World
from tests.test_cli import in_this_process
from warehouse.reads import DayState

FIRST, LAST = "2025-03-03", "2025-03-07"


def states(world: World, noun: str = "organizations") -> dict[str, DayState]:
    found = status(world.settings, world.instance).counted[noun].days
    return {f"{day}": state for day, state in found.items() if FIRST <= f"{day}" <= LAST}


def test_each_day_says_how_it_is(each_world: World) -> None:
    world = each_world
    two = [o.org_id for o in world.source.organizations[:2]]
    assert set(states(world).values()) == {"missing"}
    assert world.run("2025-03-03", "2025-03-04").success
    third, fourth = world.days("2025-03-05", "2025-03-06")
    world.source.add_sessions("org-unlisted", third.start, count=2)
    world.source.fail(
        body=b'{"sessions_count": 0}', times=None, when=lambda a: not a.org_ids and a.start == fourth.start
    )
    assert world.run("2025-03-05", "2025-03-06").success
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


def test_what_is_to_do_names_the_command_and_is_empty_when_all_is_well(world: World) -> None:
    world.configure(devin_start_date=f"{date.today() - timedelta(days=4)}")  # noqa: DTZ011  # a day off does no harm
    closed = status(world.settings, None).counted["organizations"].days
    first, last = f"{min(closed)}", f"{max(closed)}"
    (advice,) = status(world.settings, None).to_do
    assert advice.endswith(f"To load: devin-sessions backfill {first} {last}")
    assert world.run(first, last).success
    assert status(world.settings, None).to_do == []
    world.source.fail(status=404, org_id=world.source.organizations[0].org_id, times=None)
    world.run(first, last)
    (advice,) = status(world.settings, None).to_do
    assert world.source.organizations[0].org_id in advice


def test_days_missing_in_several_places_are_loaded_by_one_command(world: World) -> None:
    assert world.run("2025-03-04", "2025-03-04").success
    (advice,) = status(world.settings, None).to_do
    assert advice.endswith("devin-sessions backfill --missing")


def test_the_last_runs_are_told_with_their_days_and_outcome(world: World) -> None:
    assert world.run(FIRST, LAST).success
    world.source.fail(status=503, times=None)
    assert not world.run(FIRST, FIRST).success
    failed, succeeded = status(world.settings, world.instance).runs
    assert (failed.outcome, failed.days) == ("failure", FIRST)
    assert (succeeded.outcome, succeeded.days) == ("success", f"{FIRST}…{LAST}")
    assert succeeded.seconds is not None and succeeded.seconds > 0


@pytest.mark.parametrize(("zone", "hour", "at"), [("UTC", "0", 2), ("Europe/Berlin", "22", 0), ("Asia/Tokyo", "8", 10)])
def test_the_next_tick_is_the_schedules_own(world: World, zone: str, hour: str, at: int) -> None:
    world.configure(devin_timezone=zone, devin_day_start_hour=hour)
    tick = status(world.settings, None).next_tick
    assert (tick.hour, tick.minute) == (at, 30)
    assert timedelta(0) < tick - datetime.now(ZoneInfo(zone)) <= timedelta(days=1)


def test_machines_get_all_of_it_as_json(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run(FIRST, LAST).success
    code, shown = in_this_process(capsys, world.environment, "status", "--json")
    told = json.loads(shown)
    assert code == cli.MISSING
    assert list(told) == ["organizations", "runs", "schedule", "next_tick", "to_do"]
    assert told["organizations"]["days"][FIRST] == "proven"
    assert told["organizations"]["days_loaded"] == 5
    assert told["to_do"]


def test_people_see_a_mark_for_each_day(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("2025-03-03", "2025-03-07").success
    _, shown = in_this_process(capsys, world.environment, "status")
    (march,) = (line for line in shown.splitlines() if line.strip().startswith("2025-03"))
    assert march.split()[1] == "··■■■■■" + "·" * 24
    assert "■ loaded and proven (5)" in shown


def test_looking_makes_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    in_this_process(capsys, world.environment, "status")
    assert list(Path(world.folder).iterdir()) == []
