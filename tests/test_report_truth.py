"""Every number and sentence of the report over any gaps, compared with what the sandbox knows. No browser."""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from pipelines.report import page as report
from pipelines.report.activity import read_activity
from resources.database import Database
from resources.sandbox.server import Sandbox
from tests.support.examples import examples
from tests.support.shared import empty
from tests.support.warehouse import migrated
from warehouse import rollups, tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Entry, Provenance, Reading

HISTORY = 84
FIRST = date(2025, 1, 8)
DAYS = [FIRST + timedelta(days=n) for n in range(HISTORY)]
SOURCE = Sandbox(organizations=5)
IDS = [organization.org_id for organization in SOURCE.organizations]
NAMES = {organization.org_id: organization.org_name for organization in SOURCE.organizations}
CREATED = {organization.org_id: organization.created_at for organization in SOURCE.organizations}


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


TRUTH = {
    (day, org_id): SOURCE.truth(midnight(day), midnight(day + timedelta(days=1)), [org_id])
    for day in DAYS
    for org_id in IDS
}


@dataclass(frozen=True)
class Loaded:
    """How much of the truth was loaded: the days, and the counts that these days lack."""

    days: frozenset[date]
    refused: frozenset[tuple[date, str]]

    def total(self, day: date) -> int | None:
        return sum(TRUTH[day, org_id] for org_id in IDS) if day in self.days else None

    def count(self, day: date, org_id: str) -> int | None:
        """The organization's count on that day; None if it is not known."""
        if day not in self.days:
            return None
        created = CREATED[org_id]
        if created and created >= midnight(day + timedelta(days=1)):
            return 0
        return None if (day, org_id) in self.refused else TRUTH[day, org_id]


@st.composite
def loads(draw: st.DrawFn) -> Loaded:
    """All days except a few gaps, also at either end; some counts refused, and maybe an organization listed late."""
    days = set(DAYS)
    for _ in range(draw(st.integers(0, 3))):
        begin, length = draw(st.integers(0, HISTORY - 1)), draw(st.integers(1, 40))
        days -= set(DAYS[begin : begin + length])
    days -= set(DAYS[: draw(st.sampled_from([0, 0, 20, 28, 56, 74, 83]))])
    cells = st.tuples(st.sampled_from(DAYS), st.sampled_from(IDS))
    refused = draw(st.sets(cells, max_size=4))
    if draw(st.booleans()):
        late, since = draw(st.sampled_from(IDS)), draw(st.integers(1, HISTORY - 1))
        refused |= {(day, late) for day in DAYS[:since]}
    return Loaded(frozenset(days), frozenset(refused))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return migrated(Database(url=Database.url_of(tmp_path_factory.mktemp("warehouse") / "warehouse.duckdb")))


class Page:
    """The contents of a report page, extracted from its HTML."""

    def __init__(self, database: Database, loaded: Loaded) -> None:
        empty(database)
        with database.transaction() as connection:
            writes.store_listed(
                connection, ORGANIZATIONS, [Entry(o, NAMES[o], CREATED[o]) for o in IDS], midnight(FIRST)
            )
            readings = []
            for day in sorted(loaded.days):
                counts = {org_id: TRUTH[day, org_id] for org_id in IDS if (day, org_id) not in loaded.refused}
                readings.append(
                    Reading(
                        day=day,
                        window_start=midnight(day),
                        window_end=midnight(day + timedelta(days=1)),
                        control_total=sum(TRUTH[day, org_id] for org_id in IDS),
                        counts=counts,
                        how={},
                        expected=len(IDS),
                        lacking=len(IDS) - len(counts),
                    )
                )
            writes.store_days(connection, ORGANIZATIONS, readings, Provenance("v2", midnight(FIRST), run_id="run"))
            read_at = tables.daily_totals.c.window_end + sa.literal(timedelta(hours=2))
            connection.execute(sa.update(tables.daily_totals).values(loaded_at=read_at))
            writes.store_expected_days(connection, DAYS[0], DAYS[-1])
            for rollup in tables.ROLLUPS:
                rollups.rebuild(connection, rollup, settled_after_days=2)
        with database.transaction(read_only=True) as connection:
            self.text = report.as_page(read_activity(connection), [], "")
        (specs,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', self.text, re.DOTALL)
        self.charts: dict[str, list[dict[str, Any]]] = {
            id_: spec["data"]["values"] for id_, spec in json.loads(specs).items()
        }

    @property
    def tiles(self) -> list[tuple[str, ...]]:
        found = re.findall(r"<li><span>(.*?)</span><strong>(.*?)</strong><span>(.*?)</span></li>", self.text)
        return [tuple(map(html.unescape, tile)) for tile in found]

    def words(self, heading: str) -> str:
        (found,) = re.findall(rf'<h2 id="section-\d">{heading}</h2>\s*<p>(.*?)</p>', self.text)
        return html.unescape(found)

    def rows(self, heading: str) -> list[list[str]]:
        _, _, rest = self.text.partition(f'aria-label="{heading} as a table"')
        _, _, body = rest.partition("<tbody>")
        return [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", body.partition("</tbody>")[0], re.DOTALL)
        ]


def back(last: date, days: int, before: int = 0) -> list[date]:
    """The `days` days that end `before` days before `last`."""
    return [last - timedelta(days=before + n) for n in range(days)]


def change(now: float, before: float) -> str:
    if not before:
        return "none before" if now else "±0%"
    return f"{100 * (now - before) / before:+.0f}%"


def known(counts: Sequence[int | None]) -> tuple[str, str, int | None]:
    """A sum as it must be shown, how many of its days are known, and the sum itself if all of them are."""
    there = [count for count in counts if count is not None]
    whole = sum(there) if len(there) == len(counts) else None
    return (f"{sum(there):,}" if there else "\N{EN DASH}"), f"{len(there)} of {len(counts)}", whole


def compared(now: int | None, before: int | None) -> str:
    return "\N{EN DASH}" if now is None or before is None else change(now, before)


MANY_GAPS = Loaded(
    days=frozenset(DAYS[5:-3]) - {DAYS[20], DAYS[47], DAYS[-20]},
    refused=frozenset({(DAYS[-10], IDS[0]), (DAYS[-45], IDS[1])} | {(day, IDS[2]) for day in DAYS[:-8]}),
)


@examples(
    4,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@example(loaded=MANY_GAPS)
@given(loaded=loads())
def test_what_is_not_loaded_is_shown_as_unknown_in_every_number_and_sentence(
    database: Database, loaded: Loaded
) -> None:
    if not loaded.days:
        return
    page = Page(database, loaded)
    last = max(loaded.days)

    def totals(days: Sequence[date]) -> list[int | None]:
        return [loaded.total(day) if day in DAYS else None for day in days]

    def counts(org_id: str, days: Sequence[date]) -> list[int | None]:
        return [loaded.count(day, org_id) if day in DAYS else None for day in days]

    # The header
    until = [day for day in DAYS if day <= last]
    header = page.text.partition("<header>")[2].partition("</header>")[0]
    there = sum(day in loaded.days for day in until)
    assert f"{FIRST} to {last}: " in header
    partial = len({day for day, _ in loaded.refused} & loaded.days)
    is_whole = there == len(until) and not partial
    without = f", {partial} of them without counts of some organizations" if partial else ""
    assert (f"{there} of {len(until)} days are loaded{without}." in header) == (not is_whole)
    assert ("every day is loaded." in header) == is_whole
    later = len(DAYS) - len(until)
    assert (f"The {later} days after that are not loaded." in header) == (later > 1)
    assert ("devin-sessions backfill --missing" in header) == (not is_whole or later > 0)

    # The tiles
    assert page.tiles[0][:2] == (f"Sessions on {last:%d %b %Y}", f"{loaded.total(last):,}")
    for tile, days in zip(page.tiles[1:3], (7, 28), strict=True):
        shown, of, now = known(totals(back(last, days)))
        _, of_before, before = known(totals(back(last, days, before=days)))
        word = f"{compared(now, before)} vs previous {days} days"
        if now is None:
            word = f"{of} days loaded"
        elif before is None:
            word += f": {of_before} days loaded"
        assert tile == (f"Last {days} days", shown, word)
    lately = {org_id: counts(org_id, back(last, 28)) for org_id in IDS}
    active = [org_id for org_id in IDS if any(lately[org_id])]
    unsure = [org_id for org_id in IDS if org_id not in active and None in lately[org_id]]
    at_least, lacking = ("at least ", f"; {len(unsure)} with missing counts") if unsure else ("", "")
    assert page.tiles[3] == (
        "Active organizations, 28 days",
        f"{at_least}{len(active)}",
        f"of {len(IDS)} known{lacking}",
    )

    # The trend
    one_by_one = until[-91:]
    means = {
        (day, days): whole / days if (whole := known(totals(back(day, days)))[2]) is not None else None
        for day in DAYS
        for days in (7, 28)
    }

    def mean(day: date, days: int) -> Any:
        found = means[day, days]
        return None if found is None else pytest.approx(found, abs=0.006)

    drawn = {(row["day"], row["what"]): row["sessions"] for row in page.charts["trend"]}
    assert len(drawn) == 3 * len(one_by_one)
    for row, day in zip(page.rows("Trend"), reversed(one_by_one), strict=True):
        total = loaded.total(day)
        assert row[:2] == [f"{day}", "not loaded" if total is None else f"{total:,}"]
        for cell, days in zip(row[2:], (7, 28), strict=True):
            shown_mean = means[day, days]
            assert (cell == "\N{EN DASH}") == (shown_mean is None)
            assert shown_mean is None or float(cell.replace(",", "")) == pytest.approx(shown_mean, abs=0.06)
            assert drawn[f"{day}", f"{days}-day mean"] == mean(day, days)
        assert drawn[f"{day}", "day"] == total
    most = max(loaded.total(day) or 0 for day in one_by_one)
    text = page.words("Trend")
    assert f", with {most:,} sessions." in text
    gaps = sum(day not in loaded.days for day in one_by_one)
    assert (f"{len(one_by_one) - gaps} of these {len(one_by_one)} days are loaded" in text) == bool(gaps)

    # The calendar, weeks and months
    squares = {row["day"]: row["sessions"] for row in page.charts["year-2025"]}
    assert squares == {f"{day}": loaded.total(day) for day in DAYS}
    months = sorted({day.replace(day=1) for day in DAYS}, reverse=True)
    assert page.rows("Calendar") == [
        [f"{month:%B %Y}", *known(totals([day for day in DAYS if day.replace(day=1) == month]))[:2]] for month in months
    ]
    mondays = sorted({day - timedelta(days=day.weekday()) for day in DAYS})
    weeks = {monday: [monday + timedelta(days=n) for n in range(7)] for monday in mondays}
    of_months = {
        month: [month + timedelta(days=n) for n in range(31) if (month + timedelta(days=n)).month == month.month]
        for month in reversed(months)
    }
    for heading, periods, form in (("Weeks", weeks, "week of %d %B %Y"), ("Months", of_months, "%B %Y")):
        expected, before = [], None
        for first, days_of in periods.items():
            shown, of, now = known(totals(days_of))
            expected.append([f"{first:{form}}", shown, compared(now, before), of])
            before = now
        while expected[0][3].startswith("0 "):
            del expected[0]
        while expected[-1][3].startswith("0 "):
            del expected[-1]
        assert page.rows(heading) == expected[::-1]
        bars = [(row["sessions"], row["is_whole"], row["change"]) for row in page.charts[heading.lower()]]
        assert bars == [
            (
                None if shown == "\N{EN DASH}" else int(shown.replace(",", "")),
                of.split()[0] == of.split()[2],
                changed,
            )
            for _, shown, changed, of in expected
        ]
        whole_rows = [row for row in expected if row[3].split()[0] == row[3].split()[2]]
        if whole_rows:
            noun = heading.lower()[:-1]
            end = "." if whole_rows[-1][2] == "\N{EN DASH}" else f", {whole_rows[-1][2]} vs the {noun} before."
            assert page.words(heading).startswith(
                f"The last complete {noun} ({whole_rows[-1][0]}) has {whole_rows[-1][1]} sessions{end}"
            )
        else:
            assert page.words(heading).startswith(f"No complete {heading.lower()[:-1]} is loaded yet.")

    # The organizations
    def sum_lately(org_id: str) -> int:
        return sum(count or 0 for count in lately[org_id])

    by_rank = sorted(active, key=lambda org_id: (-sum_lately(org_id), org_id))
    expected_rows = []
    for org_id in by_rank:
        shown, of, now = known(lately[org_id])
        _, of_before, before = known(counts(org_id, back(last, 28, before=28)))
        shown_before = "\N{EN DASH}" if before is None else f"{before:,}"
        expected_rows.append([NAMES[org_id], shown, of, shown_before, of_before, compared(now, before)])
    text = page.words("Organizations")
    assert page.rows("Organizations") == expected_rows
    loaded_lately = sum(day in loaded.days for day in back(last, 28))
    span = (
        "in the last 28 days" if loaded_lately == 28 else f"on the {loaded_lately} of the last 28 days that are loaded"
    )
    if by_rank:
        assert text.startswith(f"{NAMES[by_rank[0]]} had the most sessions {span}: {sum_lately(by_rank[0]):,}.")
        assert ("The tick marks the 28 days before" in text) == any(row[3] != "\N{EN DASH}" for row in expected_rows)
        ticks = {row["organization"]: row["before"] for row in page.charts["organizations"]}
        assert ticks == {
            row[0]: None if row[3] == "\N{EN DASH}" else int(row[3].replace(",", "")) for row in expected_rows
        }
    else:
        assert text.startswith(f"None of the counted organizations had a session {span}.")
    short = sum(sum(count is not None for count in lately[org_id]) < loaded_lately for org_id in IDS)
    assert (f"Counts of {short} organization" in text) == bool(short)
    small = [row for id_, row in page.charts.items() if id_.startswith("organization-")]
    expected_small = []
    for org_id in by_rank:
        sums = []
        for monday, days_of in weeks.items():
            if days_of[-1] <= last:
                stored = [
                    TRUTH[day, org_id] if day in loaded.days and (day, org_id) not in loaded.refused else None
                    for day in days_of
                    if day in DAYS
                ]
                sums.append((f"{monday}", known(stored)[2] if len(stored) == 7 else None))
        while sums and sums[0][1] is None:
            del sums[0]
        while sums and sums[-1][1] is None:
            del sums[-1]
        if sums:
            expected_small.append([{"week": week, "sessions": number} for week, number in sums])
    assert small == expected_small
