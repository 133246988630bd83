"""What runs and the command ask of the warehouse, on every database."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from resources.database import Database
from tests.support.examples import examples
from tests.support.shared import DATABASES, new_warehouse, rolled_back
from warehouse import reads, rollups, tables, writes
from warehouse.dimensions import ORGANIZATIONS, USERS, Dimension
from warehouse.writes import Entry, Provenance, Reading

JANUARY_30 = date(2025, 1, 30)
NOON = datetime(2025, 1, 30, 12, tzinfo=UTC)


def days_after(days: int) -> date:
    return JANUARY_30 + timedelta(days=days)


@pytest.fixture(scope="module", params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A warehouse that every test leaves without rows. A DuckDB file is held open, instead of opened for each."""
    database = new_warehouse(request, tmp_path_factory)
    with database.transaction() if database.is_duckdb else nullcontext():
        yield database


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with rolled_back(database) as connection:
        yield connection


@pytest.fixture(params=[ORGANIZATIONS, USERS], ids=lambda dimension: dimension.noun)
def dimension(request: pytest.FixtureRequest) -> Dimension:
    """Tests that use this run once for organizations and once for users."""
    of: Dimension = request.param
    return of


def store(
    connection: sa.Connection,
    dimension: Dimension,
    days: Mapping[date, Mapping[str, int]],
    *,
    control_total: int | None = None,
    read_after: timedelta = timedelta(hours=2),
    **read: str,
) -> None:
    """Load these counts by day and id, each day read `read_after` its end."""
    readings = []
    for day, counts in days.items():
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        total = sum(counts.values()) if control_total is None else control_total
        readings.append(Reading(day, start, start + timedelta(days=1), total, counts, {}, expected=len(counts)))
    last_read_at = max((reading.window_end for reading in readings), default=NOON) + read_after
    by = Provenance(**{"api_version": "v2", "run_id": "run"} | read, loaded_at=last_read_at)
    writes.store_days(connection, dimension, readings, by)
    totals = dimension.totals
    then = totals.c.window_end + sa.literal(read_after)
    connection.execute(sa.update(totals).where(totals.c.day.in_(days)).values(loaded_at=then))


def listed(
    connection: sa.Connection, dimension: Dimension, created: Mapping[str, datetime | None], at: datetime = NOON
) -> None:
    name = "name" if dimension.name_column else None
    writes.store_listed(connection, dimension, [Entry(id_, name, c) for id_, c in created.items()], at)


def test_every_query_works_on_an_empty_warehouse(connection: sa.Connection, dimension: Dimension) -> None:
    assert reads.latest_listed(connection, dimension) == []
    assert reads.windows(connection, dimension) == {}
    assert reads.last_read(connection, dimension) == {}
    assert reads.api_versions(connection) == set()
    assert reads.rollups_behind(connection) == []
    assert reads.days_of_runs(connection, dimension, ["run"]) == set()
    assert reads.recent_activity(connection, dimension, JANUARY_30, days_after(9)) == {}
    assert reads.unavailable(connection, dimension) == {}
    assert reads.missing_cells(connection, dimension) == {}
    assert reads.missing_cells(connection, dimension, ["a"]) == {}
    assert reads.loaded_days(connection, dimension, [JANUARY_30]) == set()
    assert reads.coverage(connection, dimension, [JANUARY_30], set()) == reads.Coverage(
        JANUARY_30, JANUARY_30, 1, 0, 0, 0, 0, None
    )


def test_a_day_that_was_read_again_has_the_time_of_the_last_reading(
    connection: sa.Connection, dimension: Dimension
) -> None:
    store(connection, dimension, {days_after(0): {"a": 1}, days_after(1): {"a": 2}})
    store(connection, dimension, {days_after(1): {"a": 2}}, read_after=timedelta(hours=5))
    assert reads.last_read(connection, dimension) == {
        days_after(0): datetime(2025, 1, 31, 2, tzinfo=UTC),
        days_after(1): datetime(2025, 2, 1, 5, tzinfo=UTC),
    }


def test_only_the_ids_on_the_latest_list_are_listed_in_order(connection: sa.Connection, dimension: Dimension) -> None:
    listed(connection, dimension, dict.fromkeys(["a", "gone"]))
    listed(connection, dimension, dict.fromkeys(["b", "a", "C"]), NOON + timedelta(microseconds=1))
    assert reads.latest_listed(connection, dimension) == ["C", "a", "b"]


def test_only_ids_on_the_latest_list_are_reported_as_refused(connection: sa.Connection, dimension: Dimension) -> None:
    listed(connection, dimension, dict.fromkeys(["a", "b", "gone"]))
    writes.store_availability(connection, dimension, {"a": "404", "gone": "403"}, {"b"}, NOON)
    listed(connection, dimension, dict.fromkeys(["a", "b"]), NOON + timedelta(days=1))
    assert reads.unavailable(connection, dimension) == {"a": "404"}


def test_windows_versions_and_runs_are_from_the_last_reading(connection: sa.Connection, dimension: Dimension) -> None:
    two = {days_after(n): {"a": 1} for n in range(2)}
    store(connection, dimension, two, run_id="first")
    store(connection, dimension, {days_after(1): {"a": 1}}, run_id="second", api_version="v3")
    midnight = datetime(2025, 1, 30, tzinfo=UTC)
    assert reads.windows(connection, dimension) == {
        days_after(n): (midnight + timedelta(days=n), midnight + timedelta(days=n + 1)) for n in range(2)
    }
    assert reads.api_versions(connection) == {"v2", "v3"}
    assert reads.days_of_runs(connection, dimension, ["first", "other"]) == {days_after(0)}
    assert reads.days_of_runs(connection, dimension, []) == set()


def test_activity_counts_days_and_sessions_from_the_first_day_up_to_but_excluding_the_last(
    connection: sa.Connection, dimension: Dimension
) -> None:
    store(connection, dimension, {days_after(n): {"a": 2**n} | ({"b": 0} if n == 2 else {}) for n in range(5)})
    activity = reads.recent_activity(connection, dimension, days_after(1), days_after(4))
    assert activity == {"a": (3.0, 14.0), "b": (1.0, 0.0)}
    assert {type(number) for numbers in activity.values() for number in numbers} == {float}


def test_rollups_are_behind_until_each_has_taken_in_what_was_loaded(connection: sa.Connection) -> None:
    store(connection, ORGANIZATIONS, {JANUARY_30: {"a": 1}})
    names = [table.name for table in tables.ROLLUPS]
    for number, table in enumerate(tables.ROLLUPS):
        assert reads.rollups_behind(connection) == names[number:]
        rollups.rebuild(connection, table, settled_after_days=2)
    assert reads.rollups_behind(connection) == []
    store(connection, USERS, {JANUARY_30: {"u": 1}})
    assert reads.rollups_behind(connection) == [], "no rollup is about users"


def test_coverage_counts_loaded_and_reconciled_days_of_those_expected(
    connection: sa.Connection, dimension: Dimension
) -> None:
    listed(connection, dimension, dict.fromkeys(["a", "b"]))
    store(connection, dimension, {days_after(n): {"a": 1, "b": 2} for n in range(3)})
    store(connection, dimension, {days_after(3): {"a": 1, "b": 2}}, control_total=7)
    store(connection, dimension, {days_after(4): {"a": 1}}, read_after=timedelta(days=9))
    expected = [days_after(n) for n in range(1, 8)]
    loaded = reads.loaded_days(connection, dimension, expected)
    assert loaded == {days_after(n) for n in range(1, 4)}
    assert reads.coverage(connection, dimension, expected, loaded) == reads.Coverage(
        first_day=days_after(1),
        last_day=days_after(7),
        days_expected=7,
        days_loaded=3,
        days_reconciled=2,
        counted=2,
        sessions_count=13,
        last_loaded_at=datetime(2025, 2, 3, 2, tzinfo=UTC),
    )
    loaded = reads.loaded_days(connection, dimension, expected, ["a"])
    of_chosen = reads.coverage(connection, dimension, expected, loaded, ["a"])
    assert (of_chosen.days_loaded, of_chosen.counted) == (4, 1)


@pytest.mark.parametrize("is_chosen", [False, True], ids=["listed", "chosen"])
def test_a_day_lacks_the_ids_that_existed_and_have_no_count(
    connection: sa.Connection, dimension: Dimension, is_chosen: bool
) -> None:
    january_31 = datetime(2025, 1, 31, tzinfo=UTC)
    created = {"a": None, "last moment": january_31 - timedelta(microseconds=1), "after": january_31, "refused": None}
    # The first day was read before any of the ids was first seen, the second after.
    store(connection, dimension, {days_after(0): {}}, read_after=-timedelta(hours=2))
    listed(connection, dimension, created, january_31)
    writes.store_availability(connection, dimension, {"refused": "404"}, (), january_31)
    store(connection, dimension, {days_after(1): {}})
    missing = reads.missing_cells(connection, dimension, list(created) if is_chosen else ())
    assert missing == {days_after(0): 3 if is_chosen else 1, days_after(1): 4}


def test_a_chosen_id_that_was_never_seen_is_missing_on_every_day(
    connection: sa.Connection, dimension: Dimension
) -> None:
    store(connection, dimension, {days_after(n): {"a": 1} for n in range(3)})
    listed(connection, dimension, {"a": None})
    assert reads.missing_cells(connection, dimension, ["a", "new", "newer"]) == {days_after(n): 2 for n in range(3)}
    assert reads.loaded_days(connection, dimension, [days_after(n) for n in range(-9, 9)], ["a"]) == {
        days_after(n) for n in range(3)
    }


def test_a_missing_count_is_found_even_if_only_a_few_days_of_the_month_are_checked(
    connection: sa.Connection, dimension: Dimension
) -> None:
    february = [days_after(n) for n in range(2, 22)]
    listed(connection, dimension, {"a": None, "b": None})
    store(connection, dimension, {day: {"a": 1, "b": 1} if day != february[7] else {"a": 1} for day in february})
    rollups.rebuild(connection, tables.monthly_sessions, settled_after_days=2)
    assert reads.loaded_days(connection, dimension, february[6:9]) == {february[6], february[8]}


def test_each_day_has_a_state(connection: sa.Connection, dimension: Dimension) -> None:
    listed(connection, dimension, {"a": None})
    store(connection, dimension, {days_after(n): {"a": 3} for n in (0, 3)})
    store(connection, dimension, {days_after(1): {"a": 3}}, control_total=4)
    store(connection, dimension, {days_after(2): {"a": 3}}, control_total=2)
    store(connection, dimension, {days_after(4): {"b": 3}})
    block = {"first_day": days_after(2), "last_day": days_after(3), "block_sessions_count": 7}
    off_its_block = {"day": days_after(3), "stored_sessions_count": 6, "read_at": NOON, "run_id": "run", **block}
    connection.execute(sa.insert(dimension.contradictions).values(off_its_block))
    days = [days_after(n) for n in range(6)]
    loaded = reads.loaded_days(connection, dimension, days)
    states = reads.day_states(connection, dimension, days, loaded)
    assert [*states.values()] == ["proven", "unattributed", "contradiction", "contradiction", "partial", "missing"]
    assert [*states] == days


# Any warehouse

Listing = Mapping[str, tuple[int | None, bool]]
Load = tuple[Mapping[int, set[str]], int, bool]
# When each id was created, in hours after the first day began (None: not known), and whether it is refused.
listings = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.none() | st.integers(-24, 24 * 40), st.booleans()), min_size=1
)
# Which ids have a count on each day, how many hours after its end it was read, and whether the rollup took that in.
loads = st.tuples(
    st.dictionaries(st.integers(0, 36), st.sets(st.sampled_from("abcd")), max_size=8),
    st.integers(-24 * 30, 24 * 30),
    st.booleans(),
)
MIDNIGHT = datetime(2025, 1, 30, tzinfo=UTC)


def missing_one_by_one(connection: sa.Connection, dimension: Dimension, chosen: tuple[str, ...]) -> dict[date, int]:
    """What `missing_cells` is documented to return, found cell by cell."""
    known = {row[dimension.id]: row for row in connection.execute(sa.select(dimension.listed)).mappings()}
    cells = dimension.cells.c
    present = {tuple(row) for row in connection.execute(sa.select(cells.day, cells[dimension.id]))}
    missing: dict[date, int] = {}
    for total in connection.execute(sa.select(dimension.totals)):
        for id_ in chosen or [id_ for id_, row in known.items() if row["is_listed"]]:
            row = known.get(id_)
            if (total.day, id_) in present:
                continue
            if row and row["created_at"] and row["created_at"] >= total.window_end:
                continue
            if row and not row["created_at"] and not chosen and row["first_seen_at"] > total.loaded_at:
                continue
            missing[total.day] = missing.get(total.day, 0) + 1
    return missing


@examples(4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    listing=listings,
    seen=st.integers(0, 24 * 40),
    steps=st.lists(loads, min_size=1, max_size=3),
    chosen=st.sets(st.sampled_from("abcde")),
    asked=st.sets(st.integers(-3, 40), min_size=1),
)
def test_missing_cells_equal_those_found_one_by_one_whatever_was_loaded_and_rolled_up(
    database: Database,
    dimension: Dimension,
    listing: Listing,
    seen: int,
    steps: list[Load],
    chosen: set[str],
    asked: set[int],
) -> None:
    created = {id_: None if hours is None else MIDNIGHT + timedelta(hours=hours) for id_, (hours, _) in listing.items()}
    refused = {id_: "404" for id_, (_, is_refused) in listing.items() if is_refused}
    with rolled_back(database) as connection:
        listed(connection, dimension, dict.fromkeys("ad"), MIDNIGHT)
        listed(connection, dimension, created, MIDNIGHT + timedelta(hours=seen))
        writes.store_availability(connection, dimension, refused, (), MIDNIGHT)
        for days, hours, is_rolled_up in steps:
            counts = {days_after(n): dict.fromkeys(ids & {"a", "d", *listing}, 1) for n, ids in days.items()}
            store(connection, dimension, counts, read_after=timedelta(hours=hours))
            if is_rolled_up:
                rollups.rebuild(connection, tables.monthly_sessions, settled_after_days=2)
            for some in ((), tuple(sorted(chosen))):
                missing = missing_one_by_one(connection, dimension, some)
                assert reads.missing_cells(connection, dimension, some) == missing
                days_asked = {days_after(n) for n in asked}
                loaded = reads.loaded_days(connection, dimension, list(days_asked), some)
                assert loaded == (reads.windows(connection, dimension).keys() & days_asked) - missing.keys()
