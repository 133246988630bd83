"""What runs and the command learn from the warehouse, on every database."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources.database import Database
from tests.support.rows import store
from tests.support.warehouse import rebuild
from warehouse import reads, tables, writes
from warehouse.tables import ORGANIZATIONS, USERS, Counted

JANUARY_30 = date(2025, 1, 30)
NOON = datetime(2025, 1, 30, 12, tzinfo=UTC)


def days_after(days: int) -> date:
    return JANUARY_30 + timedelta(days=days)


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.transaction() as connection:
        yield connection


@pytest.fixture(params=[ORGANIZATIONS, USERS], ids=lambda counted: counted.noun)
def counted(request: pytest.FixtureRequest) -> Counted:
    """Whose sessions: tests that take this run once for each."""
    of: Counted = request.param
    return of


def listed(
    connection: sa.Connection, counted: Counted, created: Mapping[str, datetime | None], at: datetime = NOON
) -> None:
    name = {"org_name": "name"} if counted is ORGANIZATIONS else {}
    writes.store_listed(
        connection, counted, [{counted.id: id_, "created_at": c} | name for id_, c in created.items()], at
    )


def test_an_empty_warehouse_answers_every_question(connection: sa.Connection, counted: Counted) -> None:
    assert reads.latest_listed(connection, counted) == []
    assert reads.windows(connection, counted) == {}
    assert reads.last_read(connection, counted) == {}
    assert reads.api_versions(connection) == set()
    assert reads.rollups_behind(connection) == []
    assert reads.days_of_runs(connection, counted, ["run"]) == set()
    assert reads.recent_activity(connection, counted, JANUARY_30, days_after(9)) == {}
    assert reads.unavailable(connection, counted) == {}
    assert reads.missing_cells(connection, counted) == {}
    assert reads.missing_cells(connection, counted, ["a"]) == {}
    assert reads.loaded_days(connection, counted, [JANUARY_30]) == set()
    assert reads.coverage(connection, counted, [JANUARY_30], set()) == reads.Coverage(
        JANUARY_30, JANUARY_30, 1, 0, 0, 0, 0, None
    )


def test_each_day_was_last_read_when_it_was_read_again(connection: sa.Connection, counted: Counted) -> None:
    store(connection, counted, {days_after(0): {"a": 1}, days_after(1): {"a": 2}})
    store(connection, counted, {days_after(1): {"a": 2}}, read_after=timedelta(hours=5))
    assert reads.last_read(connection, counted) == {
        days_after(0): datetime(2025, 1, 31, 2, tzinfo=UTC),
        days_after(1): datetime(2025, 2, 1, 5, tzinfo=UTC),
    }


def test_those_of_the_latest_listing_are_counted_in_order(connection: sa.Connection, counted: Counted) -> None:
    listed(connection, counted, dict.fromkeys(["a", "gone"]))
    listed(connection, counted, dict.fromkeys(["b", "a", "C"]), NOON + timedelta(microseconds=1))
    assert reads.latest_listed(connection, counted) == ["C", "a", "b"]


def test_only_those_of_the_latest_listing_are_said_to_be_refused(connection: sa.Connection, counted: Counted) -> None:
    listed(connection, counted, dict.fromkeys(["a", "b", "gone"]))
    writes.store_availability(connection, counted, {"a": "404", "gone": "403"}, {"b"}, NOON)
    listed(connection, counted, dict.fromkeys(["a", "b"]), NOON + timedelta(days=1))
    assert reads.unavailable(connection, counted) == {"a": "404"}


def test_windows_versions_and_runs_are_those_of_the_last_reading(connection: sa.Connection, counted: Counted) -> None:
    two = {days_after(n): {"a": 1} for n in range(2)}
    store(connection, counted, two, run_id="first")
    store(connection, counted, {days_after(1): {"a": 1}}, run_id="second", api_version="v3")
    midnight = datetime(2025, 1, 30, tzinfo=UTC)
    assert reads.windows(connection, counted) == {
        days_after(n): (midnight + timedelta(days=n), midnight + timedelta(days=n + 1)) for n in range(2)
    }
    assert reads.api_versions(connection) == {"v2", "v3"}
    assert reads.days_of_runs(connection, counted, ["first", "other"]) == {days_after(0)}
    assert reads.days_of_runs(connection, counted, []) == set()


def test_activity_counts_days_and_sessions_from_the_first_day_to_before_the_last(
    connection: sa.Connection, counted: Counted
) -> None:
    store(connection, counted, {days_after(n): {"a": 2**n} | ({"b": 0} if n == 2 else {}) for n in range(5)})
    activity = reads.recent_activity(connection, counted, days_after(1), days_after(4))
    assert activity == {"a": (3.0, 14.0), "b": (1.0, 0.0)}
    assert {type(number) for numbers in activity.values() for number in numbers} == {float}


def test_rollups_are_behind_until_each_has_taken_in_what_was_loaded(connection: sa.Connection) -> None:
    store(connection, ORGANIZATIONS, {JANUARY_30: {"a": 1}})
    names = [table.name for table in tables.ROLLUPS]
    for number, table in enumerate(tables.ROLLUPS):
        assert reads.rollups_behind(connection) == names[number:]
        rebuild(connection, table.name)
    assert reads.rollups_behind(connection) == []
    store(connection, USERS, {JANUARY_30: {"u": 1}})
    assert reads.rollups_behind(connection) == [], "no rollup is about users"


def test_coverage_counts_loaded_and_reconciled_days_of_those_expected(
    connection: sa.Connection, counted: Counted
) -> None:
    listed(connection, counted, dict.fromkeys(["a", "b"]))
    store(connection, counted, {days_after(n): {"a": 1, "b": 2} for n in range(3)})
    store(connection, counted, {days_after(3): {"a": 1, "b": 2}}, totals={days_after(3): 7})
    store(connection, counted, {days_after(4): {"a": 1}}, read_after=timedelta(days=9))
    expected = [days_after(n) for n in range(1, 8)]
    loaded = reads.loaded_days(connection, counted, expected)
    assert loaded == {days_after(n) for n in range(1, 4)}
    assert reads.coverage(connection, counted, expected, loaded) == reads.Coverage(
        first_day=days_after(1),
        last_day=days_after(7),
        days_expected=7,
        days_loaded=3,
        days_reconciled=2,
        counted=2,
        sessions_count=13,
        last_loaded_at=datetime(2025, 2, 3, 2, tzinfo=UTC),
    )
    loaded = reads.loaded_days(connection, counted, expected, ["a"])
    of_chosen = reads.coverage(connection, counted, expected, loaded, ["a"])
    assert (of_chosen.days_loaded, of_chosen.counted) == (4, 1)


@pytest.mark.parametrize("is_chosen", [False, True], ids=["listed", "chosen"])
def test_a_day_lacks_those_who_were_there_and_have_no_count(
    connection: sa.Connection, counted: Counted, is_chosen: bool
) -> None:
    january_31 = datetime(2025, 1, 31, tzinfo=UTC)
    created = {"a": None, "last moment": january_31 - timedelta(microseconds=1), "after": january_31, "refused": None}
    listed(connection, counted, created, january_31)
    writes.store_availability(connection, counted, {"refused": "404"}, (), january_31)
    # The first day was read before anyone was seen, the second after.
    store(connection, counted, {days_after(0): {}}, read_after=-timedelta(hours=2))
    store(connection, counted, {days_after(1): {}})
    missing = reads.missing_cells(connection, counted, list(created) if is_chosen else ())
    assert missing == {days_after(0): 3 if is_chosen else 1, days_after(1): 4}


def test_one_who_was_chosen_and_never_seen_is_missed_on_every_day(connection: sa.Connection, counted: Counted) -> None:
    store(connection, counted, {days_after(n): {"a": 1} for n in range(3)})
    listed(connection, counted, {"a": None})
    assert reads.missing_cells(connection, counted, ["a", "new", "newer"]) == {days_after(n): 2 for n in range(3)}
    assert reads.loaded_days(connection, counted, [days_after(n) for n in range(-9, 9)], ["a"]) == {
        days_after(n) for n in range(3)
    }


def test_a_day_that_lacks_a_count_is_found_among_few_days_of_a_month_that_has_many(
    connection: sa.Connection, counted: Counted
) -> None:
    february = [days_after(n) for n in range(2, 22)]
    listed(connection, counted, {"a": None, "b": None})
    store(connection, counted, {day: {"a": 1, "b": 1} if day != february[7] else {"a": 1} for day in february})
    writes.rebuild(connection, tables.monthly_sessions)
    assert reads.loaded_days(connection, counted, february[6:9]) == {february[6], february[8]}


# Any warehouse

Listing = Mapping[str, tuple[int | None, bool]]
Load = tuple[Mapping[int, set[str]], int, bool]
# When each was created, as hours after the first day's begin, if that is known, and whether it is refused.
listings = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.none() | st.integers(-24, 24 * 40), st.booleans()), min_size=1
)
# Who has a count on each day, how many hours after its end it was read, and whether the rollup took that in.
loads = st.tuples(
    st.dictionaries(st.integers(0, 36), st.sets(st.sampled_from("abcd")), max_size=8),
    st.integers(-24 * 30, 24 * 30),
    st.booleans(),
)
MIDNIGHT = datetime(2025, 1, 30, tzinfo=UTC)


class Undone(Exception):
    """Ends an example and leaves nothing of it."""


def missed_one_by_one(connection: sa.Connection, counted: Counted, chosen: tuple[str, ...]) -> dict[date, int]:
    """What `missing_cells` says of itself, each cell looked at."""
    known = {row[counted.id]: row for row in connection.execute(sa.select(counted.listed)).mappings()}
    present = {tuple(row) for row in connection.execute(sa.select(counted.cells.c.day, counted.cells.c[counted.id]))}
    missing: dict[date, int] = {}
    for total in connection.execute(sa.select(counted.totals)):
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


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    listing=listings,
    seen=st.integers(0, 24 * 40),
    steps=st.lists(loads, min_size=1, max_size=3),
    chosen=st.sets(st.sampled_from("abcde")),
    asked=st.sets(st.integers(-3, 40), min_size=1),
)
def test_whatever_was_loaded_and_rolled_up_the_same_cells_are_missing_as_when_looked_for_one_by_one(
    database: Database,
    counted: Counted,
    listing: Listing,
    seen: int,
    steps: list[Load],
    chosen: set[str],
    asked: set[int],
) -> None:
    created = {id_: None if hours is None else MIDNIGHT + timedelta(hours=hours) for id_, (hours, _) in listing.items()}
    refused = {id_: "404" for id_, (_, is_refused) in listing.items() if is_refused}
    with pytest.raises(Undone), database.transaction() as connection:
        listed(connection, counted, dict.fromkeys("ad"), MIDNIGHT)
        listed(connection, counted, created, MIDNIGHT + timedelta(hours=seen))
        writes.store_availability(connection, counted, refused, (), MIDNIGHT)
        for days, hours, is_rolled_up in steps:
            counts = {days_after(n): dict.fromkeys(ids & {"a", "d", *listing}, 1) for n, ids in days.items()}
            store(connection, counted, counts, read_after=timedelta(hours=hours))
            if is_rolled_up:
                writes.rebuild(connection, tables.monthly_sessions)
            for some in ((), tuple(sorted(chosen))):
                missed = missed_one_by_one(connection, counted, some)
                assert reads.missing_cells(connection, counted, some) == missed
                days_asked = {days_after(n) for n in asked}
                loaded = reads.loaded_days(connection, counted, list(days_asked), some)
                assert loaded == (reads.windows(connection, counted).keys() & days_asked) - missed.keys()
        raise Undone
