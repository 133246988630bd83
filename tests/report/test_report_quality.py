"""The report shows what the checks say, its age, and the commands to run."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.command import exit_codes
from resources.database import Database
from tests.support.command import devin_sessions
from tests.support.report import UNKNOWN, Look, fill, quality_rows, run_report_alone, write_report
from tests.support.world import World
from warehouse import tables


@pytest.mark.parametrize("state", ["sound", "unattributed", "contradiction", "lower total", "refused", "gap"])
def test_the_page_shows_the_results_of_the_checks_of_the_same_run(world: World, look: Look, state: str) -> None:
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
        for title, mark, sentence in quality_rows(looked)
        if title not in ("Restatements", "Age", "List of organizations")
    }
    assert shown == {(passed, sentence) for passed, _, sentence in checked}
    lists = [mark for title, mark, _ in quality_rows(looked) if title == "List of organizations"]
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
    """Store what an API that contradicts itself leaves behind."""
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
        (-9, "? unknown", "✗ The age of this page is unknown: this device's clock is behind."),
    ],
)
def test_the_age_follows_the_readers_clock(
    database: Database, tmp_path: Path, look: Look, hours: int, mark: str, said: str
) -> None:
    fill(database, {"a": [1] * 10})
    read_at = datetime(2025, 6, 19, 0, 5, tzinfo=UTC)
    looked = look(write_report(database, tmp_path), clock=read_at + timedelta(hours=hours, minutes=5))
    assert {row[0]: row[1] for row in quality_rows(looked)}["Age"] == mark
    assert looked.text("#summary").startswith(said or "! Data quality")
    looked.page.clock.run_for(1000 * 3600 * 48)
    assert {row[0]: row[1] for row in quality_rows(looked)}["Age"] == "✗ stale", "a page that stays open grows old"


def test_without_javascript_the_age_is_a_time_without_a_verdict(database: Database, tmp_path: Path, look: Look) -> None:
    fill(database, {"a": [1] * 10})
    looked = look(write_report(database, tmp_path), java_script_enabled=False)
    rows = {row[0]: row[1:] for row in quality_rows(looked)}
    assert rows["Age"] == [UNKNOWN, "Last read 2025-06-19 00:05 UTC."]
    assert "Last read 2025-06-19 00:05 UTC; this page was written 20" in looked.text("header")
    assert "ago" not in looked.text("header")


def test_every_command_on_the_page_is_accepted(world: World) -> None:
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

    assert run_report_alone(world).success
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
    assert not any(f"{first - timedelta(days=4)}" in command for command in found), "those days are not part of history"
    for command in found:
        code, _, err = devin_sessions(*command.split())
        assert code != exit_codes.WRONG_USE, (command, err)
