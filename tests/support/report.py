"""Fills a warehouse for the report, writes the page, and opens it in a browser."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import sqlalchemy as sa
from playwright.sync_api import Page

from pipelines import checks
from pipelines.asset_keys import ACTIVITY_REPORT
from pipelines.names import JOB
from pipelines.report import page as report
from pipelines.report.activity import read_activity
from pipelines.settings import Settings
from resources.database import Database
from tests.support.world import World
from warehouse import rollups, tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Entry, Provenance, Reading

LAST = date(2025, 6, 15)
UNKNOWN = "\N{EN DASH}"


class Mark(NamedTuple):
    """A mark as drawn on the screen; `path` is its outline."""

    left: float
    right: float
    top: float
    fill: str
    stroke: str
    opacity: float
    path: str


@dataclass
class LoadedPage:
    """A page that was opened, its console messages and its network requests."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).inner_text().split())

    def charts(self) -> list[str]:
        """The ids of the charts that have marks."""
        ids: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.chart')].filter(c => c.querySelector('svg path, svg rect')).map(c => c.id)"
        )
        return ids

    def rows(self, heading: str) -> list[list[str]]:
        """The cells of the table below this heading's charts."""
        cells: list[list[str]] = self.page.locator(f"[aria-label='{heading} as a table'] tbody").evaluate(
            "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return cells

    def marks(self, selector: str) -> list[Mark]:
        """The position and style of each mark of a chart."""
        found = self.page.locator(selector).evaluate_all(
            "marks => marks.map(m => [m, m.getBoundingClientRect(), getComputedStyle(m)]).map(([m, box, style]) =>"
            "[box.left, box.right, box.top, style.fill, style.stroke, style.opacity * 1, m.getAttribute('d')])"
        )
        return [Mark(*mark) for mark in found]

    def colour(self, name: str) -> str:
        """One of the page's CSS colours, in the form in which its marks report theirs."""
        colour: str = self.page.evaluate(
            "name => { document.body.style.outlineColor = `var(--${name})`;"
            "const found = getComputedStyle(document.body).outlineColor; document.body.style.outlineColor = '';"
            "return found }",
            name,
        )
        return colour

    def tooltip(self, selector: str) -> str:
        """The tooltip shown when the pointer is over it."""
        self.page.locator(selector).hover(force=True)
        self.page.wait_for_selector("#vg-tooltip-element.visible")
        return self.text("#vg-tooltip-element")


Look = Callable[..., LoadedPage]


def fill(
    database: Database,
    counts: Mapping[str, Sequence[int | None]],
    names: Mapping[str, str | None] | None = None,
    *,
    unattributed: int = 0,
    settled_after_days: int = 2,
) -> None:
    """Load these counts by organization for the days up to LAST; a day without any count is not loaded."""
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
                how={},
                expected=len(counts),
                lacking=len(counts) - len(known),
            )
        )
    found = [Entry(org_id, (names or {}).get(org_id, f"Name of {org_id}")) for org_id in counts]
    with database.transaction() as connection:
        writes.store_listed(connection, ORGANIZATIONS, found, datetime(2025, 1, 1, tzinfo=UTC))
        by = Provenance("v2", datetime(2025, 1, 1, tzinfo=UTC), run_id="run")
        writes.store_days(connection, ORGANIZATIONS, readings, by)
        # Each day counts as read four days later.
        of_days = (tables.daily_totals, "loaded_at"), (tables.daily_sessions, "loaded_at")
        for table, column in (*of_days, (tables.session_revisions, "revised_at")):
            read_at = sa.cast(table.c.day, sa.DateTime(timezone=True)) + sa.literal(timedelta(days=4, minutes=5))
            connection.execute(sa.update(table).values({column: read_at}))
        writes.store_expected_days(connection, dates[0] if dates else LAST, LAST)
        for rollup in tables.ROLLUPS:
            rollups.rebuild(connection, rollup, settled_after_days=settled_after_days)


def write_report(database: Database, directory: Path) -> Path:
    """Write the report on what is stored, and return its path."""
    with database.transaction(read_only=True) as connection:
        shown = read_activity(connection)
        first = shown.days[0].day if shown.days else LAST
        found = [*checks.verdicts(connection, Settings(devin_start_date=first))]
    path = directory / "report.html"
    path.write_text(report.as_page(shown, found, report.library()), encoding="utf-8")
    return path


def run_report_alone(world: World) -> dg.ExecuteInProcessResult:
    """Run only the last asset."""
    return world.definitions.resolve_job_def(JOB).execute_in_process(
        instance=world.instance,
        asset_selection=[dg.AssetKey(ACTIVITY_REPORT)],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def quality_rows(loaded: LoadedPage) -> list[list[str]]:
    """The subject, the mark and the sentence of each row of the data quality table."""
    rows: list[list[str]] = loaded.page.locator("table.quality tbody").evaluate(
        "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows
