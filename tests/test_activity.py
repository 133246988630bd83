"""The numbers on the report, compared with sums over counts that the tests choose. No browser, both databases."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from pipelines import checks
from pipelines.report.activity import MONTHS, MOST_ORGS, MOST_SMALL_MULTIPLES, WEEKS, Activity, read_activity
from pipelines.settings import Settings
from resources.database import Database
from tests.support.report import LAST, fill
from warehouse import writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Entry

Counts = Mapping[str, Sequence[int | None]]


def shown(database: Database) -> Activity:
    with database.transaction(read_only=True) as connection:
        return read_activity(connection)


def totals(counts: Counts) -> dict[date, int]:
    """The sessions of each loaded day; the last entry of each row is for LAST."""
    rows = [[count for count in of_day if count is not None] for of_day in zip(*counts.values(), strict=True)]
    return {LAST - timedelta(days=len(rows) - 1 - n): sum(row) for n, row in enumerate(rows) if row}


def total(counts: Counts, last: date, days: int) -> int | None:
    """The sessions of the `days` days up to `last`, if all of them are loaded."""
    of_day = totals(counts)
    wanted = [last - timedelta(days=n) for n in range(days)]
    return sum(of_day[day] for day in wanted) if of_day.keys() >= set(wanted) else None


def some(organizations: int, days: int, *, not_loaded: Sequence[int] = ()) -> dict[str, list[int | None]]:
    """Random counts. `not_loaded` are indices into each row, negative ones from its end."""
    chosen = random.Random(organizations)
    counts: dict[str, list[int | None]] = {
        f"org-{n:02}": [chosen.randrange(30) for _ in range(days)] for n in range(organizations)
    }
    for row in counts.values():
        for place in not_loaded:
            row[place] = None
    return counts


def test_means_cover_7_and_28_days_and_are_unknown_if_one_of_them_is_not_loaded(
    database: Database,
) -> None:
    counts = some(3, 80, not_loaded=(40,))
    fill(database, counts)
    for day in shown(database).days:
        for mean, days in ((day.mean_of_7_days, 7), (day.mean_of_28_days, 28)):
            expected = total(counts, day.day, days)
            assert mean == (None if expected is None else pytest.approx(expected / days, abs=0.01)), day


def test_recent_windows_end_with_the_last_loaded_day_and_not_with_history(database: Database) -> None:
    counts = some(2, 90, not_loaded=(-1, -2, -3, 33))
    fill(database, counts)
    found = shown(database)
    last = LAST - timedelta(days=3)
    assert (found.days[-1].day, found.last_loaded and found.last_loaded.day) == (LAST, last)
    assert [day.day for day in found.days_up_to_last_loaded(5)] == [last - timedelta(days=n) for n in (4, 3, 2, 1, 0)]
    assert len(found.days_up_to_last_loaded(1000)) == 87
    for days, before in ((7, 0), (7, 7), (28, 0), (28, 28), (50, 0)):
        window = found.window(days, before=before)
        assert window.complete_sum == total(counts, last - timedelta(days=before), days)
    assert found.window(28, before=28).complete_sum is None, "one of its days is not loaded"
    assert found.window(28, before=28).days_loaded == 27


def test_top_organizations_have_the_most_sessions_in_28_days_and_show_the_28_before(
    database: Database,
) -> None:
    counts = some(30, 60, not_loaded=(-1, -2))
    for org_id in ("org-03", "org-04"):  # without recent sessions
        counts[org_id] = [9] * 30 + [0] * 28 + [None] * 2
    counts["org-05"] = [0] * 30 + [9] * 28 + [None] * 2
    fill(database, counts)
    last = LAST - timedelta(days=2)
    lately = {org_id: total({org_id: row}, last, 28) or 0 for org_id, row in counts.items()}
    before = {org_id: total({org_id: row}, last - timedelta(days=28), 28) for org_id, row in counts.items()}
    expected = sorted((org_id for org_id in counts if lately[org_id]), key=lambda org_id: (-lately[org_id], org_id))
    found = shown(database)
    assert [(org.org_id, org.recent.complete_sum, org.before.complete_sum) for org in found.organizations] == [
        (org_id, lately[org_id], before[org_id]) for org_id in expected[:MOST_ORGS]
    ]
    assert (found.active_organizations, found.possibly_active, found.known_organizations) == (28, 0, 30)


def test_an_organization_without_recent_sessions_is_not_a_top_organization(database: Database) -> None:
    fill(database, {"a": [5] * 10 + [0] * 28, "b": [5] * 10 + [0] * 27 + [1]})
    found = shown(database)
    assert [org.org_id for org in found.organizations] == ["b"]
    assert found.active_organizations == 1


def test_each_small_chart_has_the_last_26_weeks_with_gaps_for_incomplete_ones(database: Database) -> None:
    days = 205
    counts = some(MOST_SMALL_MULTIPLES + 2, days, not_loaded=(-40,))
    lacking = LAST - timedelta(days=39)
    begin = 0
    for after_a_week in (1, 6, 7):
        end = days - 7 + after_a_week
        fill(database, {o: [None] * begin + row[begin:end] + [None] * (days - end) for o, row in counts.items()})
        begin = end
        last_whole = LAST - timedelta(days=6 if after_a_week == 7 else 13)
        mondays = [last_whole - timedelta(weeks=n) for n in reversed(range(WEEKS))]
        found = shown(database).organizations
        assert len(found) == MOST_SMALL_MULTIPLES + 2
        assert all(not org.weeks for org in found[MOST_SMALL_MULTIPLES:])
        for org in found[:MOST_SMALL_MULTIPLES]:
            assert list(org.weeks) == [
                (
                    monday,
                    None
                    if lacking - monday in map(timedelta, range(7))
                    else total({org.org_id: counts[org.org_id]}, monday + timedelta(days=6), 7),
                )
                for monday in mondays
            ], after_a_week


def test_a_period_is_complete_with_all_its_days_and_has_a_change_only_after_a_complete_one(
    database: Database,
) -> None:
    counts = some(2, 300, not_loaded=(*range(-5, 0), -60, *range(-200, -160)))
    for row in counts.values():
        row[-120:-40] = [0] * 80  # complete months and weeks without a session
        row[-60] = None
    fill(database, counts)
    of_day = totals(counts)
    history = [LAST - timedelta(days=n) for n in reversed(range(300))]
    found = shown(database)

    def monday(day: date) -> date:
        return day - timedelta(days=day.weekday())

    def first_of_month(day: date) -> date:
        return day.replace(day=1)

    for periods, first_day, most in ((found.weeks, monday, WEEKS), (found.months, first_of_month, MONTHS)):
        days_in: dict[date, list[date]] = {}
        for n in range(-31, 331):
            day = history[0] + timedelta(days=n)
            days_in.setdefault(first_day(day), []).append(day)
        loaded_in = {first: [day for day in days if day in of_day] for first, days in days_in.items()}
        sums = {first: sum(of_day[day] for day in days) for first, days in loaded_in.items()}
        in_order = list(dict.fromkeys(first_day(day) for day in history))
        with_days = [first for first in in_order if loaded_in[first]]
        expected = []
        for first in in_order:
            if with_days[0] <= first <= with_days[-1]:
                before = first_day(first - timedelta(days=1))
                is_known_before = before in in_order and loaded_in[before] == days_in[before]
                is_whole = loaded_in[first] == days_in[first]
                of_period = len(loaded_in[first])
                expected.append((first, sums[first], of_period, is_whole, sums[before] if is_known_before else None))
        assert [
            (p.first_day, p.window.sessions_count, p.window.days_loaded, p.window.is_complete, p.before)
            for p in periods
        ] == expected[-most:]
        assert {None, 0} < {before for *_, before in expected}


def test_only_the_last_weeks_and_months_of_a_long_history_are_shown(database: Database) -> None:
    fill(database, {"a": [1 if n % 10 == 9 else None for n in range(1130)]})
    found = shown(database)
    assert (len(found.weeks), found.weeks[-1].first_day) == (WEEKS, date(2025, 6, 9))
    assert (len(found.months), found.months[-1].first_day) == (MONTHS, date(2025, 6, 1))


def test_restatements_cover_the_last_30_days(database: Database) -> None:
    fill(database, {"a": [2] * 60 + [None] * 3, "b": [1] * 60 + [None] * 3}, unattributed=3)
    fill(database, {"a": [None] * 20 + [7] + [2] * 39 + [None] * 3, "b": [None] * 20 + [1] * 40 + [None] * 3})
    fill(database, {"a": [None] * 58 + [5, 1] + [None] * 3, "b": [None] * 58 + [1] * 2 + [None] * 3}, unattributed=-1)
    found = shown(database)
    assert len(found.days) == 63
    assert found.last_loaded_at == datetime(2025, 6, 16, 0, 5, tzinfo=UTC), "four days after the last loaded one"
    assert (found.restated, found.restated_by) == (2, 2), "the change of the 21st day is too long ago"


def test_an_organizations_day_is_loaded_with_a_count_or_before_its_creation(database: Database) -> None:
    rows: dict[str, list[int | None]] = {
        "always": [1] * 56,
        "created": [None] * 40 + [2] * 16,
        "late": [None] * 40 + [2] * 16,
        "refused": [3] * 50 + [None] * 3 + [3] * 3,
        "quiet": [0] * 28 + [None] + [0] * 27,
        "gone": [4] * 30 + [None] * 26,
    }
    fill(database, rows)
    listed = {"always": None, "created": LAST - timedelta(days=15), "late": None, "refused": None, "quiet": None}
    with database.transaction() as connection:
        found = [
            Entry(org_id, org_id, datetime(day.year, day.month, day.day, tzinfo=UTC) if day else None)
            for org_id, day in listed.items()
        ]
        writes.store_listed(connection, ORGANIZATIONS, found, datetime(2025, 6, 20, tzinfo=UTC))
    of = shown(database)
    known = {
        org.org_id: (org.recent.days_loaded, org.recent.complete_sum, org.before.days_loaded, org.before.complete_sum)
        for org in of.organizations
    }
    assert known == {
        "always": (28, 28, 28, 28),
        "created": (28, 32, 28, 0),
        "late": (16, None, 0, None),
        "refused": (25, None, 28, 84),
        "gone": (2, None, 28, 112),
    }
    assert (of.active_organizations, of.possibly_active, of.known_organizations) == (5, 1, 6), (
        "quiet may have been active"
    )
    assert of.incomplete_organizations == 3, "late, refused and quiet; gone is no longer listed"


def test_an_empty_warehouse_has_no_activity(database: Database) -> None:
    found = shown(database)
    assert (found.days, found.weeks, found.months, found.organizations) == ([], [], [], [])
    assert found.last_loaded is None
    assert (found.window(7).complete_sum, found.days_up_to_last_loaded(7), found.active_organizations) == (None, [], 0)
    assert (found.restated, found.last_loaded_at) == (0, None)


def test_days_that_exceed_their_total_do_not_fail_the_check_of_blocks(database: Database) -> None:
    fill(database, {"a": [2] * 10}, unattributed=-1)
    with database.transaction(read_only=True) as connection:
        found = dict(checks.verdicts(connection, Settings(devin_start_date=date(2025, 1, 1))))
    assert not found["Control totals"].passed
    assert found["Blocks of days"].passed
