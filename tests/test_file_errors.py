"""Files that another user owns, that are directories, links to nowhere, or too long: a sentence that names them."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines import env_files
from pipelines.command import exit_codes
from pipelines.command.dagster_home import HomeUnusable, open_instance
from pipelines.env_files import EnvFileRefused
from resources.database import Database
from resources.database_errors import WarehouseError
from resources.file_errors import obstacle
from resources.files import replacing
from tests.support.command import Here, command_here
from tests.support.databases import database_at, numbers, with_numbers
from tests.support.forks import make_missing_home
from tests.support.users import OTHER, as_another_user, open_directory
from tests.support.world import World

LONG = "n" * 300


@pytest.fixture
def here(world: World, capsys: pytest.CaptureFixture[str]) -> Here:
    world.configure(devin_start_date="2025-04-01")
    return command_here(capsys, world.environment)


@pytest.fixture
def shared() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


def as_directory(path: Path) -> None:
    path.mkdir(parents=True)


def as_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def as_link_to_nowhere(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/nowhere/at/all")


def as_link_to_itself(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path)


BACKFILL = ("backfill", "2025-04-01", "2025-04-02")
IN_THE_WAY = [
    ("dagster", as_file, "has to be a directory", "Move that file away, or set DAGSTER_HOME"),
    ("dagster/opening.lock", as_directory, "has to be a file", "Move that directory away, or set DAGSTER_HOME"),
    ("dagster/opening.lock", as_link_to_nowhere, "is a link to /nowhere/at/all", "Remove that link"),
    ("dagster/dagster.yaml", as_directory, "has to be a file", "Move that directory away"),
    ("dagster/history", as_file, "has to be a directory", "Move that file away"),
    ("dagster/alive", as_file, "has to be a directory", "Move that file away"),
    ("dagster/alive.lock", as_directory, "has to be a file", "Move that directory away"),
    ("warehouse.duckdb", as_link_to_nowhere, "is a link to /nowhere/at/all", "Remove that link"),
    ("warehouse.duckdb", as_link_to_itself, "is a link to ", "Remove that link"),
    ("warehouse.duckdb.wal", as_directory, "has to be a file", "Move that directory away"),
    ("published.lock", as_directory, "has to be a file. ", "Move that directory away"),
    ("published", as_file, "has to be a directory. ", "Move that file away"),
    ("published/devin_sessions.duckdb", as_directory, "has to be a file", "Move that directory away"),
]


def test_what_is_in_the_way_is_named_with_the_fix_and_once_it_is_gone_the_same_command_works(
    world: World, here: Here
) -> None:
    home = world.directory / "dagster"
    for name, put, why, fix in IN_THE_WAY:  # each is removed before the next is put there
        path = world.directory / name
        if path.name.startswith("alive") or not path.is_relative_to(home):
            make_missing_home(BACKFILL)
        put(path)
        code, out, err = here(*BACKFILL)
        assert code in (exit_codes.MISSING, exit_codes.WRONG_USE), name
        assert f"{path} {why}" in out + err
        assert fix in out + err
        path.rmdir() if put is as_directory else path.unlink()
        if path.parent == home:
            shutil.rmtree(home)
    assert here(*BACKFILL)[0] == 0
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")


@pytest.mark.parametrize(
    ("name", "put", "command", "why"),
    [
        ("warehouse.duckdb", as_link_to_nowhere, ("status",), "is a link to /nowhere/at/all"),
        ("published", as_link_to_nowhere, ("query", "select 1"), "is a link to /nowhere/at/all"),
        ("published.lock", as_directory, ("restore",), "has to be a file. It is unchanged"),
    ],
)
def test_what_is_in_the_way_of_a_command_that_loads_nothing_is_named(
    world: World, here: Here, name: str, put: Callable[[Path], None], command: tuple[str, ...], why: str
) -> None:
    put(world.directory / name)
    code, out, err = here(*command)
    assert code in (exit_codes.MISSING, exit_codes.WRONG_USE)
    assert f"{world.directory / name} {why}" in out + err


def test_a_path_that_no_disk_can_hold_is_a_sentence_and_reading_needs_no_report(world: World, here: Here) -> None:
    for setting, end, code_of_query in (("devin_report_path", ".html", 0), ("devin_home", "", exit_codes.WRONG_USE)):
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(setting.upper(), f"{world.directory}/{LONG}{end}")
            code, out, err = here("backfill", "2025-04-03", "2025-04-03")
            assert code in (exit_codes.MISSING, exit_codes.WRONG_USE), setting
            assert "File name too long" in out + err
            assert here("query", "select 1")[0] == code_of_query


def test_a_file_of_another_user_is_named_with_its_owner_and_who_you_are(shared: Path) -> None:
    database = with_numbers(database_at(shared / "warehouse.duckdb"))
    whose = f"{database.path} belongs to root, and you are the user with id {OTHER}. Change its owner or permissions"
    for read_only in (False, True):
        with as_another_user(), pytest.raises(WarehouseError) as refused, database.transaction(read_only=read_only):
            pass
        assert f"cannot be opened: Permission denied: {whose}" in str(refused.value)
    database.path.chmod(0o644)
    with as_another_user():
        assert numbers(database) == [1]
        with pytest.raises(WarehouseError, match="belongs to root"), database.transaction():
            pass


def test_a_file_in_a_directory_that_may_not_be_searched_or_written_names_the_directory(shared: Path) -> None:
    database = with_numbers(database_at(shared / "private" / "warehouse.duckdb"))
    above = database.path.parent
    with as_another_user(), pytest.raises(WarehouseError, match=f"Permission denied: {above} belongs to root"):
        database.exists()
    above.chmod(0o755)
    os.chown(database.path, OTHER, OTHER)
    with as_another_user():
        # It can be read and written, but DuckDB needs another file beside it.
        with pytest.raises(WarehouseError, match=f"Permission denied: {above} belongs to root"):
            database.write(lambda connection: connection.exec_driver_sql("insert into numbers values (2)"))
        assert numbers(database) == [1]
        with pytest.raises(PermissionError) as refused, replacing(above / "copy") as file:
            file.write(b"")
        assert obstacle(refused.value, above / "copy").why.startswith(f"Permission denied: {above} belongs to root")


def test_a_file_that_is_yours_is_named_with_its_mode(shared: Path) -> None:
    directory = shared / "mine"
    directory.mkdir(mode=0o500)
    os.chown(directory, OTHER, OTHER)
    with as_another_user():
        with pytest.raises(PermissionError) as refused:
            (directory / "file").touch()
        found = obstacle(refused.value)
    assert found.why == f"Permission denied: {directory} is yours, with mode dr-x------"
    assert found.fix == "Change its permissions"


@pytest.mark.parametrize("name", ["opening.lock", "dagster.yaml", "history/runs.db", "schedules/schedules.db"])
def test_a_file_of_another_user_in_the_record_of_runs_is_named(
    shared: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(shared / "dagster"))
    with open_instance():
        pass
    for directory, _, files in os.walk(shared / "dagster"):
        for file in ("", *files):
            os.chown(Path(directory, file), OTHER, OTHER)
    path = shared / "dagster" / name
    os.chown(path, 0, 0)
    path.chmod(0o600)
    with as_another_user(), pytest.raises(HomeUnusable) as refused, open_instance():
        pass
    assert f"Permission denied: {path} belongs to root, and you are the user with id {OTHER}." in str(refused.value)
    os.chown(path, OTHER, OTHER)
    with as_another_user(), open_instance() as instance:
        assert instance.get_runs() == []


def test_what_another_users_killed_run_left_is_replaced(shared: Path) -> None:
    shared.chmod(0o777)
    (shared / ".page.unfinished").touch(mode=0o600)
    with as_another_user(), replacing(shared / "page") as file:
        file.write(b"new")
    assert (shared / "page").read_bytes() == b"new"


def test_an_env_file_of_another_user_is_named(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVIN_HOME", str(shared))
    (shared / ".env").touch(mode=0o600)
    with as_another_user(), pytest.raises(EnvFileRefused, match=rf"{shared}/\.env belongs to root"):
        env_files.read([])


def test_a_warehouse_that_cannot_be_read_is_not_reported_as_a_snapshot_that_cannot_be_written(tmp_path: Path) -> None:
    database, copy = with_numbers(database_at(tmp_path / "warehouse.duckdb")), tmp_path / "copy.duckdb"
    database.copy_to(copy)

    def vanish(*arguments: Any) -> None:
        if "checkpoint" in arguments:
            database.path.unlink()

    sa.event.listen(sa.Engine, "after_cursor_execute", vanish)
    try:
        with pytest.raises(WarehouseError) as refused:
            database.copy_to(copy)
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", vanish)
    assert str(refused.value) == (
        f"The warehouse {database.path} could not be read: No such file or directory: {database.path}. The last "
        f"published copy, {copy}, is kept. Choose another path and run the same command again."
    )
    assert numbers(Database(url=Database.url_of(copy))) == [1]
