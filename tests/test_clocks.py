"""After a run for which the machine's clock was ahead, or behind, everything is as right as after any other run."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import duckdb
import pytest
import sqlalchemy as sa

from pipelines.asset_keys import PUBLISHED_SNAPSHOT
from pipelines.behind import behind
from pipelines.checks import no_count_is_negative
from pipelines.command.status import status
from pipelines.follow import follow_sensor
from pipelines.report.activity import read_activity
from pipelines.schedules import JOB
from tests.support.command import command_here
from tests.support.loads import fill
from tests.support.published import month_of, snapshot_of
from tests.support.rows import DAY, NOW, reading, store
from tests.support.warehouse import make_missing_warehouse
from tests.support.world import World
from warehouse import reads, writes
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
        assert (
            loaded.definitions.resolve_job_def(JOB)
            .execute_in_process(
                instance=loaded.instance,
                asset_selection=[dg.AssetKey(PUBLISHED_SNAPSHOT)],
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            .success
        )
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
    assert world.load(FIRST, FIRST).success
    context = dg.build_sensor_context(world.instance, cursor=AHEAD.isoformat())
    asked = follow_sensor(world.settings, quiet=timedelta(0)).evaluate_tick(context)
    assert len(asked.run_requests or ()) == 1
    assert asked.cursor and datetime.fromisoformat(asked.cursor) < AHEAD
