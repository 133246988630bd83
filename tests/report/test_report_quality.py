"""The report shows what the checks say, its age, and the commands to run."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser

from pipelines.command import exit_codes
from tests.support.browser import chromium_if_needed
from tests.support.command import command_here
from tests.support.loads import fill
from tests.support.noon import NOON, ago
from tests.support.report import UNKNOWN, Look, quality_rows, run_report_alone
from tests.support.world import World
from warehouse import tables


@pytest.fixture
def browser() -> Iterator[Callable[[], Browser]]:
    """A browser that ends with its test: the runs of the others need the event loop."""
    with chromium_if_needed() as found:
        yield found


def test_the_page_shows_the_results_of_the_checks_of_the_same_run(world: World, look: Look) -> None:
    last = date.fromisoformat(ago(1))
    first = last - timedelta(days=1)
    path = world.directory / "page" / "report.html"
    world.configure(devin_start_date=f"{first}", devin_timezone=NOON, devin_report_path=str(path))
    at = datetime(first.year, first.month, first.day, 12, tzinfo=UTC)
    busiest = world.source.organizations[0].org_id
    world.source.add_sessions(busiest, at)
    pages: dict[str, tuple[Path, set[tuple[bool, str, str | None]]]] = {}

    def run(state: str) -> None:
        result = world.run(f"{first}", f"{last}")
        assert result.success, (state, world.failures(result))
        checked = {
            (evaluation.passed, evaluation.severity.value, evaluation.description)
            for evaluation in result.get_asset_check_evaluations()
            if evaluation.check_name != "list_is_whole"
        }
        pages[state] = path.rename(world.directory / f"{state}.html"), checked

    world.source.fail(status=403, org_id=busiest, times=None)
    zero = b'{"sessions_count": 0}'
    (a_day, _) = world.days(f"{first}", f"{last}")
    world.source.fail(
        body=zero, when=lambda q: not q.org_ids and q.start == a_day.start and q.end == a_day.end, times=None
    )
    run("refused and contradicted")
    world.source.heal()
    world.configure(devin_fetch="differenced")
    run("sound")
    stored = dict(world.rows("select how, count(*) from daily_sessions group by how"))
    world.source.add_sessions("org-not-listed", at, count=3)
    run("unattributed")

    for state, (page, checked) in pages.items():
        looked = look(page)
        shown = {
            (mark == "✓ passed", sentence)
            for title, mark, sentence in quality_rows(looked)
            if title not in ("Restatements", "How counts are known", "Age", "List of organizations")
        }
        assert shown == {(passed, sentence) for passed, _, sentence in checked}, state
        lists = [mark for title, mark, _ in quality_rows(looked) if title == "List of organizations"]
        assert lists == ["✓ passed"], state
        severities = {severity for passed, severity, _ in checked if not passed}
        summary = looked.text("#summary")
        if state == "sound":
            assert summary == "✓ Data quality: all 8 checks passed"
            (known,) = [sentence for title, _, sentence in quality_rows(looked) if title == "How counts are known"]
        else:
            assert severities, state
            assert summary.startswith("✗" if "ERROR" in severities else "!"), (state, summary)
            kind = looked.page.locator("#summary").get_attribute("class")
            assert kind == ("bad" if "ERROR" in severities else "warn"), state
    words = {
        "asked": "asked for one by one",
        "derived": "derived from totals",
        "listed": "taken from the list of sessions",
    }
    assert known.startswith(f"Of {sum(stored.values()):,} counts: ")
    assert {how: f"{number:,} {words[how]}" in known for how, number in stored.items()} == dict.fromkeys(stored, True)
    assert len({frozenset(checked) for _, checked in pages.values()}) == len(pages), "each state is another one"


def spoil(connection: sa.Connection, *days: date) -> None:
    """Store for these days what an API that contradicts itself leaves behind."""
    totals = tables.daily_totals.c
    connection.execute(sa.update(tables.daily_totals).where(totals.day.in_(days)).values(unattributed_count=-2))
    claim = {
        "org_id": None,
        "block_sessions_count": 9,
        "stored_sessions_count": 8,
        "read_at": datetime.now(UTC),
        "run_id": "run",
    }
    for day in days:
        of_day = {"day": day, "first_day": day, "last_day": day + timedelta(days=1)}
        connection.execute(sa.insert(tables.contradictions).values(claim | of_day))


AGES = [
    (5, "✓ fresh", ""),
    (35, "✓ fresh", ""),
    (37, "✗ stale", "✗ Stale: the data was last read 37 hours ago."),
    (24 * 20, "✗ stale", "✗ Stale: the data was last read 20 days ago."),
    (-9, "? unknown", "✗ The age of this page is unknown: this device's clock is behind."),
]


def test_the_age_follows_the_readers_clock(five_weeks: Path, look: Look) -> None:
    read_at = datetime(2025, 6, 19, 0, 5, tzinfo=UTC)
    for hours, mark, said in AGES:
        looked = look(five_weeks, clock=read_at + timedelta(hours=hours, minutes=5))
        assert {row[0]: row[1] for row in quality_rows(looked)}["Age"] == mark, hours
        assert looked.text("#summary").startswith(said or "! Data quality"), hours
        looked.page.clock.fast_forward(1000 * 3600 * 48)
        grown = {row[0]: row[1] for row in quality_rows(looked)}["Age"]
        assert grown == "✗ stale", (hours, "a page that stays open grows old")


def test_without_javascript_the_age_is_a_time_without_a_verdict(five_weeks: Path, look: Look) -> None:
    looked = look(five_weeks, java_script_enabled=False)
    rows = {row[0]: row[1:] for row in quality_rows(looked)}
    assert rows["Age"] == [UNKNOWN, "Last read 2025-06-19 00:05 UTC."]
    assert "Last read 2025-06-19 00:05 UTC; this page was written 20" in looked.text("header")
    assert "ago" not in looked.text("header")


def test_every_command_on_the_page_is_accepted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    last = date.fromisoformat(ago(1))
    first = last - timedelta(days=9)
    path = world.directory / "page" / "report.html"
    world.configure(devin_start_date=f"{first}", devin_timezone=NOON, devin_report_path=str(path))
    found: set[str] = set()

    def commands() -> set[str]:
        result = run_report_alone(world)
        assert result.success, world.failures(result)
        text = re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8").partition("<script")[0])
        assert text.count("devin-sessions ")
        words = r"devin-sessions ([a-z]+(?: (?:--[a-z]+|\d{4}-\d\d-\d\d))*)"
        return set(re.findall(words, text))

    def publish() -> None:
        assert world.settings.published_snapshot
        world.database.copy_to(world.settings.published_snapshot)

    found |= commands()
    assert found == {"backfill --missing", f"backfill {last} {last}"}
    before = first - timedelta(days=4)
    at = datetime(first.year, first.month, first.day, 12, tzinfo=UTC)
    world.source.add_sessions("org-not-listed", at, count=3)
    fill(world, f"{before}", f"{first}")
    publish()
    found |= commands()
    with world.database.transaction() as connection:
        spoil(connection, before, first)
    publish()
    found |= commands()
    assert {"probe", f"backfill {first} {first} --refresh"} <= found
    assert not any(f"{before}" in command for command in found), "that day is not part of history"
    world.source.stop()  # each command ends soon, and not for how it is written
    here = command_here(capsys, world.environment)
    for command in {re.sub(r"\d{4}-\d\d-\d\d", "DAY", command): command for command in sorted(found)}.values():
        without_a_run = ["--dry-run"] if command.startswith("backfill ") else []
        code, _, err = here(*command.split(), *without_a_run)
        assert code != exit_codes.WRONG_USE, (command, err)
