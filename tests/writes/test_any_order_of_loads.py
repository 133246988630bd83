"""Any sequence of loads leaves the latest counts and correct sums."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from resources.database import Database
from tests.support.examples import examples
from tests.support.rows import DAY, NOW, reading, store
from tests.support.shared import empty
from tests.support.warehouse import rebuild, rebuild_all, rows_of, select_over_all_time, stored
from warehouse import tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Entry

# The function-scoped fixture is fine: each example empties the warehouse.
each_example = examples(3, suppress_health_check=[HealthCheck.function_scoped_fixture])

counts = st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from("abc")), st.integers(0, 5), max_size=12)


@each_example
@given(loads=st.lists(counts, min_size=1, max_size=4))
def test_any_sequence_of_writes_leaves_the_latest_counts_and_true_sums(
    open_database: Database, loads: list[dict[tuple[int, str], int]]
) -> None:
    empty(open_database)
    expected: dict[tuple[date, str], int] = {}
    revisions: list[tuple[date, str, datetime, int, int, str]] = []
    for n, load in enumerate(loads):
        at = NOW + timedelta(hours=n)
        cells = {(DAY + timedelta(days=day), org_id): count for (day, org_id), count in load.items()}
        days = {day for day, _ in cells}
        with open_database.transaction() as connection:
            of_day = {day: {org_id: n for (of, org_id), n in cells.items() if of == day} for day in days}
            result = store(connection, *(reading(day, 100, counts) for day, counts in of_day.items()), at=at)
            changed = {key: count for key, count in cells.items() if expected.get(key, count) != count}
            assert sum((day.changes for day in result.values()), writes.Changes()) == writes.Changes(
                inserted=len(cells.keys() - expected.keys()),
                changed=len(changed),
                unchanged=sum(1 for key, count in cells.items() if expected.get(key) == count),
            )
            revisions += [(*key, at, expected[key], count, f"run of {at}") for key, count in changed.items()]
            expected |= cells
            assert stored(connection) == expected
            for day, now in result.items():
                assert now.unattributed_count == 100 - sum(n for (d, _), n in expected.items() if d == day)
    with open_database.transaction() as connection:
        assert rows_of(connection, tables.session_revisions) == sorted(revisions)


Load = Mapping[int, tuple[int, Mapping[str, int], int]]
# From a Friday in December to March: across a new year, several months and a leap day.
FIRST = date(2023, 12, 22)
# For each day: its total, the counts of some organizations, and how many days after its end it was read.
days_of_load = st.dictionaries(
    st.integers(0, 75),
    st.tuples(st.integers(0, 9), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), st.integers(0, 3)),
    max_size=10,
)
# Also long stretches, without which no trailing sum would ever be known and no month complete.
stretches = st.builds(
    lambda first, length, value: dict.fromkeys(range(first, first + length), value),
    st.integers(0, 40),
    st.integers(7, 60),
    st.tuples(st.integers(0, 9), st.just({"a": 1}), st.integers(0, 3)),
)
some_rollups = st.sets(st.sampled_from([table.name for table in tables.ROLLUPS]))


def load(connection: sa.Connection, days: Load) -> None:
    readings = {n: reading(FIRST + timedelta(days=n), total, of_orgs) for n, (total, of_orgs, _) in days.items()}
    store(connection, *readings.values())
    totals = tables.daily_totals
    for read_after in {after for *_, after in days.values()}:
        these = [readings[n].day for n, (*_, after) in days.items() if after == read_after]
        then = totals.c.window_end + sa.literal(timedelta(days=read_after))
        connection.execute(sa.update(totals).where(totals.c.day.in_(these)).values(loaded_at=then))


@each_example
@given(steps=st.lists(st.tuples(days_of_load | stretches, some_rollups, st.integers(0, 3)), min_size=1, max_size=5))
def test_rollups_updated_with_what_changed_equal_rollups_built_from_scratch(
    open_database: Database, steps: list[tuple[Load, set[str], int]]
) -> None:
    empty(open_database)
    for days, built, settled_after_days in steps:
        with open_database.transaction() as connection:
            load(connection, days)
        with open_database.transaction() as connection:
            for name in sorted(built):
                rebuild(connection, name, settled_after_days)
    with open_database.transaction() as connection:
        rebuild_all(connection)
        assert rows_of(connection, tables.stale_days) == []
        taken_in = {table.name: rows_of(connection, table) for table in tables.ROLLUPS}
    with open_database.transaction() as connection:
        for table in tables.ROLLUPS:
            connection.execute(sa.delete(table))
            every_day = sa.select(sa.literal(table.name), tables.daily_totals.c.day)
            connection.execute(sa.insert(tables.stale_days).from_select(["rollup", "day"], every_day))
            rows = rebuild(connection, table.name)
            assert rows_of(connection, table) == taken_in[table.name]
            assert rows == len(taken_in[table.name])
            assert select_over_all_time(connection, table.name) == taken_in[table.name]


WEEKS_OR_MONTHS = """
    select
        cast(date_trunc('{period}', day) as date) as period,
        cast(sum(sessions_count) as bigint),
        cast(sum(sessions_count) - sum(unattributed_count) as bigint),
        cast(sum(unattributed_count) as bigint),
        cast(count(*) as integer)
    from daily_totals group by 1 order by 1
"""
OF_ORGANIZATIONS = """
    select day, cast(coalesce(sum(sessions_count), 0) as bigint) from organization_days
    where day in (select day from daily_totals) group by day order by day
"""


@each_example
@given(steps=st.lists(st.tuples(days_of_load | stretches, some_rollups), min_size=1, max_size=4))
def test_no_session_is_lost_in_weeks_months_or_days_of_organizations_however_far_behind_the_rollups_are(
    open_database: Database, steps: list[tuple[Load, set[str]]]
) -> None:
    empty(open_database)
    with open_database.transaction() as connection:
        writes.store_listed(connection, ORGANIZATIONS, [Entry(id_, None) for id_ in "abc"], NOW)
        writes.store_expected_days(connection, FIRST, FIRST + timedelta(days=100))
    for days, built in steps:
        with open_database.transaction() as connection:
            load(connection, days)
            for name in sorted(built):
                rebuild(connection, name)
            for period, view in (("week", "enterprise_weekly_sessions"), ("month", "enterprise_monthly_sessions")):
                columns = f"{period}, sessions_count, orgs_sessions_count, unattributed_count, days_loaded"
                found = connection.execute(sa.text(f"select {columns} from {view} order by {period}")).all()
                assert found == connection.execute(sa.text(WEEKS_OR_MONTHS.format(period=period))).all()
            totals = connection.execute(sa.text("select day, orgs_sessions_count from daily_totals order by day")).all()
            assert connection.execute(sa.text(OF_ORGANIZATIONS)).all() == totals


PLAIN_GRID = """
    select calendar.day, organizations.org_id, organizations.org_name, daily_sessions.sessions_count
    from calendar
    cross join organizations
    left join daily_sessions on calendar.day = daily_sessions.day and organizations.org_id = daily_sessions.org_id
    order by 1, 2
"""


@each_example
@given(steps=st.lists(st.tuples(days_of_load | stretches, some_rollups), min_size=1, max_size=5))
def test_the_grid_has_each_day_and_organization_once_however_far_behind_the_rollups_are(
    open_database: Database, steps: list[tuple[Load, set[str]]]
) -> None:
    empty(open_database)
    with open_database.transaction() as connection:
        found = [Entry(id_, f"{id_}'s name") for id_ in "abd"]
        writes.store_listed(connection, ORGANIZATIONS, found, NOW)
        writes.store_expected_days(connection, FIRST + timedelta(days=3), FIRST + timedelta(days=73))
    for days, built in steps:
        with open_database.transaction() as connection:
            load(connection, days)
            for name in sorted(built):
                rebuild(connection, name)
            grid = connection.execute(sa.text("select * from session_grid order by day, org_id")).all()
            assert grid == connection.execute(sa.text(PLAIN_GRID)).all()
            assert len(grid) == 71 * 3
