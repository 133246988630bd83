"""When the job runs, and for which days."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from pipelines.names import JOB
from pipelines.partitions import closed_days, daily_partitions
from tests.support.loads import fill
from tests.support.warehouse import migrated
from tests.support.world import World, single_day_requests


def tick(world: World, at: datetime) -> list[dg.RunRequest]:
    schedule = world.definitions.resolve_schedule_def("daily_refresh_schedule")
    context = dg.build_schedule_context(
        scheduled_execution_time=at, resources={"database": world.database}, instance=world.instance
    )
    return list(schedule.evaluate_tick(context).run_requests or [])


def days_of(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"]


@pytest.fixture
def empty_warehouse(world: World) -> None:
    """A warehouse without rows: without a file, each tick would create one in memory."""
    migrated(world.database)


@pytest.mark.usefixtures("empty_warehouse")
def test_the_schedule_ticks_two_and_a_half_hours_after_the_day_closes(world: World) -> None:
    for zone, hour, cron in (
        ("UTC", 0, "30 2 * * *"),
        ("UTC", 8, "30 10 * * *"),
        ("Europe/Berlin", 22, "30 0 * * *"),
        ("Asia/Tokyo", 23, "30 1 * * *"),
    ):
        world.configure(devin_timezone=zone, devin_day_start_hour=str(hour), devin_catch_up_days="0")
        schedule = world.definitions.resolve_schedule_def("daily_refresh_schedule")
        assert (schedule.cron_schedule, schedule.execution_timezone) == (cron, zone)
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING

        cron_minute, cron_hour = (int(field) for field in cron.split()[:2])
        at = datetime(2025, 6, 12, cron_hour, cron_minute, tzinfo=ZoneInfo(zone))
        (request,) = tick(world, at)
        last = request.tags["dagster/asset_partition_range_end"]
        window = daily_partitions(world.settings).time_window_for_partition_key(last)
        since_close = (at - window.end).total_seconds()
        assert since_close == 2.5 * 3600, "the day that it loads closed two and a half hours before"


@pytest.mark.usefixtures("empty_warehouse")
def test_a_tick_requests_the_last_closed_days_in_one_run(world: World) -> None:
    for lookback in (1, 3, 14):
        world.configure(devin_lookback_days=str(lookback), devin_catch_up_days="0")
        (request,) = tick(world, datetime(2025, 6, 12, 2, 30, tzinfo=ZoneInfo("UTC")))
        first, last = map(date.fromisoformat, days_of(request))
        assert last == date(2025, 6, 11)
        assert (last - first).days == lookback - 1


def test_a_machine_that_was_off_catches_up_in_one_run_per_contiguous_range(world: World) -> None:
    world.configure(devin_start_date="2025-01-01", devin_catch_up_days="8")
    at = datetime(2025, 6, 12, 2, 30, tzinfo=ZoneInfo("UTC"))
    assert [days_of(request) for request in tick(world, at)] == [("2025-06-04", "2025-06-11")], "nothing is loaded yet"
    fill(world, "2025-06-03", "2025-06-05")
    fill(world, "2025-06-08", "2025-06-09")
    requests = tick(world, at)
    assert [days_of(request) for request in requests] == [("2025-06-06", "2025-06-07"), ("2025-06-09", "2025-06-11")]
    assert len({request.run_key for request in requests}) == 2
    assert world.load_with_tags(dict(requests[0].tags), judged=False).success
    fill(world, *days_of(requests[1]))
    assert [days_of(request) for request in tick(world, at)] == [("2025-06-09", "2025-06-11")], "only the look-back"
    assert world.cells() == world.truth("2025-06-03", "2025-06-11")


def test_many_days_that_were_missed_are_two_runs_of_which_only_the_last_publishes(world: World) -> None:
    at = datetime(2025, 6, 13, 2, 30, tzinfo=ZoneInfo("UTC"))
    for day in range(1, 10, 2):
        fill(world, f"2025-06-{day:02}", f"2025-06-{day:02}")
    world.configure(devin_start_date="2025-06-01")
    caught_up, nightly = tick(world, at)
    assert [days_of(caught_up), days_of(nightly)] == [("2025-06-02", "2025-06-08"), ("2025-06-10", "2025-06-12")]
    loads = {"organizations", "daily_sessions"}
    assert {key.to_user_string() for key in caught_up.asset_selection or ()} == loads
    assert [key.name for key in caught_up.asset_check_keys or ()] == ["list_is_whole"]
    job = world.definitions.resolve_job_def(JOB)
    everything = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert {key.to_user_string() for key in nightly.asset_selection or ()} == everything - {"organizations"}
    checks = {key for key in job.asset_layer.asset_graph.asset_check_keys if key.name != "list_is_whole"}
    assert {*(nightly.asset_check_keys or ())} == checks

    world.source.requests.clear()
    for request in (caught_up, nightly):
        assets, of_checks = {*(request.asset_selection or ())}, {*(request.asset_check_keys or ())}
        part = job.get_subset(asset_selection=assets, asset_check_selection=of_checks)
        assert part.execute_in_process(instance=world.instance, tags=dict(request.tags)).success
    asked = {q.start.day for q in single_day_requests(world) if q.start and q.org_ids}
    assert asked == {2, 4, 6, 8, 10, 11, 12}, "of the days in between, at most a total"
    assert world.cells() == world.truth("2025-06-01", "2025-06-12")
    assert [days_of(request) for request in tick(world, at)] == [("2025-06-10", "2025-06-12")]


@pytest.mark.usefixtures("empty_warehouse")
def test_no_run_that_the_schedule_requests_spans_more_days_than_allowed(world: World) -> None:
    world.configure(devin_days_per_run="10", devin_catch_up_days="25")
    requests = tick(world, datetime(2025, 6, 26, 2, 30, tzinfo=ZoneInfo("UTC")))
    days = [("2025-06-01", "2025-06-10"), ("2025-06-11", "2025-06-20"), ("2025-06-21", "2025-06-25")]
    assert [days_of(request) for request in requests] == days
    first, middle, last = ({key.to_user_string() for key in request.asset_selection or ()} for request in requests)
    assert (first, middle) == ({"organizations", "daily_sessions"}, {"daily_sessions"})
    assert "published_snapshot" in last and "organizations" not in last
    assert requests[1].asset_check_keys == []


def test_days_that_lack_an_organization_are_caught_up_too(world: World) -> None:
    two = [o.org_id for o in world.source.organizations[:2]]
    world.configure(devin_org_ids=two[0], devin_lookback_days="1", devin_catch_up_days="4")
    fill(world, "2025-06-08", "2025-06-11")
    world.configure(devin_org_ids=",".join(two), devin_fetch="direct")
    (request,) = tick(world, datetime(2025, 6, 12, 2, 30, tzinfo=ZoneInfo("UTC")))
    assert days_of(request) == ("2025-06-08", "2025-06-11")
    assert world.load_with_tags(dict(request.tags), judged=False).success
    asked = [(asked.org_ids, asked.start.day) for asked in single_day_requests(world) if asked.org_ids and asked.start]
    added, before = (two[1],), (two[0],)
    assert sorted(asked) == sorted([*((added, day) for day in (8, 9, 10, 11)), (before, 11)]), "all on the last day"


def test_with_an_unusable_warehouse_a_run_is_requested_and_fails_with_the_reason(world: World) -> None:
    warehouse = world.directory / "warehouse.duckdb"
    warehouse.write_text("not a database")
    at = datetime(2025, 6, 12, 2, 30, tzinfo=ZoneInfo("UTC"))
    (request,) = tick(world, at)
    assert days_of(request) == ("2025-06-09", "2025-06-11")
    assert str(warehouse) in world.failures(world.load_with_tags(dict(request.tags), judged=False))


def test_a_look_back_longer_than_history_begins_at_the_first_day(world: World) -> None:
    world.configure(devin_start_date="2025-06-10")
    (request,) = tick(world, datetime(2025, 6, 12, 2, 30, tzinfo=ZoneInfo("UTC")))
    assert request.tags["dagster/asset_partition_range_start"] == "2025-06-10"


def test_a_day_is_closed_only_when_its_window_is_over(world: World) -> None:
    world.configure(devin_day_start_hour="8")
    partitions = daily_partitions(world.settings)
    before = datetime(2025, 6, 12, 7, 59, tzinfo=ZoneInfo("UTC"))
    after = datetime(2025, 6, 12, 8, 0, tzinfo=ZoneInfo("UTC"))
    assert closed_days(partitions, before)[-1] == date(2025, 6, 10)
    assert closed_days(partitions, after)[-1] == date(2025, 6, 11)
