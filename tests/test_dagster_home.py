"""Dagster's own files on a full disk, read-only, locked or damaged: a message, and what needs no record still works."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from pipelines.command import exit_codes
from pipelines.command.dagster_home import open_instance
from pipelines.home import PROJECT
from resources.sandbox.server import Sandbox
from tests.support.command import Here, devin_sessions
from tests.support.disks import KB, disk_at
from tests.support.world import World, template_world

RECORD = "Dagster's record of runs in {home} can't be used: "
FILES = ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


@pytest.fixture(scope="module")
def after_one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the files of a warehouse in which one day was loaded, with Dagster's record of that run."""
    directory = tmp_path_factory.mktemp("after-one-run")
    with template_world(directory, organizations=2):
        code, _, err = devin_sessions("backfill", "2025-04-01", "2025-04-01")
    assert code == 0, err
    return directory


@pytest.fixture
def home(world: World, after_one_run: Path) -> Path:
    """The directory of Dagster's record of runs, with one run in it."""
    shutil.copytree(after_one_run, world.directory, symlinks=True, dirs_exist_ok=True)
    return world.directory / "dagster"


def garbage(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"\x80: [garbage" * 1000)


def replaced_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [garbage, replaced_by_directory, truncated])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_reported_and_affects_only_the_record_of_runs(
    world: World, home: Path, here: Here, file: str, damage: Callable[[Path], None]
) -> None:
    damage(home / file)
    code, out, err = here("backfill", "2025-04-02", "2025-04-02")
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert err.startswith(RECORD.format(home=home))
    assert "The warehouse is not affected" in err and f"mv {home} {home}.damaged" in err
    assert err.count("\n") == 1, "one sentence"
    code, out, err = here("status")
    assert (code, err) == (exit_codes.MISSING, "")
    assert RECORD.format(home=home) in out and "days loaded" in out and "Missing: " in out
    assert here("query", "select count(*) as n from daily_sessions", "--csv") == (0, "n\n2\n", "")
    assert world.cells() == world.truth("2025-04-01", "2025-04-01")


def test_a_record_that_was_moved_aside_as_the_message_says_is_begun_again(world: World, home: Path, here: Here) -> None:
    shutil.move(home, f"{home}.damaged")
    code, _, err = here("backfill", "2025-04-02", "2025-04-02")
    assert (code, err) == (0, "")
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")


@pytest.mark.parametrize("text", ["- a list\n", "telemtry:\n  enabled: false\n", "a: [\n", "\x80"])
def test_a_damaged_configuration_is_reported_with_its_path(home: Path, here: Here, text: str) -> None:
    configuration = home / "dagster.yaml"
    configuration.unlink()
    configuration.write_text(text, encoding="latin-1")
    code, out, err = here("backfill", "2025-04-02", "2025-04-02")
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert err.startswith(f"Dagster's configuration {configuration} can't be used: ")
    assert err.count("\n") == 1, "one sentence"
    code, out, _ = here("status")
    assert (code, f"{configuration} can't be used" in out) == (exit_codes.MISSING, True)
    configuration.unlink()
    with open_instance() as instance:
        assert len(instance.get_runs()) == 1, "without it, the project's own configuration is used"


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/dagster.yaml")


def empty(path: Path) -> None:
    path.unlink()
    path.touch()


def linked_by_an_older_release(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.with_suffix(".old").write_text("# Configures this project's Dagster instance. `devin-sessions` links it.\n")
    path.symlink_to(path.with_suffix(".old"))


def written_by_an_older_release(path: Path) -> None:
    path.write_text(path.read_text().splitlines()[0] + "\ntelemetry: {enabled: true}\n")


@pytest.mark.parametrize("before", [dangling, empty, linked_by_an_older_release, written_by_an_older_release])
@pytest.mark.parametrize("name", ["dagster.yaml", "workspace.yaml"])
def test_a_missing_or_older_configuration_is_replaced_by_the_projects_own(
    home: Path, name: str, before: Callable[[Path], None]
) -> None:
    ours = (home / name).read_bytes()
    before(home / name)
    with open_instance() as instance:
        assert not instance.telemetry_enabled
    assert not (home / name).is_symlink()
    assert (home / name).read_bytes() == ours


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_configuration_of_ones_own_is_kept(home: Path, is_linked: bool) -> None:
    configuration, own = home / "dagster.yaml", home / "own.yaml"
    own.write_text("".join(configuration.read_text().splitlines(keepends=True)[1:]) + "concurrency: {}\n")
    configuration.unlink()
    configuration.symlink_to(own) if is_linked else own.rename(configuration)
    text = configuration.read_text()
    with open_instance():
        pass
    assert configuration.read_text() == text
    assert configuration.is_symlink() is is_linked


def test_the_workspace_that_the_ui_uses_is_the_checkouts() -> None:
    ours = (PROJECT / "pipelines" / "command" / "workspace.yaml").read_text()
    assert ours.split("\n", 1)[1] == (PROJECT / "workspace.yaml").read_text()


def test_a_locked_file_is_reported_and_status_works(home: Path, here: Here) -> None:
    with closing(sqlite3.connect(home / FILES[0])) as other:
        other.execute("begin exclusive")
        code, _, err = here("backfill", "2025-04-02", "2025-04-02")
        assert code in (exit_codes.MISSING, exit_codes.WRONG_USE)
        assert "database is locked" in err and "Another process has it locked" in err
        assert "days loaded" in here("status")[1]


def test_a_full_disk_is_reported_and_what_was_stored_is_kept(world: World, home: Path) -> None:
    moved = world.directory / "disk"
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


def test_a_read_only_home_is_reported_and_status_and_query_work(world: World, home: Path, here: Here) -> None:
    moved = world.directory / "disk"
    with disk_at(moved) as disk:
        shutil.copytree(home, moved / "dagster", symlinks=True)
        world.configure(dagster_home=str(moved / "dagster"))
        with disk.read_only():
            code, _, err = here("backfill", "2025-04-02", "2025-04-02")
            assert (code, err.count("\n")) == (exit_codes.WRONG_USE, 1)
            assert "Read-only file system" in err and "Make that file system writable" in err
            assert "days loaded" in here("status")[1]
            assert here("query", "select 1")[0] == 0
            code, _, err = devin_sessions("ui", "--port", "0")
            assert (code, err.startswith("Dagster's record of runs")) == (exit_codes.WRONG_USE, True)
