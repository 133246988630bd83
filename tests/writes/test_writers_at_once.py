"""Several writers of one warehouse on PostgreSQL: each day is one reading as a whole, and rollups miss none of them."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial

import pytest
import sqlalchemy as sa

from resources.database import Database
from tests.support.postgresql import PostgreSQL
from tests.support.rows import DAY, NOW, reading
from tests.support.rows import store as store_read
from tests.support.warehouse import migrated, rebuild, rows_of, select_over_all_time, stored
from warehouse import tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Entry, Provenance, Reading

IDS = [f"org-{number}" for number in range(40)]
DAYS = [DAY + timedelta(days=number) for number in range(20)]
WRITERS, WRITES = 6, range(60)
STORED = [number for number in WRITES if number % 5]  # the others build rollups or list organizations


@pytest.fixture
def on_postgresql(postgresql: PostgreSQL) -> Database:
    return migrated(Database(url=postgresql.database()))


def block(number: int) -> list[Reading]:
    """Days in a row, at random, in which each organization has as many sessions as the number of the write."""
    first = random.Random(number).randrange(len(DAYS) - 5)
    return [reading(day, number * len(IDS), dict.fromkeys(IDS, number)) for day in DAYS[first : first + 5]]


def store(database: Database, readings: Sequence[Reading], number: int) -> None:
    by = Provenance("v2", NOW + timedelta(seconds=number), f"run {number}")
    refused = {id_: f"in write {number}" for id_ in random.Random(number).sample(IDS, 3)}

    def write(connection: sa.Connection) -> None:
        writes.store_days(connection, ORGANIZATIONS, readings, by, partial(database.lock_days, connection))
        writes.store_availability(connection, ORGANIZATIONS, refused, IDS, by.loaded_at)

    database.write(write, alone=False)


def build(connection: sa.Connection) -> None:
    for rollup in tables.ROLLUPS:
        rebuild(connection, rollup.name)


def test_blocks_of_the_same_days_at_once_leave_whole_days_true_revisions_and_true_rollups(
    on_postgresql: Database,
) -> None:
    def work(number: int) -> None:
        if number in STORED:
            store(on_postgresql, block(number), number)
        elif number % 2:
            on_postgresql.write(build)
        else:
            listed = partial(writes.store_listed, dimension=ORGANIZATIONS, entries=[*map(Entry, IDS)], seen_at=NOW)
            on_postgresql.write(listed)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(work, WRITES))
    with on_postgresql.transaction() as connection:
        cells = tables.daily_sessions.c
        of_day: dict[date, set[tuple[int, str]]] = {}
        for day, count, run_id in connection.execute(sa.select(cells.day, cells.sessions_count, cells.run_id)):
            of_day.setdefault(day, set()).add((count, run_id))
        totals = {row.day: row for row in connection.execute(sa.select(tables.daily_totals))}
        assert of_day == {day: {(t.sessions_count // len(IDS), t.run_id)} for day, t in totals.items()}
        assert {t.unattributed_count for t in totals.values()} == {0}
        newest = {day: max(n for n in STORED if day in {r.day for r in block(n)}) for day in of_day}
        assert {day: t.run_id for day, t in totals.items()} == {day: f"run {n}" for day, n in newest.items()}
        for revision in connection.execute(sa.select(tables.session_revisions)):
            assert revision.previous_count < revision.new_count, "no older reading has replaced a newer one"
        build(connection)
        for rollup in tables.ROLLUPS:
            assert rows_of(connection, rollup) == select_over_all_time(connection, rollup.name)


def test_a_reading_that_another_run_has_overtaken_changes_nothing(connection: sa.Connection) -> None:
    first, second = reading(DAYS[0], 9, {"a": 4, "b": 5}), reading(DAYS[0], 3, {"a": 1, "c": 2})
    overtaken, other = reading(DAYS[1], 2, {"a": 2}), NOW + timedelta(minutes=9)
    store_read(connection, first, at=other)
    result = store_read(connection, second, overtaken, at=NOW)
    assert result[DAYS[0]] == writes.StoredDay(9, 0, writes.Changes())
    assert result[DAYS[1]] == writes.StoredDay(2, 0, writes.Changes(inserted=1))
    assert stored(connection) == {(DAYS[0], "a"): 4, (DAYS[0], "b"): 5, (DAYS[1], "a"): 2}
    assert rows_of(connection, tables.session_revisions) == []
    store_read(connection, second, at=NOW, run_id=f"run of {other}")
    assert stored(connection)[DAYS[0], "a"] == 1, "the same run, whose clock was corrected"


def test_a_day_that_was_read_by_a_clock_far_ahead_is_replaced(connection: sa.Connection) -> None:
    store_read(connection, reading(DAYS[0], 9, {"a": 9}), at=NOW + timedelta(hours=2))
    store_read(connection, reading(DAYS[0], 3, {"a": 3}), at=NOW)
    assert stored(connection) == {(DAYS[0], "a"): 3}


def test_rows_are_staged_before_anyone_is_waited_for(database: Database) -> None:
    staged: list[int] = []

    def lock(connection: sa.Connection, days: Sequence[date]) -> None:
        assert days == DAYS[:1]
        staged.append(connection.scalar(sa.text("select count(*) from incoming_daily_sessions")) or 0)

    with database.transaction() as connection:
        of_day = [reading(DAYS[0], 3, {"a": 1, "b": 2})]
        writes.store_days(connection, ORGANIZATIONS, of_day, Provenance("v2", NOW, "run"), partial(lock, connection))
        with pytest.raises(TypeError):
            wrong = [reading(DAYS[0], 3, {"a": 1.5})]
            writes.store_days(connection, ORGANIZATIONS, wrong, Provenance("v2", NOW, "run"), partial(lock, connection))
    assert staged == [2]
