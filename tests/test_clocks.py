"""After a run for which the machine's clock was ahead, or behind, everything is as right as after any other run."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime

import dagster as dg
import duckdb
import httpx
import pytest
import sqlalchemy as sa

from pipelines.behind import behind
from pipelines.checks import no_count_is_negative
from pipelines.command.probe import probe
from pipelines.command.status import status
from pipelines.definitions import devin_api_for
from pipelines.follow import follow_sensor
from pipelines.ledger import missing_days
from pipelines.loading.open_days import refuse_open_days
from pipelines.report.activity import read_activity
from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.files import replacing
from resources.source_clock import SourceClock
from tests.support.command import command_here
from tests.support.loads import fill
from tests.support.noon import NOON, ago
from tests.support.published import month_of, parquet_of, snapshot_of
from tests.support.rows import DAY, NOW, reading, store
from tests.support.warehouse import make_missing_warehouse, rebuild_all
from tests.support.world import World
from warehouse import parquet, reads, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Entry

FIRST, SECOND, LAST = "2025-04-01", "2025-04-02", "2025-04-03"
AHEAD = datetime(2099, 1, 1, tzinfo=UTC)


def let_the_clock_have_been_ahead_when(world: World, day: str) -> None:
    """Make this stored day one that was read by a run of its own, whose clock was years ahead."""
    with world.database.transaction() as connection:
        for table in (ORGANIZATIONS.cells, ORGANIZATIONS.totals):
            of_day = sa.update(table).where(table.c.day == date.fromisoformat(day))
            connection.execute(of_day.values(loaded_at=AHEAD, run_id="ahead"))


@pytest.fixture
def loaded(world: World) -> World:
    """A world in which the second of three days was read in the future."""
    fill(world, FIRST, LAST)
    let_the_clock_have_been_ahead_when(world, SECOND)
    return world


@pytest.mark.parametrize("off_by", [timedelta(days=1), -timedelta(days=1)], ids=["ahead", "behind"])
def test_who_was_listed_by_another_clock_than_days_were_read_is_missing_where_it_has_no_count(
    database_with_one_day: sa.Connection, off_by: timedelta
) -> None:
    connection = database_with_one_day
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a"), Entry("refused")], NOW + max(off_by, timedelta()))
    following = DAY + timedelta(days=1)
    store(connection, reading(following, 1, {"a": 1}), at=NOW + min(off_by, timedelta()))
    assert reads.missing_ids(connection, ORGANIZATIONS, [following]) == {following: {"refused"}}


@pytest.fixture
def database_with_one_day(world: World) -> sa.Connection:
    connection = world.closing.enter_context(make_missing_warehouse(world.database).transaction())
    store(connection, reading(DAY, 1, {"a": 1}), at=NOW - timedelta(days=3))
    return connection


def test_a_reading_in_the_future_is_not_the_last_one(loaded: World) -> None:
    last = reads.latest([AHEAD, NOW, NOW - timedelta(days=1)])
    assert (last, reads.latest([AHEAD]), reads.latest([])) == (NOW, AHEAD, None)
    now = datetime.now(UTC)
    covered = status(loaded.settings, None).dimensions[ORGANIZATIONS].coverage
    assert covered.last_loaded_at and covered.last_loaded_at <= now
    with loaded.database.transaction(read_only=True) as connection:
        shown = read_activity(connection)
    assert shown.last_loaded_at == covered.last_loaded_at, "the page gets stale 36 hours after it"


def test_the_check_for_negative_counts_is_about_the_days_that_were_really_read_last(loaded: World) -> None:
    with loaded.database.transaction() as connection:
        connection.execute(sa.text("create or replace table daily_sessions as from daily_sessions"))  # without checks
        connection.execute(sa.text(f"update daily_sessions set sessions_count = -1 where day = '{LAST}'"))
        verdict = no_count_is_negative(connection, ORGANIZATIONS, loaded.settings)
    assert (verdict.passed, LAST in verdict.sentence) == (False, True)


def test_a_month_whose_counts_change_after_a_reading_in_the_future_is_published_again(loaded: World) -> None:
    def publish() -> list[tuple[object, ...]]:
        with loaded.database.transaction(read_only=True) as connection:
            parquet.export(connection, parquet_of(loaded), replacing)
        return parquet_rows(loaded)

    before = publish()
    one, other = (organization.org_id for organization in loaded.source.organizations[:2])
    with loaded.database.transaction() as connection:
        for org_id, change in ((one, "+ 1"), (other, "- 1")):
            of_cell = f"day = '{FIRST}' and org_id = '{org_id}'"
            connection.execute(
                sa.text(f"update daily_sessions set sessions_count = sessions_count {change} where {of_cell}")
            )
    after = publish()
    assert after != before
    assert sorted(after) == sorted(loaded.rows("select day, org_id, sessions_count from daily_sessions"))


def parquet_rows(world: World) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        of_month = connection.read_parquet(str(month_of(world, "2025-04")))
        return of_month.project("day, org_id, sessions_count").fetchall()


def test_a_restore_tells_which_days_to_read_again_whatever_the_clock_had_been(
    loaded: World, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded.configure(devin_start_date=FIRST)
    with loaded.database.transaction() as connection:
        totals = ORGANIZATIONS.totals
        others = sa.update(totals).where(totals.c.loaded_at < AHEAD)
        connection.execute(others.values(loaded_at=datetime(2025, 4, 10, tzinfo=UTC)))
    snapshot_of(loaded).parent.mkdir()
    loaded.database.path.rename(snapshot_of(loaded))
    code, out, _ = command_here(capsys, loaded.environment)("restore")
    assert code == 0
    assert "as of 2025-04-10 00:00 UTC" in out
    assert "To read the last ones again: devin-sessions backfill 2025-04-0" in out


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)  # a file says itself when it was written
def test_a_report_that_was_written_after_a_reading_in_the_future_is_not_behind_for_ever(each_world: World) -> None:
    world = each_world
    path = world.directory / "report.html"
    world.configure(devin_report_path=f"{path}")
    fill(world, FIRST, LAST)
    let_the_clock_have_been_ahead_when(world, SECOND)
    assert behind(world.settings).assets == ["activity_report"]
    path.write_text("now", encoding="utf-8")
    assert behind(world.settings).assets == []


def test_the_sensor_acts_although_its_last_tick_was_in_the_future(world: World) -> None:
    world.configure(devin_report_path="")
    assert world.load(FIRST, FIRST, judged=False).success
    context = dg.build_sensor_context(world.instance, cursor=AHEAD.isoformat())
    asked = follow_sensor(world.settings, quiet=timedelta(0)).evaluate_tick(context)
    assert len(asked.run_requests or ()) == 1
    assert asked.cursor and datetime.fromisoformat(asked.cursor) < AHEAD


# By the API's clock


def http_date(off_by: timedelta) -> str:
    return format_datetime(datetime.now(UTC) + off_by, usegmt=True)


@pytest.fixture
def ahead(world: World) -> World:
    """A world in which this machine's clock is a day ahead of the API's. History is the last four days."""
    world.source.date = lambda: http_date(-timedelta(days=1))
    world.configure(devin_timezone=NOON, devin_start_date=ago(4))
    return world


@pytest.mark.parametrize("is_chosen", [False, True], ids=["listed", "chosen"])
def test_a_day_that_is_not_over_at_the_api_is_refused_before_anything_is_stored(ahead: World, is_chosen: bool) -> None:
    world = ahead
    world.configure(devin_org_ids=world.source.organizations[0].org_id if is_chosen else "")
    result = world.load(ago(3), ago(1))
    assert not result.success
    message = world.failures(result)
    assert (
        f"Not over yet by the API's clock: {ago(1)}. There it is {datetime.now(UTC) - timedelta(days=1):%F}" in message
    )
    assert f"By this machine's clock it is {datetime.now(UTC):%F}" in message
    assert "runs this machine set its clock" in message
    assert world.rows("select count(*) from daily_totals") == [(0,)]
    assert world.rows("select last_day from expected_days") == [(date.fromisoformat(ago(2)),)]


def test_days_that_are_over_at_the_api_are_loaded_at_its_time(ahead: World) -> None:
    world = ahead
    assert world.load(ago(4), ago(2), judged=False).success
    assert world.cells() == world.truth(ago(4), ago(2))
    (read_at,), (seen_at,) = world.rows(
        "select max(loaded_at) from daily_totals union all select max(last_seen_at) from organizations"
    )
    for moment in (read_at, seen_at):
        assert (
            timedelta(0) <= datetime.now(UTC) - timedelta(days=1) - moment + timedelta(seconds=2) < timedelta(minutes=2)
        )


@pytest.mark.parametrize(
    "date_of",
    [
        lambda: "",
        lambda: "the day before",
        lambda: "Thu, 01 Jan 1970 00:00:00 GMT",
        lambda: http_date(timedelta(days=400)),
        lambda: http_date(timedelta(seconds=-2)),
    ],
    ids=["missing", "unreadable", "of a device without a clock", "in the future", "in flight"],
)
def test_an_odd_date_stops_nobody(world: World, date_of: Callable[[], str]) -> None:
    world.configure(devin_timezone=NOON, devin_start_date=ago(4))
    world.source.date = date_of
    calls = Calls()
    with devin_api_for(world.settings, world.database).connected(calls) as (client, portal):
        portal.call(DevinClient.organizations, client)
    refuse_open_days(world.days(ago(1), ago(1)), calls.clock)


def test_only_what_all_responses_agree_on_is_certain() -> None:
    def clock_after(*dates: tuple[int, dict[str, str]]) -> tuple[float, float]:
        """After responses of these ages in seconds, which took 10 s each: how far it is ahead, and behind."""
        clock = SourceClock()
        for seconds, headers in dates:
            dated = format_datetime(NOW - timedelta(seconds=seconds), usegmt=True)
            clock.record(httpx.Headers({"Date": dated, **headers}), NOW, NOW + timedelta(seconds=10))
        return clock.ahead.total_seconds(), clock.behind.total_seconds()

    assert clock_after() == (0, 0)
    assert clock_after((0, {})) == clock_after((-10, {})) == clock_after((1, {})) == (0, 0), "dated on the way"
    assert clock_after((100, {})) == (99, 0)
    assert clock_after((-100, {})) == (0, 90)
    assert clock_after((7200, {}), (100, {}), (9999, {})) == (99, 0), "two come out of a cache"
    assert clock_after((7200, {"Age": "7200"})) == (0, 0), "a cache that says so"
    assert clock_after((100, {"Age": "old"})) == (99, 0)
    assert clock_after((-100, {}), (0, {})) == (0, 0)


@pytest.mark.parametrize(
    ("off_by", "verdict", "seen"),
    [
        (timedelta(hours=-3), "bad", "ahead of the API's"),
        (timedelta(hours=3), "note", "behind the API's"),
        (timedelta(seconds=30), None, ""),
    ],
)
def test_a_probe_tells_if_the_clocks_differ(world: World, off_by: timedelta, verdict: str | None, seen: str) -> None:
    world.source.date = lambda: http_date(off_by)
    findings = probe(devin_api_for(world.settings, world.database), world.settings, world.days(FIRST, LAST), Calls())
    found = [finding for finding in findings if "clock" in finding.question]
    assert [finding.verdict for finding in found] == ([verdict] if verdict else [])
    assert all(seen in finding.seen for finding in found)


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_a_day_that_was_read_in_the_future_is_neither_settled_nor_loaded_until_it_is_read_again(
    each_world: World,
) -> None:
    world = each_world
    fill(world, FIRST, LAST)
    settled = "select is_settled from enterprise_sessions order by day"
    assert world.rows(settled) == [(True,)] * 3
    let_the_clock_have_been_ahead_when(world, SECOND)
    rebuild_rollups(world)
    assert world.rows(settled) == [(True,), (False,), (True,)]
    world.source.add_sessions(world.source.organizations[0].org_id, datetime.fromisoformat(f"{SECOND}T12:00Z"))
    days = [day.day for day in world.days(FIRST, LAST)]
    with world.database.transaction() as connection:
        assert missing_days(connection, world.settings, ORGANIZATIONS, days) == [date.fromisoformat(SECOND)]
    result = world.load(FIRST, LAST, complete_before=date(2025, 4, 4), judged=False)
    assert result.success, world.failures(result)
    assert world.cells() == world.truth(FIRST, LAST)
    rebuild_rollups(world)
    assert world.rows(settled) == [(True,)] * 3


def rebuild_rollups(world: World) -> None:
    with world.database.transaction() as connection:
        rebuild_all(connection)
