"""Outputs that can't show everything, or take nothing: something readable or a sentence, and the exit code it means."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command import exit_codes
from pipelines.home import PROJECT
from tests.support.world import World

NAMES = "select org_name from organizations order by org_id limit 1"


@pytest.fixture
def loaded(world: World) -> World:
    """A world with one loaded day; the name of its first organization is in Japanese."""
    world.configure(devin_start_date="2025-04-01", dagster_home=str(world.directory / "dagster"))
    result = world.run("2025-04-01", "2025-04-01")
    assert result.success, world.failures(result)
    with world.database.transaction() as connection:
        connection.exec_driver_sql(
            "update organizations set org_name = '東京' where org_id = (select min(org_id) from organizations)"
        )
    world.database.copy_to(world.directory / "published" / "devin_sessions.duckdb")
    return world


def printed(*arguments: str, encoding: str) -> tuple[int, bytes]:
    """Exit code and output of a command whose environment asks for this encoding."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_output_cannot_show_is_shown_otherwise(loaded: World, encoding: str) -> None:
    code, shown = printed("query", NAMES, encoding=encoding)
    assert code == 0, shown
    assert rb"\u6771\u4eac" in shown
    code, shown = printed("status", encoding=encoding)
    assert code == exit_codes.MISSING, shown
    assert b"  2025-04  #....." in shown and b"# loaded and proven (1)  . missing (" in shown
    shown.decode(encoding)


def test_csv_is_exact_whatever_the_outputs_encoding(loaded: World) -> None:
    code, shown = printed("query", "--csv", NAMES, encoding="ascii")
    assert (code, shown.decode()) == (0, "org_name\n東京\n")


@pytest.mark.parametrize("command", ["status", "--help"])
def test_an_output_that_is_full_is_reported_in_a_sentence(loaded: World, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        started = [sys.executable, "-m", "pipelines", command]
        done = subprocess.run(started, cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == exit_codes.MISSING
    assert done.stderr == "The output cannot be written: No space left on device.\n"
