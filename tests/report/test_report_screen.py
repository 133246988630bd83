"""The report on any screen, light or dark, with or without a mouse."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from resources.database import Database
from tests.support.report import LAST, LoadedPage, Look, fill, write_report
from tests.support.warehouse import migrated
from warehouse import writes
from warehouse.dimensions import ORGANIZATIONS


def test_nothing_is_wider_than_the_screen_in_light_and_dark(database: Database, tmp_path: Path, look: Look) -> None:
    names = {"a": "An organization with a very long name " * 5, "b": "x" * 300}
    fill(database, {"a": [3, 0, None, 5] * 40, "b": [1, 0, None, 2] * 40}, names, unattributed=1)
    path = write_report(database, tmp_path)
    too_wide = "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
    for width in (360, 1440):
        for scheme in ("light", "dark"):
            looked = look(path, width, scheme)
            assert looked.page.evaluate("document.documentElement.scrollWidth") == width, scheme
            assert looked.page.evaluate(too_wide) == 0, (width, scheme)
            assert looked.console == [], (width, scheme)


def test_on_a_phone_the_page_is_as_wide_as_its_screen_with_every_table_open(
    database: Database, tmp_path: Path, look: Look
) -> None:
    fill(database, {"a": [3, 0, None, 5] + [3, 0, 1, 5] * 30}, {"a": "organization" * 20}, unattributed=1)
    with database.transaction() as connection:
        refused = {"a": "https://api.example/" + "x" * 200}
        writes.store_availability(connection, ORGANIZATIONS, refused, (), datetime(2025, 5, 1, tzinfo=UTC))
    looked = look(write_report(database, tmp_path), 360, is_mobile=True, has_touch=True)
    looked.page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert looked.page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    for cell in looked.page.locator("table.quality td:last-child").all():
        box = cell.bounding_box()
        assert box and box["width"] > 300, "a sentence takes the whole line"


def luminance(colour: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The WCAG contrast ratio: 4.5 is enough for text."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def two_organizations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a day that is not loaded, and with passed and failed checks."""
    directory = tmp_path_factory.mktemp("two-organizations")
    database = migrated(Database(url=Database.url_of(directory / "warehouse.duckdb")))
    counts = [3, 1, 5, 2, 0, 0, 4] * 3 + [None] + [3, 1, 5, 2, 0, 0, 4] * 3
    fill(database, {"a": counts, "b": counts}, unattributed=1)
    return write_report(database, directory)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_charts_have_enough_contrast_in_light_and_dark(
    two_organizations: Path, look: Look, scheme: str
) -> None:
    looked = look(two_organizations, scheme=scheme)
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
    assert contrast(looked.colour("none"), paper) < 1.5, "a day without sessions is close to the background"
    good, bad = (looked.page.locator(f"td.{name}").first for name in ("good", "bad"))
    assert (good.inner_text(), bad.inner_text()) == ("✓ passed", "✗ failed")
    colours = [cell.evaluate("cell => getComputedStyle(cell).color") for cell in (good, bad)]
    assert colours == [looked.colour("good"), looked.colour("bad")]
    assert colours[0] != colours[1]


def brightness(looked: LoadedPage, script: str) -> float:
    colour: str = looked.page.evaluate(script)
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 3


def test_the_charts_are_redrawn_when_the_screen_turns_dark(five_weeks: Path, look: Look) -> None:
    looked = look(five_weeks)
    paper = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('#trend .role-axis-label text')).fill"
    assert brightness(looked, paper) > 200 > 100 > brightness(looked, label)
    looked.page.emulate_media(color_scheme="dark")
    looked.page.wait_for_selector("html[data-drawn=dark]")
    assert brightness(looked, paper) < 100 < 200 < brightness(looked, label)


def test_every_number_can_be_read_by_keyboard_and_screen_reader(five_weeks: Path, look: Look) -> None:
    looked = look(five_weeks)
    described: list[str] = looked.page.evaluate(
        "[...document.querySelectorAll('.chart')].map(c => c.role === 'graphics-document' ? c.ariaLabel : '')"
    )
    assert described
    assert all("ession" in description for description in described), described
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


def test_the_keyboard_skips_the_charts_and_reaches_each_table(five_weeks: Path, look: Look) -> None:
    page = look(five_weeks).page
    page.keyboard.press("Tab")
    skip = page.locator("a:focus")
    box = skip.bounding_box()
    assert box and box["x"] >= 0 and box["y"] >= 0, "it is visible as soon as it has the focus"
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
    assert table.get_by_role("row").count() == 1 + 35


def test_readers_in_other_time_zones_see_the_same_days(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {"a": [*range(60)]})
    path = write_report(database, tmp_path)
    seen = []
    for zone in ("UTC", "America/Los_Angeles", "Pacific/Kiritimati"):
        looked = look(path, timezone_id=zone)
        texts = looked.page.locator("svg text").all_text_contents()
        bars = looked.marks("#trend .layer_0_marks path")
        tooltips = [looked.tooltip(f"{place} .layer_0_marks path >> nth=-1") for place in ("#year-2025", "#trend")]
        seen.append((texts, [round(bar.left) for bar in bars], tooltips))
    assert seen[0][2] == ["day Sun 15 Jun 2025 59 sessions", "day Sun 15 Jun 2025 day sessions 59"]
    assert seen[1:] == [seen[0]] * 2
