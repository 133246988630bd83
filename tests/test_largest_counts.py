"""The largest counts that can be stored pass through every sum: rollups, snapshot, Parquet, report and status."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from pipelines.command import runs
from pipelines.command.status import status
from pipelines.definitions import definitions_for
from pipelines.loading.progress import Progress
from tests.support.published import in_snapshot
from tests.support.warehouse import migrated
from tests.support.world import World
from warehouse import writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.tables import LARGEST_COUNT
from warehouse.writes import Entry, Provenance, Reading

# Over a whole month, and over everything, more than a float holds exactly.
DAYS, ORGANIZATIONS_COUNTED = 60, 300
FIRST = date(2025, 1, 1)


def test_the_largest_counts_are_rolled_up_published_and_reported(each_world: World) -> None:
    world = each_world
    world.configure(devin_report_path=f"{world.directory}/report.html")
    at = datetime(2026, 6, 1, tzinfo=UTC)
    ids = [f"org-{number:04}" for number in range(ORGANIZATIONS_COUNTED)]
    with migrated(world.database).transaction() as connection:
        found = [Entry(id_, id_) for id_ in ids]
        writes.store_listed(connection, ORGANIZATIONS, found, at)
        writes.store_expected_days(connection, FIRST, FIRST + timedelta(days=DAYS - 1))
        counts = dict.fromkeys(ids, LARGEST_COUNT)
        readings = [
            Reading(day.day, day.start, day.end, LARGEST_COUNT, counts, {}, expected=len(ids))
            for day in world.days(f"{FIRST}", f"{FIRST + timedelta(days=DAYS - 1)}")
        ]
        readings[0] = replace(readings[0], counts=counts | {ids[0]: LARGEST_COUNT - 1})
        writes.store_days(connection, ORGANIZATIONS, readings, Provenance("v2", at, "run"))
    settings = world.settings
    outcome = runs.run_downstream(definitions_for(settings, Progress()), world.instance, settings, ORGANIZATIONS)
    assert outcome.failures == []
    everything = DAYS * ORGANIZATIONS_COUNTED * LARGEST_COUNT - 1
    assert int(float(everything)) != everything
    for table in ("daily_sessions", "weekly_sessions", "monthly_sessions"):
        assert int(world.rows(f"select sum(sessions_count) from {table}")[0][0]) == everything
    assert world.rows("select max(trailing_28_day_count) from enterprise_sessions") == [(28 * LARGEST_COUNT,)]
    if world.settings.published_snapshot:
        assert in_snapshot(world, "select sum(sessions_count) from daily_sessions") == [(everything,)]
    report = world.settings.published_report
    assert report and f"{28 * LARGEST_COUNT:,}" in report.read_text(encoding="utf-8")
    found_status = status(world.settings, None)
    assert found_status.behind == []
    assert found_status.dimensions[ORGANIZATIONS].coverage.sessions_count == DAYS * LARGEST_COUNT
