"""The sensor `alerts` over real runs, and what a real receiver gets from it."""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from pipelines import alerts
from pipelines.alive import KILLED
from pipelines.command import dagster_home
from pipelines.definitions import definitions_for
from pipelines.loading.progress import Progress
from pipelines.names import JOB
from pipelines.partitions import closed_days, daily_partitions
from pipelines.schedules import range_tags
from resources import webhook
from resources.sandbox.server import Sandbox
from resources.webhook import Undelivered, send
from tests.support.command import in_this_process
from tests.support.forks import make_home
from tests.support.loads import fill
from tests.support.receiver import Receiver
from tests.support.warehouse import make_missing_warehouse
from tests.support.world import World

TOTALS_SUM = "Check counts_sum_to_control_totals of daily_sessions"
BLOCKS_ADD_UP = "Check blocks_add_up of daily_sessions"
LOADED = ["organizations", "daily_sessions"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


@dataclass
class Watch:
    """A world whose problems are reported to a receiver, tick by tick."""

    world: World
    receiver: Receiver
    days: list[str]
    cursor: str | None = None
    reasons: list[str] = field(default_factory=list)

    @cached_property
    def definitions(self) -> dg.Definitions:
        return self.world.definitions

    @cached_property
    def sensor(self) -> dg.SensorDefinition:
        return self.definitions.resolve_sensor_def("alerts")

    def tick(self) -> list[str]:
        """The messages that arrive from one tick of the sensor."""
        before = len(self.receiver.bodies)
        with dg.build_sensor_context(instance=self.world.instance, cursor=self.cursor) as context:
            result = self.sensor.evaluate_tick(context)
        assert not result.run_requests
        self.cursor = result.cursor
        self.reasons.append(result.skip_message or "")
        return self.receiver.texts[before:]

    def load(self, first: int = 0, last: int = -1, **tags: str) -> dg.ExecuteInProcessResult:
        """One run over the days with these numbers of the assets up to the counts."""
        return self.run(LOADED, first, last, **tags)

    def run(self, assets: list[str], first: int = 0, last: int = -1, **tags: str) -> dg.ExecuteInProcessResult:
        """One run over these days of these assets of the job."""
        return self.definitions.resolve_job_def(JOB).execute_in_process(
            instance=self.world.instance,
            tags=range_tags(self.days[first], self.days[last]) | tags,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )

    def spoil(self, number: int, **how: Any) -> None:
        """Let the API fail to count the day with this number."""
        (day,) = self.world.days(self.days[number], self.days[number])
        self.world.source.fail(times=None, when=lambda asked: asked.start == day.start, **how)


@pytest.fixture
def watch(world: World, receiver: Receiver) -> Watch:
    """Six closed days of history, none of them loaded."""
    make_missing_warehouse(world.database)
    start = (datetime.now(UTC) - timedelta(days=6)).date()
    world.configure(devin_alert_webhook_url=receiver.url, devin_start_date=start.isoformat(), devin_fetch="direct")
    return Watch(world, receiver, [day.isoformat() for day in closed_days(daily_partitions(world.settings))])


def test_a_failed_run_is_reported_once_and_again_when_everything_it_left_out_is_loaded(watch: Watch) -> None:
    assert watch.tick() == []
    watch.spoil(4, status=503)
    assert not watch.load(0, 5).success
    (message,) = watch.tick()
    name, since, days, command, *reasons = message.splitlines()
    assert name == "Run failed in daily_sessions"
    assert since.startswith(f"Since {datetime.now(UTC):%Y-%m-%d} ")
    assert since.endswith("You will get one more message when this is resolved, and none in between.")
    assert days == f"Days: {watch.days[4]}"
    assert command == f"To fix: devin-sessions backfill {watch.days[4]} {watch.days[4]}"
    assert reasons[0] == f"Not loaded: {watch.days[4]}. Everything else is stored."
    assert "the API returned 503 (Service Unavailable)" in reasons[1]
    assert watch.tick() == []
    assert not watch.load(3, 5).success
    assert watch.tick() == [], "the same problem, on another night"

    watch.world.source.heal()
    assert watch.load(0, 5).success
    (message,) = watch.tick()
    resolved, lasted = message.splitlines()
    assert resolved == "Resolved: Run failed in daily_sessions"
    assert since.split(". ")[0].removeprefix("Since ") in lasted, "it is as old as the first night"
    assert watch.tick() == []
    assert (watch.reasons[0], watch.reasons[-1]) == ("Open problems: none. Messages sent: 0.",) * 2, "all is well"


def test_a_run_for_other_days_does_not_resolve_a_failed_run(watch: Watch) -> None:
    watch.spoil(1, status=503)
    assert not watch.load(0, 2).success
    assert len(watch.tick()) == 1
    assert watch.load(3, 5).success
    messages = watch.tick()
    assert [text.splitlines()[0] for text in messages] == ["Check every_cell_is_present of daily_sessions: error"]
    assert watch.days[1] in messages[0]
    watch.world.source.heal()
    assert watch.load(1, 1).success
    assert sorted(text.splitlines()[0] for text in watch.tick()) == [
        "Resolved: Check every_cell_is_present of daily_sessions: error",
        "Resolved: Run failed in daily_sessions",
    ]


def test_the_command_in_the_message_fixes_the_problem(
    watch: Watch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_home(watch.world.directory / "dagster")
    with dagster_home.open_instance() as watch.world.instance:
        fill(watch.world, watch.days[0], watch.days[5])
        watch.spoil(2, status=503)
        assert not watch.load().success
        (message,) = watch.tick()
        assert f"backfill {watch.days[2]} {watch.days[2]} --refresh" in message, (
            "it is loaded, but could not be read again"
        )
        watch.world.source.heal()
        (command,) = (line for line in message.splitlines() if line.startswith("To fix: devin-sessions "))
        assert in_this_process(capsys, monkeypatch, *command.split()[3:])[0] == 0
        assert [text.splitlines()[0] for text in watch.tick()] == [f"Resolved: {message.splitlines()[0]}"]


def test_a_snapshot_that_could_not_be_written_is_fixed_without_asking_the_api(
    watch: Watch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_home(watch.world.directory / "dagster")
    with dagster_home.open_instance() as watch.world.instance:
        assert watch.world.settings.published_snapshot
        in_its_place = watch.world.settings.published_snapshot.parent
        in_its_place.write_text("not a directory")
        assert not watch.run([*LOADED, "published_snapshot"]).success
        (message,) = watch.tick()
        assert message.splitlines()[0] == "Run failed in published_snapshot"
        assert f"To fix: devin-sessions backfill {watch.days[0]} {watch.days[5]}\n" in message
        in_its_place.unlink()
        asked = len(watch.world.asked())
        assert in_this_process(capsys, monkeypatch, "backfill", watch.days[0], watch.days[5])[0] == 0
        assert len(watch.world.asked()) == asked
        assert watch.tick()[0].startswith("Resolved: Run failed in published_snapshot\n")


def test_a_run_that_fails_for_its_key_lists_the_days_too(watch: Watch) -> None:
    watch.world.source.fail(status=401, times=None)
    assert not watch.load(2, 3, **{"dagster/schedule_name": "daily_refresh_schedule"}).success
    (message,) = watch.tick()
    assert message.startswith("Scheduled run failed in organizations\n")
    assert f"Days: {watch.days[2]}…{watch.days[3]} (2 days)" in message
    assert "set it to" in message
    watch.world.source.heal()
    assert watch.load(4, 5).success
    assert watch.tick() == [], "its days are still missing"
    assert watch.load(2, 3).success
    assert watch.tick()[0].startswith("Resolved: Scheduled run failed in organizations\n")


def test_a_failed_run_that_was_started_in_the_ui_is_reported_too(watch: Watch) -> None:
    watch.spoil(5, status=503)
    job = watch.definitions.resolve_implicit_global_asset_job_def()
    tags = range_tags(watch.days[5], watch.days[5])
    job.execute_in_process(instance=watch.world.instance, tags=tags, raise_on_error=False)
    assert watch.tick()[0].startswith("Run failed in daily_sessions\n")


def at(location: str) -> ManagedGrpcPythonEnvCodeLocationOrigin:
    return ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="x"), location)


def launched(watch: Watch, location: str = "own", **tags: str) -> dg.DagsterRun:
    """A run of a code location of this name, as the UI or the daemon launches it."""
    return watch.world.instance.create_run_for_job(
        watch.definitions.resolve_job_def(JOB),
        tags=range_tags(watch.days[0], watch.days[1]) | tags,
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(at(location), "__repository__"), JOB),
    )


def test_a_failed_run_of_another_code_location_is_not_reported(watch: Watch) -> None:
    for location, titles in (("another", []), ("own", ["Run broke off"])):
        failed = launched(watch, location, **{WILL_RETRY_TAG: "false"})
        watch.world.instance.report_run_failed(failed, "Killed.")
        context = dg.SensorEvaluationContext(
            None,
            instance=watch.world.instance,
            cursor=watch.cursor,
            code_location_origin=at("own"),
            repository_def=watch.world.definitions.get_repository_def(),
        )
        before = len(watch.receiver.texts)
        with context:
            watch.cursor = watch.sensor.evaluate_tick(context).cursor
        assert [text.splitlines()[0] for text in watch.receiver.texts[before:]] == titles


def test_a_killed_run_is_reported_without_the_days_that_it_stored(watch: Watch) -> None:
    loads = frozenset(map(dg.AssetKey, LOADED))
    killed = watch.world.instance.create_run_for_job(
        watch.definitions.resolve_job_def(JOB).get_subset(asset_selection=loads),
        tags=range_tags(watch.days[0], watch.days[5]),
        asset_selection=loads,
    )
    fill(watch.world, watch.days[0], watch.days[3])
    watch.world.instance.report_run_failed(killed, "The process of this run was killed. What it stored is kept.")
    (message,) = watch.tick()
    assert message.splitlines()[0] == "Run broke off"
    assert f"Days: {watch.days[4]}…{watch.days[5]} (2 days)" in message
    assert f"backfill {watch.days[4]} {watch.days[5]}\n" in message
    assert "was killed" in message
    assert watch.load(4, 5).success
    assert watch.tick()[0].startswith("Resolved: Run broke off\n")


def test_a_killed_run_that_dagster_starts_again_is_reported_if_that_fails_too(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = watch.world.instance
    instance.report_run_failed(killed := launched(watch), "Killed.")
    instance.add_run_tags(killed.run_id, {WILL_RETRY_TAG: "true"})
    assert watch.tick() == [], "it is about to be started again"
    again = launched(watch)
    instance.add_run_tags(killed.run_id, {AUTO_RETRY_RUN_ID_TAG: again.run_id})
    with monkeypatch.context() as patch:
        patch.setattr(alerts, "RETRY_PATIENCE", timedelta(0))
        assert watch.tick() == [], "it was started again, and has not ended"
    instance.report_run_failed(again, "Killed again.")
    instance.add_run_tags(again.run_id, {WILL_RETRY_TAG: "false"})
    (message,) = watch.tick()
    assert message.splitlines()[0] == "Run broke off"
    assert message.count(KILLED) == 1, "whatever words the process that noticed it found"
    assert "Killed again." in message


def test_a_killed_run_is_reported_once_its_last_retry_failed_and_not_if_a_user_canceled_that(watch: Watch) -> None:
    instance = watch.world.instance
    for scheduled, titles in (({}, []), ({"dagster/schedule_name": "x"}, ["Scheduled run broke off"])):
        tags = {WILL_RETRY_TAG: "true", **scheduled}
        first, second, third = (launched(watch, **tags) for _ in range(3))
        for killed, again in ((first, second), (second, third)):
            instance.report_run_failed(killed, "Killed.")
            instance.add_run_tags(killed.run_id, {AUTO_RETRY_RUN_ID_TAG: again.run_id})
            assert watch.tick() == [], "it was started again, and has not ended"
        instance.report_run_canceled(third)
        assert [text.splitlines()[0] for text in watch.tick()] == titles


def test_a_killed_run_that_nothing_starts_again_is_reported(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.world.instance.report_run_failed(killed := launched(watch), "Killed.")
    watch.world.instance.add_run_tags(killed.run_id, {WILL_RETRY_TAG: "true"})
    monkeypatch.setattr(alerts, "RETRY_PATIENCE", timedelta(0))
    (message,) = watch.tick()
    assert message.splitlines()[0] == "Run broke off"


def test_an_interrupted_run_is_reported_only_if_the_schedule_started_it(watch: Watch) -> None:
    class Interrupting(Progress):
        def expect(self, cells: int) -> None:
            raise dg.DagsterExecutionInterruptedError

    job = definitions_for(watch.world.settings, Interrupting()).resolve_job_def(JOB)
    days = range_tags(watch.days[0], watch.days[1])
    for scheduled, titles in (({}, []), ({"dagster/schedule_name": "x"}, ["Scheduled run broke off"])):
        with suppress(dg.DagsterExecutionInterruptedError):
            job.execute_in_process(instance=watch.world.instance, tags=days | scheduled)
        run, *_ = watch.world.instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert [text.splitlines()[0] for text in watch.tick()] == titles


def test_a_resolved_problem_stays_resolved_while_the_warehouse_cannot_be_read(watch: Watch) -> None:
    watch.spoil(4, status=503)
    watch.load()
    watch.world.source.heal()
    assert watch.load().success
    assert watch.tick() == []
    watch.world.database.path.write_text("not a database")
    assert watch.tick() == []
    assert not watch.load().success
    (message,) = watch.tick()
    assert message.startswith("Run failed in organizations\n")
    assert f"{watch.world.database.path}" in message


def test_a_red_check_is_reported_once_and_again_when_it_is_green(watch: Watch) -> None:
    (day,) = watch.world.days(watch.days[5], watch.days[5])
    zero = b'{"sessions_count": 0}'
    watch.world.source.fail(body=zero, times=None, when=lambda a: not a.org_ids and a.start == day.start)
    assert watch.load().success
    of_blocks, message = watch.tick()
    assert of_blocks.startswith(f"{BLOCKS_ADD_UP}: error\nSince ")
    assert message.startswith(f"{TOTALS_SUM}: error\nSince ")
    assert f"than the API's own total on {watch.days[5]}. To read again: devin-sessions backfill" in message
    assert watch.load().success
    assert watch.tick() == []
    watch.world.source.heal()
    assert watch.load().success
    assert [message.splitlines()[0] for message in watch.tick()] == [
        f"Resolved: {BLOCKS_ADD_UP}: error",
        f"Resolved: {TOTALS_SUM}: error",
    ]
    assert watch.tick() == []


def test_a_check_has_been_red_since_its_first_red_result(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.world.source.fail(status=404, org_id=watch.world.source.organizations[0].org_id, times=None)
    assert watch.load(0, 4).success
    assert watch.load(0, 4).success
    first = watch.world.instance.get_run_records(limit=2)[1].end_time
    assert first is not None
    (key,) = (k for k in watch.definitions.resolve_asset_graph().asset_check_keys if "is_available" in k.name)
    (problem,) = alerts.red_checks(watch.world.instance, [key])
    assert problem.since.timestamp() <= first
    assert watch.world.source.organizations[0].org_id in problem.details[0]
    assert problem.details[1].endswith("devin-sessions status"), "no command fixes it"

    monkeypatch.setattr(alerts, "MOST_MESSAGES_A_TICK", 1)
    assert [len(watch.tick()) for _ in range(5)] == [1, 1, 1, 1, 0], "a few in each tick, and the rest in the next ones"


def test_a_failed_run_is_resolved_by_a_later_one_although_the_clock_was_set_back_in_between(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.spoil(4, status=503)
    now = time.time
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: now() + 86_400)
        assert not watch.load(3, 5).success
    failed = "Run failed in daily_sessions"
    assert failed in [text.splitlines()[0] for text in watch.tick()]
    watch.world.source.heal()
    assert watch.load(3, 5).success
    assert f"Resolved: {failed}" in [text.splitlines()[0] for text in watch.tick()]


def test_two_problems_at_once_are_two_messages_and_are_resolved_separately(watch: Watch) -> None:
    assert watch.load(0, 4).success
    watch.spoil(2, status=503)
    assert not watch.load(1, 3).success
    failed, yellow = watch.tick()
    assert failed.startswith("Run failed in daily_sessions\n")
    assert yellow.startswith("Check latest_closed_day_is_present of daily_sessions: warning\n")
    assert (
        f"The latest closed day is not loaded yet: {watch.days[5]}. To load: devin-sessions backfill {watch.days[5]}"
        in yellow
    )
    watch.world.source.heal()
    assert watch.load(1, 3).success
    assert [text.splitlines()[0] for text in watch.tick()] == ["Resolved: Run failed in daily_sessions"]
    assert watch.load(5, 5).success
    assert [text.splitlines()[0] for text in watch.tick()] == [
        "Resolved: Check latest_closed_day_is_present of daily_sessions: warning"
    ]


FAILING = {
    "500": "127.0.0.1 returned 500.",
    "302": "127.0.0.1 returned 302.",
    "hangs": "127.0.0.1 did not respond within 0.5 s.",
    "unplugged": "the connection to 127.0.0.1 failed (ConnectError).",
}


def test_no_message_is_lost_to_a_receiver_that_fails(
    watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick(failing: str) -> list[str]:
        if failing == "unplugged":
            receiver.unplug()
        receiver.status = int(failing) if failing.isdecimal() else None if failing == "hangs" else 200
        with monkeypatch.context() as shorter:
            if failing == "hangs":
                shorter.setattr(webhook, "TIMEOUT_SECONDS", 0.5)
            messages = watch.tick()
        if failing == "unplugged":
            receiver.start()
        return messages

    watch.spoil(4, status=503)
    watch.load()
    for failing, sentence in FAILING.items():
        assert tick(failing) == []
        assert watch.reasons[-1] == (
            "Open problems: Run failed in daily_sessions. "
            f"Messages not delivered, and kept for the next tick: 1. Reason: {sentence}"
        )
    watch.world.source.heal()
    assert watch.load().success
    for failing, sentence in FAILING.items():
        assert tick(failing) == []
        assert watch.reasons[-1] == (
            f"Open problems: none. Messages not delivered, and kept for the next tick: 2. Reason: {sentence}"
        )
    assert "/elsewhere" not in receiver.paths
    receiver.status = 200
    assert [text.splitlines()[0] for text in watch.tick()] == [
        "Run failed in daily_sessions",
        "Resolved: Run failed in daily_sessions",
    ]
    assert watch.tick() == []


def test_text_from_outside_is_escaped_and_a_problem_is_not_resolved_because_it_is_old(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.spoil(4, status=503, body=b'{"detail": "<!channel> & <@U1>"}')
    watch.load()
    (message,) = watch.tick()
    assert "&lt;!channel&gt; &amp; &lt;@U1&gt;" in message
    assert "<" not in message
    monkeypatch.setattr(alerts, "NEWS", timedelta(0))
    assert watch.tick() == []
    watch.cursor = None
    assert watch.tick() == [], "but a sensor that starts now does not report it"


def test_neither_the_key_nor_the_address_is_in_a_message_a_log_a_cursor_or_a_definition(
    watch: Watch, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = "apk_user_top-secret-key"
    in_the_way = watch.world.directory / key
    in_the_way.write_text("not a directory")
    watch.world.configure(
        devin_api_key=key, devin_org_ids="org-1", warehouse_url=f"duckdb:///{in_the_way}/warehouse.duckdb"
    )
    result = watch.load()
    assert key in watch.world.failures(result), "the failure itself contains it"
    caplog.clear()
    (message,) = watch.tick()
    assert "[key]" in message
    receiver.status = 500
    with pytest.raises(Undelivered) as not_sent:
        send("x")
    definitions = watch.world.definitions
    sensor = definitions.resolve_sensor_def("alerts")
    assert definitions.resources
    with dg.build_resources(dict(definitions.resources)) as built:
        resources = built._asdict()  # it is a named tuple
    held = [vars(resource) for resource in resources.values()]
    shown = [*receiver.texts, caplog.text, watch.cursor, *watch.reasons, not_sent.value, sensor.description]
    for secret in (key, "very-secret-path"):
        assert all(secret not in f"{text}" for text in shown)
    assert "very-secret-path" not in f"{held}"
    assert caplog.records, "something was logged"
    assert resources["settings"].devin_alert_webhook_url is None


def test_the_sensor_exists_only_if_a_webhook_is_set(watch: Watch) -> None:
    sensors = {sensor.name: sensor for sensor in watch.world.definitions.sensors or []}
    assert set(sensors) == {"alerts", "loaded_days_follow"}
    sensor = sensors["alerts"]
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 60
    watch.world.configure(devin_alert_webhook_url="")
    assert [sensor.name for sensor in watch.world.definitions.sensors or []] == ["loaded_days_follow"]
