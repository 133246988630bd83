"""The main job over real HTTP, databases and Dagster runs; the sandbox's truth is the oracle."""

import itertools
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from pipelines.loading.block_size import DAYS_PER_BLOCK
from pipelines.schedules import range_tags
from resources.sandbox.contract import ORGANIZATIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.support.event_log import OURS, commits, instance_in
from tests.support.loads import fill
from tests.support.numbers import in_dagster
from tests.support.warehouse import rebuild_all
from tests.support.world import World, single_day_requests


def windows(asked: list[LoggedRequest]) -> set[tuple[datetime | None, datetime | None]]:
    return {(question.start, question.end) for question in asked}


def test_the_warehouse_equals_the_api_and_a_long_load_asks_fewer_questions_than_it_has_cells(each_world: World) -> None:
    world, first, last = each_world, "2025-01-30", "2025-02-12"
    world.configure(devin_fetch="differenced")
    result = world.run(first, last)
    assert result.success, world.failures(result)
    days, truth = world.days(first, last), world.truth(first, last)
    assert world.cells() == truth
    totals = {day.day: world.source.truth(day.start, day.end) for day in days}
    assert dict(world.rows("select day, sessions_count from daily_totals")) == totals
    assert dict(world.rows("select day, sessions_count from enterprise_sessions")) == totals
    weekly, monthly = Counter[tuple[date, str]](), Counter[tuple[date, str]]()
    for (day, org_id), count in truth.items():
        weekly[day - timedelta(days=day.weekday()), org_id] += count
        monthly[day.replace(day=1), org_id] += count
    for sums, rollup in (
        (weekly, "week, org_id, sessions_count from weekly_sessions"),
        (monthly, "month, org_id, sessions_count from monthly_sessions"),
    ):
        assert {(begins, org_id): count for begins, org_id, count in world.rows(f"select {rollup}")} == sums
    listed = {(o.org_id, o.org_name, o.created_at) for o in world.source.organizations}
    assert set(world.rows("select org_id, org_name, created_at from organizations")) == listed
    assert all(check.passed for name, check in world.checks(result).items() if name != "latest_closed_day_is_present")

    assert len(days) > world.settings.devin_lookback_days
    assert len(world.asked()) < len(truth) + len(days)
    assert any(q.end - q.start > timedelta(days=1) for q in world.asked() if q.start and q.end)
    derived = dict(world.rows("select is_derived, count(*) from daily_sessions group by 1"))
    assert derived[True] + derived[False] == len(truth)
    single = {(q.start, q.org_ids[0]) for q in single_day_requests(world) if q.org_ids}
    assert derived[False] == len(single), "only cells that were asked for directly are not derived"


def test_a_range_of_several_blocks_is_one_run_that_asks_for_each_of_its_windows(world: World) -> None:
    org_id = world.source.organizations[0].org_id
    world.configure(devin_org_ids=org_id, devin_fetch="direct")
    assert world.load("2025-01-01", "2025-02-02", judged=False).success
    days = world.days("2025-01-01", "2025-02-02")
    assert len(days) == 33 > DAYS_PER_BLOCK
    assert all(before.end == after.start for before, after in itertools.pairwise(days))
    for filters in ((), (org_id,)):
        asked = [q for q in single_day_requests(world) if q.org_ids == filters]
        assert len(asked) == 33
        assert windows(asked) == {(day.start, day.end) for day in days}
    blocks = [q for q in world.asked() if q not in single_day_requests(world)]
    assert sum((q.end - q.start).days for q in blocks if q.start and q.end) == 33, "and each block as a whole"
    assert len(world.rows("select * from daily_totals")) == 33
    assert len(world.materialized_days()) == 33


def test_loading_stored_days_again_changes_nothing(each_world: World) -> None:
    world = each_world
    fill(world, "2025-03-01", "2025-03-03")
    before = world.rows("select * from daily_sessions order by day, org_id")
    assert len(before) == 15
    assert world.load("2025-03-01", "2025-03-03", judged=False).success
    assert world.rows("select * from daily_sessions order by day, org_id") == before
    assert (world.progress.metrics.changes.inserted, world.progress.metrics.changes.changed) == (0, 0)
    assert world.progress.metrics.changes.unchanged == 15


def test_the_next_scheduled_run_picks_up_a_later_change_in_the_api(world: World) -> None:
    world.configure(devin_lookback_days="3", devin_catch_up_days="0")
    fill(world, "2025-06-08", "2025-06-10")
    org_id = world.source.organizations[3].org_id
    world.source.add_sessions(org_id, datetime(2025, 6, 10, 12, tzinfo=UTC), count=7)
    world.source.add_sessions(org_id, datetime(2025, 6, 8, 12, tzinfo=UTC), count=5)
    schedule = world.definitions.resolve_schedule_def("daily_refresh_schedule")
    at, resources = datetime(2025, 6, 12, 2, 30, tzinfo=UTC), {"database": world.database}
    data = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=at, resources=resources))
    assert data.run_requests is not None
    (request,) = data.run_requests
    assert world.load_with_tags(dict(request.tags), judged=False).success
    cells, truth = world.cells(), world.truth("2025-06-08", "2025-06-11")
    assert cells[date(2025, 6, 10), org_id] == truth[date(2025, 6, 10), org_id]
    assert cells[date(2025, 6, 8), org_id] == truth[date(2025, 6, 8), org_id] - 5, "it has left the look-back"
    assert world.progress.metrics.changes.changed == 1
    with world.database.transaction() as connection:
        rebuild_all(connection)
    weekly = dict(world.rows("select org_id, sessions_count from weekly_sessions where week = date '2025-06-09'"))
    assert weekly[org_id] == sum(cells[date(2025, 6, day), org_id] for day in (9, 10, 11))


@pytest.mark.parametrize(
    ("zone", "hour", "first", "last", "begins", "lengths"),
    [
        ("Europe/Berlin", 0, "2025-03-29", "2025-03-31", "2025-03-28T23:00Z", [24, 23, 24]),
        ("Europe/Berlin", 0, "2025-10-25", "2025-10-27", "2025-10-24T22:00Z", [24, 25, 24]),
        ("Europe/Berlin", 2, "2025-03-29", "2025-03-31", "2025-03-29T01:00Z", [24, 23, 24]),
        ("America/New_York", 8, "2025-03-07", "2025-03-09", "2025-03-07T13:00Z", [24, 23, 24]),
        ("UTC", 8, "2025-12-30", "2026-01-02", "2025-12-30T08:00Z", [24, 24, 24, 24]),
        ("Asia/Kolkata", 0, "2025-12-30", "2026-01-02", "2025-12-29T18:30Z", [24, 24, 24, 24]),
    ],
)
def test_days_have_the_right_length_at_clock_changes_other_start_hours_and_the_turn_of_the_year(
    world: World, zone: str, hour: int, first: str, last: str, begins: str, lengths: list[int]
) -> None:
    world.configure(devin_timezone=zone, devin_day_start_hour=str(hour))
    days = world.days(first, last)
    assert [(day.end - day.start) / timedelta(hours=1) for day in days] == lengths
    assert all(before.end == after.start for before, after in itertools.pairwise(days))
    assert days[0].start == datetime.fromisoformat(begins)


def test_each_day_is_asked_for_and_stored_with_its_own_window_at_a_clock_change(each_world: World) -> None:
    world, first, last = each_world, "2025-03-29", "2025-03-31"
    world.configure(devin_timezone="Europe/Berlin", devin_day_start_hour="2", devin_fetch="direct")
    assert world.load(first, last, judged=False).success
    days = world.days(first, last)
    assert windows(single_day_requests(world)) == {(day.start, day.end) for day in days}
    stored = world.rows("select day, window_start, window_end from daily_totals order by day")
    assert stored == [(day.day, day.start, day.end) for day in days]
    assert world.cells() == world.truth(first, last)


def test_an_api_that_lists_no_organizations_works_with_configured_ones(world: World) -> None:
    with Sandbox(organizations=5, lists_organizations=False) as source:
        world.source = source
        two = [o.org_id for o in source.organizations[:2]]
        world.configure(devin_api_url=source.url, devin_org_ids=",".join(two))
        result = world.load("2025-04-01", "2025-04-05")
        assert result.success, world.failures(result)
        assert not [request for request in source.requests if request.path == ORGANIZATIONS_PATH]
        expected = {cell: count for cell, count in world.truth("2025-04-01", "2025-04-05").items() if cell[1] in two}
        assert world.cells() == expected
        check = world.checks(result)["counts_sum_to_control_totals"]
        assert check.passed, "the rest belongs to organizations that the user left out"
        assert check.metadata["unattributed_sessions"].value == sum(
            count for (_, org_id), count in world.truth("2025-04-01", "2025-04-05").items() if org_id not in two
        )


def test_a_key_that_may_not_list_organizations_fails_with_the_setting_to_use(world: World) -> None:
    with Sandbox(organizations=5, lists_organizations=False) as source:
        world.configure(devin_api_url=source.url)
        result = world.load("2025-04-01", "2025-04-05")
        assert not result.success
        assert "DEVIN_ORG_IDS" in world.failures(result)


def test_days_that_cannot_be_read_fail_the_run_and_a_reexecuted_run_reads_nothing_else(world: World) -> None:
    first, last, bad = "2025-04-01", "2025-05-02", datetime(2025, 4, 3, tzinfo=UTC)
    with Sandbox(organizations=2) as source:
        world.source = source
        world.configure(devin_api_url=source.url, devin_fetch="differenced")
        org_id = source.organizations[1].org_id
        source.fail(status=503, org_id=org_id, when=lambda asked: asked.start == bad, times=None)
        failed = world.load(first, last)
        assert not failed.success
        expected = {cell: n for cell, n in world.truth(first, last).items() if cell[0] != bad.date()}
        assert world.cells() == expected, "everything else is stored, in this block and the next"
        assert len(world.materialized_days()) == 31
        assert "2025-04-03" not in world.materialized_days()
        message = world.failures(failed)
        assert "Not loaded: 2025-04-03." in message
        assert org_id in message
        assert "503" in message

        source.heal()
        source.requests.clear()
        group = {"dagster/parent_run_id": failed.run_id, "dagster/root_run_id": failed.run_id}
        again = world.load_with_tags(range_tags(first, last) | group, judged=False)
        assert again.success, world.failures(again)
        assert {q.start for q in world.asked()} == {bad, bad - timedelta(days=1)}, "and its total with the day before"
        assert not any(q.org_ids for q in world.asked() if q.start != bad)
        assert world.cells() == world.truth(first, last)
        assert len(world.materialized_days()) == 32


def test_the_stored_days_of_a_failing_run_reach_dagsters_record_in_one_transaction(world: World) -> None:
    world.instance = world.closing.enter_context(instance_in(world.directory / "record", OURS))
    world.configure(devin_fetch="differenced")  # from the list, the last two blocks would be asked at once
    world.source.fail(status=401, when=lambda a: a.start == datetime(2025, 5, 2, tzinfo=UTC), times=None)
    with commits() as count:
        assert not world.load("2025-03-01", "2025-05-02").success
    assert len(world.materialized_days()) == 62
    assert count["index.db"] < 50, "and not one for each day"


def test_a_day_without_a_control_total_costs_no_further_question_and_is_not_stored(world: World) -> None:
    bad = datetime(2025, 4, 3, tzinfo=UTC)
    world.source.fail(status=500, when=lambda asked: asked.start == bad and not asked.org_ids, times=None)
    world.configure(devin_fetch="direct")
    assert not world.load("2025-04-01", "2025-04-05", judged=False).success
    assert {q.org_ids for q in world.asked() if q.start == bad} == {()}
    assert bad.date() not in {day for day, _ in world.cells()}


def test_a_key_that_expires_during_a_run_stops_it_and_keeps_the_blocks_stored_before(world: World) -> None:
    world.configure(devin_org_ids=",".join(o.org_id for o in world.source.organizations))
    second_block = datetime(2025, 2, 1, tzinfo=UTC)
    world.source.fail(status=401, when=lambda a: a.start is not None and a.start >= second_block, times=None)
    result = world.load("2025-01-01", "2025-02-10")
    assert not result.success
    assert "DEVIN_API_KEY" in world.failures(result)
    assert world.cells() == world.truth("2025-01-01", "2025-01-31")
    assert len(world.materialized_days()) == 31
    refused = [q for q in world.asked() if q.status == 401]
    assert len(refused) <= world.settings.devin_max_connections, "only requests that were already in flight"


def test_a_renamed_field_fails_the_run_and_stores_nothing(world: World) -> None:
    world.source.fail(body=b'{"session_count": 3}', path="/v2/enterprise/metrics/sessions", times=None)
    result = world.load("2025-04-01", "2025-04-02")
    assert not result.success
    assert "sessions_count is missing" in world.failures(result)
    assert world.cells() == {}
    assert world.rows("select * from daily_totals") == []


def test_a_total_below_its_organizations_is_an_error_and_kept_on_the_day(world: World) -> None:
    (day,) = world.days("2025-04-01", "2025-04-01")
    zero = b'{"sessions_count": 0}'
    world.source.fail(body=zero, when=lambda asked: not asked.org_ids and asked.start == day.start, times=None)
    result = world.load("2025-04-01", "2025-04-01")
    check = world.checks(result)["counts_sum_to_control_totals"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    ((total, of_orgs, rest),) = world.rows(
        "select sessions_count, orgs_sessions_count, unattributed_count from daily_totals"
    )
    assert (total, of_orgs, rest) == (0, sum(world.truth("2025-04-01", "2025-04-01").values()), -of_orgs)
    assert world.progress.metrics.unattributed == -of_orgs < 0
    (sentence,) = [s for s in world.progress.result.contradictions if "add up to more sessions than its own total" in s]
    assert "2025-04-01" in sentence


@pytest.mark.parametrize(
    ("warehouse_url", "fetch"), [("duckdb", "direct"), ("postgresql", "differenced")], indirect=["warehouse_url"]
)
def test_counts_older_than_a_lower_total_are_reported_if_refused_and_else_read_again_even_if_no_longer_chosen(
    each_world: World, fetch: str
) -> None:
    world = each_world
    world.configure(devin_fetch=fetch)
    fill(world, "2025-04-01", "2025-04-03")
    before = world.cells()
    left_out, *chosen = [o.org_id for o in world.source.organizations]
    world.configure(devin_org_ids=",".join(chosen))
    world.source.remove_sessions(left_out, datetime(2025, 4, 1, tzinfo=UTC), datetime(2025, 4, 3, tzinfo=UTC))
    world.source.fail(status=404, org_id=left_out, times=None)
    world.load("2025-04-01", "2025-04-03", judged=False)
    (sentence,) = world.progress.result.contradictions
    assert f"The stored counts of {left_out} are older than that total, and the API refuses to count them" in sentence
    assert "On 2025-04-01…2025-04-02 (2 days)" in sentence
    assert world.cells() == before
    assert world.progress.result.lacking == {}, "it is not to be counted"

    world.source.heal()
    world.source.requests.clear()
    result = world.load("2025-04-01", "2025-04-03", judged=False)
    assert result.success, world.failures(result)
    assert world.progress.result.contradictions == []
    assert world.cells() == world.truth("2025-04-01", "2025-04-03")
    assert {verdict for (verdict,) in world.rows("select verdict from reconciliation where control_total > 0")} == {
        "proven"
    }
    about_it = {q.start.date() for q in single_day_requests(world) if q.org_ids == (left_out,) and q.start}
    assert date(2025, 4, 3) not in about_it, "its count of that day does not exceed the total"


def test_days_with_another_boundary_than_the_stored_ones_are_refused(each_world: World) -> None:
    world = each_world
    fill(world, "2025-04-01", "2025-04-02")
    before = world.cells()
    for zone, hour in (("Europe/Berlin", "0"), ("UTC", "8")):
        world.configure(devin_timezone=zone, devin_day_start_hour=hour)
        result = world.load("2025-04-03", "2025-04-04")
        assert not result.success, (zone, hour)
        assert "Different day boundaries are never mixed" in world.failures(result)
        assert world.cells() == before
    assert in_dagster(world) == [], "a load without requests records no numbers"


def test_a_short_load_asks_for_each_cell_and_each_day_carries_its_own_numbers_with_a_warning_of_unlisted_sessions(
    world: World,
) -> None:
    world.source.add_sessions("org-hidden", datetime(2025, 4, 2, 12, tzinfo=UTC), count=4)
    result = world.load("2025-04-01", "2025-04-03")
    assert result.success, world.failures(result)
    assert len(world.asked()) == 3 * 5 + 3 + 1
    check = world.checks(result)["counts_sum_to_control_totals"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "2025-04-02" in str(check.description)
    assert world.rows("select day, unattributed_count from daily_totals where unattributed_count <> 0") == [
        (date(2025, 4, 2), 4)
    ]
    records = world.instance.fetch_materializations(dg.AssetKey("daily_sessions"), limit=10).records
    numbers = {
        record.partition_key: {name: value.value for name, value in record.asset_materialization.metadata.items()}
        for record in records
        if record.asset_materialization
    }
    assert numbers == {
        day.day.isoformat(): {
            "sessions_count": world.source.truth(day.start, day.end),
            "unattributed_count": 4 if day.day == date(2025, 4, 2) else 0,
            "calls": 6.33,
            "cells_asked": 5,
            "cells_derived": 0,
            "cells_proven_zero": 0,
            "cells_listed": 0,
            "rows_inserted": 5,
            "rows_changed": 0,
            "rows_unchanged": 0,
        }
        for day in world.days("2025-04-01", "2025-04-03")
    }


def test_the_key_is_in_no_event_of_any_run(world: World) -> None:
    key = "apk_user_very_secret_0123456789"
    world.configure(devin_api_key=key)
    echo = f"you sent Authorization: Bearer {key}".encode()
    with Sandbox(organizations=2, api_key=key) as source:
        world.configure(devin_api_url=source.url)
        assert world.load("2025-04-01", "2025-04-01").success
        source.fail(status=500, body=echo, times=None, path="/v2/enterprise/metrics/sessions")
        failed = world.load("2025-04-02", "2025-04-02")
    assert "you sent Authorization" in world.failures(failed)
    for run in world.instance.get_runs():
        assert key not in str(run)
        for entry in world.instance.all_logs(run.run_id):
            assert key not in dg.serialize_value(entry)
