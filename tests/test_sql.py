"""Each SQL file: small tables in, rows out, the same on every database."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import Any

import pytest
import sqlalchemy as sa

from resources.database import Database
from tests.support.shared import DATABASES, new_warehouse, rolled_back
from warehouse import rollups, tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.pace_table import api_pace
from warehouse.writes import Entry, Provenance, Reading

FILES = sorted(
    (file for file in resources.files("warehouse").joinpath("sql").iterdir() if file.is_file()),
    key=lambda file: file.name,
)
RELATIONS = (*tables.ROLLUPS, *tables.views.sorted_tables)
SETTLED_AFTER_DAYS = 2


@pytest.fixture(scope="module", params=DATABASES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A warehouse that every test leaves without rows."""
    return new_warehouse(request, tmp_path_factory)


@pytest.fixture
def connection(shared: Database) -> Iterator[sa.Connection]:
    """An empty warehouse on each database."""
    with rolled_back(shared) as connection:
        yield connection


def day(label: str) -> date:
    return date.fromisoformat(label)


def store(
    connection: sa.Connection,
    cells: Mapping[tuple[str, str], int],
    totals: Mapping[str, int] | None = None,
    read_after: timedelta = timedelta(hours=2),
) -> None:
    """Load these counts, each day read `read_after` its end. Its total is the sum of its cells unless given."""
    summed = {label: sum(n for (of, _), n in cells.items() if of == label) for label, _ in cells}
    readings = []
    for label, count in (summed | dict(totals or {})).items():
        start = datetime.fromisoformat(label).replace(tzinfo=UTC)
        counts = {org_id: n for (of, org_id), n in cells.items() if of == label}
        readings.append(
            Reading(start.date(), start, start + timedelta(days=1), count, counts, {}, expected=3, lacking=1)
        )
    writes.store_days(
        connection, ORGANIZATIONS, readings, Provenance("v2", datetime(2025, 1, 1, tzinfo=UTC), run_id="run")
    )
    these = tables.daily_totals.c
    then = these.window_end + sa.literal(read_after)
    days = [reading.day for reading in readings]
    connection.execute(sa.update(tables.daily_totals).where(these.day.in_(days)).values(loaded_at=then))


def rows(connection: sa.Connection, sql: str) -> list[tuple[Any, ...]]:
    """What an analyst's client gets: SQLAlchemy's types convert nothing."""
    return [tuple(row) for row in connection.execute(sa.text(sql))]


def rebuilt(connection: sa.Connection, name: str, settled_after_days: int = 2) -> list[tuple[Any, ...]]:
    """The rows of a rollup after it is rebuilt twice."""
    table = tables.metadata.tables[name]
    for _ in range(2):
        rollups.rebuild(connection, table, settled_after_days=settled_after_days)
    return rows(connection, f"select * from {name} order by 1, 2")


def consecutive(first: str, counts: Sequence[int]) -> dict[str, int]:
    start = day(first)
    return {(start + timedelta(days=n)).isoformat(): count for n, count in enumerate(counts)}


# The files


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_one_lowercase_select_that_begins_with_its_grain(file: Any) -> None:
    text = file.read_text(encoding="utf-8")
    relation = next(r for r in RELATIONS if f"{r.name}.sql" == file.name)
    assert text.splitlines()[0] == f"-- {relation.comment}"
    code = re.sub(r"--[^\n]*|'[^']*'", "", text)
    assert code == code.lower()
    assert ";" not in text
    while (shallower := re.sub(r"\([^()]*\)", "", code)) != code:
        code = shallower
    assert re.findall(r"\b(select|union|insert|update|delete|create)\b", code) == ["select"]


def test_every_rollup_and_view_has_a_file_and_every_file_belongs_to_one() -> None:
    assert [file.name for file in FILES] == sorted(f"{relation.name}.sql" for relation in RELATIONS)


def test_every_table_and_view_returns_the_same_types_on_every_database(connection: sa.Connection) -> None:
    store(connection, {(label, "a"): n for label, n in consecutive("2025-01-01", range(40)).items()})
    seen_at = datetime(2025, 1, 1, tzinfo=UTC)
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a", "A", seen_at)], seen_at)
    writes.store_expected_days(connection, day("2025-01-01"), day("2025-02-09"))
    for table in tables.ROLLUPS:
        rollups.rebuild(connection, table, settled_after_days=2)
    for relation in (*RELATIONS, tables.organizations, tables.daily_sessions, tables.daily_totals):
        result = connection.execute(sa.text(f"select * from {relation.name}"))
        assert list(result.keys()) == relation.columns.keys()
        found = result.all()
        for column in relation.columns:
            kinds = {type(value) for value in (row._mapping[column.name] for row in found) if value is not None}
            if column.name in ("unavailable_since", "unavailable_reason", "block_difference"):
                assert kinds == set()
            else:
                assert kinds == {column.type.python_type}, f"{relation.name}.{column.name}"


DECLARED = {
    sa.Date: {"DATE"},
    sa.DateTime: {"TIMESTAMP WITH TIME ZONE"},
    sa.Text: {"TEXT", "VARCHAR"},
    sa.BigInteger: {"BIGINT"},
    sa.Integer: {"INTEGER"},
    sa.Boolean: {"BOOLEAN"},
    sa.Double: {"DOUBLE PRECISION", "DOUBLE"},
}


def test_the_database_declares_every_column_with_its_type_including_those_of_views(connection: sa.Connection) -> None:
    declared = {
        (table, column): data_type.upper()
        for table, column, data_type in rows(
            connection,
            "select table_name, column_name, data_type from information_schema.columns "
            f"where table_schema = current_schema() and table_name <> '{api_pace.name}'",
        )
    }
    expected = {
        (relation.name, column.name): DECLARED[type(column.type)]
        for relation in (*tables.metadata.sorted_tables, *tables.views.sorted_tables)
        for column in relation.columns
    }
    assert declared.keys() == expected.keys()
    assert {key: data_type for key, data_type in declared.items() if data_type not in expected[key]} == {}


# weekly_sessions, monthly_sessions


def test_weeks_begin_on_monday_and_are_complete_with_seven_days(connection: sa.Connection) -> None:
    days = consecutive("2024-12-30", [1, 2, 3, 4, 5, 6, 7, 8])
    store(connection, {(label, "a"): n for label, n in days.items()})
    assert rebuilt(connection, "weekly_sessions") == [
        (date(2024, 12, 30), "a", 28, 7, 7, True),
        (date(2025, 1, 6), "a", 8, 7, 1, False),
    ]


def test_a_week_can_be_complete_for_one_organization_and_not_for_another(connection: sa.Connection) -> None:
    cells = {(label, "a"): 1 for label in consecutive("2025-02-24", [0] * 7)}
    cells |= {("2025-02-26", "b"): 5, ("2025-02-27", "b"): 0, ("2025-03-02", "c"): 0}
    store(connection, cells, {"2025-03-03": 4})
    assert rebuilt(connection, "weekly_sessions") == [
        (date(2025, 2, 24), "a", 7, 7, 7, True),
        (date(2025, 2, 24), "b", 5, 7, 2, False),
        (date(2025, 2, 24), "c", 0, 7, 1, False),
    ], "a day without a count of any organization makes no week"


def test_months_expect_as_many_days_as_they_have(connection: sa.Connection) -> None:
    cells = {(label, "a"): 1 for label in consecutive("2024-02-01", [0] * 29)}
    cells |= {("2025-02-01", "a"): 4, ("2025-02-28", "a"): 5, ("2025-02-28", "b"): 0, ("2025-04-30", "a"): 1}
    cells |= {("2024-12-31", "a"): 2, ("2025-01-01", "a"): 3}
    store(connection, cells)
    assert rebuilt(connection, "monthly_sessions") == [
        (date(2024, 2, 1), "a", 29, 29, 29, True),
        (date(2024, 12, 1), "a", 2, 31, 1, False),
        (date(2025, 1, 1), "a", 3, 31, 1, False),
        (date(2025, 2, 1), "a", 9, 28, 2, False),
        (date(2025, 2, 1), "b", 0, 28, 1, False),
        (date(2025, 4, 1), "a", 1, 30, 1, False),
    ]


# enterprise_sessions


def enterprise(connection: sa.Connection, settled_after_days: int = SETTLED_AFTER_DAYS) -> dict[str, dict[str, Any]]:
    names = tables.enterprise_sessions.columns.keys()
    found = rebuilt(connection, "enterprise_sessions", settled_after_days=settled_after_days)
    return {row[0].isoformat(): dict(zip(names, row, strict=True)) for row in found}


def test_an_enterprise_day_has_every_number(connection: sa.Connection) -> None:
    cells = {("2025-01-28", "a"): 20, ("2025-01-28", "b"): 7, ("2025-01-28", "c"): 0}
    store(connection, cells, consecutive("2025-01-01", range(1, 29)))
    last = rebuilt(connection, "enterprise_sessions", settled_after_days=SETTLED_AFTER_DAYS)[-1]
    month, week, week_before = sum(range(1, 29)), sum(range(22, 29)), sum(range(15, 22))
    assert last == (
        date(2025, 1, 28), 28, 2, week, month, week_before, pytest.approx(week / week_before - 1), month, False
    )  # fmt: skip


def test_trailing_sums_need_every_day_they_cover(connection: sa.Connection) -> None:
    store(connection, {}, consecutive("2025-01-01", range(1, 31)))
    days = enterprise(connection)
    assert days["2025-01-06"]["trailing_7_day_count"] is None
    assert days["2025-01-07"]["trailing_7_day_count"] == sum(range(1, 8))
    assert days["2025-01-08"]["trailing_7_day_count"] == sum(range(2, 9))
    assert days["2025-01-27"]["trailing_28_day_count"] is None
    assert days["2025-01-28"]["trailing_28_day_count"] == sum(range(1, 29))


def test_a_gap_makes_the_sums_over_it_unknown_instead_of_smaller(connection: sa.Connection) -> None:
    counts = consecutive("2025-01-01", range(1, 51))
    del counts["2025-01-20"]
    store(connection, {}, counts)
    days = enterprise(connection)
    assert "2025-01-20" not in days
    assert days["2025-01-19"]["trailing_7_day_count"] == sum(range(13, 20))
    assert all(days[f"2025-01-{n}"]["trailing_7_day_count"] is None for n in range(21, 27))
    assert days["2025-01-27"]["trailing_7_day_count"] == sum(range(21, 28))
    assert days["2025-01-27"]["previous_week_count"] is None, "it is the missing day's own sum"
    assert [label for label, row in days.items() if row["trailing_28_day_count"]] == [
        "2025-02-17",
        "2025-02-18",
        "2025-02-19",
    ]
    assert days["2025-01-19"]["month_to_date_count"] == sum(range(1, 20))
    assert all(days[f"2025-01-{n}"]["month_to_date_count"] is None for n in range(21, 32))
    assert days["2025-02-01"]["month_to_date_count"] == 32


def test_week_over_week_is_null_where_it_is_meaningless(connection: sa.Connection) -> None:
    store(connection, {}, consecutive("2025-01-01", [0] * 7 + [2] * 7 + [3] * 7))
    days = enterprise(connection)
    assert (days["2025-01-13"]["previous_week_count"], days["2025-01-13"]["week_over_week_change"]) == (None, None)
    assert (days["2025-01-14"]["previous_week_count"], days["2025-01-14"]["week_over_week_change"]) == (0, None)
    assert days["2025-01-21"]["previous_week_count"] == 14
    assert days["2025-01-21"]["week_over_week_change"] == pytest.approx(0.5)


def test_month_to_date_needs_every_day_since_the_first(connection: sa.Connection) -> None:
    store(connection, {}, consecutive("2025-01-30", [5, 6, 7, 8, 9]))
    assert [row["month_to_date_count"] for row in enterprise(connection).values()] == [None, None, 7, 15, 24]


def test_month_to_date_reaches_back_over_the_longest_month(connection: sa.Connection) -> None:
    store(connection, {}, consecutive("2025-01-01", [1] * 31))
    enterprise(connection)
    store(connection, {}, {"2025-01-31": 5})
    assert enterprise(connection)["2025-01-31"]["month_to_date_count"] == 35, "although only that day is rebuilt"


def test_active_organizations_have_at_least_one_session(connection: sa.Connection) -> None:
    cells = {("2025-01-01", "a"): 3, ("2025-01-01", "b"): 0, ("2025-01-01", "c"): 1, ("2025-01-02", "a"): 0}
    store(connection, cells, {"2025-01-03": 9})
    days = enterprise(connection)
    assert [row["active_orgs"] for row in days.values()] == [2, 0, 0]
    assert [row["sessions_count"] for row in days.values()] == [4, 0, 9]


@pytest.mark.parametrize(("hours", "settled"), [(2, False), (26, False), (47, False), (48, True), (50, True)])
def test_a_day_is_settled_once_its_last_look_back_has_read_it(
    connection: sa.Connection, hours: int, settled: bool
) -> None:
    store(connection, {}, {"2025-01-01": 4}, read_after=timedelta(hours=hours))
    assert enterprise(connection, settled_after_days=2)["2025-01-01"]["is_settled"] is settled


def test_with_a_look_back_of_one_day_a_day_is_settled_immediately(connection: sa.Connection) -> None:
    store(connection, {}, {"2025-01-01": 4})
    assert enterprise(connection, settled_after_days=0)["2025-01-01"]["is_settled"] is True


# calendar


def test_the_calendar_has_week_month_quarter_and_weekday(connection: sa.Connection) -> None:
    writes.store_expected_days(connection, day("2023-12-30"), day("2027-01-04"))
    found = {row[0].isoformat(): row[1:] for row in rows(connection, "select * from calendar")}
    expected = [
        # day, then week, ISO year and week, month, quarter, weekday, its name, weekend
        ("2023-12-31", "2023-12-25", 2023, 52, "2023-12-01", "2023-10-01", 7, "Sunday", True),
        ("2024-01-01", "2024-01-01", 2024, 1, "2024-01-01", "2024-01-01", 1, "Monday", False),
        ("2024-02-28", "2024-02-26", 2024, 9, "2024-02-01", "2024-01-01", 3, "Wednesday", False),
        ("2024-02-29", "2024-02-26", 2024, 9, "2024-02-01", "2024-01-01", 4, "Thursday", False),
        ("2024-03-01", "2024-02-26", 2024, 9, "2024-03-01", "2024-01-01", 5, "Friday", False),
        ("2024-06-30", "2024-06-24", 2024, 26, "2024-06-01", "2024-04-01", 7, "Sunday", True),
        ("2024-07-06", "2024-07-01", 2024, 27, "2024-07-01", "2024-07-01", 6, "Saturday", True),
        ("2024-12-29", "2024-12-23", 2024, 52, "2024-12-01", "2024-10-01", 7, "Sunday", True),
        ("2024-12-30", "2024-12-30", 2025, 1, "2024-12-01", "2024-10-01", 1, "Monday", False),
        ("2024-12-31", "2024-12-30", 2025, 1, "2024-12-01", "2024-10-01", 2, "Tuesday", False),
        ("2025-01-05", "2024-12-30", 2025, 1, "2025-01-01", "2025-01-01", 7, "Sunday", True),
        ("2025-02-28", "2025-02-24", 2025, 9, "2025-02-01", "2025-01-01", 5, "Friday", False),
        ("2026-12-28", "2026-12-28", 2026, 53, "2026-12-01", "2026-10-01", 1, "Monday", False),
        ("2027-01-01", "2026-12-28", 2026, 53, "2027-01-01", "2027-01-01", 5, "Friday", False),
        ("2027-01-04", "2027-01-04", 2027, 1, "2027-01-01", "2027-01-01", 1, "Monday", False),
    ]
    for label, week, iso_year, iso_week, month, quarter, *weekday in expected:
        assert found[label] == (day(week), iso_year, iso_week, day(month), day(quarter), *weekday)
    assert "2025-02-29" not in found


def test_the_calendar_has_every_day_of_history_once_and_agrees_with_python(connection: sa.Connection) -> None:
    first, last = day("2020-01-01"), day("2033-01-02")
    writes.store_expected_days(connection, first, last)
    expected = []
    for n in range((last - first).days + 1):
        of = first + timedelta(days=n)
        iso = of.isocalendar()
        expected.append((of, of - timedelta(days=iso.weekday - 1), iso.year, iso.week, of.replace(day=1), iso.weekday))
    found = rows(connection, "select day, week, iso_year, iso_week, month, weekday from calendar order by day")
    assert found == expected


@pytest.mark.parametrize("days", [0, 1, 9, 10, 99, 100, 101])
def test_the_calendar_begins_and_ends_with_history(connection: sa.Connection, days: int) -> None:
    first = day("2025-01-01")
    last = first + timedelta(days=days - 1)
    writes.store_expected_days(connection, first, last)
    found = rows(connection, "select min(day), max(day), count(*) from calendar")
    assert found == [(first, last, days) if days else (None, None, 0)]


def test_before_the_first_load_the_views_are_empty(connection: sa.Connection) -> None:
    assert [rows(connection, f"select * from {view.name}") for view in tables.views.sorted_tables] == [[]] * 6


# session_grid


def test_the_grid_distinguishes_not_loaded_from_zero(connection: sa.Connection) -> None:
    seen_at = datetime(2025, 1, 1, tzinfo=UTC)
    names = {"a": "A", "b": None, "never counted": "N"}
    found = [Entry(id_, name) for id_, name in names.items()]
    writes.store_listed(connection, ORGANIZATIONS, found, seen_at)
    writes.store_expected_days(connection, day("2025-01-01"), day("2025-01-03"))
    cells = {("2025-01-01", "a"): 5, ("2025-01-01", "b"): 0, ("2025-01-03", "a"): 0}
    store(connection, cells | {("2024-12-31", "a"): 7, ("2025-01-04", "a"): 7})
    assert rows(connection, "select * from session_grid order by org_id, day") == [
        (date(2025, 1, 1), "a", "A", 5),
        (date(2025, 1, 2), "a", "A", None),
        (date(2025, 1, 3), "a", "A", 0),
        (date(2025, 1, 1), "b", None, 0),
        (date(2025, 1, 2), "b", None, None),
        (date(2025, 1, 3), "b", None, None),
        (date(2025, 1, 1), "never counted", "N", None),
        (date(2025, 1, 2), "never counted", "N", None),
        (date(2025, 1, 3), "never counted", "N", None),
    ]


def test_the_grid_has_every_day_of_complete_and_incomplete_months(
    connection: sa.Connection,
) -> None:
    seen_at = datetime(2025, 1, 1, tzinfo=UTC)
    found = [Entry(id_, id_.upper()) for id_ in ("a", "b")]
    writes.store_listed(connection, ORGANIZATIONS, found, seen_at)
    writes.store_expected_days(connection, day("2025-01-01"), day("2025-02-28"))
    store(connection, {(label, "a"): n for label, n in consecutive("2025-01-01", range(59)).items() if n != 45})
    store(connection, {(label, "b"): n for label, n in consecutive("2025-02-01", range(28)).items()})
    assert {(month, id_) for month, id_, *_, is_complete in rebuilt(connection, "monthly_sessions") if is_complete} == {
        (date(2025, 1, 1), "a"),
        (date(2025, 2, 1), "b"),
    }
    grid = {(of, id_): count for of, id_, _, count in rows(connection, "select * from session_grid")}
    days = consecutive("2025-01-01", range(59)).items()
    assert grid == {
        **{(day(label), "a"): None if n == 45 else n for label, n in days},
        **{(day(label), "b"): None if n < 31 else n - 31 for label, n in days},
    }
    assert rows(connection, "select count(*) from session_grid") == [(2 * 59,)]


# organization_days


def test_the_days_of_organizations_have_everything_to_filter_and_group_by(connection: sa.Connection) -> None:
    found = [Entry("a", "A"), Entry("b", None)]
    writes.store_listed(connection, ORGANIZATIONS, found, datetime(2025, 1, 1, tzinfo=UTC))
    writes.store_expected_days(connection, day("2024-12-31"), day("2025-01-02"))
    store(connection, {("2024-12-31", "a"): 5, ("2024-12-31", "b"): 0}, read_after=timedelta(days=9))
    store(connection, {("2025-01-01", "a"): 7}, {"2025-01-01": 9})
    rebuilt(connection, "enterprise_sessions")
    week, quarter, month = date(2024, 12, 30), date(2024, 10, 1), date(2024, 12, 1)
    tuesday = (week, 2025, 1, month, quarter, 2, "Tuesday", False)
    wednesday, thursday = (
        (week, 2025, 1, date(2025, 1, 1), date(2025, 1, 1), *of_week, False)
        for of_week in ((3, "Wednesday"), (4, "Thursday"))
    )
    assert rows(connection, "select * from organization_days order by day, org_id") == [
        (date(2024, 12, 31), "a", "A", 5, True, *tuesday, "proven", True, True),
        (date(2024, 12, 31), "b", "b", 0, True, *tuesday, "proven", True, True),
        (date(2025, 1, 1), "a", "A", 7, True, *wednesday, "unattributed", False, False),
        (date(2025, 1, 1), "b", "b", None, False, *wednesday, "unattributed", False, False),
        (date(2025, 1, 2), "a", "A", None, False, *thursday, "not loaded", False, False),
        (date(2025, 1, 2), "b", "b", None, False, *thursday, "not loaded", False, False),
    ]


# enterprise_weekly_sessions, enterprise_monthly_sessions


def test_weeks_and_months_of_the_enterprise_include_unattributed_sessions(connection: sa.Connection) -> None:
    cells = {(label, "a"): 1 for label in consecutive("2025-02-01", [0] * 28)}
    cells |= {("2025-02-01", "b"): 0, ("2025-02-05", "b"): 3, ("2025-03-01", "b"): 0}
    store(connection, cells, {"2025-02-05": 14, "2025-03-01": 0}, read_after=timedelta(days=2))
    store(connection, {("2025-02-12", "a"): 1}, read_after=timedelta(days=1))
    for name in ("weekly_sessions", "enterprise_sessions"):
        rebuilt(connection, name)
    rebuilt(connection, "monthly_sessions")
    assert rows(connection, "select * from enterprise_weekly_sessions order by week") == [
        (date(2025, 1, 27), 2, 2, 0, 1, 7, 2, False, False),
        (date(2025, 2, 3), 20, 10, 10, 2, 7, 7, True, True),
        (date(2025, 2, 10), 7, 7, 0, 1, 7, 7, True, False),
        (date(2025, 2, 17), 7, 7, 0, 1, 7, 7, True, True),
        (date(2025, 2, 24), 5, 5, 0, 1, 7, 6, False, False),
    ]
    assert rows(connection, "select * from enterprise_monthly_sessions order by month") == [
        (date(2025, 2, 1), 41, 31, 10, 2, 28, 28, True, False),
        (date(2025, 3, 1), 0, 0, 0, 0, 31, 1, False, False),
    ]


# reconciliation


def test_reconciliation_has_a_verdict_for_every_day_of_history(connection: sa.Connection) -> None:
    writes.store_expected_days(connection, day("2025-01-01"), day("2025-01-06"))
    cells = {("2025-01-01", "a"): 5, ("2025-01-02", "a"): 5, ("2025-01-04", "a"): 5, ("2025-01-04", "b"): 1}
    store(connection, cells, {"2025-01-02": 7, "2025-01-04": 3, "2025-01-05": 0, "2025-01-06": 1, "2025-01-07": 1})
    claims = [(5, None, 2), (6, None, 2), (6, "a", 1), (6, "b", 1)]
    connection.execute(
        sa.insert(tables.contradictions),
        [
            {
                "day": date(2025, 1, of_day),
                "org_id": org_id,
                "first_day": date(2025, 1, 5),
                "last_day": date(2025, 1, 6),
                "block_sessions_count": 1 + more,
                "stored_sessions_count": 1,
                "read_at": datetime(2025, 1, 8, tzinfo=UTC),
                "run_id": "run",
            }
            for of_day, org_id, more in claims
        ],
    )

    def read(label: str) -> datetime:
        return datetime.fromisoformat(label).replace(tzinfo=UTC) + timedelta(days=1, hours=2)

    assert rows(connection, "select * from reconciliation order by day") == [
        (date(2025, 1, 1), 5, 5, 0, 3, 2, read("2025-01-01"), "proven", None, 0),
        (date(2025, 1, 2), 7, 5, 2, 3, 2, read("2025-01-02"), "unattributed", None, 0),
        (date(2025, 1, 3), None, None, None, None, None, None, "not loaded", None, 0),
        (date(2025, 1, 4), 3, 6, -3, 3, 2, read("2025-01-04"), "contradiction", None, 0),
        (date(2025, 1, 5), 0, 0, 0, 3, 2, read("2025-01-05"), "contradiction", 2, 0),
        (date(2025, 1, 6), 1, 0, 1, 3, 2, read("2025-01-06"), "contradiction", 2, 2),
    ]
