"""What the report shows, and what never runs in it."""

import base64
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

from pipelines.report.activity import MOST_ORGS, MOST_SMALL_MULTIPLES, read_activity
from pipelines.report.picture import picture
from resources.database import Database
from tests.support.report import LAST, UNKNOWN, Look, fill, quality_rows, write_report
from tests.support.shared import empty
from warehouse import tables, writes
from warehouse.dimensions import ORGANIZATIONS

NAMES = {
    "a": "<img src=x onerror=alert(1)>",
    "b": "</script><script>alert(2)</script>",
    "c": "{{ 7 * 7 }} & \"quoted\" 'single'",
    "d": "\u202e\u0628\u0631\u0646 \U0001f9a6",
    "e": "line\u2028separator",
    "f": None,
    "g": "<b>bold</b>",
    "h": "<b>bold</b>",
}


def test_names_are_text_and_never_markup(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {org_id: [9 - n] * 35 for n, org_id in enumerate(NAMES)}, NAMES)
    with database.transaction() as connection:
        writes.store_availability(connection, ORGANIZATIONS, {"a": "<script>alert(3)</script>"}, (), datetime.now(UTC))
    looked = look(write_report(database, tmp_path))
    assert looked.console == []
    assert len(looked.requests) == 1
    assert looked.page.evaluate("document.querySelectorAll('img, b, iframe').length") == 0
    assert looked.page.evaluate("document.querySelectorAll('script').length") == 3
    looked.page.locator("summary", has_text="Organizations as a table").click()
    first = looked.page.locator("details[open] tbody th").all_text_contents()
    assert first == [*list(NAMES.values())[:5], "f", "<b>bold</b> g", "<b>bold</b> h"]
    assert "<script>alert(3)</script>" in looked.text("table.quality")
    labels = looked.page.locator("#organizations .role-axis-label text").all_text_contents()
    assert "<b>bold</b> g" in labels
    assert NAMES["a"] and NAMES["a"] in looked.tooltip("#organizations .layer_0_marks path >> nth=0")
    assert looked.page.evaluate("document.querySelectorAll('img, b, iframe').length") == 0


def test_an_injected_script_would_neither_run_nor_reach_the_network(
    five_weeks: Path, tmp_path: Path, look: Look
) -> None:
    path = tmp_path / "report.html"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        bad = (
            f"<base href='{url}'><script>document.title = 'taken'</script><img src='{url}'>"
            f"<script src='{url}'></script><link rel='stylesheet' href='{url}'><video src='{url}'></video>"
            f"<form action='{url}'><button>Send</button></form>"
        )
        path.write_text(five_weeks.read_text(encoding="utf-8").replace("<main>", f"<main>{bad}"), encoding="utf-8")
        looked = look(path)
        assert looked.page.title() == "Devin sessions"
        assert looked.charts(), "while the page's own scripts run"
        looked.page.keyboard.press("Tab")
        looked.page.keyboard.press("Enter")
        assert looked.page.url == f"{path.as_uri()}#quality", "an injected base is ignored"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
        refused = (
            "new Promise(done => { addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
            "document.forms[0].requestSubmit() })"
        )
        assert looked.page.evaluate(refused) == "form-action"


def test_the_report_of_an_empty_warehouse_says_what_to_do(database: Database, tmp_path: Path, look: Look) -> None:
    looked = look(write_report(database, tmp_path))
    header = looked.text("header")
    assert "No day is loaded yet. To load all of history: devin-sessions backfill --missing" in header
    assert "! Data quality: 1 check gave a warning: Latest day" in header
    assert looked.page.locator(".chart").count() == 0
    marks = {row[0]: row[1] for row in quality_rows(looked)}
    assert marks.pop("Latest day") == "! warning"
    assert set(marks.values()) == {UNKNOWN}, "without a loaded day nothing is proven"
    assert looked.console == []


def test_days_that_are_not_loaded_are_outlines_and_never_zeros(database: Database, tmp_path: Path, look: Look) -> None:
    counts = [2, None, None, 0, 3, 1, None, 4, 4, 0]
    fill(database, {"a": counts})
    looked = look(write_report(database, tmp_path))
    assert looked.page.locator("#year-2025 .layer_1_marks path").count() == counts.count(None)
    assert looked.page.locator("#year-2025 .layer_0_marks path").count() == 7
    looked.page.locator("summary", has_text="Trend as a table").click()
    shown = looked.page.locator("details[open] tbody tr").all_inner_texts()
    assert [row.split("\t")[1] for row in reversed(shown)] == [
        str(n) if n is not None else "not loaded" for n in counts
    ]
    assert "Last 7 days 12 6 of 7 days loaded" in looked.text(".tiles")
    assert "Coverage ✗ failed Days with missing counts: 2025-06-07…2025-06-08, 2025-06-12" in looked.text(
        "table.quality"
    )
    assert "7 of 10 days are loaded. To load the rest: devin-sessions backfill --missing" in looked.text("header")


@pytest.mark.parametrize("organizations", [1, 1000])
def test_the_report_shows_one_organization_or_a_thousand(
    database: Database, tmp_path: Path, look: Look, organizations: int
) -> None:
    fill(database, {f"org-{n:04}": [n % 7 + 1] * 14 for n in range(organizations)})
    looked = look(write_report(database, tmp_path))
    assert looked.console == []
    bars = looked.page.locator("#organizations .layer_0_marks path").count()
    assert bars == min(organizations, MOST_ORGS)
    assert looked.page.locator(".small .chart svg").count() == min(organizations, MOST_SMALL_MULTIPLES)
    assert f" 28 days {organizations:,} of {organizations:,} known" in looked.text(".tiles")
    if organizations == 1000:
        total = "These 20 had 1,960 in total; 980 more organizations were active."
        assert total in looked.text("section:has(#organizations)")


def test_charts_can_be_drawn_for_any_length_of_history(database: Database, tmp_path: Path, look: Look) -> None:
    for days in (1, 2, 8, 400):
        empty(database)
        fill(database, {"a": list(range(days))})
        looked = look(write_report(database, tmp_path))
        assert looked.console == [], days
        assert len(looked.charts()) == looked.page.locator(".chart").count(), days
        assert ("history" in looked.charts()) == (days > 91), days


def test_tiles_words_and_tables_show_what_was_counted(database: Database, tmp_path: Path, look: Look) -> None:
    counts = {"a": [2] * 28 + [4] * 28, "b": [0] * 28 + [3] * 28, "c": [1] * 56, "d": [9] * 28 + [0] * 28}
    counts["a"][30] = 6
    fill(database, counts, settled_after_days=9)
    looked = look(write_report(database, tmp_path))
    assert "2025-04-21 to 2025-06-15: every day is loaded. Last read 2025-06-19 00:05 UTC" in looked.text("header")
    tiles = [" ".join(tile.split()) for tile in looked.page.locator(".tiles li").all_inner_texts()]
    assert tiles == [
        "Sessions on 15 Jun 2025 8 may still change",
        "Last 7 days 56 +0% vs previous 7 days",
        f"Last 28 days 226 {226 / 336 - 1:+.0%} vs previous 28 days",
        "Active organizations, 28 days 3 of 4 known",
    ]
    said = "The busiest day from 2025-04-21 to 2025-06-15 was Monday 21 April 2025, with 12 sessions."
    assert looked.text("section:has(#trend) > p") == said
    a_day = [sum(of_day) for of_day in zip(*counts.values(), strict=True)]
    shown = looked.rows("Trend")
    assert [row[1:] for row in reversed(shown)] == [
        [
            f"{number}",
            f"{sum(a_day[n - 6 : n + 1]) / 7:.1f}" if n >= 6 else UNKNOWN,
            f"{sum(a_day[n - 27 : n + 1]) / 28:.1f}" if n >= 27 else UNKNOWN,
        ]
        for n, number in enumerate(a_day)
    ]
    assert looked.rows("Organizations") == [
        ["Name of a", "114", "28 of 28", "56", "28 of 28", "+104%"],
        ["Name of b", "84", "28 of 28", "0", "28 of 28", "none before"],
        ["Name of c", "28", "28 of 28", "28", "28 of 28", "+0%"],
    ]
    said = looked.text("section:has(#organizations) > p")
    assert said.startswith(
        "Name of a had the most sessions in the last 28 days: 114. The tick marks the 28 days before, if"
    )
    with database.transaction() as connection:
        connection.execute(sa.update(tables.enterprise_sessions).values(is_settled=True))
    assert "Sessions on 15 Jun 2025 8 settled" in look(write_report(database, tmp_path)).text(".tiles")


def test_incomplete_weeks_and_months_look_different_from_complete_ones(
    database: Database, tmp_path: Path, look: Look
) -> None:
    counts = [*range(54), None, None]
    fill(database, {"a": counts})
    looked = look(write_report(database, tmp_path))
    weeks = [sum(range(n, min(n + 7, 54))) for n in range(0, 56, 7)]
    change = f"{weeks[6] / weeks[5] - 1:+.0%}"
    said = f"The last complete week (week of 02 June 2025) has {weeks[6]:,} sessions, {change} vs the week before."
    assert looked.text("section:has(#weeks) > p") == (
        f"{said} Pale bars are incomplete weeks; a gap is a week without a loaded day."
    )
    assert looked.rows("Weeks")[:2] == [
        ["week of 09 June 2025", f"{weeks[7]:,}", UNKNOWN, "5 of 7"],
        ["week of 02 June 2025", f"{weeks[6]:,}", change, "7 of 7"],
    ]
    assert [row[0] for row in looked.rows("Months")] == ["June 2025", "May 2025", "April 2025"]
    assert looked.rows("Calendar") == [
        ["June 2025", f"{sum(range(41, 54)):,}", "13 of 15"],
        ["May 2025", f"{sum(range(10, 41)):,}", "31 of 31"],
        ["April 2025", f"{sum(range(10)):,}", "10 of 10"],
    ]
    bars = looked.marks("#weeks .mark-rect path")
    assert [bar.left for bar in bars] == sorted(bar.left for bar in bars), "in the order of the days"
    assert [bar.opacity for bar in bars] == [0.9] * 7 + [0.4]


def test_each_calendar_square_is_in_its_week_and_weekday_and_coloured_by_its_count(
    database: Database, tmp_path: Path, look: Look
) -> None:
    counts = [20, *range(400, 0, -1)]
    counts[-1], counts[-2] = 0, 200
    fill(database, {"a": counts})
    looked = look(write_report(database, tmp_path))
    days = [LAST - timedelta(days=n) for n in reversed(range(401))]
    for year in (2024, 2025):
        of_year = [day for day in days if day.year == year]
        squares = looked.marks(f"#year-{year} .layer_0_marks path")
        assert len(squares) == len(of_year)
        columns = sorted({round(square.left) for square in squares})
        lines = sorted({round(square.top) for square in squares})
        mondays = [day - timedelta(days=day.weekday()) for day in of_year]
        assert [columns.index(round(square.left)) for square in squares] == [
            (monday - mondays[0]).days // 7 for monday in mondays
        ]
        assert [lines.index(round(square.top)) for square in squares] == [day.weekday() for day in of_year]
        at = dict(zip(of_year, squares, strict=True))
        labels = f"#year-{year} .role-axis-label text"
        texts = looked.page.locator(labels).all_text_contents()
        begins = {f"{day:%b}": at[day] for day in of_year if day.day == 1}
        months = [
            (begins[text], label) for text, label in zip(texts, looked.marks(labels), strict=True) if text in begins
        ]
        assert len(months) == len(begins)
        assert all(first.left < label.left < first.right for first, label in months)
    squares = looked.marks("#year-2024 .layer_0_marks path") + looked.marks("#year-2025 .layer_0_marks path")
    assert squares[1].fill == looked.colour("full")
    assert squares[-1].fill == looked.colour("none")
    assert squares[-2].fill == squares[counts.index(200)].fill, "one scale for all years"
    assert looked.page.locator("#year-2025 .role-legend").count() == 1


def test_days_that_are_not_loaded_break_the_lines_and_have_no_bar(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [5] * 40 + [None] + [5] * 40 + [None] * 3})
    looked = look(write_report(database, tmp_path))
    assert len(looked.marks("#trend .layer_0_marks path")) == 80
    lines = looked.marks("#trend g.mark-line path")
    assert [line.path.count("M") for line in lines] == [2, 2]
    assert [line.stroke for line in lines] == [looked.colour("colour1"), looked.colour("colour2")]
    assert looked.rows("Trend")[0][0] == f"{LAST - timedelta(days=3)}"
    labels = looked.page.locator("#trend .role-legend-label text").all_text_contents()
    assert labels == ["day", "7-day mean", "28-day mean"]


def test_organizations_are_drawn_from_most_to_least_with_a_tick_for_the_days_before(
    database: Database, tmp_path: Path, look: Look
) -> None:
    counts = {"m": [1] * 28 + [8] * 28, "z": [8] * 28 + [4] * 28, "a": [4] * 28 + [2] * 28}
    fill(database, counts)
    looked = look(write_report(database, tmp_path))
    labels = looked.marks("#organizations .role-axis-label text")
    names = looked.page.locator("#organizations .role-axis-label text").all_text_contents()
    by_height = [name for _, name in sorted(zip((label.top for label in labels), names, strict=True)) if " " in name]
    assert by_height[:3] == ["Name of m", "Name of z", "Name of a"]
    bars = looked.marks("#organizations .layer_0_marks path")
    ticks = looked.marks("#organizations .layer_1_marks path")
    assert [bar.top for bar in bars] == sorted(bar.top for bar in bars)
    a_session = (bars[0].right - bars[0].left) / (8 * 28)
    assert [round((bar.right - bar.left) / a_session) for bar in bars] == [8 * 28, 4 * 28, 2 * 28]
    before = [round(((tick.left + tick.right) / 2 - bars[0].left) / a_session) for tick in ticks]
    assert before == pytest.approx([28, 8 * 28, 4 * 28], abs=2)


def test_a_chart_that_cannot_be_drawn_says_so_and_the_others_are_drawn(
    five_weeks: Path, tmp_path: Path, look: Look
) -> None:
    page = five_weeks.read_text(encoding="utf-8")
    begin = '<script type="application/json" id="charts">'
    specs = page.partition(begin)[2].partition("</script>")[0]
    broken = json.loads(specs)
    broken["trend"]["layer"] = 5
    path = tmp_path / "report.html"
    path.write_text(page.replace(specs, json.dumps(broken)), encoding="utf-8")
    looked = look(path)
    assert looked.text("#trend") == "This chart could not be drawn; its numbers are in the table below."
    assert {"year-2025", "organizations", "weeks", "months"} <= {*looked.charts()}


def test_every_link_stays_within_the_page(five_weeks: Path, look: Look) -> None:
    looked = look(five_weeks)
    assert looked.page.locator("a").evaluate_all("links => links.map(a => a.getAttribute('href'))") == [
        "#quality",
        "#quality",
    ]


def test_the_picture_in_dagster_has_a_gap_where_nothing_is_known(database: Database, tmp_path: Path) -> None:
    fill(database, {"a": [9] * 30 + [None] + [9] * 30})
    with database.transaction(read_only=True) as connection:
        days = read_activity(connection).days
    svg = ElementTree.fromstring(base64.b64decode(picture(days).removeprefix("data:image/svg+xml;base64,")))
    paths = [path.get("d", "") for path in svg.iter("{http://www.w3.org/2000/svg}path")]
    bars, mean_of_7, mean_of_28 = ([command.count(move) for move in "MLv"] for command in paths[:3])
    assert bars == [60, 0, 120]
    assert mean_of_7 == [2, 24 + 24 - 2, 0], "a mean of 7 days needs all of them"
    assert mean_of_28 == [2, 3 + 3 - 2, 0]
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["9", "0", "16 Apr 2025", "15 Jun 2025", "day", "7-day mean", "28-day mean"]
