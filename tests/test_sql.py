"""Each SQL file: small tables in, rows out."""

from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import Any

import pytest
import sqlalchemy as sa

from warehouse import tables, writes
from warehouse.tables import ORGANIZATIONS

FILES = sorted(resources.files("warehouse").joinpath("sql").iterdir(), key=lambda file: file.name)


def rebuilt(
    name: str, cells: dict[tuple[str, str], int], totals: dict[str, int], **options: Any
) -> list[tuple[Any, ...]]:
    """The rollup's rows over these counts, each day read `read_after` its end."""
    read_after = options.pop("read_after", timedelta(hours=2))
    table = tables.metadata.tables[name]
    engine = sa.create_engine("duckdb://")
    with engine.begin() as connection:
        tables.create(connection)
        read = {"api_version": "v2", "run_id": "run"}
        days = []
        for label, count in totals.items():
            start = datetime.fromisoformat(label).replace(tzinfo=UTC)
            end = start + timedelta(days=1)
            days.append(
                {
                    "day": start.date(),
                    "window_start": start,
                    "window_end": end,
                    "sessions_count": count,
                    "orgs_expected": 1,
                    "orgs_loaded": 1,
                    "loaded_at": end + read_after,
                    **read,
                }
            )
        facts = [
            {
                "day": date.fromisoformat(label),
                "org_id": org_id,
                "sessions_count": count,
                "is_derived": False,
                "loaded_at": datetime(2025, 1, 1, tzinfo=UTC),
                **read,
            }
            for (label, org_id), count in cells.items()
        ]
        writes.store_days(connection, ORGANIZATIONS, days, facts)
        writes.rebuild(connection, table, **options)
        writes.rebuild(connection, table, **options)
        rows = connection.execute(sa.select(table).order_by(*table.primary_key.columns)).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def consecutive(first: str, counts: list[int]) -> dict[str, int]:
    start = date.fromisoformat(first)
    return {(start + timedelta(days=n)).isoformat(): count for n, count in enumerate(counts)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_one_select_named_for_its_table_and_opens_with_its_grain(file: Any) -> None:
    text = file.read_text(encoding="utf-8")
    name = file.name.removesuffix(".sql")
    comment = str(tables.metadata.tables[name].comment)
    assert text.splitlines()[0] == f"-- {comment}"
    assert ";" not in text
    body = text.replace(comment, "")
    assert body == body.lower()


def test_weeks_begin_on_monday_and_are_complete_with_seven_days() -> None:
    days = consecutive("2024-12-30", [1, 2, 3, 4, 5, 6, 7, 8])
    assert rebuilt("weekly_sessions", {(day, "a"): n for day, n in days.items()}, {}) == [
        (date(2024, 12, 30), "a", 28, 7, 7, True),
        (date(2025, 1, 6), "a", 8, 7, 1, False),
    ]


def test_months_know_how_many_days_they_have() -> None:
    cells = {(day, "a"): 1 for day in consecutive("2024-02-01", [0] * 29)}
    cells |= {("2025-02-01", "a"): 4, ("2025-02-28", "a"): 5, ("2025-02-28", "b"): 0}
    assert rebuilt("monthly_sessions", cells, {}) == [
        (date(2024, 2, 1), "a", 29, 29, 29, True),
        (date(2025, 2, 1), "a", 9, 28, 2, False),
        (date(2025, 2, 1), "b", 0, 28, 1, False),
    ]


def enterprise(
    counts: dict[str, int], cells: dict[tuple[str, str], int] | None = None, **options: Any
) -> dict[str, Any]:
    rows = rebuilt("enterprise_sessions", cells or {}, counts, **{"settled_after_days": 2, **options})
    names = tables.enterprise_sessions.columns.keys()
    return {row[0].isoformat(): dict(zip(names, row, strict=True)) for row in rows}


def test_trailing_sums_need_every_one_of_their_days() -> None:
    counts = consecutive("2025-01-01", list(range(1, 31)))
    whole = enterprise(counts)
    assert whole["2025-01-06"]["trailing_7_day_count"] is None
    assert whole["2025-01-07"]["trailing_7_day_count"] == sum(range(1, 8))
    assert whole["2025-01-08"]["trailing_7_day_count"] == sum(range(2, 9))
    assert whole["2025-01-27"]["trailing_28_day_count"] is None
    assert whole["2025-01-28"]["trailing_28_day_count"] == sum(range(1, 29))

    del counts["2025-01-20"]
    gap = enterprise(counts)
    assert "2025-01-20" not in gap
    assert gap["2025-01-19"]["trailing_7_day_count"] == sum(range(13, 20))
    assert all(gap[f"2025-01-{day}"]["trailing_7_day_count"] is None for day in range(21, 27))
    assert gap["2025-01-27"]["trailing_7_day_count"] == sum(range(21, 28))


def test_week_over_week_is_null_where_it_has_no_meaning() -> None:
    days = enterprise(consecutive("2025-01-01", [0] * 7 + [2] * 7 + [3] * 7))
    assert (days["2025-01-13"]["previous_week_count"], days["2025-01-13"]["week_over_week_change"]) == (None, None)
    assert (days["2025-01-14"]["previous_week_count"], days["2025-01-14"]["week_over_week_change"]) == (0, None)
    assert days["2025-01-21"]["previous_week_count"] == 14
    assert days["2025-01-21"]["week_over_week_change"] == pytest.approx(0.5)


def test_month_to_date_needs_every_day_since_the_first() -> None:
    counts = consecutive("2025-01-30", [5, 6, 7, 8, 9])
    days = enterprise(counts)
    assert [days[day]["month_to_date_count"] for day in counts] == [None, None, 7, 15, 24]


def test_active_organizations_have_at_least_one_session() -> None:
    cells = {("2025-01-01", "a"): 3, ("2025-01-01", "b"): 0, ("2025-01-01", "c"): 1, ("2025-01-02", "a"): 0}
    days = enterprise({"2025-01-01": 4, "2025-01-02": 0}, cells)
    assert [day["active_orgs"] for day in days.values()] == [2, 0]
    assert [day["sessions_count"] for day in days.values()] == [4, 0]


@pytest.mark.parametrize(("hours", "settled"), [(2, False), (26, False), (47, False), (48, True), (50, True)])
def test_a_day_is_settled_once_its_last_look_back_has_read_it(hours: int, settled: bool) -> None:
    days = enterprise({"2025-01-01": 4}, read_after=timedelta(hours=hours), settled_after_days=2)
    assert days["2025-01-01"]["is_settled"] is settled
