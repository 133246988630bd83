"""Days loaded by any run reach the rollups, the snapshot and the report, each once."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import tenacity

from pipelines.alive import marked_as_alive
from pipelines.behind import CATCH_UP, behind
from pipelines.command import exit_codes
from pipelines.failures import failure_message
from pipelines.follow import follow_sensor
from pipelines.names import FOLLOW, JOB
from pipelines.schedules import next_tick, range_tags
from resources.sandbox.server import Sandbox
from tests.support.browser import chromium
from tests.support.command import Here
from tests.support.graphql import LAUNCH, RUNS, graphql
from tests.support.held import Gate
from tests.support.loads import fill_behind
from tests.support.noon import NOON, ago
from tests.support.published import in_snapshot
from tests.support.ui import (
    patient_page,
    processes_of_runs,
    see_it_near,
    see_the_checks,
    see_the_description,
    see_the_plots,
    ui_ended_by,
)
from tests.support.waiting import wait_until
from tests.support.world import World
from warehouse import tables

DAY = "2025-04-01"
ROLLUPS = [rollup.name for rollup in tables.ROLLUPS]
EVERYTHING = [*ROLLUPS, "published_snapshot", "activity_report"]
LOADED = ["organizations", "daily_sessions"]
# 2 ** 62 each: together more than a bigint holds. They are in one month, and in two weeks.
TOO_MANY_A_MONTH = """
    update daily_sessions set sessions_count = 4611686018427387904 where day in ('2025-04-01', '2025-04-08')
"""
FAILING = [
    rollup.name
    for rollup in tables.ROLLUPS
    if tables.facts(rollup).reach(date(2025, 4, 1)) == tables.facts(rollup).reach(date(2025, 4, 8))
]
"""The rollups that sum both days in one row."""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


@pytest.fixture
def reported(world: World) -> World:
    """A world with a report."""
    world.configure(devin_report_path="")
    return world


class Daemon:
    """The sensor as the daemon evaluates it, tick by tick, without waiting for further runs."""

    def __init__(self, world: World) -> None:
        self.world, self.cursor = world, ""
        self.skipped = ""

    def tick(self) -> list[list[str]]:
        """The assets of each run that the sensor requests."""
        context = dg.build_sensor_context(self.world.instance, cursor=self.cursor or None)
        asked = follow_sensor(self.world.settings, quiet=timedelta(0)).evaluate_tick(context)
        self.cursor = asked.cursor or ""
        self.skipped = asked.skip_message or ""
        return [[key.to_user_string() for key in request.asset_selection or ()] for request in asked.run_requests or ()]


def run_of(world: World, assets: Sequence[str], first: str = "", last: str = "", **tags: str) -> bool:
    """Run these assets alone, as the UI does. Returns whether the run succeeded."""
    result = world.definitions.resolve_job_def(JOB).execute_in_process(
        instance=world.instance,
        tags=(range_tags(first, last or first) if first else {}) | tags,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    return result.success


def follow_up(world: World, assets: Sequence[str]) -> bool:
    return run_of(world, assets, **{"dagster/sensor_name": FOLLOW})


def switch_the_schedule_off(url: str) -> None:
    """Does what the schedule's switch in the UI does."""
    found = graphql(
        url,
        "query Shown($of: RepositorySelector!) { schedulesOrError(repositorySelector: $of) "
        "{ ... on Schedules { results { scheduleState { id } } } } }",
        of={"repositoryName": "__repository__", "repositoryLocationName": "devin_session_metrics"},
    )
    (schedule,) = found["schedulesOrError"]["results"]
    off = "mutation Off($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
    graphql(url, off, id=schedule["scheduleState"]["id"])


def see_the_history(url: str) -> None:
    """See in a browser that every day is loaded, and what is recorded of it."""
    with chromium() as browser:
        page = patient_page(browser, width=2400, height=1200)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        see_it_near(page, url)
        see_the_description(page, url)
        see_the_plots(page, url)
        see_the_checks(page, url)
        assert errors == []


def test_days_loaded_in_the_ui_reach_rollups_snapshot_and_report_and_the_ui_shows_them_and_status_its_schedule(
    reported: World, here: Here
) -> None:
    world, first, last = reported, ago(2), ago(1)
    world.configure(devin_start_date=first, devin_timezone=NOON)
    launched = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "devin_session_metrics",
            "jobName": JOB,
            "assetSelection": [{"path": [name]} for name in LOADED],
        },
        "mode": "default",
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in range_tags(first, last).items()]},
    }
    in_time = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda is_there: not is_there),
        wait=tenacity.wait_fixed(0.5),
        stop=tenacity.stop_after_delay(240),
    )
    report, snapshot, home = (
        world.settings.published_report,
        world.settings.published_snapshot,
        world.directory / "dagster",
    )
    assert report and snapshot

    def shown_by_status(*options: str) -> str:
        code, shown, _ = here("status", *options)
        assert code == 0, "a schedule that is not running does not affect the exit code"
        return " ".join(shown.split())

    with ui_ended_by(signal.SIGTERM, signal.SIGHUP, then=lambda: gate.open()) as ui:

        def launch() -> dict[str, Any]:
            response: dict[str, Any] = graphql(ui.url, LAUNCH % "launchRun", params=launched)["launchRun"]
            return response

        def outcomes() -> set[str]:
            return {run["status"] for run in graphql(ui.url, RUNS)["runsOrError"]["results"]}

        assert launch()["__typename"] == "LaunchRunSuccess"
        in_time(lambda: snapshot.exists() and report.exists())
        in_time(lambda: outcomes() == {"SUCCESS"})
        in_time(lambda: json.loads(shown_by_status("--json"))["schedule"] == "running")
        assert re.search(r"Next run: \d{4}-\d\d-\d\d \d\d:\d\d [-+]?\w+\.$", shown_by_status())
        see_the_history(ui.url)
        switch_the_schedule_off(ui.url)
        assert json.loads(shown_by_status("--json"))["schedule"] == "switched off"
        assert "Next run: none, the schedule is switched off." in shown_by_status()

        for path in (world.database.path, snapshot.parent):
            shutil.move(path, f"{path}.elsewhere")
        launch()
        in_time(lambda: "FAILURE" in outcomes())
        assert not world.database.path.exists(), "a worker that does not see the warehouse makes no new one"
        for path in (world.database.path, snapshot.parent):
            shutil.move(f"{path}.elsewhere", path)
        ui.kill_code_server()
        wait_until(lambda: any("is being started again" in line for line in ui.printed), "it has been seen")
        held = world.source.fail(delay=600, when=lambda request: bool(request.org_ids), times=1)
        in_time(lambda: launch().get("run"))
        wait_until(lambda: held.hits > 0, "the run is asking")
        ((killed, process),) = processes_of_runs(home).items()
        os.kill(process, signal.SIGKILL)
        gate = Gate(world, world.days(first, last)[0].start)
        in_time(lambda: processes_of_runs(home).keys() - {killed})
        assert gate.reached.wait(60), "the run that Dagster started in its place is asking"
    words = f"Still running, and goes on until it ends: {first}…{last} (2 days). Watch it with devin-sessions status"
    assert any(line.startswith(words) for line in ui.printed)
    expected = sum(world.truth(first, last).values())
    for table in ROLLUPS:
        assert in_snapshot(world, f"select sum(sessions_count)::bigint from {table}") == [(expected,)]
    assert last in report.read_text(encoding="utf-8")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        again, _, blind, own, loading = instance.get_runs()
        (failed,) = instance.all_logs(blind.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        message = failure_message(failed.get_dagster_event(), blind.run_id)
        marks = {mark.name for mark in Path(instance.root_directory, "alive").iterdir()}
    assert f"The warehouse {world.database.path} is missing here, although run {loading.run_id[:8]} of " in message
    assert again.parent_run_id == killed
    assert again.status is dg.DagsterRunStatus.SUCCESS, "the UI's end did not end it"
    assert marks <= {killed}, "a run that has ended is not marked as alive; the killed one's mark goes with a tick"
    assert own.tags["dagster/sensor_name"] == FOLLOW
    assert {key.to_user_string() for key in own.asset_selection or ()} == {*EVERYTHING}
    assert {key.to_user_string() for key in loading.asset_selection or ()} == {*LOADED}


def test_a_run_whose_process_was_killed_neither_runs_for_ever_nor_holds_up_the_others(reported: World) -> None:
    job = reported.definitions.resolve_job_def(JOB)
    killed = reported.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    alive = reported.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    Path(reported.instance.root_directory, "alive").mkdir()
    Path(reported.instance.root_directory, "alive", killed.run_id).touch()
    with marked_as_alive(reported.instance, alive.run_id):
        Daemon(reported).tick()
        statuses = {run.run_id: run.status for run in reported.instance.get_runs()}
    assert statuses == {killed.run_id: dg.DagsterRunStatus.FAILURE, alive.run_id: dg.DagsterRunStatus.STARTED}


def test_days_loaded_by_several_runs_even_failed_ones_are_followed_by_one_run_once_nothing_runs(
    reported: World,
) -> None:
    daemon = Daemon(reported)
    assert daemon.tick() == []
    second = reported.days("2025-04-02", "2025-04-02")[0]
    reported.configure(devin_fetch="direct")
    reported.source.fail(status=503, when=lambda asked: asked.start == second.start, times=None)
    assert not reported.load("2025-04-01", "2025-04-02", judged=False).success
    assert daemon.tick() == [EVERYTHING], "the failed run stored a day"
    reported.source.heal()
    assert reported.load("2025-04-02", "2025-04-02", judged=False).success
    job = reported.definitions.resolve_job_def(JOB)
    other = reported.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert daemon.tick() == [], "a run is in progress"
    reported.instance.report_run_canceled(other)
    asked = follow_sensor(reported.settings, quiet=timedelta(hours=1)).evaluate_tick(
        dg.build_sensor_context(reported.instance)
    )
    assert not asked.run_requests
    assert "just now" in str(asked.skip_message)
    assert daemon.tick() == [EVERYTHING]
    assert daemon.tick() == [], "nothing has ended since"
    assert follow_up(reported, EVERYTHING)
    assert daemon.tick() == []
    assert daemon.skipped == "Nothing is behind."
    assert in_snapshot(reported, "select count(*) from enterprise_sessions") == [(2,)]


def test_the_job_and_the_command_leave_nothing_to_follow(reported: World) -> None:
    daemon = Daemon(reported)
    daemon.tick()
    assert reported.run("2025-04-01", "2025-04-02").success
    assert daemon.tick() == []
    assert daemon.skipped == "Nothing is behind."
    reported.configure(devin_api_key="")
    assert daemon.tick() == []
    no_key, _, rest = daemon.skipped.partition(", so its runs will fail: ")
    assert (no_key, rest.rpartition(". ")[2]) == ("This code location has no DEVIN_API_KEY", "No run has ended.")


def test_a_rollup_that_fails_stops_neither_the_others_nor_what_is_published(reported: World) -> None:
    world, daemon = reported, Daemon(reported)
    assert world.load("2025-04-01", "2025-04-08", judged=False).success
    with world.database.transaction() as connection:
        connection.execute(sa.text(TOO_MANY_A_MONTH))
    assert daemon.tick() == [EVERYTHING]
    assert not follow_up(world, EVERYTHING)
    assert behind(world.settings).rollups == FAILING
    published = ["published_snapshot", "activity_report"]
    assert daemon.tick() == [published], "a failed rollup is not retried for ever"
    snapshot = world.settings.published_snapshot
    assert snapshot
    snapshot.parent.write_text("in the way")
    assert not follow_up(world, published)
    assert daemon.tick() == [], "nor is publishing"
    assert daemon.skipped == f"Still behind: {', '.join([*FAILING, *published])}."
    snapshot.parent.unlink()
    assert follow_up(world, published)
    assert daemon.tick() == []
    assert daemon.skipped == f"Still behind: {', '.join(FAILING)}."
    assert in_snapshot(world, "select count(*) from enterprise_sessions") == [(8,)]


def test_the_command_reports_a_rollup_that_fails_and_publishes_the_others(reported: World, here: Here) -> None:
    world = reported
    fill_behind(world, "2025-04-01", "2025-04-08")
    with world.database.transaction() as connection:
        connection.execute(sa.text(TOO_MANY_A_MONTH))
    code, _, err = here("backfill", "2025-04-01", "2025-04-08")
    assert code == exit_codes.MISSING
    for name in FAILING:
        assert f"The rollup {name} could not be built from the stored days:" in err
    assert err.count("could not be built") == len(FAILING)
    assert in_snapshot(world, "select count(*) from enterprise_sessions") == [(8,)]
    assert in_snapshot(world, "select count(distinct week) from weekly_sessions") == [(2,)]
    assert [in_snapshot(world, f"select count(*) from {name}") for name in FAILING] == [[(0,)]] * len(FAILING)
    assert world.settings.published_report and world.settings.published_report.exists()
    assert behind(world.settings).assets == FAILING


def test_status_reports_what_is_behind_and_the_command_that_catches_up(reported: World, here: Here) -> None:
    world = reported
    world.configure(devin_start_date=ago(2), devin_timezone=NOON)
    fill_behind(world, ago(2), ago(1))
    code, shown, _ = here("status", "--json")
    status: dict[str, Any] = json.loads(shown)
    assert (code, status["behind"]) == (exit_codes.MISSING, EVERYTHING)
    (advice,) = status["to_do"]
    assert advice == f"Behind the stored days: {', '.join(EVERYTHING)}. To catch up: {CATCH_UP}"
    code, _, err = here(*CATCH_UP.split()[1:])
    assert (code, err) == (0, "")
    code, shown, _ = here("status", "--json")
    assert (code, json.loads(shown)["behind"]) == (0, [])
    code, shown, _ = here("status")
    start_it = r"Next run: .*, if the schedule is running by then\. It isn't running now: start devin-sessions ui"
    assert re.search(start_it, " ".join(shown.split()))
    assert code == 0, "a schedule that is not running does not affect it"


def test_on_a_server_only_the_rollups_and_the_report_can_be_behind(each_world: World) -> None:
    world = each_world
    world.configure(devin_report_path=f"{world.directory}/report.html")
    assert behind(world.settings).assets == []
    assert world.load(DAY, DAY, judged=False).success
    everything = EVERYTHING if world.settings.published_snapshot else [*ROLLUPS, "activity_report"]
    assert behind(world.settings).assets == everything
    assert run_of(world, everything)
    assert behind(world.settings).assets == []
    assert world.load(DAY, DAY, judged=False).success
    assert behind(world.settings).assets == everything, "the same day, read again"


@pytest.mark.parametrize(
    ("zone", "switch", "hour", "ticks"),
    [
        # 02:30 does not exist on the first day, and comes twice on the second.
        ("Europe/Berlin", "2025-03-30", 0, ["29T02:30:00+01:00", "30T03:00:00+02:00", "31T02:30:00+02:00"]),
        ("Europe/Berlin", "2025-10-26", 0, ["25T02:30:00+02:00", "26T02:30:00+01:00", "27T02:30:00+01:00"]),
        ("America/New_York", "2025-03-09", 0, ["08T02:30:00-05:00", "09T03:00:00-04:00", "10T02:30:00-04:00"]),
        ("America/New_York", "2025-11-02", 23, ["01T01:30:00-04:00", "02T01:30:00-05:00", "03T01:30:00-05:00"]),
    ],
)
def test_the_next_run_is_when_the_daemon_starts_it_when_clocks_change(
    world: World, zone: str, switch: str, hour: int, ticks: list[str]
) -> None:
    world.configure(devin_timezone=zone, devin_day_start_hour=str(hour))
    at = datetime.fromisoformat(f"{date.fromisoformat(switch) - timedelta(days=1)}T00:00:00+00:00")
    found = []
    for _ in ticks:
        tick = next_tick(world.settings, at)
        found.append(tick.isoformat())
        at = tick.astimezone(UTC) + timedelta(seconds=1)
    assert [moment[8:] for moment in found] == ticks
