"""The activity report in a real browser: what it shows, to whom, and what it never does."""

import base64
import json
import os
import re
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dagster as dg
import duckdb
import pytest
import sqlalchemy as sa
from filelock import FileLock, Timeout
from playwright.sync_api import Page

from pipelines import checks
from pipelines.assets.activity_report import ACTIVITY_REPORT
from pipelines.command import exit_codes
from pipelines.report import page as report
from pipelines.report.activity import MOST_ORGS, MOST_SMALL_MULTIPLES, activity
from pipelines.schedules import JOB
from pipelines.settings import Settings
from resources.database import Database
from tests.browser import chromium
from tests.conftest import World
from tests.test_cli import devin_sessions, start
from tests.test_database import another_process
from warehouse import rollups, tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Entry, Provenance, Reading

ARTIFACTS = Path(__file__).resolve().parents[1] / "data" / "screenshots"
LAST = date(2025, 6, 15)
UNKNOWN = "\N{EN DASH}"


class Mark(NamedTuple):
    """A mark as it is on the screen; `path` are the strokes of its outline."""

    left: float
    right: float
    top: float
    fill: str
    stroke: str
    opacity: float
    path: str


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

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of the table that stands below this heading's charts."""
        cells: list[list[str]] = self.page.locator(f"[aria-label='{heading} as a table'] tbody").evaluate(
            "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return cells

    def marks(self, selector: str) -> list[Mark]:
        """Where marks of a chart are, and how they are drawn."""
        found = self.page.locator(selector).evaluate_all(
            "marks => marks.map(m => [m, m.getBoundingClientRect(), getComputedStyle(m)]).map(([m, box, style]) =>"
            "[box.left, box.right, box.top, style.fill, style.stroke, style.opacity * 1, m.getAttribute('d')])"
        )
        return [Mark(*mark) for mark in found]

    def colour(self, name: str) -> str:
        """One of the page's own colours, as its marks have them."""
        colour: str = self.page.evaluate(
            "name => { document.body.style.outlineColor = `var(--${name})`;"
            "const found = getComputedStyle(document.body).outlineColor; document.body.style.outlineColor = '';"
            "return found }",
            name,
        )
        return colour

    def tooltip(self, selector: str) -> str:
        """What is shown to who points at it."""
        self.page.locator(selector).hover(force=True)
        self.page.wait_for_selector("#vg-tooltip-element.visible")
        return self.text("#vg-tooltip-element")


Look = Callable[..., Looked]


@pytest.fixture
def look() -> Iterator[Look]:
    """Opens a page, so wide, and waits until its charts are there. After runs in this process: they want its loop."""
    with ExitStack() as stack:
        browser = cache(lambda: stack.enter_context(chromium()))

        def open_page(
            path: Path,
            width: int = 1440,
            scheme: Literal["light", "dark"] = "light",
            clock: datetime | None = None,
            **options: Any,
        ) -> Looked:
            page = browser().new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
            if clock:
                page.clock.install(time=clock)
            looked = Looked(page)
            page.on("console", lambda message: looked.console.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: looked.console.append(f"error: {error}"))
            page.on("request", lambda request: looked.requests.append(request.url))
            page.on("dialog", lambda dialog: looked.console.append(f"dialog: {dialog.message}"))
            page.goto(path.as_uri())
            if options.get("java_script_enabled", True):
                page.wait_for_selector("html[data-drawn]")
            return looked

        yield open_page


def fill(
    database: Database,
    counts: Mapping[str, Sequence[int | None]],
    names: Mapping[str, str | None] | None = None,
    *,
    unattributed: int = 0,
    settled_after_days: int = 2,
) -> None:
    """Load these counts by organization, of days that end with LAST; a day of which nobody has one is not loaded."""
    days = len(next(iter(counts.values()), []))
    dates = [LAST - timedelta(days=days - 1 - n) for n in range(days)]
    readings = []
    for number, day in enumerate(dates):
        of_day = {org_id: row[number] for org_id, row in counts.items()}
        known = {org_id: count for org_id, count in of_day.items() if count is not None}
        if not known:
            continue
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        readings.append(
            Reading(
                day=day,
                window_start=start,
                window_end=start + timedelta(days=1),
                control_total=sum(known.values()) + unattributed,
                counts=known,
                derived=set(),
                expected=len(counts),
                lacking=len(counts) - len(known),
            )
        )
    found = [Entry(org_id, (names or {}).get(org_id, f"Name of {org_id}")) for org_id in counts]
    with database.transaction() as connection:
        writes.store_listed(connection, ORGANIZATIONS, found, datetime(2025, 1, 1, tzinfo=UTC))
        by = Provenance("v2", datetime(2025, 1, 1, tzinfo=UTC), run_id="run")
        writes.store_days(connection, ORGANIZATIONS, readings, by)
        read_at = tables.daily_totals.c.window_start + sa.literal(timedelta(days=4, minutes=5))
        connection.execute(sa.update(tables.daily_totals).values(loaded_at=read_at))
        writes.store_expected_days(connection, dates[0] if dates else LAST, LAST)
        for rollup in tables.ROLLUPS:
            rollups.rebuild(connection, rollup, settled_after_days=settled_after_days)


def written(database: Database, folder: Path) -> Path:
    """The report of what is stored."""
    with database.transaction(read_only=True) as connection:
        shown = activity(connection)
        first = shown.days[0].day if shown.days else LAST
        found = [*checks.verdicts(connection, Settings(devin_start_date=first))]
    path = folder / "report.html"
    path.write_text(report.as_page(shown, found, report.library()), encoding="utf-8")
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
    assert [month[3] for month in months] == ["10 of 30", "31 of 31", "28 of 28", "31 of 31"]
    header = looked.text("header")
    assert "2025-01-01 to 2025-04-10: every day is loaded." in header
    assert "days of history after that are not loaded. To load the rest: devin-sessions backfill --missing" in header


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
    assert materialization.metadata["kilobytes"].value == round(path.stat().st_size / 1000)


def report_alone(world: World) -> dg.ExecuteInProcessResult:
    """A run of the last asset alone."""
    return world.definitions.resolve_job_def(JOB).execute_in_process(
        instance=world.instance,
        asset_selection=[ACTIVITY_REPORT],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def test_before_the_first_load_there_is_a_page_but_no_picture(world: World) -> None:
    path = world.folder / "page" / "report.html"
    world.configure(devin_report_path=str(path))
    result = report_alone(world)
    assert result.success, world.failures(result)
    (materialization,) = result.asset_materializations_for_node("activity_report")
    assert set(materialization.metadata) >= {"report", "kilobytes"}
    assert "trend" not in materialization.metadata
    assert "No day is loaded yet." in path.read_text(encoding="utf-8")


def test_it_comes_after_the_snapshot_or_on_a_server_after_the_rollups(each_world: World) -> None:
    each_world.configure(devin_report_path=str(each_world.folder / "report.html"), devin_user_ids="discover")
    graph = each_world.definitions.resolve_asset_graph()
    rollups = {rollup.name for rollup in tables.ROLLUPS} | {"user_daily_sessions"}
    parents = {key.to_user_string() for key in graph.get(ACTIVITY_REPORT).parent_keys}
    assert parents == ({"published_snapshot"} if each_world.database.is_file else rollups)


def test_a_page_is_replaced_whole_and_who_was_let_in_stays_so(world: World) -> None:
    path = world.folder / "page" / "report.html"
    world.configure(devin_start_date="2025-04-01", devin_report_path=str(path))
    assert world.run("2025-04-01", "2025-04-02").success
    path.chmod(0o644)
    with path.open(encoding="utf-8") as old:
        assert world.run("2025-04-03", "2025-04-03").success
        assert "<p>2025-04-01 to 2025-04-02: " in old.read()
    assert "<p>2025-04-01 to 2025-04-03: " in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o644
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_while_a_page_is_written_nobody_else_publishes_beside_it(world: World) -> None:
    path = world.folder / "page" / "report.html"
    path.parent.mkdir()
    unfinished = path.with_name(f".{path.name}.unfinished")
    os.mkfifo(unfinished)  # who writes more to it than a few kilobytes waits for who reads
    world.configure(devin_report_path=str(path))
    reader = os.open(unfinished, os.O_RDONLY | os.O_NONBLOCK)
    process = start("backfill", "2025-04-01", "2025-04-01")
    with os.fdopen(reader, "rb") as page:
        assert select.select([page], [], [], 60)[0], "it is being written"
        with pytest.raises(Timeout):
            FileLock(path.parent.with_suffix(".lock"), timeout=0).acquire()
        os.set_blocking(reader, True)
        assert page.read().startswith(b"<!doctype html>")
    process.communicate(timeout=60)


def test_a_page_that_could_not_be_written_is_written_by_the_same_command(each_world: World) -> None:
    path = each_world.folder / "page" / "report.html"
    path.parent.write_text("in the way")
    each_world.configure(devin_report_path=str(path))
    code, _, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert code == exit_codes.MISSING
    assert f"The report {path} could not be written" in err
    path.parent.unlink()
    each_world.source.requests.clear()
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert path.exists()
    assert each_world.source.requests == []
    written = path.stat().st_mtime_ns
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    assert path.stat().st_mtime_ns == written, "it is as new as the counts"


def test_it_is_made_of_the_snapshot_so_that_it_waits_for_nobody_who_holds_the_warehouse(world: World) -> None:
    path = world.folder / "page" / "report.html"
    world.configure(devin_report_path=str(path))
    assert world.run("2025-04-01", "2025-04-02").success
    path.unlink()
    with another_process() as other:
        assert other.open(world.database.path) == "done"
        assert report_alone(world).success
    assert path.exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda snapshot: snapshot.write_bytes(b"no database" * 99), "is not a DuckDB"),
        (lambda snapshot: _of_version(snapshot, 1), "is of an older release"),
        (lambda snapshot: _of_version(snapshot, 99), "later release"),
    ],
    ids=["no database", "older", "newer"],
)
def test_a_snapshot_that_cannot_be_read_fails_the_run_with_a_sentence_and_keeps_the_last_page(
    world: World, spoil: Callable[[Path], object], sentence: str
) -> None:
    path = world.folder / "page" / "report.html"
    world.configure(devin_report_path=str(path))
    assert world.run("2025-04-01", "2025-04-02").success
    before = path.read_bytes()
    assert world.settings.published_snapshot
    spoil(world.settings.published_snapshot)
    result = report_alone(world)
    (failed,) = result.get_step_failure_events()
    assert failed.step_failure_data.error and failed.step_failure_data.error.cls_name == dg.Failure.__name__
    assert sentence in world.failures(result)
    assert path.read_bytes() == before


def _of_version(snapshot: Path, version: int) -> None:
    with duckdb.connect(str(snapshot)) as connection:
        connection.execute("update warehouse_version set version = ?", [version])


def test_the_library_of_the_charts_is_kept_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    script = report.library()
    (kept,) = tmp_path.rglob("*.js")
    assert kept.read_text(encoding="utf-8") == script
    assert "</script" not in script, "it would end there"
    kept.write_text("of another run", encoding="utf-8")
    assert report.library() == "of another run"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert report.library() == script


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


def test_on_a_phone_the_page_is_as_wide_as_its_screen_with_every_table_open(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [3, 0, None, 5] + [3, 0, 1, 5] * 30}, {"a": "organization" * 20}, unattributed=1)
    with database.transaction() as connection:
        refused = {"a": "https://api.example/" + "x" * 200}
        writes.store_availability(connection, ORGANIZATIONS, refused, (), datetime(2025, 5, 1, tzinfo=UTC))
    looked = look(written(database, tmp_path), 360, is_mobile=True, has_touch=True)
    looked.page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert looked.page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    for cell in looked.page.locator("table.quality td:last-child").all():
        box = cell.bounding_box()
        assert box and box["width"] > 300, "a sentence has the whole line"


def luminance(colour: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """By the rule of WCAG: 4.5 is enough for text."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_charts_stand_out_in_light_and_in_dark(
    database: Database, tmp_path: Path, look: Look, scheme: str
) -> None:
    counts = [3, 1, 5, 2, 0, 0, 4] * 3 + [None] + [3, 1, 5, 2, 0, 0, 4] * 3
    fill(database, {"a": counts, "b": counts}, unattributed=1)
    looked = look(written(database, tmp_path), scheme=scheme)
    looked.page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    texts: list[list[str]] = looked.page.evaluate(
        """() => [...document.querySelectorAll('body *:not(script)')]
            .filter(e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim()))
            .map(e => {
                let under = e;
                while (getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
                const style = getComputedStyle(e);
                return [e.textContent, e instanceof SVGElement ? style.fill : style.color,
                    getComputedStyle(under).backgroundColor];
            })"""
    )
    assert len(texts) > 200
    assert {text: (ink, paper) for text, ink, paper in texts if contrast(ink, paper) < 4.5} == {}
    assert [mark.fill for mark in looked.marks("#organizations .layer_0_marks path")] == [looked.colour("colour1")] * 2
    lines = looked.marks("#trend g.mark-line path")
    assert lines[0].stroke == looked.colour("colour1")
    paper = looked.colour("paper")
    assert min(contrast(looked.colour(name), paper) for name in ("colour1", "colour2", "full", "ink")) > 4.5
    assert min(contrast(looked.colour(name), paper) for name in ("colour0", "outline")) > 2.5
    assert contrast(looked.colour("none"), paper) < 1.5, "none is next to nothing"
    well, look_here = (looked.page.locator(f"td.{name}").first for name in ("good", "bad"))
    assert (well.inner_text(), look_here.inner_text()) == ("✓ passed", "✗ failed")
    colours = [cell.evaluate("cell => getComputedStyle(cell).color") for cell in (well, look_here)]
    assert colours == [looked.colour("good"), looked.colour("bad")]
    assert colours[0] != colours[1]


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


def test_the_keyboard_leads_past_the_charts_and_into_each_table(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {"a": [3, 1, 5, 2, 0, 0, 4] * 10})
    looked = look(written(database, tmp_path))
    page = looked.page
    page.keyboard.press("Tab")
    skip = page.locator("a:focus")
    box = skip.bounding_box()
    assert box and box["x"] >= 0 and box["y"] >= 0, "it is seen as soon as it is reached"
    page.keyboard.press("Enter")
    assert page.locator(":target").inner_text() == "Data quality"
    for heading in ("Trend", "Calendar", "Organizations", "Weeks", "Months", "Data quality"):
        assert page.get_by_role("region", name=heading, exact=True).count() == 1
    page.locator("summary", has_text="Trend as a table").focus()
    for key in ("Enter", "Tab"):
        page.keyboard.press(key)
        outline = page.locator(":focus").evaluate("e => [getComputedStyle(e).outlineStyle, e.tabIndex]")
        assert outline == ["solid", 0]
    table = page.get_by_role("region", name="Trend as a table")
    assert table.evaluate("table => table === document.activeElement")
    assert table.get_by_role("row").count() == 1 + 70


def test_whoever_looks_from_another_time_zone_sees_the_same_days(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [*range(60)]})
    path = written(database, tmp_path)
    seen = []
    for zone in ("UTC", "America/Los_Angeles", "Pacific/Kiritimati"):
        looked = look(path, timezone_id=zone)
        texts = looked.page.locator("svg text").all_text_contents()
        bars = looked.marks("#trend .layer_0_marks path")
        tooltips = [looked.tooltip(f"{place} .layer_0_marks path >> nth=-1") for place in ("#year-2025", "#trend")]
        seen.append((texts, [round(bar.left) for bar in bars], tooltips))
    assert seen[0][2] == ["day Sun 15 Jun 2025 59 sessions", "day Sun 15 Jun 2025 day sessions 59"]
    assert seen[1:] == [seen[0]] * 2


# The quality of the data


def marks_of(looked: Looked) -> list[list[str]]:
    """About what, which mark, and the sentence, of each line."""
    rows: list[list[str]] = looked.page.locator("table.quality tbody").evaluate(
        "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


@pytest.mark.parametrize("state", ["sound", "unattributed", "contradiction", "lower total", "refused", "gap"])
def test_the_page_marks_what_the_checks_of_the_same_run_say(world: World, look: Look, state: str) -> None:
    last = datetime.now(UTC).date() - timedelta(days=1)
    first = last - timedelta(days=5)
    path = world.folder / "page" / "report.html"
    world.configure(devin_start_date=f"{first}", devin_report_path=str(path))
    at = datetime(first.year, first.month, first.day, 12, tzinfo=UTC)
    busiest = world.source.organizations[0].org_id
    world.source.add_sessions(busiest, at)
    if state == "unattributed":
        world.source.add_sessions("org-not-listed", at, count=3)
    if state == "refused":
        world.source.fail(status=403, org_id=busiest, times=None)
    result = world.run(f"{first}", f"{first if state == 'gap' else last}")
    if state == "gap":
        result = world.run(f"{last}", f"{last}")
    if state in ("contradiction", "lower total"):
        with world.database.transaction() as connection:
            spoil(connection, state, first)
        world.run(f"{last}", f"{last}")
    result = world.run(f"{last}", f"{last}")
    assert result.success, world.failures(result)
    checked = {
        (evaluation.passed, evaluation.severity.value, evaluation.description)
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name != "list_is_whole"
    }
    looked = look(path)
    shown = {
        (mark == "✓ passed", sentence)
        for title, mark, sentence in marks_of(looked)
        if title not in ("Restatements", "Age", "List of organizations")
    }
    assert shown == {(passed, sentence) for passed, _, sentence in checked}
    lists = [mark for title, mark, _ in marks_of(looked) if title == "List of organizations"]
    assert lists == ["✓ passed"]
    severities = {severity for passed, severity, _ in checked if not passed}
    summary = looked.text("#summary")
    if state == "sound":
        assert summary == "✓ Data quality: all 7 checks passed"
    else:
        assert severities, state
        assert summary.startswith("✗" if "ERROR" in severities else "!"), summary
        assert looked.page.locator("#summary").get_attribute("class") == ("bad" if "ERROR" in severities else "warn")


def spoil(connection: sa.Connection, state: str, day: date) -> None:
    """What a source that contradicts itself leaves behind."""
    if state == "lower total":
        totals = tables.daily_totals.c
        lower = sa.update(tables.daily_totals).where(totals.day == day)
        connection.execute(lower.values(unattributed_count=-2))
        return
    claim = {
        "day": day,
        "org_id": None,
        "first_day": day,
        "last_day": day + timedelta(days=1),
        "block_sessions_count": 9,
        "stored_sessions_count": 8,
        "read_at": datetime.now(UTC),
        "run_id": "run",
    }
    connection.execute(sa.insert(tables.contradictions).values(claim))


@pytest.mark.parametrize(
    ("hours", "mark", "said"),
    [
        (5, "✓ fresh", ""),
        (35, "✓ fresh", ""),
        (37, "✗ stale", "✗ Stale: the data was last read 37 hours ago."),
        (24 * 20, "✗ stale", "✗ Stale: the data was last read 20 days ago."),
        (-9, "? unknown", "✗ The age of this page is unknown: the clock of this device is behind."),
    ],
)
def test_the_age_is_by_the_clock_of_who_reads(
    database: Database, tmp_path: Path, look: Look, hours: int, mark: str, said: str
) -> None:
    fill(database, {"a": [1] * 10})
    read_at = datetime(2025, 6, 19, 0, 5, tzinfo=UTC)
    looked = look(written(database, tmp_path), clock=read_at + timedelta(hours=hours, minutes=5))
    assert {row[0]: row[1] for row in marks_of(looked)}["Age"] == mark
    assert looked.text("#summary").startswith(said or "! Data quality")
    looked.page.clock.run_for(1000 * 3600 * 48)
    assert {row[0]: row[1] for row in marks_of(looked)}["Age"] == "✗ stale", "a page that stays open grows old"


def test_without_javascript_the_age_is_a_time_and_no_praise(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {"a": [1] * 10})
    looked = look(written(database, tmp_path), java_script_enabled=False)
    rows = {row[0]: row[1:] for row in marks_of(looked)}
    assert rows["Age"] == [UNKNOWN, "Last read 2025-06-19 00:05 UTC."]
    assert "Last read 2025-06-19 00:05 UTC; this page was written 20" in looked.text("header")
    assert "ago" not in looked.text("header")


def test_every_command_on_any_page_is_accepted(world: World) -> None:
    last = datetime.now(UTC).date() - timedelta(days=1)
    first = last - timedelta(days=9)
    path = world.folder / "page" / "report.html"
    world.configure(devin_start_date=f"{first}", devin_report_path=str(path))
    found: set[str] = set()

    def commands() -> set[str]:
        text = re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8").partition("<script")[0])
        assert text.count("devin-sessions ")
        words = r"devin-sessions ([a-z]+(?: (?:--[a-z]+|\d{4}-\d\d-\d\d))*)"
        return set(re.findall(words, text))

    assert report_alone(world).success
    assert commands() == {"backfill --missing", f"backfill {last} {last}"}
    found |= commands()
    at = datetime(first.year, first.month, first.day, 12, tzinfo=UTC)
    world.source.add_sessions("org-not-listed", at, count=3)
    world.configure(devin_start_date=f"{first - timedelta(days=5)}")
    assert world.run(f"{first - timedelta(days=5)}", f"{first}").success
    found |= commands()
    with world.database.transaction() as connection:
        for day in (first - timedelta(days=4), first):
            spoil(connection, "contradiction", day)
            spoil(connection, "lower total", day)
    world.configure(devin_start_date=f"{first}")
    assert world.run(f"{last}", f"{last}").success
    found |= commands()
    assert {"probe", f"backfill {first} {first} --refresh"} <= found
    assert not any(f"{first - timedelta(days=4)}" in command for command in found), "those days are no part of history"
    for command in found:
        code, _, err = devin_sessions(*command.split())
        assert code != exit_codes.WRONG_USE, (command, err)


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
    assert "<script>alert(3)</script>" in looked.text("table.quality")
    labels = looked.page.locator("#organizations .role-axis-label text").all_text_contents()
    assert "<b>bold</b> g" in labels
    assert NAMES["a"] and NAMES["a"] in looked.tooltip("#organizations .layer_0_marks path >> nth=0")
    assert looked.page.evaluate("document.querySelectorAll('img, b, iframe').length") == 0


def test_a_script_that_got_in_all_the_same_would_not_run_nor_reach_the_network(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [1] * 10})
    path = written(database, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        bad = (
            f"<base href='{url}'><script>document.title = 'taken'</script><img src='{url}'>"
            f"<script src='{url}'></script><link rel='stylesheet' href='{url}'><video src='{url}'></video>"
            f"<form action='{url}'><button>Send</button></form>"
        )
        path.write_text(path.read_text(encoding="utf-8").replace("<main>", f"<main>{bad}"), encoding="utf-8")
        looked = look(path)
        assert looked.page.title() == "Devin sessions"
        assert looked.drawn(), "while the page's own scripts run"
        looked.page.keyboard.press("Tab")
        looked.page.keyboard.press("Enter")
        assert looked.page.url == f"{path.as_uri()}#quality", "what it calls its base is not"
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
        refused = (
            "new Promise(done => { addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
            "document.forms[0].requestSubmit() })"
        )
        assert looked.page.evaluate(refused) == "form-action"


def test_an_empty_warehouse_says_what_to_do(database: Database, tmp_path: Path, look: Look) -> None:
    looked = look(written(database, tmp_path))
    header = looked.text("header")
    assert "No day is loaded yet. To load all of history: devin-sessions backfill --missing" in header
    assert "! Data quality: 1 check gave a warning: Latest day" in header
    assert looked.page.locator(".chart").count() == 0
    marks = {row[0]: row[1] for row in marks_of(looked)}
    assert marks.pop("Latest day") == "! warning"
    assert set(marks.values()) == {UNKNOWN}, "of nothing nothing is proven"
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
    assert "Last 7 days 12 6 of 7 days loaded" in looked.text(".tiles")
    assert "Coverage ✗ failed Days that lack counts: 2025-06-07…2025-06-08, 2025-06-12" in looked.text("table.quality")
    assert "7 of 10 days are loaded. To load the rest: devin-sessions backfill --missing" in looked.text("header")


@pytest.mark.parametrize("organizations", [1, 1000])
def test_one_organization_and_a_thousand(database: Database, tmp_path: Path, look: Look, organizations: int) -> None:
    fill(database, {f"org-{n:04}": [n % 7 + 1] * 21 for n in range(organizations)})
    looked = look(written(database, tmp_path))
    assert looked.console == []
    bars = looked.page.locator("#organizations .layer_0_marks path").count()
    assert bars == min(organizations, MOST_ORGS)
    assert looked.page.locator(".small .chart svg").count() == min(organizations, MOST_SMALL_MULTIPLES)
    assert f" 28 days {organizations:,} of {organizations:,} known" in looked.text(".tiles")
    if organizations == 1000:
        together = "These 20 had 2,940 together; 980 more organizations were active."
        assert together in looked.text("section:has(#organizations)")


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


def test_tiles_words_and_tables_tell_what_was_counted(database: Database, tmp_path: Path, look: Look) -> None:
    counts = {"a": [2] * 28 + [4] * 28, "b": [0] * 28 + [3] * 28, "c": [1] * 56, "d": [9] * 28 + [0] * 28}
    counts["a"][30] = 6
    fill(database, counts, settled_after_days=9)
    looked = look(written(database, tmp_path))
    assert "2025-04-21 to 2025-06-15: every day is loaded. Last read 2025-06-19 00:05 UTC" in looked.text("header")
    tiles = [" ".join(tile.split()) for tile in looked.page.locator(".tiles li").all_inner_texts()]
    assert tiles == [
        "Sessions on 15 Jun 2025 8 may still change",
        "Last 7 days 56 +0% to the 7 before",
        f"Last 28 days 226 {226 / 336 - 1:+.0%} to the 28 before",
        "Active organizations, 28 days 3 of 4 known",
    ]
    said = "Between 2025-04-21 and 2025-06-15 the most on one day were 12, on Monday 21 April 2025."
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
        "Name of a had most sessions in the last 28 days: 114. The tick is the 28 days before, where"
    )
    with database.transaction() as connection:
        connection.execute(sa.update(tables.enterprise_sessions).values(is_settled=True))
    assert "Sessions on 15 Jun 2025 8 settled" in look(written(database, tmp_path)).text(".tiles")


def test_weeks_and_months_that_are_not_whole_are_told_from_those_that_are(
    database: Database, tmp_path: Path, look: Look
) -> None:
    counts = [*range(54), None, None]
    fill(database, {"a": counts})
    looked = look(written(database, tmp_path))
    weeks = [sum(range(n, min(n + 7, 54))) for n in range(0, 56, 7)]
    change = f"{weeks[6] / weeks[5] - 1:+.0%}"
    said = f"The last whole one, week of 02 June 2025, has {weeks[6]:,} sessions, {change} to the one before."
    assert looked.text("section:has(#weeks) > p") == (
        f"{said} Pale ones are not whole; a gap is one of which no day is loaded."
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


def test_each_square_of_the_calendar_is_in_its_week_and_weekday_and_as_strong_as_its_day(
    database: Database, tmp_path: Path, look: Look
) -> None:
    counts = [20, *range(400, 0, -1)]
    counts[-1], counts[-2] = 0, 200
    fill(database, {"a": counts})
    looked = look(written(database, tmp_path))
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
        for label in looked.page.locator(f"#year-{year} .role-axis-label text").all():
            first = next((day for day in of_year if (f"{day:%b}", day.day) == (label.text_content(), 1)), None)
            box = label.bounding_box()
            if first and box:
                assert at[first].left < box["x"] < at[first].right, first
    squares = looked.marks("#year-2024 .layer_0_marks path") + looked.marks("#year-2025 .layer_0_marks path")
    assert squares[1].fill == looked.colour("full")
    assert squares[-1].fill == looked.colour("none")
    assert squares[-2].fill == squares[counts.index(200)].fill, "one scale for all years"
    assert looked.page.locator("#year-2025 .role-legend").count() == 1


def test_a_line_is_broken_where_days_are_not_loaded_and_they_have_no_bar(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [5] * 40 + [None] + [5] * 40 + [None] * 3})
    looked = look(written(database, tmp_path))
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
    looked = look(written(database, tmp_path))
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


def test_a_chart_that_cannot_be_drawn_says_so_and_the_others_are(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [1] * 10})
    path = written(database, tmp_path)
    page = path.read_text(encoding="utf-8")
    begin = '<script type="application/json" id="charts">'
    specs = page.partition(begin)[2].partition("</script>")[0]
    told = json.loads(specs)
    told["trend"]["layer"] = 5
    path.write_text(page.replace(specs, json.dumps(told)), encoding="utf-8")
    looked = look(path)
    assert looked.text("#trend") == "This chart could not be drawn; its numbers are in the table below."
    assert {"year-2025", "organizations", "weeks", "months"} <= {*looked.drawn()}


def test_the_only_link_is_one_within_the_page(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {"a": [1] * 10})
    looked = look(written(database, tmp_path))
    assert looked.page.locator("a").evaluate_all("links => links.map(a => a.getAttribute('href'))") == [
        "#quality",
        "#quality",
    ]


def test_days_that_exceed_their_total_are_not_said_to_be_off_their_block(database: Database) -> None:
    fill(database, {"a": [2] * 10}, unattributed=-1)
    with database.transaction(read_only=True) as connection:
        found = dict(checks.verdicts(connection, Settings(devin_start_date=date(2025, 1, 1))))
    assert not found["Control totals"].passed
    assert found["Blocks of days"].passed
