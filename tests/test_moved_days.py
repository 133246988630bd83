"""Days whose windows have moved because the rules of their time zone changed, and changed settings, which are not that.

Europe/Kyiv and Europe/Istanbul have the same time in summer. A warehouse that was loaded with the days of Istanbul, and
says that they are days of Kyiv, is one that was loaded before Kyiv had winter time.
"""

import json
import os
import shutil
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import date
from importlib import resources
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from pipelines.__main__ import main as devin_sessions
from pipelines.checks import verdicts
from pipelines.command import exit_codes
from pipelines.command.status import status
from tests.support.command import Here
from tests.support.forks import FORKS, make_home
from tests.support.loads import fill, publish
from tests.support.published import seem_published, snapshot_of
from tests.support.warehouse import rebuild_all, rows_of, select_over_all_time, tables_since
from tests.support.world import World, template_world
from tests.support.zones import extra_zone
from warehouse import migrations, reads, rollups, tables
from warehouse.dimensions import ORGANIZATIONS, USERS, Dimension

FIRST, LAST_MOVED, FIRST_SUMMER_DAY, LAST = "2025-03-26", "2025-03-30", "2025-03-31", "2025-04-02"
MOVED = [f"2025-03-{day}" for day in range(26, 31)]
RELOAD = f"devin-sessions backfill {FIRST} {LAST_MOVED} --refresh"


def say_that_these_are_days_of(world: World, zone: str) -> None:
    with world.database.transaction() as connection:
        connection.execute(sa.update(tables.day_boundary).values(timezone=zone))


def load_by_earlier_rules(world: World) -> None:
    """Load the days from FIRST to LAST by the rules that Kyiv had earlier, and let it have those of today."""
    world.configure(devin_timezone="Europe/Istanbul", devin_start_date=FIRST)
    fill(world, FIRST, LAST)
    say_that_these_are_days_of(world, "Europe/Kyiv")
    world.configure(devin_timezone="Europe/Kyiv")


@pytest.fixture(scope="module")
def file_by_earlier_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse that was loaded so."""
    directory = tmp_path_factory.mktemp("by-earlier-rules")
    with template_world(directory) as world:
        load_by_earlier_rules(world)
        return world.database.path


@pytest.fixture
def by_earlier_rules(world: World, file_by_earlier_rules: Path) -> World:
    """A world with a copy of that warehouse, in which Kyiv has the rules of today."""
    shutil.copy(file_by_earlier_rules, world.database.path)
    world.configure(devin_timezone="Europe/Kyiv", devin_start_date=FIRST)
    return world


def moved(world: World, of: Dimension = ORGANIZATIONS) -> list[str]:
    return [f"{day}" for day in status(world.settings, None).dimensions[of].moved]


def advice(world: World) -> list[str]:
    return [sentence for sentence in status(world.settings, None).to_do if sentence.startswith("Moved")]


def assert_all_days_are_of_one_kind(world: World, last: str) -> None:
    """Every stored day, count and total is right by the settings of today, and so are rollups that take them in."""
    days = world.days(FIRST, last)
    assert world.cells() == world.truth(FIRST, last)
    with world.database.transaction() as connection:
        rebuild_all(connection)
        assert reads.windows(connection, ORGANIZATIONS) == {day.day: (day.start, day.end) for day in days}
        for rollup in tables.ROLLUPS:
            assert rows_of(connection, rollup) == select_over_all_time(connection, rollup.name)
    totals = world.rows("select day, sessions_count, unattributed_count from daily_totals order by day")
    assert totals == [(day.day, world.source.truth(day.start, day.end), 0) for day in days]


# By changed rules


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_runs_of_other_days_go_on_and_a_check_names_moved_days_until_they_are_read_again(each_world: World) -> None:
    world = each_world
    load_by_earlier_rules(world)
    assert moved(world) == MOVED
    before = world.cells()
    result = world.load(LAST, "2025-04-04", complete_before=date(2025, 4, 5))
    assert result.success, "other days go on"
    check = world.checks(result)["windows_are_current"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (check.description or "").startswith(f"Bounds have moved: {FIRST}…{LAST_MOVED} (5 days)")
    assert before.items() <= world.cells().items()
    result = world.load(FIRST, LAST_MOVED)
    assert result.success, world.failures(result)
    assert world.checks(result)["windows_are_current"].passed
    assert moved(world) == []
    assert_all_days_are_of_one_kind(world, "2025-04-04")


def test_status_names_moved_days_and_a_backfill_leaves_them_as_they_are_unless_they_are_to_be_read_again(
    by_earlier_rules: World, here: Here
) -> None:
    world = by_earlier_rules
    assert moved(world) == json.loads(here("status", "--json")[1])["organizations"]["moved"] == MOVED
    assert advice(world) == [
        f"Moved: {FIRST}…{LAST_MOVED} (5 days), stored with other bounds than the rules of Europe/Kyiv now give. "
        f"To read again: {RELOAD}"
    ]
    before = world.cells()
    code, out, err = here("backfill", FIRST, "2025-04-04")
    assert (code, err) == (0, "")
    assert "2 of 2 days loaded" in out
    assert f"Note: Bounds have moved: {FIRST}…{LAST_MOVED} (5 days)" in " ".join(out.split())
    assert before.items() <= world.cells().items()
    code, out, err = here(*RELOAD.split()[1:])
    assert (code, err) == (0, "")
    assert "5 of 5 days loaded" in out and "Bounds have moved" not in out
    assert moved(world) == []
    assert_all_days_are_of_one_kind(world, "2025-04-04")


def test_moved_days_that_were_not_read_again_yet_stay_moved(by_earlier_rules: World) -> None:
    world = by_earlier_rules
    assert world.load("2025-03-27", "2025-03-28", judged=False).success
    assert moved(world) == [FIRST, "2025-03-29", LAST_MOVED]
    (sentence,) = advice(world)
    commands = f"backfill {FIRST} {FIRST} --refresh", f"backfill 2025-03-29 {LAST_MOVED} --refresh"
    assert sentence.endswith(" && ".join(f"devin-sessions {command}" for command in commands))
    world.source.fail(status=503, times=None, when=lambda asked: bool(asked.end and asked.end.day == 29))
    assert not world.load(FIRST, LAST_MOVED, judged=False).success
    still = moved(world)
    assert "2025-03-29" in still, "a day is read by one set of rules, or not at all"
    world.source.heal()
    assert world.load(FIRST, LAST_MOVED, judged=False).success
    assert moved(world) == []
    assert_all_days_are_of_one_kind(world, LAST)


def test_no_count_of_a_moved_day_stays_as_it_was(each_world: World) -> None:
    world = each_world
    kept, refused, *_ = (organization.org_id for organization in world.source.organizations)
    load_by_earlier_rules(world)
    others = ",".join(o.org_id for o in world.source.organizations[2:])
    world.configure(devin_org_ids=others)
    world.source.fail(status=404, org_id=refused, times=None)
    result = world.load(FIRST, LAST_MOVED, judged=False)
    assert result.success, world.failures(result)
    truth = world.truth(FIRST, LAST)
    of_day = {day for day, _ in truth if f"{day}" <= LAST_MOVED}
    expected = {key: count for key, count in truth.items() if key[0] not in of_day or key[1] != refused}
    assert world.cells() == expected, f"{kept} is no longer counted, but its counts are still right"
    lost = {(day, truth[day, refused]) for day in of_day}
    rest = world.rows(f"select day, unattributed_count from daily_totals where day <= '{LAST_MOVED}'")
    assert set(rest) == lost


def test_a_moved_day_that_lacks_counts_is_read_as_a_whole(by_earlier_rules: World) -> None:
    world = by_earlier_rules
    one = world.source.organizations[0].org_id
    with world.database.transaction() as connection:
        connection.execute(sa.text(f"delete from daily_sessions where org_id = '{one}'"))
        rollups.mark_everything_stale(connection)
    result = world.load(FIRST, LAST, complete_before=date(2025, 4, 3), judged=False)
    assert result.success, world.failures(result)
    assert moved(world) == []
    assert_all_days_are_of_one_kind(world, LAST)


def test_users_days_that_moved_are_told_apart_and_both_totals_are_compared_only_over_the_same_window(
    world: World,
) -> None:
    two = ",".join(member.user_id for member in world.source.members[:2])
    world.configure(devin_user_ids=two)
    load_by_earlier_rules(world)
    assert moved(world) == moved(world, USERS) == MOVED
    world.configure(devin_user_ids="")
    assert world.load(FIRST, LAST_MOVED, judged=False).success
    world.configure(devin_user_ids=two)
    assert moved(world) == []
    (sentence,) = advice(world)
    assert sentence.startswith(f"Moved per user: {FIRST}")
    with world.database.transaction(read_only=True) as connection:
        found = dict(verdicts(connection, world.settings))
    assert found["Users and organizations"].passed
    assert not found["Bounds of days (users)"].passed
    assert found["Bounds of days (users)"].sentence.startswith(f"Bounds have moved per user: {FIRST}")
    assert world.load(FIRST, LAST_MOVED, judged=False).success
    assert advice(world) == []


def backfill_by_the_rules_in(zones: Path, environment: dict[str, str]) -> None:
    """In a process of its own: the command, on a machine that finds its zones there."""
    os.environ.clear()
    os.environ.update(environment)
    zoneinfo.reset_tzpath(to=[f"{zones}"])
    sys.argv = ["devin-sessions", "backfill", FIRST, LAST]
    devin_sessions()


def test_a_load_after_the_zone_got_new_rules_on_this_machine(world: World, tmp_path: Path) -> None:
    zones = tmp_path / "zones"
    (zones / "Europe").mkdir(parents=True)
    of_istanbul = resources.files("tzdata.zoneinfo.Europe").joinpath("Istanbul").read_bytes()
    (zones / "Europe" / "Kyiv").write_bytes(of_istanbul)
    world.configure(devin_timezone="Europe/Kyiv", devin_start_date=FIRST)
    make_home(world.directory / "dagster")
    before = FORKS.Process(target=backfill_by_the_rules_in, args=(zones, {**os.environ}))
    before.start()
    before.join(60)
    assert before.exitcode == 0
    assert moved(world) == MOVED
    assert world.load(FIRST, LAST_MOVED, judged=False).success
    assert_all_days_are_of_one_kind(world, LAST)


def test_after_a_restore_from_the_copy_or_from_parquet_status_says_the_same_as_before(
    by_earlier_rules: World, here: Here
) -> None:
    world = by_earlier_rules
    world.configure(devin_start_date="2025-03-20")
    fill(world, LAST, LAST)  # days before the first loaded one are expected from now on
    publish(world)
    before, views = json.loads(here("status", "--json")[1]), world.rows("select * from reconciliation order by day")
    assert before["organizations"]["moved"] == MOVED
    for is_copy_lost in (False, True):
        if is_copy_lost:
            snapshot_of(world).unlink()
        world.database.path.write_bytes(b"")
        assert here("restore")[0] == 0
        after = json.loads(here("status", "--json")[1])
        assert after["organizations"] == before["organizations"]
        assert [said for said in after["to_do"] if not said.startswith("Behind")] == before["to_do"]
        assert world.rows("select * from reconciliation order by day") == views
    assert world.load(LAST, "2025-04-03", judged=False).success, "the next load goes on"


# By changed settings


@pytest.mark.parametrize(
    ("zone", "hour", "first"),
    [
        pytest.param("Europe/Kyiv", "0", FIRST, id="other days in winter alone"),
        pytest.param("Asia/Tokyo", "0", FIRST_SUMMER_DAY, id="other days all year"),
        pytest.param("Europe/Istanbul", "8", FIRST_SUMMER_DAY, id="another hour"),
    ],
)
def test_a_changed_setting_is_refused_with_the_earlier_values_and_status_says_so(
    world: World, here: Here, zone: str, hour: str, first: str
) -> None:
    world.configure(devin_timezone="Europe/Istanbul", devin_start_date=FIRST)
    fill(world, first, LAST)
    world.configure(devin_timezone=zone, devin_day_start_hour=hour)
    before, refusal = world.cells(), "restore the earlier values, DEVIN_TIMEZONE=Europe/Istanbul and DEVIN_DAY_START_HO"
    for command in (["backfill", first, LAST, "--refresh"], ["backfill", "--missing"]):
        code, _, err = here(*command)
        assert (code, refusal in err) == (exit_codes.WRONG_USE, True), command
    assert any(refusal in sentence for sentence in status(world.settings, None).to_do)
    assert advice(world) == []
    assert world.cells() == before


def test_days_before_a_later_start_are_not_forgotten_when_a_setting_changes(world: World) -> None:
    world.configure(devin_timezone="Europe/Istanbul")
    fill(world, FIRST, LAST)
    world.configure(devin_timezone="Europe/Kyiv", devin_start_date=FIRST_SUMMER_DAY)
    assert "Different day boundaries are never mixed" in world.failures(world.load(LAST, LAST))


@pytest.mark.parametrize("names", [("Europe/Kiev", "Europe/Kyiv"), ("Etc/UTC", "UTC")], ids=" or ".join)
def test_a_renamed_zone_is_no_change(world: World, here: Here, names: tuple[str, str]) -> None:
    world.configure(devin_timezone=names[0], devin_start_date=FIRST)
    fill(world, FIRST, LAST)
    for earlier, now in (names, names[::-1]):
        say_that_these_are_days_of(world, earlier)
        seem_published(world)
        world.configure(devin_timezone=now)
        code, out, _ = here("backfill", FIRST, LAST)
        assert (code, "Nothing to do" in out) == (0, True)
        assert advice(world) == []


def test_a_zone_that_was_renamed_and_got_new_rules_has_moved_days(by_earlier_rules: World) -> None:
    world = by_earlier_rules
    say_that_these_are_days_of(world, "Europe/Kiev")
    assert len(moved(world)) == 5
    assert world.load(FIRST, LAST, judged=False).success
    assert moved(world) == []
    assert_all_days_are_of_one_kind(world, LAST)
    assert world.rows("select * from day_boundary") == [("Europe/Kyiv", 0)]


def test_a_zone_that_no_longer_exists_is_not_taken_for_another_with_other_days(by_earlier_rules: World) -> None:
    world = by_earlier_rules
    say_that_these_are_days_of(world, "Europe/Atlantis")
    assert "DEVIN_TIMEZONE=Europe/Atlantis" in world.failures(world.load(LAST, LAST))


# By an older release, which did not record the settings


def forget_the_settings(world: World) -> None:
    """Take the warehouse back to the version that had no record of them."""
    with world.database.transaction() as connection:
        for name in tables_since(7):
            connection.execute(sa.text(f"drop table {name}"))
        connection.execute(sa.text("update warehouse_version set version = 6"))


def test_a_warehouse_of_an_older_release_goes_on_and_gets_the_record(each_world: World) -> None:
    world = each_world
    world.configure(devin_timezone="Europe/Kyiv", devin_start_date=FIRST)
    fill(world, FIRST, FIRST_SUMMER_DAY)
    forget_the_settings(world)
    assert world.load(LAST, LAST, judged=False).success
    assert world.rows("select * from day_boundary") == [("Europe/Kyiv", 0)]
    assert world.rows("select version from warehouse_version") == [(migrations.VERSION,)]


def test_where_no_settings_are_recorded_other_days_are_accepted_only_if_all_are_read_again(
    by_earlier_rules: World, here: Here
) -> None:
    world = by_earlier_rules
    forget_the_settings(world)
    for command in (
        ["backfill", LAST, LAST],
        ["backfill", FIRST, "2025-03-29", "--refresh"],
        ["backfill", "--missing"],
    ):
        code, _, err = here(*command)
        assert code == exit_codes.WRONG_USE, command
        assert "restore the earlier values, or set WAREHOUSE_URL" in err
        assert f"Then read all of them again: {RELOAD}" in err
    assert world.rows("select * from day_boundary") == []
    world.source.fail(status=503, times=None)
    assert here(*RELOAD.split()[1:])[0] == exit_codes.MISSING
    assert len(moved(world)) == 5, "what was interrupted is known"
    world.source.heal()
    assert world.load(FIRST, LAST_MOVED, judged=False).success
    assert_all_days_are_of_one_kind(world, LAST)


# A day that is skipped


@pytest.fixture
def skipping(world: World, tmp_path: Path) -> Iterator[World]:
    """A world in a zone that is 12 hours behind UTC, then 12 ahead: without 2025-03-30."""
    with extra_zone(tmp_path / "zones", "Test/Skipping", [-12, 12], ["2025-03-30T12:00"]):
        world.configure(devin_timezone="Test/Skipping", devin_start_date=FIRST)
        yield world


def test_a_day_that_its_zone_skips_is_empty_and_the_days_around_it_are_whole(skipping: World, here: Here) -> None:
    world = skipping
    before, skipped, after = world.days("2025-03-29", FIRST_SUMMER_DAY)
    assert before.end == skipped.start == skipped.end == after.start
    assert world.load(FIRST, LAST, judged=False).success
    assert_all_days_are_of_one_kind(world, LAST)
    seem_published(world)
    assert world.rows("select sessions_count from daily_totals where day = '2025-03-30'") == [(0,)]
    world.source.requests.clear()
    code, out, _ = here("backfill", FIRST, LAST)
    assert (code, "Nothing to do" in out, world.asked()) == (0, True, [])
    assert world.load(FIRST_SUMMER_DAY, FIRST_SUMMER_DAY, judged=False).success, "the day before it is skipped"


def test_a_probe_and_a_dry_run_leave_out_a_day_that_its_zone_skips(skipping: World, here: Here) -> None:
    code, out, _ = here("probe", "--until", LAST, "--json")
    assert code == 0
    assert json.loads(out)[0]["seen"].endswith(f"sessions, {FIRST} to {LAST}.")
    code, out, _ = here("probe", "--until", "2025-03-30", "--json")
    assert (code, json.loads(out)[0]["seen"].endswith("sessions, 2025-03-26 to 2025-03-29.")) == (0, True)
    skipping.configure(devin_start_date="2025-03-30")
    for command in (["probe", "--until", "2025-03-30"], ["backfill", "2025-03-30"]):
        code, _, err = here(*command)
        assert (code, "There is no 2025-03-30 in the time zone" in err) == (exit_codes.WRONG_USE, True)
