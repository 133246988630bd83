"""What people expect of any command: help at once, its version, completion, and lines that fit the terminal."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pipelines.command import cli, exit_codes
from pipelines.command.screen import wrapped
from pipelines.home import PROJECT
from tests.support.command import Here, command_here, in_this_process
from tests.support.forks import make_missing_home
from tests.support.noon import NOON, ago
from tests.support.terminal import Terminal, shown_on_a_terminal
from tests.support.world import World

COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return command_here(capsys, monkeypatch)


@pytest.fixture
def no_dagster(tmp_path: Path) -> dict[str, str]:
    """Variables with which importing Dagster fails."""
    (tmp_path / "dagster.py").write_text("raise SystemExit('Dagster was imported')\n")
    return {"PYTHONPATH": str(tmp_path)}


def run(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of a command that starts from nothing."""
    command = [sys.executable, "-m", "pipelines", *arguments]
    ended = subprocess.run(command, cwd=PROJECT, env={**os.environ, **variables}, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


def test_help_version_wrong_use_and_completion_do_not_wait_for_dagster(
    world: World, no_dagster: dict[str, str]
) -> None:
    code, shown = run("--help", **no_dagster)
    assert (code, [name for name in COMMANDS if name not in shown]) == (0, [])
    code, shown = run("--version", **no_dagster)
    assert code == 0
    assert re.fullmatch(r"devin-sessions \d+\.\d+\.\d+\n", shown)
    code, shown = run("backfill", "2025-13", **no_dagster)
    assert (code, '"2025-13" is not a day.' in shown) == (exit_codes.WRONG_USE, True)
    code, shown = run("query", "select 1", **no_dagster)
    assert (code, "There is no snapshot" in shown) == (exit_codes.MISSING, True)
    asked = {"COMP_WORDS": "devin-sessions re", "COMP_CWORD": "1"}
    code, shown = run(**no_dagster, **asked, _DEVIN_SESSIONS_COMPLETE="complete_bash")
    assert (code, shown.split()) == (0, ["restore"])


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_at_both_options_and_shows_no_type_for_flags(here: Here, name: str) -> None:
    code, long, err = here(name, "--help")
    assert (code, err) == (0, "")
    assert here(name, "-h") == (0, long, "")
    assert "bool" not in long.lower()


def test_every_error_with_an_exit_code_exists() -> None:
    for name, code in exit_codes.CODES.items():
        module, _, kind = name.rpartition(".")
        error = vars(__import__(module, fromlist=[kind]))[kind]
        assert exit_codes.exit_code_for(error.__new__(error)) == code, name


def test_a_person_sees_at_once_that_dagster_is_starting(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    os.mkfifo(reached)
    (tmp_path / "dagster.py").write_text(f"open({str(reached)!r}).read()\nraise SystemExit(5)\n")
    with closing(Terminal("status", PYTHONPATH=str(tmp_path))) as terminal:
        terminal.shows(r"Starting Dagster\.\.\.$")
        reached.write_bytes(b"")
        assert terminal.wait() == 5
        assert terminal.shown.endswith("\r\x1b[K"), "the line is taken away"
    code, shown = run("status", DEVIN_TIMEZONE="Mars")
    assert (code, "Starting" in shown) == (exit_codes.WRONG_USE, False), "not in a log"


WORDS = st.lists(
    st.one_of(
        st.text("abcü東.,", min_size=1, max_size=12),
        st.sampled_from(["devin-sessions backfill 2025-01-01 2025-01-31 --refresh", "devin-sessions status"]),
    ),
    min_size=1,
    max_size=30,
)


@given(WORDS, st.integers(10, 80))
def test_sentences_break_at_words_and_commands_stay_on_one_line(words: list[str], width: int) -> None:
    sentence = " ".join(words)
    lines = wrapped(sentence, width).split("\n")
    assert " ".join(lines) == sentence, "nothing is lost or added"
    for line in lines:
        assert cell_len(line) <= width or line in words, "only what must stay together is longer"
    ends = set(itertools.accumulate((len(line) + 1 for line in lines), initial=0))
    starts = itertools.accumulate((len(word) + 1 for word in words), initial=0)
    first_words = [word for word, start in zip(words, starts, strict=False) if start in ends]
    for line, following in zip(lines, first_words[1:], strict=False):
        assert cell_len(f"{line} {following}") > width, "no line ends early"


def test_lines_that_are_indented_to_be_copied_never_break() -> None:
    command = "  export DEVIN_HOME=/somewhere WAREHOUSE_URL=duckdb:///warehouse.duckdb"
    assert wrapped(f"In this shell:\n{command}", 20) == f"In this shell:\n{command}"


@pytest.fixture
def narrow(world: World) -> Iterator[World]:
    """A world with days loaded and others missing, for terminals with 60 columns."""
    world.configure(devin_start_date=ago(9), devin_timezone=NOON)
    yield world


def test_everything_fits_a_terminal_of_60_columns(narrow: World) -> None:
    for arguments, shown in (
        (["backfill", "-4d", "--dry-run"], "Requests: at least"),
        (["backfill", "-4d"], "organization-days"),
        (["status"], "To load:"),
        (["probe"], "Is the key accepted?"),
        (["--help"], "backfill"),
        (["backfill", "2025-99"], "is not a day"),
    ):
        make_missing_home(tuple(arguments))
        lines = shown_on_a_terminal(*arguments, columns=60)
        assert any(shown in line for line in lines), (arguments, lines)
        for line in lines:
            last = line.rpartition("\r")[2]  # a bar is written over itself
            may_be_longer = last.startswith("devin-sessions ") or "/" in last.split(" ")[-1]
            assert cell_len(last) <= 60 or may_be_longer, (arguments, last)


def test_the_last_lines_say_where_the_result_is(world: World, here: Here) -> None:
    world.configure(devin_report_path=str(world.directory / "report.html"))
    code, out, _ = here("backfill", "2025-03-01")
    assert code == 0
    snapshot, report = world.settings.published_snapshot, world.settings.published_report
    assert out.splitlines()[-2:] == [f"Counts, for SQL: {snapshot}", f"Report: {report}"]
    assert snapshot and snapshot.is_file()
    assert report and report.is_file()
    world.source.fail(status=503, times=None, when=lambda asked: asked.start == datetime(2025, 3, 2, tzinfo=UTC))
    world.configure(devin_patience_seconds="1", devin_max_tries="1")
    code, out, _ = here("backfill", "2025-03-02")
    assert (code, "Report: " in out) == (exit_codes.MISSING, False), "nothing is published anew"


def test_a_sandbox_whose_port_is_taken_says_so(world: World, here: Here) -> None:
    port = world.source.url.rpartition(":")[2]
    code, out, err = here("sandbox", "--port", port)
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert err == f"The sandbox cannot listen on port {port}: Address already in use. Choose another with --port.\n"


def test_a_range_in_words_is_loaded(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.configure(devin_start_date=ago(9), devin_timezone=NOON)
    code, shown = in_this_process(capsys, world.environment, "backfill", "-3d", "--dry-run")
    assert (code, f"To load: {ago(3)}…{ago(1)} (3 days)" in shown) == (0, True)
    code, shown = in_this_process(capsys, world.environment, "backfill", "yesterday", "--dry-run")
    assert (code, f"To load: {ago(1)} for" in shown) == (0, True)
    code, shown = in_this_process(capsys, world.environment, "backfill")
    assert (code, "Give the days, such as yesterday" in shown) == (exit_codes.WRONG_USE, True)
