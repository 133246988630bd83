"""Dagster's own files on a full disk, read-only, locked or damaged: a message, and what needs no record still works."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from pipelines.command import exit_codes
from tests.support.command import devin_sessions
from tests.support.disks import KB, disk_at
from tests.support.world import World

RECORD = "Dagster's record of runs in {home} can't be used: "
FILES = ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"]


@pytest.fixture
def home(world: World) -> Iterator[Path]:
    """The directory of Dagster's record of runs, with one run in it."""
    code, _, err = devin_sessions("backfill", "2025-04-01", "2025-04-01")
    assert code == 0, err
    yield world.folder / "dagster"


def garbage(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"\x80: [garbage" * 1000)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [garbage, directory, truncated])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_reported_and_affects_only_the_record_of_runs(
    world: World, home: Path, file: str, damage: Callable[[Path], None]
) -> None:
    damage(home / file)
    code, out, err = devin_sessions("backfill", "2025-04-02", "2025-04-02")
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert err.startswith(RECORD.format(home=home))
    assert "The warehouse is not affected" in err and f"mv {home} {home}.damaged" in err
    assert err.count("\n") == 1, "one sentence"
    code, out, err = devin_sessions("status")
    assert (code, err) == (exit_codes.MISSING, "")
    assert RECORD.format(home=home) in out and "days loaded" in out and "Missing: " in out
    code, out, err = devin_sessions("query", "select count(*) from daily_sessions", "--csv")
    assert (code, err) == (0, "")
    assert world.cells() == world.truth("2025-04-01", "2025-04-01")

    shutil.move(home, f"{home}.damaged")  # as the message says
    code, _, err = devin_sessions("backfill", "2025-04-02", "2025-04-02")
    assert (code, err) == (0, "")
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")


@pytest.mark.parametrize("text", ["- a list\n", "telemtry:\n  enabled: false\n", "a: [\n", "\x80"])
def test_a_damaged_configuration_is_reported_with_its_path(home: Path, text: str) -> None:
    configuration = home / "dagster.yaml"
    configuration.unlink()
    configuration.write_text(text, encoding="latin-1")
    code, out, err = devin_sessions("backfill", "2025-04-02", "2025-04-02")
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert err.startswith(f"Dagster's configuration {configuration} can't be used: ")
    assert err.count("\n") == 1, "one sentence"
    code, out, _ = devin_sessions("status")
    assert (code, f"{configuration} can't be used" in out) == (exit_codes.MISSING, True)
    configuration.unlink()
    assert devin_sessions("backfill", "2025-04-02", "2025-04-02")[0] == 0


def dangling(configuration: Path) -> None:
    configuration.unlink()
    configuration.symlink_to("/nowhere/dagster.yaml")


def empty(configuration: Path) -> None:
    configuration.unlink()
    configuration.touch()


@pytest.mark.parametrize("damage", [dangling, empty])
def test_an_empty_configuration_is_linked_again(home: Path, damage: Callable[[Path], None]) -> None:
    damage(home / "dagster.yaml")
    code, _, err = devin_sessions("backfill", "2025-04-02", "2025-04-02")
    assert (code, "Telemetry" in err) == (0, False)
    assert (home / "dagster.yaml").resolve(strict=True).name == "dagster.yaml"


def test_a_locked_file_is_reported_and_status_works(world: World, home: Path) -> None:
    with closing(sqlite3.connect(home / FILES[0])) as other:
        other.execute("begin exclusive")
        code, _, err = devin_sessions("backfill", "2025-04-02", "2025-04-02")
        assert code in (exit_codes.MISSING, exit_codes.WRONG_USE)
        assert "database is locked" in err and "Another process has it locked" in err
        assert "days loaded" in devin_sessions("status")[1]


def test_a_full_disk_is_reported_and_what_was_stored_is_kept(world: World, home: Path) -> None:
    moved = world.folder / "disk"
    with disk_at(moved, "size=4m") as disk:
        shutil.copytree(home, moved / "dagster", symlinks=True)
        world.configure(dagster_home=str(moved / "dagster"))
        for room in (0, 48 * KB, 400 * KB, 700 * KB):
            with disk.full(but_for=room):
                code, _, err = devin_sessions("backfill", "2025-04-02", "2025-06-30")
            assert world.cells().items() <= world.truth("2025-04-01", "2025-06-30").items()
            if code:
                assert "The disk is full: free some space." in err
                loaded = {day for day, _ in world.cells()}
                assert ("Still to load: " in err) == (date(2025, 6, 30) not in loaded and code == exit_codes.MISSING)
        code, _, err = devin_sessions("backfill", "2025-04-02", "2025-06-30")
        assert (code, err) == (0, "")
        assert world.cells() == world.truth("2025-04-01", "2025-06-30")


def test_a_read_only_home_is_reported_and_status_and_query_work(world: World, home: Path) -> None:
    moved = world.folder / "disk"
    with disk_at(moved) as disk:
        shutil.copytree(home, moved / "dagster", symlinks=True)
        world.configure(dagster_home=str(moved / "dagster"))
        with disk.read_only():
            code, _, err = devin_sessions("backfill", "2025-04-02", "2025-04-02")
            assert (code, err.count("\n")) == (exit_codes.WRONG_USE, 1)
            assert "Fix the permissions of that directory" in err
            assert "days loaded" in devin_sessions("status")[1]
            assert devin_sessions("query", "select 1")[0] == 0
            code, _, err = devin_sessions("ui", "--port", "0")
            assert (code, err.startswith("Dagster's record of runs")) == (exit_codes.WRONG_USE, True)
