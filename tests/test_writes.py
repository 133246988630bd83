"""Rows in, rows out: upserts, their arithmetic, revisions, rollups, and what is refused before it is stored."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources.database import Database
from warehouse import rollups, tables, writes
from warehouse.dimensions import ORGANIZATIONS, USERS, Dimension
from warehouse.writes import Entry, Provenance, Reading

NOW = datetime(2025, 3, 1, 2, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
DAY = date(2025, 2, 1)
SETTLED_AFTER_DAYS = 2


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.transaction() as connection:
        yield connection


def cell(day: date, id_: str, count: Any, at: datetime = NOW, of: Dimension = ORGANIZATIONS) -> dict[str, Any]:
    return {
        "day": day,
        of.id: id_,
        "sessions_count": count,
        "is_derived": False,
        "api_version": "v2",
        "loaded_at": at,
        "run_id": f"run of {at}",
    }


def reading(day: date, total: int, counts: Mapping[str, Any] | None = None) -> Reading:
    """Two were to be counted on that day, which begins at midnight UTC."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Reading(day, start, start + timedelta(days=1), total, counts or {}, derived=set(), expected=2)


def store(
    connection: sa.Connection,
    *readings: Reading,
    at: datetime = NOW,
    of: Dimension = ORGANIZATIONS,
    api_version: str = "v2",
    run_id: str = "",
) -> dict[date, writes.StoredDay]:
    return writes.store_days(connection, of, readings, Provenance(api_version, at, run_id or f"run of {at}"))


def stored(connection: sa.Connection) -> dict[tuple[date, str], int]:
    return {(r.day, r.org_id): r.sessions_count for r in connection.execute(sa.select(tables.daily_sessions))}


def rows_of(connection: sa.Connection, table: sa.Table) -> list[tuple[Any, ...]]:
    """Every row, in order: of the key, or else of all columns."""
    order = list(table.primary_key.columns) or list(table.columns)
    return [tuple(row) for row in connection.execute(sa.select(table).order_by(*order))]


def everything(connection: sa.Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: rows_of(connection, table) for table in tables.metadata.sorted_tables}


# Counts and totals


def test_a_second_write_counts_what_is_new_changed_and_unchanged(connection: sa.Connection) -> None:
    first = store(connection, reading(DAY, 3, {"a": 1, "b": 2}))
    assert first[DAY].changes == writes.Changes(inserted=2)
    again = store(connection, reading(DAY, 9, {"a": 1, "b": 5, "c": 3}))
    assert again[DAY].changes == writes.Changes(inserted=1, changed=1, unchanged=1)
    assert stored(connection) == {(DAY, "a"): 1, (DAY, "b"): 5, (DAY, "c"): 3}


def test_an_unchanged_count_keeps_its_time_and_run(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 3, {"a": 1, "b": 2}))
    store(connection, reading(DAY, 4, {"a": 1, "b": 3}), at=LATER)
    loaded = {row.org_id: (row.loaded_at, row.run_id) for row in connection.execute(sa.select(tables.daily_sessions))}
    assert loaded == {"a": (NOW, f"run of {NOW}"), "b": (LATER, f"run of {LATER}")}
    assert connection.scalar(sa.select(tables.daily_totals.c.loaded_at)) == LATER, "the ledger tells the last reading"


def test_totals_are_proven_against_the_cells_as_stored(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 3, {"a": 1, "b": 2}))
    result = store(connection, reading(DAY, 10, {"a": 4}))
    assert (result[DAY].sessions_count, result[DAY].unattributed_count) == (10, 4), "b is still stored with 2"
    row = connection.execute(sa.select(tables.daily_totals)).one()
    assert (row.sessions_count, row.orgs_sessions_count, row.unattributed_count) == (10, 6, 4)


def test_a_day_without_any_cell_is_stored_with_its_total(connection: sa.Connection) -> None:
    result = store(connection, reading(DAY, 7))
    assert result == {DAY: writes.StoredDay(7, 7, writes.Changes())}
    assert stored(connection) == {}


@pytest.mark.parametrize("count", [12.7, 12.0, True, "12", None])
def test_a_count_that_is_not_an_integer_is_refused_before_the_database(connection: sa.Connection, count: Any) -> None:
    with pytest.raises(TypeError, match="sessions_count"):
        store(connection, reading(DAY, 1, {"a": count}))
    assert stored(connection) == {}


def test_a_day_that_is_a_time_is_refused_before_the_database(connection: sa.Connection) -> None:
    with pytest.raises(TypeError, match=r"daily_sessions\.day takes date"):
        store(connection, reading(NOW, 1, {"a": 1}))
    assert stored(connection) == {}


def test_a_key_that_comes_twice_is_refused_before_the_database(connection: sa.Connection) -> None:
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
def test_a_count_that_sums_could_not_hold_is_never_stored(database: Database, count: int, is_total: bool) -> None:
    of_day, of_cell = (count, 1) if is_total else (1, count)
    with pytest.raises(ValueError, match="a count of more than"), database.transaction() as connection:
        store(connection, reading(DAY, of_day, {"a": of_cell}))
    with database.transaction(read_only=True) as connection:
        assert stored(connection) == {}


@pytest.mark.parametrize("bad", [cell(DAY, "b", -1), cell(DAY, "a", 2)], ids=["negative", "doubled"])
def test_the_tables_refuse_negative_counts_and_doubled_keys(database: Database, bad: dict[str, Any]) -> None:
    with database.transaction() as connection:
        store(connection, reading(DAY, 1, {"a": 1}))
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as connection:
        connection.execute(sa.insert(tables.daily_sessions).values(bad))
    with database.transaction(read_only=True) as connection:
        assert stored(connection) == {(DAY, "a"): 1}


# Who is counted


def test_organizations_keep_their_first_sight_and_their_names(connection: sa.Connection) -> None:
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a", "A", NOW)], NOW)
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a")], LATER)
    row = connection.execute(sa.select(tables.organizations)).one()
    assert (row.org_name, row.created_at, row.first_seen_at, row.last_seen_at) == ("A", NOW, NOW, LATER)
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a", "B", NOW)], LATER)
    assert connection.scalar(sa.select(tables.organizations.c.org_name)) == "B"


def test_who_is_no_longer_listed_stays_with_the_time_of_the_last_sight(connection: sa.Connection) -> None:
    writes.store_listed(connection, USERS, [Entry("a")], NOW)
    writes.store_listed(connection, USERS, [Entry("b")], LATER)
    seen = {row.user_id: (row.first_seen_at, row.last_seen_at) for row in connection.execute(sa.select(tables.users))}
    assert seen == {"a": (NOW, NOW), "b": (LATER, LATER)}


def test_a_refusal_keeps_its_first_time_and_latest_reason_until_the_source_answers(connection: sa.Connection) -> None:
    def refusals() -> dict[str, tuple[datetime | None, str | None]]:
        rows = connection.execute(sa.select(tables.organizations))
        return {row.org_id: (row.unavailable_since, row.unavailable_reason) for row in rows}

    found = [Entry(id_) for id_ in "ab"]
    writes.store_listed(connection, ORGANIZATIONS, found, NOW)
    writes.store_availability(connection, ORGANIZATIONS, {"a": "404"}, {"b"}, NOW)
    writes.store_availability(connection, ORGANIZATIONS, {"a": "403"}, {"b"}, LATER)
    assert refusals() == {"a": (NOW, "403"), "b": (None, None)}
    writes.store_listed(connection, ORGANIZATIONS, found, LATER)
    assert refusals() == {"a": (NOW, "403"), "b": (None, None)}, "being listed is no answer"
    writes.store_availability(connection, ORGANIZATIONS, {}, {"a", "b"}, LATER)
    assert refusals() == {"a": (None, None), "b": (None, None)}


NAMES = [
    'O\'Hara "Logistics"',
    "'; drop table organizations; --",
    "Robert'); drop table daily_sessions; --",
    "semi;colon -- and a comment /* too */",
    "🦦 Ōtōrō & Söhne ＩＮＣ ‮reversed",  # noqa: RUF001  # as a name may come
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


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:12]))
def test_whatever_a_name_holds_is_kept_to_the_letter(database: Database, name: str) -> None:
    with database.transaction() as connection:
        found = [Entry(id_, name) for id_ in ("a", "b")]
        writes.store_listed(connection, ORGANIZATIONS, found, NOW)
        writes.store_listed(connection, ORGANIZATIONS, found, LATER)
        writes.store_availability(connection, ORGANIZATIONS, {"a": name}, {"b"}, LATER)
        for count in (1, 2):
            by = Provenance("v2", NOW, run_id=name)
            writes.store_days(connection, ORGANIZATIONS, [reading(DAY, count, {"a": count})], by)
        writes.store_expected_days(connection, DAY, DAY)
    with database.transaction(read_only=True) as connection:
        assert connection.scalars(sa.select(tables.organizations.c.org_name)).all() == [name, name]
        assert connection.scalars(sa.select(tables.session_grid.c.org_name)).all() == [name, name]
        of_a = tables.organizations.c.org_id == "a"
        assert connection.scalar(sa.select(tables.organizations.c.unavailable_reason).where(of_a)) == name
        for table in (tables.daily_sessions, tables.daily_totals, tables.session_revisions):
            assert connection.scalars(sa.select(table.c.run_id)).all() == [name]


def test_a_nul_which_postgresql_cannot_hold_becomes_the_replacement_character_on_both(database: Database) -> None:
    with database.transaction() as connection:
        found = [Entry("a", "before\0after")]
        writes.store_listed(connection, ORGANIZATIONS, found, NOW)
        assert connection.scalars(sa.select(tables.organizations.c.org_name)).all() == ["before\ufffdafter"]


def test_ids_that_a_careless_comparison_takes_for_one_are_different_organizations(connection: sa.Connection) -> None:
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


def test_a_count_that_changes_leaves_what_it_was_and_what_it_became_when_and_in_which_run(
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


def test_a_re_read_that_finds_the_same_rewrites_no_count_and_adds_no_revision(connection: sa.Connection) -> None:
    readings = [reading(DAY + timedelta(days=n), 1, {"a": n, "b": n}) for n in range(3)]
    store(connection, *readings)
    before = rows_of(connection, tables.daily_sessions)
    again = store(connection, *readings, at=LATER)
    assert {day.changes for day in again.values()} == {writes.Changes(unchanged=2)}
    assert rows_of(connection, tables.daily_sessions) == before
    assert rows_of(connection, tables.session_revisions) == []


def test_the_same_count_from_another_version_of_the_api_is_taken_over_without_a_revision(
    connection: sa.Connection,
) -> None:
    store(connection, reading(DAY, 1, {"a": 1}))
    from_v3 = cell(DAY, "a", 1, LATER) | {"api_version": "v3"}
    again = store(connection, reading(DAY, 1, {"a": 1}), at=LATER, api_version="v3")
    assert again[DAY].changes == writes.Changes(unchanged=1)
    assert connection.execute(sa.select(tables.daily_sessions)).mappings().one() == from_v3
    assert rows_of(connection, tables.session_revisions) == []


def test_of_a_transaction_that_is_undone_neither_counts_nor_revisions_nor_stale_days_stay(database: Database) -> None:
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


def test_a_load_that_fails_after_its_revisions_keeps_none_of_them(database: Database) -> None:
    with database.transaction() as connection:
        store(connection, reading(DAY, 1, {"a": 1}))
    too_many = tables.LARGEST_COUNT + 1
    with pytest.raises(ValueError, match="daily_totals"), database.transaction() as connection:
        store(connection, reading(DAY, too_many, {"a": 2}), at=LATER)
    with database.transaction(read_only=True) as connection:
        assert stored(connection) == {(DAY, "a"): 1}
        assert rows_of(connection, tables.session_revisions) == []


def test_users_have_counts_totals_and_revisions_of_their_own_and_no_part_in_the_rollups(
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


# Any sequence of loads


@pytest.fixture
def open_database(database: Database) -> Iterator[Database]:
    """The warehouse, held open: a DuckDB file is then not opened and written out for each of many transactions."""
    with database.transaction() if database.is_duckdb else nullcontext():
        yield database


def emptied(database: Database) -> None:
    with database.transaction() as connection:
        for table in tables.metadata.sorted_tables:
            if table is not tables.warehouse_version:
                connection.execute(sa.delete(table))


# The warehouse is emptied for each example.
each_example = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

counts = st.dictionaries(st.tuples(st.integers(0, 3), st.sampled_from("abc")), st.integers(0, 5), max_size=12)


@each_example
@given(loads=st.lists(counts, min_size=1, max_size=4))
def test_any_sequence_of_writes_leaves_the_latest_counts_and_true_numbers(
    open_database: Database, loads: list[dict[tuple[int, str], int]]
) -> None:
    emptied(open_database)
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
# From a Friday in December to March: over the turn of a year, several months and a leap day.
FIRST = date(2023, 12, 22)
# Each day as its total, the counts of some organizations, and how many days after its end it was read.
days_of_load = st.dictionaries(
    st.integers(0, 75),
    st.tuples(st.integers(0, 9), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), st.integers(0, 3)),
    max_size=10,
)
# Long stretches as well, without which no trailing sum would ever be known and no month complete.
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


def rebuild(connection: sa.Connection, name: str, settled_after_days: int = SETTLED_AFTER_DAYS) -> int:
    return rollups.rebuild(connection, tables.metadata.tables[name], settled_after_days=settled_after_days)


def selected_over_everything(connection: sa.Connection, name: str) -> list[tuple[Any, ...]]:
    """What the rollup's SQL file selects over all of time, past the bookkeeping of stale days."""
    table = tables.metadata.tables[name]
    query = sa.text(tables.select(table))
    values = {"first_day": date(2000, 1, 1), "last_day": date(2100, 12, 31), "settled_after_days": SETTLED_AFTER_DAYS}
    known = query.bindparams(**{key: value for key, value in values.items() if f":{key}" in query.text})
    return sorted(tuple(row) for row in connection.execute(known))


@each_example
@given(steps=st.lists(st.tuples(days_of_load | stretches, some_rollups, st.integers(0, 3)), min_size=1, max_size=5))
def test_rollups_that_take_in_what_changed_hold_the_same_as_if_built_from_scratch(
    open_database: Database, steps: list[tuple[Load, set[str], int]]
) -> None:
    emptied(open_database)
    for days, built, settled_after_days in steps:
        with open_database.transaction() as connection:
            load(connection, days)
        with open_database.transaction() as connection:
            for name in sorted(built):
                rebuild(connection, name, settled_after_days)
    with open_database.transaction() as connection:
        for table in tables.ROLLUPS:
            rebuild(connection, table.name)
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
            assert selected_over_everything(connection, table.name) == taken_in[table.name]


THE_GRID_PLAINLY = """
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
    emptied(open_database)
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
            assert grid == connection.execute(sa.text(THE_GRID_PLAINLY)).all()
            assert len(grid) == 71 * 3


# What a rebuild touches


def spoil(connection: sa.Connection, table: sa.Table) -> None:
    """Make every count of the rollup one that no rebuild would give."""
    connection.execute(sa.update(table).values(sessions_count=table.c.sessions_count + 1000))


def keys_by_spoiled(connection: sa.Connection, table: sa.Table) -> tuple[list[date], list[date]]:
    """The periods whose rows are still spoiled, and those that were built again."""
    rows = connection.execute(sa.select(table.columns[0], table.c.sessions_count).order_by(table.columns[0])).all()
    spoiled = {key for key, count in rows if count >= 1000}
    return sorted(spoiled), sorted({key for key, _ in rows} - spoiled)


def january_to_march(connection: sa.Connection) -> None:
    """Every day of the first quarter of 2025, built into each rollup, then spoiled in each."""
    days = [date(2025, 1, 1) + timedelta(days=n) for n in range(90)]
    store(connection, *(reading(day, 3, {"a": 3}) for day in days))
    for table in tables.ROLLUPS:
        rebuild(connection, table.name)
        spoil(connection, table)


def test_a_changed_day_has_its_week_built_again_and_no_other(connection: sa.Connection) -> None:
    january_to_march(connection)
    thursday = date(2025, 2, 13)
    store(connection, reading(thursday, 5, {"a": 5}))
    assert rebuild(connection, "weekly_sessions") == 1
    still, again = keys_by_spoiled(connection, tables.weekly_sessions)
    assert again == [date(2025, 2, 10)]
    assert (len(still), still[0], still[-1]) == (13, date(2024, 12, 30), date(2025, 3, 31))
    row = connection.execute(sa.select(tables.weekly_sessions).where(tables.weekly_sessions.c.week == again[0])).one()
    assert tuple(row) == (date(2025, 2, 10), "a", 23, 7, 7, True)


@pytest.mark.parametrize(
    ("changed", "weeks"),
    [
        ([date(2025, 2, 10)], [date(2025, 2, 10)]),
        ([date(2025, 2, 16)], [date(2025, 2, 10)]),
        ([date(2025, 2, 16), date(2025, 2, 17)], [date(2025, 2, 10), date(2025, 2, 17)]),
        ([date(2025, 1, 1), date(2025, 3, 5)], [date(2024, 12, 30), date(2025, 3, 3)]),
    ],
    ids=["Monday", "Sunday", "Sunday and Monday", "far apart"],
)
def test_exactly_the_weeks_of_the_changed_days_are_built_again(
    connection: sa.Connection, changed: list[date], weeks: list[date]
) -> None:
    january_to_march(connection)
    store(connection, *(reading(day, 5, {"a": 5}) for day in changed))
    rebuild(connection, "weekly_sessions")
    assert keys_by_spoiled(connection, tables.weekly_sessions)[1] == weeks


@pytest.mark.parametrize("changed", [date(2025, 2, 1), date(2025, 2, 14), date(2025, 2, 28)])
def test_exactly_the_month_of_the_changed_day_is_built_again(connection: sa.Connection, changed: date) -> None:
    january_to_march(connection)
    store(connection, reading(changed, 5, {"a": 5}))
    assert rebuild(connection, "monthly_sessions") == 1
    still, again = keys_by_spoiled(connection, tables.monthly_sessions)
    assert (still, again) == ([date(2025, 1, 1), date(2025, 3, 1)], [date(2025, 2, 1)])


def test_of_the_enterprise_the_changed_day_and_those_that_sum_over_it_are_built_again(
    connection: sa.Connection,
) -> None:
    january_to_march(connection)
    changed = date(2025, 1, 20)
    store(connection, reading(changed, 5, {"a": 5}))
    rebuild(connection, "enterprise_sessions")
    still, again = keys_by_spoiled(connection, tables.enterprise_sessions)
    assert again[0] == changed, "no day looks ahead"
    assert again == [changed + timedelta(days=n) for n in range(len(again))]
    assert 28 <= len(again) <= 32, "the longest sum goes back 27 days, the month so far up to 30"
    assert len(still) + len(again) == 90


@pytest.mark.parametrize("changed", [date(2025, 1, 1), date(2025, 1, 31), date(2025, 2, 1), date(2025, 3, 31)])
def test_after_one_changed_day_every_row_is_what_it_would_be_if_all_were_built_again(
    connection: sa.Connection, changed: date
) -> None:
    days = [date(2025, 1, 1) + timedelta(days=n) for n in range(90)]
    store(connection, *(reading(day, 3, {"a": 3}) for day in days))
    for table in tables.ROLLUPS:
        rebuild(connection, table.name)
    store(connection, reading(changed, 5, {"a": 5}))
    for table in tables.ROLLUPS:
        rebuild(connection, table.name)
        assert rows_of(connection, table) == selected_over_everything(connection, table.name)


def test_rows_of_a_period_that_nothing_is_behind_any_more_go_away(connection: sa.Connection) -> None:
    january_to_march(connection)
    for table, key in ((tables.weekly_sessions, "week"), (tables.monthly_sessions, "month")):
        other = {key: date(2025, 2, 3) if key == "week" else date(2025, 2, 1), "org_id": "gone"}
        values = {"sessions_count": 1, "days_expected": 7, "days_loaded": 1, "is_complete": False}
        connection.execute(sa.insert(table).values(other | values))
        store(connection, reading(date(2025, 2, 3), 3))
        rebuild(connection, table.name)
        assert set(connection.scalars(sa.select(table.c.org_id))) == {"a"}


def test_without_a_changed_day_a_rebuild_leaves_everything_as_it_is(connection: sa.Connection) -> None:
    january_to_march(connection)
    before = everything(connection)
    assert [rebuild(connection, table.name) for table in tables.ROLLUPS] == [0, 0, 0]
    assert everything(connection) == before


def test_each_rollup_has_its_own_days_to_take_in(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 1, {"a": 1}))
    store(connection, reading(DAY, 1, {"a": 1}))
    names = sorted(table.name for table in tables.ROLLUPS)
    assert rows_of(connection, tables.stale_days) == [(name, DAY) for name in names]
    while names:
        rebuild(connection, names.pop(0))
        assert rows_of(connection, tables.stale_days) == [(name, DAY) for name in names]


def test_a_day_that_was_read_again_unchanged_is_settled_by_the_next_rebuild(connection: sa.Connection) -> None:
    end = datetime(2025, 2, 2, tzinfo=UTC)
    for at, is_settled in ((end, False), (end + timedelta(days=SETTLED_AFTER_DAYS), True)):
        store(connection, reading(DAY, 1, {"a": 1}), at=at)
        rebuild(connection, "enterprise_sessions")
        assert connection.scalar(sa.select(tables.enterprise_sessions.c.is_settled)) is is_settled


def test_a_look_back_that_has_changed_is_taken_over_by_days_of_before(connection: sa.Connection) -> None:
    for n, days_after in enumerate((0, 1, 2)):
        day = DAY + timedelta(days=n)
        at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1 + days_after)
        store(connection, reading(day, 1, {"a": 1}), at=at)
    for settled_after_days, settled in ((2, 1), (1, 2), (3, 0), (0, 3)):
        rebuild(connection, "enterprise_sessions", settled_after_days)
        assert connection.scalars(sa.select(tables.enterprise_sessions.c.is_settled)).all().count(True) == settled
        assert rebuild(connection, "enterprise_sessions", settled_after_days) == 0


def test_the_expected_days_are_one_row_the_latest(connection: sa.Connection) -> None:
    for last_day in (DAY, DAY + timedelta(days=1), DAY):
        writes.store_expected_days(connection, DAY, last_day)
        assert rows_of(connection, tables.expected_days) == [(DAY, last_day)]


# The layout


def comments(connection: sa.Connection) -> dict[tuple[str, str | None], str | None]:
    """What the database says that each table, view (None) and column means."""
    if connection.dialect.name == "postgresql":
        sql = """
            select relname, null, obj_description(oid, 'pg_class')
            from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'v')
            union all
            select relname, attname, col_description(attrelid, attnum)
            from pg_class inner join pg_attribute on attrelid = pg_class.oid
            where relnamespace = current_schema()::regnamespace and relkind in ('r', 'v') and attnum > 0
                and not attisdropped
        """
    else:
        sql = """
            select table_name, null, comment from duckdb_tables()
            union all
            select view_name, null, comment from duckdb_views() where not internal
            union all
            select table_name, column_name, comment from duckdb_columns() where not internal
        """
    return {(relation, column): comment for relation, column, comment in connection.execute(sa.text(sql))}


def test_every_table_view_and_column_says_what_it_means_in_the_database_too(connection: sa.Connection) -> None:
    expected: dict[tuple[str, str | None], str | None] = {}
    for relation in (*tables.metadata.sorted_tables, *tables.views.sorted_tables):
        expected[relation.name, None] = relation.comment
        expected |= {(relation.name, column.name): column.comment for column in relation.columns}
    assert all(expected.values())
    assert comments(connection) == expected


def test_making_the_tables_again_changes_nothing(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 1, {"a": 1}))
    before = everything(connection)
    tables.create(connection)
    assert everything(connection) == before
