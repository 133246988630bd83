"""Rows in, rows out: upserts, their arithmetic, revisions, and what is refused before it reaches the database."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from resources.database import Database
from tests.support.rows import DAY, LATER, NOW, cell, reading, store
from tests.support.warehouse import everything, rebuild, rows_of, stored
from warehouse import tables, writes
from warehouse.dimensions import ORGANIZATIONS, USERS
from warehouse.writes import Entry, Provenance

# Counts and totals


def test_a_second_write_reports_how_many_counts_are_new_changed_and_unchanged(connection: sa.Connection) -> None:
    first = store(connection, reading(DAY, 3, {"a": 1, "b": 2}))
    assert first[DAY].changes == writes.Changes(inserted=2)
    again = store(connection, reading(DAY, 9, {"a": 1, "b": 5, "c": 3}))
    assert again[DAY].changes == writes.Changes(inserted=1, changed=1, unchanged=1)
    assert stored(connection) == {(DAY, "a"): 1, (DAY, "b"): 5, (DAY, "c"): 3}


def test_an_unchanged_count_keeps_its_load_time_and_run(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 3, {"a": 1, "b": 2}))
    store(connection, reading(DAY, 4, {"a": 1, "b": 3}), at=LATER)
    loaded = {row.org_id: (row.loaded_at, row.run_id) for row in connection.execute(sa.select(tables.daily_sessions))}
    assert loaded == {"a": (NOW, f"run of {NOW}"), "b": (LATER, f"run of {LATER}")}
    assert connection.scalar(sa.select(tables.daily_totals.c.loaded_at)) == LATER, "the ledger has the last reading"


def test_totals_are_proven_against_the_cells_as_stored(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 3, {"a": 1, "b": 2}))
    result = store(connection, reading(DAY, 10, {"a": 4}))
    assert (result[DAY].sessions_count, result[DAY].unattributed_count) == (10, 4), "b is still stored with 2"
    row = connection.execute(sa.select(tables.daily_totals)).one()
    assert (row.sessions_count, row.orgs_sessions_count, row.unattributed_count) == (10, 6, 4)


def test_nothing_that_was_counted_in_another_window_of_the_day_stays(connection: sa.Connection) -> None:
    about_b = writes.Contradiction("b", DAY, DAY, in_one=3, by_day=2)
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a"), Entry("b")], NOW)
    store(connection, replace(reading(DAY, 3, {"a": 1, "b": 2}), contradictions=[about_b]))
    store(connection, reading(DAY + timedelta(days=1), 2, {"b": 2}))
    of_day = reading(DAY, 1, {"a": 1})
    moved = replace(of_day, window_start=of_day.window_start + timedelta(hours=1))
    assert store(connection, moved, at=LATER)[DAY].unattributed_count == 0
    assert stored(connection) == {(DAY, "a"): 1, (DAY + timedelta(days=1), "b"): 2}
    times = connection.execute(sa.select(tables.daily_sessions.c.org_id, tables.daily_sessions.c.loaded_at))
    assert {id_: at for id_, at in times} == {"a": LATER, "b": NOW}, "the same number, but of another window"
    assert rows_of(connection, tables.contradictions) == []
    store(connection, replace(moved, counts={"b": 2}), at=LATER)
    assert {id_ for day, id_ in stored(connection) if day == DAY} == {"a", "b"}, "both in the same window"


def test_a_day_without_cells_is_stored_with_its_total(connection: sa.Connection) -> None:
    result = store(connection, reading(DAY, 7))
    assert result == {DAY: writes.StoredDay(7, 7, writes.Changes())}
    assert stored(connection) == {}


@pytest.mark.parametrize("count", [12.7, 12.0, True, "12", None])
def test_a_count_that_is_not_an_integer_is_refused_before_it_reaches_the_database(
    connection: sa.Connection, count: Any
) -> None:
    with pytest.raises(TypeError, match="sessions_count"):
        store(connection, reading(DAY, 1, {"a": count}))
    assert stored(connection) == {}


def test_a_datetime_as_a_day_is_refused_before_it_reaches_the_database(connection: sa.Connection) -> None:
    with pytest.raises(TypeError, match=r"daily_sessions\.day takes date"):
        store(connection, reading(NOW, 1, {"a": 1}))
    assert stored(connection) == {}


def test_a_duplicate_key_is_refused_before_it_reaches_the_database(connection: sa.Connection) -> None:
    with pytest.raises(ValueError, match="twice"):
        store(connection, reading(DAY, 1, {"a": 1}), reading(DAY, 1, {"a": 2}))
    assert stored(connection) == {}


def test_the_largest_count_is_stored_to_the_last_digit(connection: sa.Connection) -> None:
    count = tables.LARGEST_COUNT
    result = store(connection, reading(DAY, count, {"a": count}))
    assert stored(connection) == {(DAY, "a"): count}
    assert result[DAY].unattributed_count == 0


@pytest.mark.parametrize("count", [tables.LARGEST_COUNT + 1, 2**63 - 1, 2**63])
@pytest.mark.parametrize("is_total", [False, True], ids=["a cell", "a total"])
def test_a_count_too_large_to_sum_is_never_stored(database: Database, count: int, is_total: bool) -> None:
    of_day, of_cell = (count, 1) if is_total else (1, count)
    with pytest.raises(ValueError, match="a count of more than"), database.transaction() as connection:
        store(connection, reading(DAY, of_day, {"a": of_cell}))
    with database.transaction(read_only=True) as connection:
        assert stored(connection) == {}


@pytest.mark.parametrize("bad", [cell(DAY, "b", -1), cell(DAY, "a", 2)], ids=["negative", "doubled"])
def test_the_tables_refuse_negative_counts_and_duplicate_keys(database: Database, bad: dict[str, Any]) -> None:
    with database.transaction() as connection:
        store(connection, reading(DAY, 1, {"a": 1}))
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as connection:
        connection.execute(sa.insert(tables.daily_sessions).values(bad))
    with database.transaction(read_only=True) as connection:
        assert stored(connection) == {(DAY, "a"): 1}


# Who is counted


def test_organizations_keep_the_time_they_were_first_seen_and_their_names(connection: sa.Connection) -> None:
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a", "A", NOW)], NOW)
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a")], LATER)
    row = connection.execute(sa.select(tables.organizations)).one()
    assert (row.org_name, row.created_at, row.first_seen_at, row.last_seen_at) == ("A", NOW, NOW, LATER)
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a", "B", NOW)], LATER)
    assert connection.scalar(sa.select(tables.organizations.c.org_name)) == "B"


def test_an_id_that_is_no_longer_listed_keeps_the_time_it_was_last_seen(connection: sa.Connection) -> None:
    writes.store_listed(connection, USERS, [Entry("a")], NOW)
    writes.store_listed(connection, USERS, [Entry("b")], LATER)
    seen = {row.user_id: (row.first_seen_at, row.last_seen_at) for row in connection.execute(sa.select(tables.users))}
    assert seen == {"a": (NOW, NOW), "b": (LATER, LATER)}


def test_a_refusal_keeps_its_first_time_and_latest_reason_until_the_api_counts_again(connection: sa.Connection) -> None:
    def refusals() -> dict[str, tuple[datetime | None, str | None]]:
        rows = connection.execute(sa.select(tables.organizations))
        return {row.org_id: (row.unavailable_since, row.unavailable_reason) for row in rows}

    found = [Entry(id_) for id_ in "ab"]
    writes.store_listed(connection, ORGANIZATIONS, found, NOW)
    writes.store_availability(connection, ORGANIZATIONS, {"a": "404"}, {"b"}, NOW)
    writes.store_availability(connection, ORGANIZATIONS, {"a": "403"}, {"b"}, LATER)
    assert refusals() == {"a": (NOW, "403"), "b": (None, None)}
    writes.store_listed(connection, ORGANIZATIONS, found, LATER)
    assert refusals() == {"a": (NOW, "403"), "b": (None, None)}, "being listed does not mean being counted"
    writes.store_availability(connection, ORGANIZATIONS, {}, {"a", "b"}, LATER)
    assert refusals() == {"a": (None, None), "b": (None, None)}


NAMES = [
    'O\'Hara "Logistics"',
    "'; drop table organizations; --",
    "Robert'); drop table daily_sessions; --",
    "semi;colon -- and a comment /* too */",
    "🦦 Ōtōrō & Söhne ＩＮＣ ‮reversed",  # noqa: RUF001  # a name may look like this
    "e\u0301 is not \u00e9",
    "x" * 10_000,
    "ß" * 10_000,
    "\\N",
    "\\.",
    "tab\tnew\nline\r\\back",
    "%s %(name)s :name $1 {0} ?",
    " trailing and leading ",
    "NULL",
    "",
]


def test_names_are_stored_exactly_whatever_they_contain(database: Database) -> None:
    named = {f"{number} {twin}": name for number, name in enumerate(NAMES) for twin in "ab"}
    reasons = {id_: name for id_, name in named.items() if id_.endswith("a")}
    days = {DAY + timedelta(days=number): name for number, name in enumerate(NAMES)}
    with database.transaction() as connection:
        found = [Entry(id_, name) for id_, name in named.items()]
        writes.store_listed(connection, ORGANIZATIONS, found, NOW)
        writes.store_listed(connection, ORGANIZATIONS, found, LATER)
        writes.store_availability(connection, ORGANIZATIONS, reasons, named.keys() - reasons, LATER)
        for day, name in days.items():
            for count in (1, 2):
                by = Provenance("v2", NOW, run_id=name)
                writes.store_days(connection, ORGANIZATIONS, [reading(day, count, {"0 a": count})], by)
        writes.store_expected_days(connection, DAY, DAY)
    with database.transaction(read_only=True) as connection:

        def stored_in(table: sa.Table, key: str, value: str) -> dict[Any, Any]:
            rows = connection.execute(sa.select(table.c[key], table.c[value])).all()
            assert len(rows) == len({row[0] for row in rows})
            return {row[0]: row[1] for row in rows}

        assert stored_in(tables.organizations, "org_id", "org_name") == named
        assert stored_in(tables.session_grid, "org_id", "org_name") == named
        assert stored_in(tables.organizations, "org_id", "unavailable_reason") == dict.fromkeys(named) | reasons
        for table in (tables.daily_sessions, tables.daily_totals, tables.session_revisions):
            assert stored_in(table, "day", "run_id") == days


def test_a_nul_which_postgresql_cannot_store_becomes_the_replacement_character_on_both(database: Database) -> None:
    with database.transaction() as connection:
        found = [Entry("a", "before\0after")]
        writes.store_listed(connection, ORGANIZATIONS, found, NOW)
        assert connection.scalars(sa.select(tables.organizations.c.org_name)).all() == ["before\ufffdafter"]


def test_ids_that_a_careless_comparison_would_confuse_are_different_organizations(connection: sa.Connection) -> None:
    ids = ["org-a", "org-A", "ORG-A", "org-a ", " org-a", "org-a\t", "org-\u00e9", "org-e\u0301", "org_a", "org%a", ""]
    found = [Entry(id_, f"name of {id_}") for id_ in ids]
    writes.store_listed(connection, ORGANIZATIONS, found, NOW)
    counts = {id_: 2**n for n, id_ in enumerate(ids)}
    for _ in range(2):
        store(connection, reading(DAY, 1, counts))
    assert stored(connection) == {(DAY, id_): count for id_, count in counts.items()}
    assert rows_of(connection, tables.session_revisions) == []
    writes.store_availability(connection, ORGANIZATIONS, {"org-A": "404"}, {"org-a"}, NOW)
    refused = tables.organizations.c.unavailable_since.is_not(None)
    assert connection.scalars(sa.select(tables.organizations.c.org_id).where(refused)).all() == ["org-A"]
    rebuild(connection, tables.weekly_sessions.name)
    weekly = connection.execute(sa.select(tables.weekly_sessions.c.org_id, tables.weekly_sessions.c.sessions_count))
    assert {org_id: count for org_id, count in weekly} == counts
    writes.store_expected_days(connection, DAY, DAY)
    grid = connection.execute(sa.select(tables.session_grid.c.org_name, tables.session_grid.c.sessions_count))
    assert {name: count for name, count in grid} == {f"name of {id_}": count for id_, count in counts.items()}


# Revisions


def test_a_revision_records_what_a_count_was_what_it_became_when_and_in_which_run(
    connection: sa.Connection,
) -> None:
    last = LATER + timedelta(days=1)
    for at, a, b in ((NOW, 1, 2), (LATER, 1, 5), (last, 1, 0)):
        store(connection, reading(DAY, 9, {"a": a, "b": b}), at=at)
    assert rows_of(connection, tables.session_revisions) == [
        (DAY, "b", LATER, 2, 5, f"run of {LATER}"),
        (DAY, "b", last, 5, 0, f"run of {last}"),
    ]
    assert rows_of(connection, tables.user_session_revisions) == []


def test_reading_the_same_counts_again_rewrites_none_and_adds_no_revision(connection: sa.Connection) -> None:
    readings = [reading(DAY + timedelta(days=n), 1, {"a": n, "b": n}) for n in range(3)]
    store(connection, *readings)
    before = rows_of(connection, tables.daily_sessions)
    again = store(connection, *readings, at=LATER)
    assert {day.changes for day in again.values()} == {writes.Changes(unchanged=2)}
    assert rows_of(connection, tables.daily_sessions) == before
    assert rows_of(connection, tables.session_revisions) == []


def test_the_same_count_from_another_version_of_the_api_is_stored_without_a_revision(
    connection: sa.Connection,
) -> None:
    store(connection, reading(DAY, 1, {"a": 1}))
    from_v3 = cell(DAY, "a", 1, LATER) | {"api_version": "v3"}
    again = store(connection, reading(DAY, 1, {"a": 1}), at=LATER, api_version="v3")
    assert again[DAY].changes == writes.Changes(unchanged=1)
    assert connection.execute(sa.select(tables.daily_sessions)).mappings().one() == from_v3
    assert rows_of(connection, tables.session_revisions) == []


def test_a_rolled_back_transaction_leaves_no_counts_revisions_or_stale_days(database: Database) -> None:
    with database.transaction() as connection:
        store(connection, reading(DAY, 1, {"a": 1}))
        rebuild(connection, tables.weekly_sessions.name)
        before = everything(connection)
    with pytest.raises(KeyboardInterrupt), database.transaction() as connection:
        store(connection, reading(DAY, 2, {"a": 2}), at=LATER)
        rebuild(connection, tables.weekly_sessions.name)
        assert len(rows_of(connection, tables.session_revisions)) == 1
        raise KeyboardInterrupt
    with database.transaction(read_only=True) as connection:
        assert everything(connection) == before
    with database.transaction() as connection:
        store(connection, reading(DAY, 2, {"a": 2}), at=LATER)
        rebuild(connection, tables.weekly_sessions.name)
    with database.transaction(read_only=True) as connection:
        assert connection.scalars(sa.select(tables.weekly_sessions.c.sessions_count)).all() == [2]
        assert len(rows_of(connection, tables.session_revisions)) == 1


def test_a_load_that_fails_after_writing_revisions_keeps_none_of_them(database: Database) -> None:
    with database.transaction() as connection:
        store(connection, reading(DAY, 1, {"a": 1}))
    too_many = tables.LARGEST_COUNT + 1
    with pytest.raises(ValueError, match="daily_totals"), database.transaction() as connection:
        store(connection, reading(DAY, too_many, {"a": 2}), at=LATER)
    with database.transaction(read_only=True) as connection:
        assert stored(connection) == {(DAY, "a"): 1}
        assert rows_of(connection, tables.session_revisions) == []


def test_users_have_their_own_counts_totals_and_revisions_and_no_part_in_the_rollups(
    connection: sa.Connection,
) -> None:
    for at, count in ((NOW, 1), (LATER, 4)):
        result = store(connection, reading(DAY, 6, {"u": count, "w": 1}), at=at, of=USERS)
    assert result == {DAY: writes.StoredDay(6, 1, writes.Changes(changed=1, unchanged=1))}
    assert rows_of(connection, tables.user_session_revisions) == [(DAY, "u", LATER, 1, 4, f"run of {LATER}")]
    row = connection.execute(sa.select(tables.user_daily_totals)).one()
    assert (row.users_sessions_count, row.unattributed_count) == (5, 1)
    others = (tables.daily_sessions, tables.daily_totals, tables.session_revisions, tables.stale_days)
    assert [rows_of(connection, table) for table in others] == [[], [], [], []]
