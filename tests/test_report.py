"""The activity report in a real browser: what it shows, to whom, and what it never does."""

import base64
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Literal

import dagster as dg
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page

from pipelines import report
from resources.database import Database
from tests.browser import chromium
from tests.conftest import World
from warehouse import tables, writes
from warehouse.activity import MOST_ORGS, MOST_SMALL_MULTIPLES, activity
from warehouse.tables import ORGANIZATIONS

ARTIFACTS = Path(__file__).resolve().parents[1] / "data" / "screenshots"
LAST = date(2025, 6, 15)


@dataclass
class Looked:
    """A page that was opened, what it said on the console and what it asked the network for."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def keep(self, name: str) -> None:
        """Take a picture of it for people."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).inner_text().split())

    def drawn(self) -> list[str]:
        """The charts that have marks."""
        ids: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.chart')].filter(c => c.querySelector('svg path, svg rect')).map(c => c.id)"
        )
        return ids


Look = Callable[..., Looked]


@pytest.fixture
def look() -> Iterator[Look]:
    """Opens a page, so wide, and waits until its charts are there. After runs in this process: they want its loop."""
    with ExitStack() as stack:
        browser = cache(lambda: stack.enter_context(chromium()))

        def open_page(path: Path, width: int = 1440, scheme: Literal["light", "dark"] = "light") -> Looked:
            page = browser().new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            looked = Looked(page)
            page.on("console", lambda message: looked.console.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: looked.console.append(f"error: {error}"))
            page.on("request", lambda request: looked.requests.append(request.url))
            page.on("dialog", lambda dialog: looked.console.append(f"dialog: {dialog.message}"))
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-drawn]")
            return looked

        yield open_page


def fill(
    database: Database,
    counts: Mapping[str, Sequence[int | None]],
    names: Mapping[str, str | None] | None = None,
    *,
    unattributed: int = 0,
) -> None:
    """Load these counts by organization, of days that end with LAST; a day of which nobody has one is not loaded."""
    days = len(next(iter(counts.values()), []))
    dates = [LAST - timedelta(days=days - 1 - n) for n in range(days)]
    totals, cells = [], []
    for number, day in enumerate(dates):
        of_day = {org_id: row[number] for org_id, row in counts.items()}
        known = {org_id: count for org_id, count in of_day.items() if count is not None}
        if not known:
            continue
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        read = {"api_version": "v2", "loaded_at": start + timedelta(days=4), "run_id": "run"}
        totals.append(
            {
                "day": day,
                "window_start": start,
                "window_end": start + timedelta(days=1),
                "sessions_count": sum(known.values()) + unattributed,
                "orgs_expected": len(counts),
                "orgs_loaded": len(known),
                **read,
            }
        )
        cells += [
            {"day": day, "org_id": org_id, "sessions_count": count, "is_derived": False, **read}
            for org_id, count in known.items()
        ]
    found = [
        {"org_id": org_id, "org_name": (names or {}).get(org_id, f"Name of {org_id}"), "created_at": None}
        for org_id in counts
    ]
    with database.transaction() as connection:
        writes.store_listed(connection, ORGANIZATIONS, found, datetime(2025, 1, 1, tzinfo=UTC))
        writes.store_days(connection, ORGANIZATIONS, totals, cells)
        writes.store_history(connection, dates[0] if dates else LAST, LAST)
        for rollup in tables.ROLLUPS:
            writes.rebuild(connection, rollup, **({"settled_after_days": 2} if "enterprise" in rollup.name else {}))


def written(database: Database, folder: Path) -> Path:
    """The report of what is stored."""
    with database.transaction(read_only=True) as connection:
        shown = activity(connection)
    path = folder / "report.html"
    path.write_text(report.as_page(shown, report.library()), encoding="utf-8")
    return path


# A real run


@pytest.fixture
def loaded(each_world: World) -> World:
    """A world with a report of 100 days."""
    each_world.configure(
        devin_start_date="2025-01-01", devin_report_path=str(each_world.folder / "published" / "report.html")
    )
    assert each_world.run("2025-01-01", "2025-04-10").success
    return each_world


def test_a_run_writes_a_page_that_draws_every_chart_and_asks_nobody_for_anything(loaded: World, look: Look) -> None:
    path = loaded.settings.published_report
    assert path
    looked = look(path)
    assert looked.console == []
    assert looked.requests == [path.as_uri()]
    assert {"trend", "history", "year-2025", "organizations", "organization-1", "weeks", "months"} <= {*looked.drawn()}
    assert looked.drawn() == looked.page.evaluate("[...document.querySelectorAll('.chart')].map(c => c.id)")
    assert path.stat().st_mode & 0o777 == 0o600
    looked.keep(f"report-1440-{'duckdb' if loaded.database.is_file else 'postgresql'}")


def test_its_numbers_are_those_of_the_warehouse(loaded: World, look: Look) -> None:
    path = loaded.settings.published_report
    assert path
    looked = look(path)
    tiles = [" ".join(tile.split()) for tile in looked.page.locator(".tiles li").all_inner_texts()]
    truth = loaded.truth("2025-01-01", "2025-04-10")

    def total(first: str, last: str) -> int:
        return sum(n for (day, _), n in truth.items() if date.fromisoformat(first) <= day <= date.fromisoformat(last))

    week, before = total("2025-04-04", "2025-04-10"), total("2025-03-28", "2025-04-03")
    assert tiles[0].startswith(f"Sessions on 10 Apr 2025 {total('2025-04-10', '2025-04-10'):,}")
    assert tiles[1] == f"Last 7 days {week:,} {week / before - 1:+.0%} to the 7 before"
    assert tiles[2].startswith(f"Last 28 days {total('2025-03-14', '2025-04-10'):,} ")
    looked.page.locator("summary", has_text="Months as a table").click()
    months = [row.split("\t") for row in looked.page.locator("details[open] tbody tr").all_inner_texts()]
    assert [(month[0], month[1]) for month in months] == [
        ("April 2025", f"{total('2025-04-01', '2025-04-10'):,}"),
        ("March 2025", f"{total('2025-03-01', '2025-03-31'):,}"),
        ("February 2025", f"{total('2025-02-01', '2025-02-28'):,}"),
        ("January 2025", f"{total('2025-01-01', '2025-01-31'):,}"),
    ]
    assert months[0][3] == "some are not loaded"
    assert "! look" in looked.text("tr:has(th:text-is('Coverage'))")
    assert "100 of " in looked.text("tr:has(th:text-is('Coverage'))")


def test_dagster_shows_the_trend_and_where_the_page_is(world: World) -> None:
    path = world.folder / "published" / "report.html"
    world.configure(devin_start_date="2025-04-01", devin_report_path=str(path))
    result = world.run("2025-04-01", "2025-04-09")
    (materialization,) = result.asset_materializations_for_node("activity_report")
    assert materialization.metadata["report"] == dg.MetadataValue.path(str(path))
    shown = re.fullmatch(
        r"!\[Sessions a day\]\(data:image/png;base64,(.+)\)", str(materialization.metadata["trend"].value)
    )
    assert shown
    assert base64.b64decode(shown[1]).startswith(b"\x89PNG\r\n\x1a\n")


def test_a_page_that_cannot_be_written_fails_the_run_after_everything_is_stored(world: World) -> None:
    path = world.folder / "page" / "report.html"
    path.parent.write_text("a file in the folder's place")
    world.configure(devin_report_path=str(path))
    result = world.run("2025-04-01", "2025-04-02")
    assert not result.success
    assert f"The report {path} could not be written" in world.failures(result)
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")


def test_where_it_is_off_there_is_neither_asset_nor_page(world: World) -> None:
    world.configure(devin_report_path="off")
    assert world.run("2025-04-01", "2025-04-01").success
    assert "activity_report" not in {
        key.to_user_string() for key in world.definitions.resolve_asset_graph().get_all_asset_keys()
    }
    assert not list(world.folder.rglob("*.html"))


# Who looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_is_wider_than_the_screen_in_light_and_dark(
    database: Database, tmp_path: Path, look: Look, width: int, scheme: str
) -> None:
    names = {"a": "An organization with a very long name " * 5, "b": "x" * 300}
    fill(database, {"a": [3, 0, None, 5] * 40, "b": [1, 0, None, 2] * 40}, names, unattributed=1)
    looked = look(written(database, tmp_path), width, scheme)
    assert looked.page.evaluate("document.documentElement.scrollWidth") == width
    too_wide = "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
    assert looked.page.evaluate(too_wide) == 0
    assert looked.console == []
    looked.keep(f"report-{width}-{scheme}")


def brightness(looked: Looked, script: str) -> float:
    colour: str = looked.page.evaluate(script)
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 3


def test_the_charts_follow_when_the_screen_turns_dark(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {"a": [3, 1, 5, 2, 0, 0, 4] * 5})
    looked = look(written(database, tmp_path))
    paper = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('#trend .role-axis-label text')).fill"
    assert brightness(looked, paper) > 200 > 100 > brightness(looked, label)
    looked.page.emulate_media(color_scheme="dark")
    looked.page.wait_for_selector("html[data-drawn=dark]")
    assert brightness(looked, paper) < 100 < 200 < brightness(looked, label)


def test_every_number_can_be_reached_and_read_without_a_mouse_and_without_eyes(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [3, 1, 5, 2, 0, 0, 4] * 5})
    looked = look(written(database, tmp_path))
    described: list[str] = looked.page.evaluate(
        "[...document.querySelectorAll('.chart')].map(c => c.role === 'graphics-document' ? c.ariaLabel : '')"
    )
    assert described
    assert all("ession" in told for told in described), described
    reached: list[str] = []
    for _ in range(20):
        looked.page.keyboard.press("Tab")
        reached.append(looked.page.evaluate("document.activeElement.textContent.trim()"))
    for heading in ("Trend", "Calendar", "Organizations", "Weeks", "Months"):
        assert f"{heading} as a table" in reached
    looked.page.locator("summary", has_text="Trend as a table").focus()
    looked.page.keyboard.press("Enter")
    assert f"{LAST}" in looked.text("details[open] tbody")
    assert looked.page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    assert looked.page.evaluate("document.documentElement.lang") == "en"


# What is shown


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
    looked = look(written(database, tmp_path))
    assert looked.console == []
    assert len(looked.requests) == 1
    assert looked.page.evaluate("document.querySelectorAll('img, b, iframe').length") == 0
    assert looked.page.evaluate("document.querySelectorAll('script').length") == 3
    looked.page.locator("summary", has_text="Organizations as a table").click()
    first = looked.page.locator("details[open] tbody th").all_text_contents()
    assert first == [*list(NAMES.values())[:5], "f", "<b>bold</b> g", "<b>bold</b> h"]
    assert "<img src=x onerror=alert(1)> since" in looked.text("table.trust")
    assert "<script>alert(3)</script>" in looked.text("table.trust")
    labels = looked.page.locator("#organizations .role-axis-label text").all_text_contents()
    assert "<b>bold</b> g" in labels


def test_a_script_that_got_in_all_the_same_would_not_run_nor_reach_the_network(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [1] * 10})
    path = written(database, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        bad = f"<script>document.title = 'taken'</script><img src='{url}'><script src='{url}'></script>"
        path.write_text(path.read_text(encoding="utf-8").replace("<main>", f"<main>{bad}"), encoding="utf-8")
        looked = look(path)
        assert looked.page.title() == "Devin sessions"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert looked.drawn(), "while the page's own still do"


def test_an_empty_warehouse_says_what_to_do(database: Database, tmp_path: Path, look: Look) -> None:
    looked = look(written(database, tmp_path))
    assert "No day is loaded yet. To load all of history: devin-sessions backfill" in looked.text("header")
    assert looked.page.locator(".chart").count() == 0
    assert "0 of 0 days are loaded." in looked.text("table.trust")
    assert looked.console == []


def test_days_that_are_not_loaded_are_outlines_and_never_zeros(database: Database, tmp_path: Path, look: Look) -> None:
    counts = [2, None, None, 0, 3, 1, None, 4, 4, 0]
    fill(database, {"a": counts})
    looked = look(written(database, tmp_path))
    assert looked.page.locator("#year-2025 .layer_1_marks path").count() == counts.count(None)
    assert looked.page.locator("#year-2025 .layer_0_marks path").count() == 7
    looked.page.locator("summary", has_text="Trend as a table").click()
    shown = looked.page.locator("details[open] tbody tr").all_inner_texts()
    assert [row.split("\t")[1] for row in reversed(shown)] == [
        str(n) if n is not None else "not loaded" for n in counts
    ]
    assert "Last 7 days unknown" in looked.text(".tiles")
    assert "7 of 10 days are loaded." in looked.text("table.trust")
    assert "devin-sessions backfill --missing" in looked.text("table.trust")


def test_what_speaks_against_the_numbers_is_said(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {"a": [2] * 10, "b": [1] * 10}, unattributed=3)
    fill(database, {"a": [5] * 10, "b": [1] * 10}, unattributed=-1)
    with database.transaction() as connection:
        writes.store_availability(connection, ORGANIZATIONS, {"b": "403 No"}, (), datetime(2025, 5, 1, tzinfo=UTC))
    trust = look(written(database, tmp_path)).text("table.trust")
    assert "Reconciliation ! look On 0 of 10 loaded days" in trust
    assert "On 10 they are more: the source contradicts itself." in trust
    assert "-10 sessions in all belong to no organization" in trust
    assert "10 counts were changed in the last 30 days, by +30 sessions" in trust
    assert "Unavailable organizations ! look The source refuses Name of b since 2025-05-01 (403 No)." in trust


@pytest.mark.parametrize("organizations", [1, 1000])
def test_one_organization_and_a_thousand(database: Database, tmp_path: Path, look: Look, organizations: int) -> None:
    fill(database, {f"org-{n:04}": [n % 7 + 1] * 21 for n in range(organizations)})
    looked = look(written(database, tmp_path))
    assert looked.console == []
    bars = looked.page.locator("#organizations .layer_0_marks path").count()
    assert bars == min(organizations, MOST_ORGS)
    assert looked.page.locator(".small .chart svg").count() == min(organizations, MOST_SMALL_MULTIPLES)
    assert f"{organizations} of {organizations:,} known" in looked.text(".tiles") or organizations == 1000
    if organizations == 1000:
        assert "980 more organizations were active" in looked.text("main")


def test_every_share_of_history_can_be_drawn(database: Database, tmp_path: Path, look: Look) -> None:
    for days in (1, 2, 8, 400, 800):
        with database.transaction() as connection:
            for table in reversed(tables.metadata.sorted_tables):
                if table is not tables.warehouse_version:
                    connection.execute(sa.delete(table))
        fill(database, {"a": list(range(days))})
        looked = look(written(database, tmp_path))
        assert looked.console == [], days
        assert len(looked.drawn()) == looked.page.locator(".chart").count(), days
