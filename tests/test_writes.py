"""Rows in, rows out: upserts, their arithmetic, and what is refused before it reaches the database."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.database import Database
from warehouse import migrations, tables, writes
from warehouse.tables import ORGANIZATIONS

NOW = datetime(2025, 3, 1, 2, 30, tzinfo=UTC)
DAY = date(2025, 2, 1)


@pytest.fixture
def connection(warehouse_url: str) -> Iterator[sa.Connection]:
    with Database(url=warehouse_url).transaction() as connection:
        migrations.bring_forward(connection)
        yield connection


def cell(day: date, org_id: str, count: Any, at: datetime = NOW) -> dict[str, Any]:
    return {
        "day": day,
        "org_id": org_id,
        "sessions_count": count,
        "is_derived": False,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": f"run of {at}",
    }


def total(day: date, count: int, at: datetime = NOW) -> dict[str, Any]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return {
        "day": day,
        "window_start": start,
        "window_end": start + timedelta(days=1),
        "sessions_count": count,
        "orgs_expected": 2,
        "orgs_loaded": 2,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": "run",
    }


def stored(connection: sa.Connection) -> dict[tuple[date, str], int]:
    return {(r.day, r.org_id): r.sessions_count for r in connection.execute(sa.select(tables.daily_sessions))}


def test_a_second_write_counts_what_is_new_changed_and_unchanged(connection: sa.Connection) -> None:
    first = writes.store_days(connection, ORGANIZATIONS, [total(DAY, 3)], [cell(DAY, "a", 1), cell(DAY, "b", 2)])
    assert first[DAY].changes == writes.Changes(inserted=2)
    again = writes.store_days(
        connection, ORGANIZATIONS, [total(DAY, 9)], [cell(DAY, "a", 1), cell(DAY, "b", 5), cell(DAY, "c", 3)]
    )
    assert again[DAY].changes == writes.Changes(inserted=1, changed=1, unchanged=1)
    assert stored(connection) == {(DAY, "a"): 1, (DAY, "b"): 5, (DAY, "c"): 3}


def test_an_unchanged_count_keeps_its_time_and_run(connection: sa.Connection) -> None:
    writes.store_days(connection, ORGANIZATIONS, [total(DAY, 3)], [cell(DAY, "a", 1), cell(DAY, "b", 2)])
    later = NOW + timedelta(days=1)
    writes.store_days(
        connection, ORGANIZATIONS, [total(DAY, 4, later)], [cell(DAY, "a", 1, later), cell(DAY, "b", 3, later)]
    )
    loaded = {row.org_id: row.loaded_at for row in connection.execute(sa.select(tables.daily_sessions))}
    assert loaded == {"a": NOW, "b": later}
    assert connection.scalar(sa.select(tables.daily_totals.c.loaded_at)) == later, "the ledger tells the last reading"


def test_totals_are_proven_against_the_cells_as_stored(connection: sa.Connection) -> None:
    writes.store_days(connection, ORGANIZATIONS, [total(DAY, 3)], [cell(DAY, "a", 1), cell(DAY, "b", 2)])
    result = writes.store_days(connection, ORGANIZATIONS, [total(DAY, 10)], [cell(DAY, "a", 4)])
    assert (result[DAY].sessions_count, result[DAY].unattributed_count) == (10, 4), "b is still stored with 2"
    row = connection.execute(sa.select(tables.daily_totals)).one()
    assert (row.sessions_count, row.orgs_sessions_count, row.unattributed_count) == (10, 6, 4)


@pytest.mark.parametrize("count", [12.7, 12.0, True, "12", None])
def test_a_count_that_is_not_an_integer_is_refused_before_the_database(connection: sa.Connection, count: Any) -> None:
    with pytest.raises(TypeError, match="sessions_count"):
        writes.store_days(connection, ORGANIZATIONS, [total(DAY, 1)], [cell(DAY, "a", count)])
    assert stored(connection) == {}


def test_a_key_that_comes_twice_is_refused_before_the_database(connection: sa.Connection) -> None:
    with pytest.raises(ValueError, match="twice"):
        writes.store_days(connection, ORGANIZATIONS, [total(DAY, 1)], [cell(DAY, "a", 1), cell(DAY, "a", 2)])
    assert stored(connection) == {}


def test_the_tables_refuse_negative_counts_and_doubled_keys(tmp_path: Path) -> None:
    database = Database(url=f"duckdb:///{tmp_path}/warehouse.duckdb")
    with database.transaction() as connection:
        tables.create(connection)
        writes.store_days(connection, ORGANIZATIONS, [total(DAY, 1)], [cell(DAY, "a", 1)])
    for bad in (cell(DAY, "b", -1), cell(DAY, "a", 2)):
        with pytest.raises(sa.exc.IntegrityError), database.transaction() as connection:
            connection.execute(sa.insert(tables.daily_sessions).values(bad))


def test_organizations_keep_their_first_sight_and_their_names(connection: sa.Connection) -> None:
    later = NOW + timedelta(days=1)
    writes.store_listed(connection, ORGANIZATIONS, [{"org_id": "a", "org_name": "A", "created_at": NOW}], NOW)
    writes.store_listed(connection, ORGANIZATIONS, [{"org_id": "a", "org_name": None, "created_at": None}], later)
    row = connection.execute(sa.select(tables.organizations)).one()
    assert (row.org_name, row.created_at, row.first_seen_at, row.last_seen_at) == ("A", NOW, NOW, later)
    writes.store_listed(connection, ORGANIZATIONS, [{"org_id": "a", "org_name": "B", "created_at": NOW}], later)
    assert connection.scalar(sa.select(tables.organizations.c.org_name)) == "B"


def test_every_table_and_column_says_what_it_means_in_the_database_too(connection: sa.Connection) -> None:
    said = {
        (row.table_name, row.column_name): row.comment
        for row in connection.execute(sa.text("select table_name, column_name, comment from duckdb_columns()"))
    }
    tables_say: dict[str, str] = dict(
        connection.execute(sa.text("select table_name, comment from duckdb_tables()")).all()
    )
    for table in tables.metadata.sorted_tables:
        assert table.comment
        assert tables_say[table.name] == table.comment
        for column in table.columns:
            assert column.comment
            assert said[table.name, column.name] == column.comment


def test_making_the_tables_again_changes_nothing(connection: sa.Connection) -> None:
    writes.store_days(connection, ORGANIZATIONS, [total(DAY, 1)], [cell(DAY, "a", 1)])
    tables.create(connection)
    assert stored(connection) == {(DAY, "a"): 1}


counts = st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from("abc")), st.integers(0, 5), max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(counts, min_size=1, max_size=4))
def test_any_sequence_of_writes_leaves_the_latest_counts_and_true_numbers(
    loads: list[dict[tuple[int, str], int]],
) -> None:
    engine = sa.create_engine("duckdb://")
    with engine.begin() as connection:
        tables.create(connection)
        expected: dict[tuple[date, str], int] = {}
        for load in loads:
            cells = {(DAY + timedelta(days=day), org_id): count for (day, org_id), count in load.items()}
            days = {day for day, _ in cells}
            result = writes.store_days(
                connection,
                ORGANIZATIONS,
                [total(day, 100) for day in days],
                [cell(*key, count) for key, count in cells.items()],
            )
            changes = sum((day.changes for day in result.values()), writes.Changes())
            assert changes == writes.Changes(
                inserted=len(cells.keys() - expected.keys()),
                changed=sum(1 for key, count in cells.items() if expected.get(key, count) != count),
                unchanged=sum(1 for key, count in cells.items() if expected.get(key) == count),
            )
            expected |= cells
            assert stored(connection) == expected
    engine.dispose()
