"""Outputs that can't show everything, or take nothing: something readable or a sentence, and the exit code it means."""

import os
import shutil
from pathlib import Path

import pytest

from pipelines.command import exit_codes
from tests.support.command import start, started
from tests.support.forks import Command, make_home
from tests.support.loads import fill
from tests.support.world import World, template_world

NAMES = "select org_name from organizations order by org_id limit 1"


@pytest.fixture(scope="module")
def one_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a world with one loaded day; the name of its first organization is in Japanese."""
    directory = tmp_path_factory.mktemp("one-day")
    with template_world(directory) as world:
        world.configure(devin_start_date="2025-04-01")
        fill(world, "2025-04-01", "2025-04-01")
        with world.database.transaction() as connection:
            connection.exec_driver_sql(
                "update organizations set org_name = '東京' where org_id = (select min(org_id) from organizations)"
            )
        assert world.settings.published_snapshot
        world.database.copy_to(world.settings.published_snapshot)
    make_home(directory / "dagster")
    return directory


@pytest.fixture
def loaded(world: World, one_day: Path) -> World:
    """A world of its own with those files."""
    shutil.copytree(one_day, world.directory, dirs_exist_ok=True)
    world.configure(devin_start_date="2025-04-01")
    return world


def printed(world: World, *arguments: str, encoding: str) -> tuple[int | None, bytes]:
    """Exit code and output of a command whose environment asks for this encoding."""
    output = world.directory / "output"
    ended = Command(arguments, {**os.environ, "PYTHONIOENCODING": encoding}, output).ended()
    return ended.code, output.read_bytes()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_output_cannot_show_is_shown_otherwise(loaded: World, encoding: str) -> None:
    code, shown = printed(loaded, "query", NAMES, encoding=encoding)
    assert code == 0, shown
    assert rb"\u6771\u4eac" in shown
    code, shown = printed(loaded, "status", encoding=encoding)
    assert code == exit_codes.MISSING, shown
    assert b"  2025-04  #....." in shown and b"# loaded and proven (1)  . missing (" in shown
    shown.decode(encoding)


def test_csv_is_exact_whatever_the_outputs_encoding(loaded: World) -> None:
    code, shown = printed(loaded, "query", "--csv", NAMES, encoding="ascii")
    assert (code, shown.decode()) == (0, "org_name\n東京\n")


def test_an_output_that_is_full_is_reported_in_a_sentence(loaded: World) -> None:
    full, sentence = Path("/dev/full"), "The output cannot be written: No space left on device.\n"
    ended = Command(("status",), os.environ, full, loaded.directory / "errors").ended()
    assert (ended.code, ended.errors) == (exit_codes.MISSING, sentence)
    with full.open("w") as output:
        process = start("--help", stdout=output.fileno())
        _, err = process.communicate()
    assert (process.returncode, err) == (exit_codes.MISSING, sentence), "as an interpreter ends that is no fork"


def test_an_encoding_is_that_of_a_process_that_starts_from_nothing(loaded: World) -> None:
    code, out, err = started("query", NAMES, PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert r"\u6771\u4eac" in out
