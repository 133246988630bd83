"""A run writes the report whole, after the data that it shows, or says why it cannot."""

import base64
import os
import re
import select
from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from filelock import FileLock, Timeout

from pipelines.assets.activity_report import ACTIVITY_REPORT
from pipelines.command import exit_codes
from pipelines.report import page as report
from tests.support.command import devin_sessions, start
from tests.support.processes import another_process
from tests.support.report import Look, run_report_alone
from tests.support.world import World
from warehouse import tables


def test_a_run_writes_a_page_that_draws_every_chart_without_a_network(loaded: World, look: Look) -> None:
    path = loaded.settings.published_report
    assert path
    looked = look(path)
    assert looked.console == []
    assert looked.requests == [path.as_uri()]
    assert {"trend", "history", "year-2025", "organizations", "organization-1", "weeks", "months"} <= {*looked.charts()}
    assert looked.charts() == looked.page.evaluate("[...document.querySelectorAll('.chart')].map(c => c.id)")
    assert path.stat().st_mode & 0o777 == 0o600
    looked.keep(f"report-1440-{'duckdb' if loaded.database.is_file else 'postgresql'}")


def test_the_numbers_on_the_page_are_those_of_the_warehouse(loaded: World, look: Look) -> None:
    path = loaded.settings.published_report
    assert path
    looked = look(path)
    tiles = [" ".join(tile.split()) for tile in looked.page.locator(".tiles li").all_inner_texts()]
    truth = loaded.truth("2025-01-01", "2025-04-10")

    def total(first: str, last: str) -> int:
        return sum(n for (day, _), n in truth.items() if date.fromisoformat(first) <= day <= date.fromisoformat(last))

    week, before = total("2025-04-04", "2025-04-10"), total("2025-03-28", "2025-04-03")
    assert tiles[0].startswith(f"Sessions on 10 Apr 2025 {total('2025-04-10', '2025-04-10'):,}")
    assert tiles[1] == f"Last 7 days {week:,} {week / before - 1:+.0%} vs previous 7 days"
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
    assert "days after that are not loaded. To load the rest: devin-sessions backfill --missing" in header


def test_dagster_shows_the_trend_and_the_path_of_the_page(world: World) -> None:
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


def test_before_the_first_load_there_is_a_page_but_no_picture(world: World) -> None:
    path = world.folder / "page" / "report.html"
    world.configure(devin_report_path=str(path))
    result = run_report_alone(world)
    assert result.success, world.failures(result)
    (materialization,) = result.asset_materializations_for_node("activity_report")
    assert set(materialization.metadata) >= {"report", "kilobytes"}
    assert "trend" not in materialization.metadata
    assert "No day is loaded yet." in path.read_text(encoding="utf-8")


def test_the_report_follows_the_snapshot_or_on_a_server_the_rollups(each_world: World) -> None:
    each_world.configure(devin_report_path=str(each_world.folder / "report.html"), devin_user_ids="discover")
    graph = each_world.definitions.resolve_asset_graph()
    rollups = {rollup.name for rollup in tables.ROLLUPS} | {"user_daily_sessions"}
    parents = {key.to_user_string() for key in graph.get(ACTIVITY_REPORT).parent_keys}
    assert parents == ({"published_snapshot"} if each_world.database.is_file else rollups)


def test_a_page_is_replaced_whole_and_keeps_its_permissions(world: World) -> None:
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


def test_while_a_page_is_written_no_other_process_can_publish(world: World) -> None:
    path = world.folder / "page" / "report.html"
    path.parent.mkdir()
    unfinished = path.with_name(f".{path.name}.unfinished")
    os.mkfifo(unfinished)  # after a few kilobytes, the writer waits for the reader
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


def test_the_report_reads_the_snapshot_and_does_not_wait_for_the_warehouse(world: World) -> None:
    path = world.folder / "page" / "report.html"
    world.configure(devin_report_path=str(path))
    assert world.run("2025-04-01", "2025-04-02").success
    path.unlink()
    with another_process() as other:
        assert other.open(world.database.path) == "done"
        assert run_report_alone(world).success
    assert path.exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda snapshot: snapshot.write_bytes(b"no database" * 99), "is not a DuckDB"),
        (lambda snapshot: _of_version(snapshot, 1), "was written by an older release"),
        (lambda snapshot: _of_version(snapshot, 99), "later release"),
    ],
    ids=["not a database", "older", "newer"],
)
def test_an_unreadable_snapshot_fails_the_run_with_a_message_and_keeps_the_last_page(
    world: World, spoil: Callable[[Path], object], sentence: str
) -> None:
    path = world.folder / "page" / "report.html"
    world.configure(devin_report_path=str(path))
    assert world.run("2025-04-01", "2025-04-02").success
    before = path.read_bytes()
    assert world.settings.published_snapshot
    spoil(world.settings.published_snapshot)
    result = run_report_alone(world)
    (failed,) = result.get_step_failure_events()
    assert failed.step_failure_data.error and failed.step_failure_data.error.cls_name == dg.Failure.__name__
    assert sentence in world.failures(result)
    assert path.read_bytes() == before


def _of_version(snapshot: Path, version: int) -> None:
    with duckdb.connect(str(snapshot)) as connection:
        connection.execute("update warehouse_version set version = ?", [version])


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


def test_a_page_that_cannot_be_written_fails_the_run_after_everything_is_stored(world: World) -> None:
    path = world.folder / "page" / "report.html"
    path.parent.write_text("a file where the directory should be")
    world.configure(devin_report_path=str(path))
    result = world.run("2025-04-01", "2025-04-02")
    assert not result.success
    assert f"The report {path} could not be written" in world.failures(result)
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")


def test_without_a_report_there_is_neither_an_asset_nor_a_page(world: World) -> None:
    world.configure(devin_report_path="off")
    assert world.run("2025-04-01", "2025-04-01").success
    assert "activity_report" not in {
        key.to_user_string() for key in world.definitions.resolve_asset_graph().get_all_asset_keys()
    }
    assert not list(world.folder.rglob("*.html"))
