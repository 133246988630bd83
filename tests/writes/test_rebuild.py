"""A rebuild changes only the rows that the changed days contribute to."""

from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from tests.support.rows import DAY, SETTLED_AFTER_DAYS, reading, store
from tests.support.warehouse import everything, rebuild, rows_of, select_over_all_time
from warehouse import tables, writes


def spoil(connection: sa.Connection, table: sa.Table) -> None:
    """Set every count of the rollup to one that no rebuild would produce."""
    connection.execute(sa.update(table).values(sessions_count=table.c.sessions_count + 1000))


def keys_by_spoiled(connection: sa.Connection, table: sa.Table) -> tuple[list[date], list[date]]:
    """The periods whose rows are still spoiled, and those that were rebuilt."""
    rows = connection.execute(sa.select(table.columns[0], table.c.sessions_count).order_by(table.columns[0])).all()
    spoiled = {key for key, count in rows if count >= 1000}
    return sorted(spoiled), sorted({key for key, _ in rows} - spoiled)


def january_to_march(connection: sa.Connection) -> None:
    """Load every day of the first quarter of 2025, rebuild each rollup, then spoil it."""
    days = [date(2025, 1, 1) + timedelta(days=n) for n in range(90)]
    store(connection, *(reading(day, 3, {"a": 3}) for day in days))
    for table in tables.ROLLUPS:
        rebuild(connection, table.name)
        spoil(connection, table)


def test_only_the_week_of_a_changed_day_is_rebuilt(connection: sa.Connection) -> None:
    january_to_march(connection)
    thursday = date(2025, 2, 13)
    store(connection, reading(thursday, 5, {"a": 5}))
    assert rebuild(connection, "weekly_sessions") == 1
    still, again = keys_by_spoiled(connection, tables.weekly_sessions)
    assert again == [date(2025, 2, 10)]
    assert (len(still), still[0], still[-1]) == (13, date(2024, 12, 30), date(2025, 3, 31))
    row = connection.execute(sa.select(tables.weekly_sessions).where(tables.weekly_sessions.c.week == again[0])).one()
    assert tuple(row) == (date(2025, 2, 10), "a", 23, 7, 7, True)


WEEKS = {
    "Monday": ([date(2025, 2, 10)], [date(2025, 2, 10)]),
    "Sunday": ([date(2025, 2, 16)], [date(2025, 2, 10)]),
    "Sunday and Monday": ([date(2025, 2, 16), date(2025, 2, 17)], [date(2025, 2, 10), date(2025, 2, 17)]),
    "far apart": ([date(2025, 1, 1), date(2025, 3, 5)], [date(2024, 12, 30), date(2025, 3, 3)]),
}


def test_exactly_the_weeks_of_the_changed_days_are_rebuilt(connection: sa.Connection) -> None:
    january_to_march(connection)
    for count, (name, (changed, weeks)) in enumerate(WEEKS.items(), start=4):
        store(connection, *(reading(day, count, {"a": count}) for day in changed))
        rebuild(connection, "weekly_sessions")
        assert keys_by_spoiled(connection, tables.weekly_sessions)[1] == weeks, name
        spoil(connection, tables.weekly_sessions)


def test_exactly_the_month_of_the_changed_day_is_rebuilt(connection: sa.Connection) -> None:
    january_to_march(connection)
    for changed in (date(2025, 2, 1), date(2025, 2, 14), date(2025, 2, 28)):
        store(connection, reading(changed, 5, {"a": 5}))
        assert rebuild(connection, "monthly_sessions") == 1
        still, again = keys_by_spoiled(connection, tables.monthly_sessions)
        assert (still, again) == ([date(2025, 1, 1), date(2025, 3, 1)], [date(2025, 2, 1)]), changed
        spoil(connection, tables.monthly_sessions)


def test_enterprise_rows_are_rebuilt_for_the_changed_day_and_the_days_that_sum_over_it(
    connection: sa.Connection,
) -> None:
    january_to_march(connection)
    changed = date(2025, 1, 20)
    store(connection, reading(changed, 5, {"a": 5}))
    rebuild(connection, "enterprise_sessions")
    still, again = keys_by_spoiled(connection, tables.enterprise_sessions)
    assert again[0] == changed, "no day depends on later ones"
    assert again == [changed + timedelta(days=n) for n in range(len(again))]
    assert 28 <= len(again) <= 32, "the longest trailing sum goes back 27 days, the month to date up to 30"
    assert len(still) + len(again) == 90


def test_after_one_changed_day_every_row_equals_that_of_a_full_rebuild(connection: sa.Connection) -> None:
    days = [date(2025, 1, 1) + timedelta(days=n) for n in range(90)]
    store(connection, *(reading(day, 3, {"a": 3}) for day in days))
    for table in tables.ROLLUPS:
        rebuild(connection, table.name)
    for changed in (days[0], date(2025, 1, 31), date(2025, 2, 1), days[-1]):
        store(connection, reading(changed, 5, {"a": 5}))
        for table in tables.ROLLUPS:
            rebuild(connection, table.name)
            assert rows_of(connection, table) == select_over_all_time(connection, table.name), changed


def test_rows_of_a_period_that_no_longer_have_counts_are_deleted(connection: sa.Connection) -> None:
    january_to_march(connection)
    for table, key in ((tables.weekly_sessions, "week"), (tables.monthly_sessions, "month")):
        other = {key: date(2025, 2, 3) if key == "week" else date(2025, 2, 1), "org_id": "gone"}
        values = {"sessions_count": 1, "days_expected": 7, "days_loaded": 1, "is_complete": False}
        connection.execute(sa.insert(table).values(other | values))
        store(connection, reading(date(2025, 2, 3), 3))
        rebuild(connection, table.name)
        assert set(connection.scalars(sa.select(table.c.org_id))) == {"a"}


def test_a_rebuild_without_changed_days_leaves_everything_as_it_is(connection: sa.Connection) -> None:
    january_to_march(connection)
    before = everything(connection)
    assert [rebuild(connection, table.name) for table in tables.ROLLUPS] == [0] * len(tables.ROLLUPS)
    assert everything(connection) == before


def test_each_rollup_keeps_track_of_its_own_stale_days(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 1, {"a": 1}))
    store(connection, reading(DAY, 1, {"a": 1}))
    names = sorted(table.name for table in tables.ROLLUPS)
    assert rows_of(connection, tables.stale_days) == [(name, DAY) for name in names]
    while names:
        rebuild(connection, names.pop(0))
        assert rows_of(connection, tables.stale_days) == [(name, DAY) for name in names]


def test_a_day_that_is_read_again_without_a_change_is_settled_by_the_next_rebuild(connection: sa.Connection) -> None:
    end = datetime(2025, 2, 2, tzinfo=UTC)
    for at, is_settled in ((end, False), (end + timedelta(days=SETTLED_AFTER_DAYS), True)):
        store(connection, reading(DAY, 1, {"a": 1}), at=at)
        rebuild(connection, "enterprise_sessions")
        assert connection.scalar(sa.select(tables.enterprise_sessions.c.is_settled)) is is_settled


def test_a_changed_look_back_applies_to_days_loaded_earlier(connection: sa.Connection) -> None:
    for n, days_after in enumerate((0, 1, 2)):
        day = DAY + timedelta(days=n)
        at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1 + days_after)
        store(connection, reading(day, 1, {"a": 1}), at=at)
    for settled_after_days, settled in ((2, 1), (1, 2), (3, 0), (0, 3)):
        rebuild(connection, "enterprise_sessions", settled_after_days)
        assert connection.scalars(sa.select(tables.enterprise_sessions.c.is_settled)).all().count(True) == settled
        assert rebuild(connection, "enterprise_sessions", settled_after_days) == 0


def test_only_the_latest_expected_days_are_kept(connection: sa.Connection) -> None:
    for last_day in (DAY, DAY + timedelta(days=1), DAY):
        writes.store_expected_days(connection, DAY, last_day)
        assert rows_of(connection, tables.expected_days) == [(DAY, last_day)]
