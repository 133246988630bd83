"""A run writes the report whole, after the data that it shows, or says why it cannot."""

import base64
import os
import re
import select
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from filelock import FileLock, Timeout
from playwright.sync_api import Browser

from pipelines.asset_keys import ACTIVITY_REPORT
from pipelines.command import exit_codes
from pipelines.report import page as report
from tests.support.browser import chromium_if_needed
from tests.support.command import devin_sessions
from tests.support.forks import Command, make_home
from tests.support.loads import fill
from tests.support.processes import another_process
from tests.support.report import Look, run_report_alone
from tests.support.warehouse import tables_since
from tests.support.world import World, template_world
from warehouse import migrations, tables


@pytest.fixture
def browser() -> Iterator[Callable[[], Browser]]:
    """A browser that ends with its test: the runs of the others need the event loop."""
    with chromium_if_needed() as found:
        yield found


FIRST, LAST = "2025-02-25", "2025-04-10"


def test_a_run_writes_a_page_with_the_warehouses_numbers_and_every_chart(world: World, look: Look) -> None:
    path = world.directory / "published" / "report.html"
    world.configure(devin_start_date=FIRST, devin_report_path=str(path))
    fill(world, FIRST, "2025-04-09")
    result = world.run(LAST, LAST)
    assert result.success, world.failures(result)
    (materialization,) = result.asset_materializations_for_node("activity_report")
    assert materialization.metadata["report"] == dg.MetadataValue.path(str(path))
    trend = re.fullmatch(
        r"!\[Sessions a day\]\(data:image/svg\+xml;base64,(.+)\)", str(materialization.metadata["trend"].value)
    )
    assert trend, "Dagster shows it"
    assert base64.b64decode(trend[1]).count(b"v-") == 45, "with a bar for each day"
    assert materialization.metadata["kilobytes"].value == round(path.stat().st_size / 1000)
    assert path.stat().st_mode & 0o777 == 0o600

    looked = look(path)
    assert looked.console == []
    assert looked.requests == [path.as_uri()], "it needs no network"
    assert {"trend", "year-2025", "organizations", "organization-1", "weeks", "months"} <= {*looked.charts()}
    assert looked.charts() == looked.page.evaluate("[...document.querySelectorAll('.chart')].map(c => c.id)")

    tiles = [" ".join(tile.split()) for tile in looked.page.locator(".tiles li").all_inner_texts()]
    truth = world.truth(FIRST, LAST)

    def total(first: str, last: str) -> int:
        return sum(n for (day, _), n in truth.items() if date.fromisoformat(first) <= day <= date.fromisoformat(last))

    week, before = total("2025-04-04", LAST), total("2025-03-28", "2025-04-03")
    assert tiles[0].startswith(f"Sessions on 10 Apr 2025 {total(LAST, LAST):,}")
    assert tiles[1] == f"Last 7 days {week:,} {week / before - 1:+.0%} vs previous 7 days"
    assert tiles[2].startswith(f"Last 28 days {total('2025-03-14', LAST):,} ")
    looked.page.locator("summary", has_text="Months as a table").click()
    months = [row.split("\t") for row in looked.page.locator("details[open] tbody tr").all_inner_texts()]
    assert [(month[0], month[1], month[3]) for month in months] == [
        ("April 2025", f"{total('2025-04-01', LAST):,}", "10 of 30"),
        ("March 2025", f"{total('2025-03-01', '2025-03-31'):,}", "31 of 31"),
        ("February 2025", f"{total(FIRST, '2025-02-28'):,}", "4 of 28"),
    ]
    header = looked.text("header")
    assert f"{FIRST} to {LAST}: every day is loaded." in header
    assert "days after that are not loaded. To load the rest: devin-sessions backfill --missing" in header


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a run over two days."""
    directory = tmp_path_factory.mktemp("two-days")
    with template_world(directory) as world:
        world.configure(devin_start_date="2025-04-01", devin_report_path=str(page_of(world)))
        assert world.run("2025-04-01", "2025-04-02").success
    return directory


@pytest.fixture
def reported(world: World, two_days: Path) -> World:
    """A world of its own with those files."""
    shutil.copytree(two_days, world.directory, dirs_exist_ok=True)
    world.configure(devin_start_date="2025-04-01", devin_report_path=str(page_of(world)))
    return world


def page_of(world: World) -> Path:
    return world.directory / "page" / "report.html"


def test_before_the_first_load_there_is_a_page_but_no_picture(world: World) -> None:
    path = page_of(world)
    world.configure(devin_report_path=str(path))
    result = run_report_alone(world)
    assert result.success, world.failures(result)
    (materialization,) = result.asset_materializations_for_node("activity_report")
    assert set(materialization.metadata) >= {"report", "kilobytes"}
    assert "trend" not in materialization.metadata
    assert "No day is loaded yet." in path.read_text(encoding="utf-8")


def test_the_report_follows_the_snapshot_or_on_a_server_the_rollups(each_world: World) -> None:
    each_world.configure(devin_report_path=str(each_world.directory / "report.html"), devin_user_ids="discover")
    graph = each_world.definitions.resolve_asset_graph()
    rollups = {rollup.name for rollup in tables.ROLLUPS} | {"user_daily_sessions"}
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey(ACTIVITY_REPORT)).parent_keys}
    assert parents == ({"published_snapshot"} if each_world.database.is_file else rollups)


def test_a_page_is_replaced_whole_and_keeps_its_permissions(reported: World) -> None:
    path = page_of(reported)
    path.chmod(0o644)
    fill(reported, "2025-04-03", "2025-04-03")
    assert reported.settings.published_snapshot
    reported.database.copy_to(reported.settings.published_snapshot)
    with path.open(encoding="utf-8") as old:
        result = run_report_alone(reported)
        assert result.success, reported.failures(result)
        assert "<p>2025-04-01 to 2025-04-02: " in old.read()
    assert "<p>2025-04-01 to 2025-04-03: " in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o644
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_while_a_page_is_written_no_other_process_can_publish(world: World) -> None:
    path = page_of(world)
    path.parent.mkdir()
    unfinished = path.with_name(f".{path.name}.unfinished")
    os.mkfifo(unfinished)  # after a few kilobytes, the writer waits for the reader
    world.configure(devin_report_path=str(path))
    reader = os.open(unfinished, os.O_RDONLY | os.O_NONBLOCK)
    make_home(world.directory / "dagster")
    command = Command(("backfill", "2025-04-01", "2025-04-01"), os.environ, world.directory / "output")
    with os.fdopen(reader, "rb") as page:
        assert select.select([page], [], [], 60)[0], "it is being written"
        with pytest.raises(Timeout):
            FileLock(path.parent.with_suffix(".lock"), timeout=0).acquire()
        os.set_blocking(reader, True)
        assert page.read().startswith(b"<!doctype html>")
    command.ended()


def test_a_page_that_could_not_be_written_is_written_by_the_same_command(world: World) -> None:
    path = page_of(world)
    path.parent.write_text("in the way")
    world.configure(devin_report_path=str(path))
    code, _, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert code == exit_codes.MISSING
    assert f"The report {path} could not be written" in err
    assert world.cells() == world.truth("2025-04-01", "2025-04-02"), "everything else is stored"
    path.parent.unlink()
    world.source.requests.clear()
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert path.exists()
    assert world.source.requests == []
    written = path.stat().st_mtime_ns
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    assert path.stat().st_mtime_ns == written, "it is as new as the counts"


def test_the_report_reads_the_snapshot_and_does_not_wait_for_the_warehouse(reported: World) -> None:
    page_of(reported).unlink()
    with another_process() as other:
        assert other.open(reported.database.path) == "done"
        assert run_report_alone(reported).success
    assert page_of(reported).exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda snapshot: snapshot.write_bytes(b"no database" * 99), "is not a DuckDB"),
        (lambda snapshot: _of_version(snapshot, migrations.VERSION - 1), "was written by an older release"),
        (lambda snapshot: _of_version(snapshot, 99), "later release"),
    ],
    ids=["not a database", "older", "newer"],
)
def test_an_unreadable_snapshot_fails_the_run_with_a_message_and_keeps_the_last_page(
    reported: World, spoil: Callable[[Path], object], sentence: str
) -> None:
    before = page_of(reported).read_bytes()
    assert reported.settings.published_snapshot
    spoil(reported.settings.published_snapshot)
    result = run_report_alone(reported)
    (failed,) = result.get_step_failure_events()
    assert failed.step_failure_data.error and failed.step_failure_data.error.cls_name == dg.Failure.__name__
    assert sentence in reported.failures(result)
    assert page_of(reported).read_bytes() == before


def _of_version(snapshot: Path, version: int) -> None:
    with duckdb.connect(str(snapshot)) as connection:
        connection.execute("update bookkeeping.warehouse_version set version = ?", [version])
        for name in tables_since(version + 1):
            connection.execute(f"drop table {name}")


def test_the_chart_library_is_cached_if_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    script = report.library()
    (kept,) = tmp_path.rglob("*.js")
    assert kept.read_text(encoding="utf-8") == script
    assert "</script" not in script, "it would end the script element"
    kept.write_text("of another run", encoding="utf-8")
    assert report.library() == "of another run"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert report.library() == script


def test_without_a_report_there_is_no_asset(world: World) -> None:
    world.configure(devin_report_path="off")
    assets = {key.to_user_string() for key in world.definitions.resolve_asset_graph().get_all_asset_keys()}
    assert "published_snapshot" in assets
    assert "activity_report" not in assets
