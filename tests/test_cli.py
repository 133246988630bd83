"""The `devin-sessions` command as its users see it: sentences, tables, exit codes."""

import base64
import contextlib
import csv
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import duckdb
import httpx
import pytest
import sqlalchemy as sa

from pipelines.command import cli, exit_codes
from resources.sandbox.asked import Asked
from resources.sandbox.contract import ORGANIZATIONS_PATH, SESSIONS_PATH
from tests.conftest import PostgreSQL, World
from tests.test_database import another_process
from tests.ui import dagster_ui

PROJECT = Path(__file__).resolve().parents[1]
PASSWORD = "5e884898da28"


def start(*arguments: str, cwd: Path = PROJECT, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", *arguments]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=stdout, stderr=subprocess.PIPE)


def devin_sessions(*arguments: str, cwd: Path = PROJECT) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command in a process of its own."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait for a condition, for a minute at most."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.02)  # between two looks, so that what is waited for has the processor


def snapshot_of(world: World) -> Path:
    snapshot = world.settings.published_snapshot
    assert snapshot is not None
    return snapshot


def in_snapshot(world: World, sql: str) -> list[tuple[object, ...]]:
    """What the published snapshot answers."""
    with duckdb.connect(str(snapshot_of(world)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def in_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Exit code and everything shown, for commands that run nothing."""
    monkeypatch.setattr(sys, "argv", ["devin-sessions", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    code = stopped.value.code
    return (code if isinstance(code, int) else 0), shown.out + shown.err


TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["backfill", "2025-02-30", "2025-03-01"], {}, "FIRST=2025-02-30 is not a date"),
        (["backfill", "2025-03-01", "tomorrow"], {}, "LAST=tomorrow is not a date"),
        (["backfill", "2025-03-02", "2025-03-01"], {}, "The range is reversed"),
        (["backfill", "2024-12-31", "2025-03-01"], {}, "before DEVIN_START_DATE=2025-01-01"),
        (["backfill", "2025-03-01", TOMORROW], {}, "is not over yet. The last closed day is"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_API_KEY": ""}, "DEVIN_API_KEY is not set"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_API_VERSION": "v3"}, "DEVIN_API_VERSION='v3' is refused"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_API_KEY": "apk_secret"}, "DEVIN_API_KEY is refused"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_TIMEZONE": "Mars"}, "DEVIN_TIMEZONE='Mars' is refused"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_ORG_IDS": "a b"}, "'a b' is not an organization id"),
        (["backfill", "2025-03-01", "2025-03-01"], {"WAREHOUSE_URL": "duckdb:////tmp"}, "this is a folder"),
    ],
)
def test_wrong_use_gets_a_sentence_and_writes_nothing(
    world: World,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    world.configure(**environment)
    code, shown = in_this_process(capsys, world.environment, *arguments)
    assert code == exit_codes.WRONG_USE
    assert sentence in shown.replace("\n", " ")
    assert "secret" not in shown
    assert list(world.folder.iterdir()) == []
    assert world.source.requests == []


def test_days_of_another_kind_are_refused_before_a_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.run("2025-04-01", "2025-04-02")
    world.source.requests.clear()
    world.configure(devin_day_start_hour="8")
    code, shown = in_this_process(capsys, world.environment, "backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.WRONG_USE
    assert "Two kinds of day are never mixed" in shown
    assert world.source.requests == []


def test_a_file_that_is_not_duckdb_is_refused_and_left_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for path, commands in (
        (world.folder / "warehouse.duckdb", (["status"], ["backfill", "2025-04-01", "2025-04-05"])),
        (snapshot_of(world), (["query", "select 1"],)),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text("dear diary", encoding="utf-8")
        for command in commands:
            code, shown = in_this_process(capsys, world.environment, *command)
            assert code == exit_codes.WRONG_USE
            assert f"{path} is not a DuckDB file" in shown
        assert path.read_text(encoding="utf-8") == "dear diary"


def files_of(world: World) -> list[Path]:
    """What is published: the snapshot and the Parquet files, where the warehouse is a file."""
    return sorted(path for path in (world.folder / "published").rglob("*") if path.is_file())


def test_from_the_first_load_to_sql(each_world: World) -> None:
    code, out, err = devin_sessions("backfill", "2025-01-01", "2025-02-10")
    sessions = sum(each_world.truth("2025-01-01", "2025-02-10").values())
    assert code == 0, err
    assert re.search(r"2025-01-31 stored: [\d,]+ of 205 cells", out), "plain lines where no bar can move"
    assert f"41 of 41 days loaded: {sessions:,} sessions; 205 cells new, 0 changed, 0 unchanged; " in out
    assert f"; {len(each_world.source.requests)} calls (0 retries)" in out
    assert each_world.cells() == each_world.truth("2025-01-01", "2025-02-10")

    published = [path.stat() for path in files_of(each_world)]
    code, out, err = devin_sessions("backfill", "2025-01-01", "2025-02-10")
    assert (code, err) == (0, "")
    assert out == (
        "Nothing to do: 2025-01-01…2025-02-10 (41 days) loaded already. To read them again, add --refresh.\n"
    )
    assert [path.stat().st_ino for path in files_of(each_world)] == [file.st_ino for file in published]

    org_id = each_world.source.organizations[1].org_id
    each_world.source.add_sessions(org_id, datetime(2025, 1, 5, 12, tzinfo=UTC), count=2)
    code, out, _ = devin_sessions("backfill", "2025-01-01", "2025-01-10", "--refresh")
    assert code == 0
    assert "10 of 10 days loaded" in out
    assert "0 cells new, 1 changed, 49 unchanged" in out

    code, out, _ = devin_sessions("status", "--json")
    assert code == exit_codes.MISSING, "history since DEVIN_START_DATE is not loaded"
    told = json.loads(out)
    assert list(told) == ["organizations", "runs", "schedule", "next_tick", "behind", "to_do"]
    status = told["organizations"]
    assert list(status) == [
        "first_day",
        "last_day",
        "days_expected",
        "days_loaded",
        "days_reconciled",
        "counted",
        "sessions_count",
        "last_loaded_at",
        "days",
        "unavailable",
    ]
    assert (status["first_day"], status["days_loaded"], status["days_reconciled"]) == ("2025-01-01", 41, 41)
    assert (status["counted"], status["sessions_count"]) == (5, sessions + 2)
    assert list(status["days"].values()).count("proven") == 41
    assert [(run["days"], run["outcome"]) for run in told["runs"]] == [
        ("2025-01-01…2025-01-10", "success"),
        ("2025-01-01…2025-02-10", "success"),
    ]

    each_world.configure(devin_start_date="2025-01-01")
    code, out, _ = devin_sessions("status")
    assert "41 of" in out
    assert "devin-sessions backfill 2025-02-11" in out

    code, out, _ = devin_sessions("query", 'select \'a"b\' as "x,y", null as n, true as t, 1.5 as f', "--csv")
    assert (code, list(csv.reader(io.StringIO(out)))) == (0, [["x,y", "n", "t", "f"], ['a"b', "", "true", "1.5"]])
    code, out, _ = devin_sessions("query", "select org_id, sum(sessions_count) from daily_sessions group by 1")
    assert code == 0
    assert all(o.org_id in out for o in each_world.source.organizations)
    tables = ("daily_sessions", "weekly_sessions", "monthly_sessions", "enterprise_sessions")
    sums = ", ".join(f"(select sum(sessions_count) from {table}) as {table}" for table in tables)
    code, out, _ = devin_sessions("query", f"select {sums}", "--csv")
    assert code == 0
    assert list(csv.reader(io.StringIO(out)))[1:] == [[str(sessions + 2)] * 4], "what is asked is what was loaded last"


def test_only_days_that_are_not_loaded_are_asked(world: World) -> None:
    world.run("2025-04-03", "2025-04-05")
    world.source.requests.clear()
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-08")
    assert code == 0, err
    assert "5 of 5 days loaded" in out
    assert {q.start.day for q in world.asked() if q.start} == {1, 2, 6, 7, 8}
    assert world.cells() == world.truth("2025-04-01", "2025-04-08")


def test_an_organization_that_is_added_to_the_setting_is_loaded_for_days_that_were_loaded_without_it(
    world: World,
) -> None:
    first, second = (o.org_id for o in world.source.organizations[:2])
    world.configure(devin_org_ids=first)
    world.run("2025-04-01", "2025-04-03")
    world.configure(devin_org_ids=f"{first},{second}")
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-03")
    assert code == 0, err
    assert "3 cells new, 0 changed, 0 unchanged" in out, "what is there is not asked again"
    assert {org_id for _, org_id in world.cells()} == {first, second}


def test_what_is_missing_is_said_and_what_is_stored_is_rolled_up(world: World) -> None:
    bad = datetime(2025, 4, 3, tzinfo=UTC)
    world.source.fail(status=503, when=lambda asked: asked.start == bad, times=None)
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "4 of 5 days loaded" in out
    assert "2025-04-03" in err
    assert "503" in err
    assert "The same again: devin-sessions backfill 2025-04-01 2025-04-05" in err
    loaded = {day for day, _ in world.cells()}
    assert {row[0] for row in world.rows("select day from enterprise_sessions")} == loaded


def test_a_refused_organization_keeps_the_exit_code_at_1_until_its_counts_are_there(world: World) -> None:
    refused = world.source.organizations[1].org_id
    world.source.fail(status=404, body=b'{"detail": "no such organization"}', org_id=refused, times=None)
    command = ("backfill", "2025-04-01", "2025-04-05")
    code, _, err = devin_sessions(*command)
    assert code == exit_codes.MISSING
    assert f"refuses to count 1 of the organizations: {refused} on 2025-04-05" in err
    assert "Still to load: 2025-04-01…2025-04-05 (5 days). The same again: devin-sessions backfill 2025-04-01" in err

    world.source.requests.clear()
    code, out, err = devin_sessions(*command)
    assert code == exit_codes.MISSING
    assert "Nothing to do" not in out
    assert "Still to load: 2025-04-01…2025-04-05 (5 days)" in err
    assert [question.org_ids for question in world.asked()] == [(refused,)], "one question tells that it is so still"

    world.source.heal()
    code, out, err = devin_sessions(*command)
    assert (code, err) == (0, "")
    assert "5 of 5 days loaded" in out
    assert world.cells() == world.truth("2025-04-01", "2025-04-05")
    assert "Nothing to do" in devin_sessions(*command)[1]


def test_days_that_do_not_add_up_are_stored_told_and_exit_1(world: World) -> None:
    week = world.days("2025-04-01", "2025-04-05")
    world.source.fail(
        body=b'{"sessions_count": 1}',
        times=None,
        when=lambda a: bool(a.start and a.end and a.end - a.start > timedelta(days=1) and not a.org_ids),
    )
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "5 of 5 days loaded" in out
    total = sum(world.source.truth(day.start, day.end) for day in week)
    assert (
        f"The API contradicts itself: it counts 1 sessions from 2025-04-01 to 2025-04-05 in one question, but {total}"
        in err
    )
    assert "Still to load" not in err
    assert world.cells() == world.truth("2025-04-01", "2025-04-05")
    world.source.heal()
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05", "--refresh")
    assert (code, err) == (0, "")


def test_an_organization_that_the_source_refuses_is_named_and_the_others_are_loaded(world: World) -> None:
    refused = world.source.organizations[1].org_id
    world.source.fail(status=404, org_id=refused, times=None)
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "5 of 5 days loaded" in out
    assert f"Check failed: The source refuses to count 1 of the organizations: {refused} on 2025-04-05" in err
    assert "DEVIN_ORG_IDS can leave out what is gone for good." in err
    code, out, _ = devin_sessions("status")
    assert code == exit_codes.MISSING
    assert f"Not counted: {refused}" in out


def test_what_is_only_to_be_known_is_a_note_and_no_complaint(world: World) -> None:
    org_id = world.source.organizations[0].org_id
    world.source.add_sessions("org-unlisted", datetime(2025, 4, 1, 12, tzinfo=UTC), count=2)
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert (code, err) == (0, "")
    notes = [line for line in out.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 2
    assert "The source counts sessions of no listed organization on 2025-04-01." in notes[0]
    assert "The latest closed day is not loaded yet: " in notes[1]
    world.source.fail(body=b'{"sessions_count": 99}', when=lambda asked: asked.org_ids == (org_id,), times=None)
    _, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-02", "--refresh")
    assert "Check failed: The organizations add up to more than the source's own total on" in err
    assert "Check failed" not in out


def test_checks_are_told_as_they_are_after_the_last_of_several_runs(world: World) -> None:
    days = [f"{datetime.now(UTC).date() - timedelta(days=n)}" for n in (5, 4, 3, 2, 1)]
    world.configure(devin_start_date=days[0])
    assert devin_sessions("backfill", days[2], days[2])[0] == 0
    code, out, err = devin_sessions("backfill", "--missing")
    assert (code, err) == (0, "")
    assert "4 of 4 days loaded" in out
    assert "Note" not in out, "the latest day was not loaded yet when the first run ended"


@pytest.mark.parametrize(
    ("command", "home"),
    [
        (["backfill", "2025-04-01", "2025-04-01"], "relative"),
        (["backfill", "2025-04-01", "2025-04-01"], "file"),
        (["backfill", "2025-04-01", "2025-04-01"], "in a file"),
        (["ui"], "file"),
    ],
    ids=str,
)
def test_a_home_that_dagster_cannot_have_is_refused_in_a_sentence(
    world: World, tmp_path: Path, command: list[str], home: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    chosen = {"relative": "data/elsewhere", "file": str(file), "in a file": str(file / "dagster")}[home]
    world.configure(dagster_home=chosen)
    code, _, err = devin_sessions(*command)
    assert code == exit_codes.WRONG_USE
    (said,) = err.splitlines()
    assert said.startswith(f"DAGSTER_HOME={chosen} ")
    assert ("Dagster wants a whole path" if home == "relative" else "Name a folder in which you may write") in said
    assert file.read_text() == "mine"
    assert world.source.requests == []


def test_a_wrong_key_stops_at_once_and_says_which_variable_to_set(world: World) -> None:
    world.configure(devin_api_key="apk_user_wrong")
    code, _, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "DEVIN_API_KEY is not accepted" in err
    assert len(world.source.requests) == 1
    assert not (world.folder / "warehouse.duckdb").exists()


def test_status_works_without_a_home_that_dagster_could_have_and_says_so(world: World) -> None:
    assert world.run("2025-04-01", "2025-04-02").success
    world.configure(dagster_home="data/elsewhere")
    code, out, err = devin_sessions("status")
    assert (code, err) == (exit_codes.MISSING, "")
    assert "2 of" in out
    assert "DAGSTER_HOME=data/elsewhere is refused: Dagster wants a whole path" in out


def test_an_unplugged_source_gets_a_sentence(world: World) -> None:
    world.source.stop()
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "0 of 5 days loaded" in out
    assert "the connection failed" in err
    assert "nothing was answered for" in err


class Held:
    """A source that stops answering from a moment on, and tells when it was asked for it."""

    def __init__(self, world: World, since: datetime) -> None:
        self.reached = threading.Event()
        self.since = since
        world.source.fail(delay=600, when=self.is_asked, times=None)

    def is_asked(self, asked: Asked) -> bool:
        held = asked.start is not None and asked.start >= self.since
        if held:
            self.reached.set()
        return held


@pytest.mark.parametrize(
    ("warehouse_url", "how"),
    [("duckdb", signal.SIGKILL), ("duckdb", signal.SIGINT), ("postgresql", signal.SIGKILL)],
    indirect=["warehouse_url"],
)
def test_after_a_kill_the_same_command_goes_on_where_it_was(each_world: World, how: signal.Signals) -> None:
    world = each_world
    third_block = Held(world, datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=62))
    process = start("backfill", "2025-01-01", "2025-04-01")
    assert third_block.reached.wait(60)
    # The third block is asked only after the second is whole, so when a day of the second is stored, both are.
    assert process.stdout is not None
    stored = [next(process.stdout), next(process.stdout)]
    assert "2025-03-03 stored" in stored[1]
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "62 of 91 days loaded" in out
        assert "Interrupted. Still to load: 2025-03-04…2025-04-01" in err
    assert world.cells() == world.truth("2025-01-01", "2025-03-03")

    world.source.heal()
    world.source.requests.clear()
    code, out, err = devin_sessions("backfill", "2025-01-01", "2025-04-01")
    assert code == 0, err
    assert "29 of 29 days loaded" in out
    assert min(q.start for q in world.asked() if q.start) == third_block.since, "what was stored is not asked again"
    assert world.cells() == world.truth("2025-01-01", "2025-04-01")
    assert {row[0] for row in world.rows("select day from enterprise_sessions")} == {d for d, _ in world.cells()}
    with dg.DagsterInstance.get() as instance:
        ended = [run.status for run in instance.get_runs()]
    status = dg.DagsterRunStatus
    expected = status.CANCELED if how is signal.SIGINT else status.FAILURE
    assert ended == [status.SUCCESS, expected], "no run seems to go on for ever"


@contextmanager
def full_pipe() -> Iterator[int]:
    """Where to write into a pipe that takes nothing more: whoever does stands still."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b" " * 4096)
        os.set_blocking(writing, True)
        yield writing
    finally:
        os.close(writing)
        os.close(reading)


def sums(world: World) -> dict[str, int]:
    """The sessions of each table that sums those of daily_sessions, and of its snapshot if there is one."""
    tables = ["daily_sessions", "weekly_sessions", "monthly_sessions", "enterprise_sessions"]
    found = {table: int(world.rows(f"select sum(sessions_count) from {table}")[0][0]) for table in tables}
    if world.settings.published_snapshot:
        for table in tables:
            [(total,)] = in_snapshot(world, f"select sum(sessions_count)::bigint from {table}")
            found[f"published {table}"] = int(str(total))
    return found


def test_rollups_and_a_snapshot_that_a_kill_left_behind_are_built_by_the_same_command(each_world: World) -> None:
    each_world.run("2025-04-01", "2025-04-03")
    before = sums(each_world)
    with full_pipe() as standstill:
        # It stands still when it has stored the days and is about to say so; rollups and snapshot come after that.
        process = start("backfill", "2025-04-01", "2025-04-05", stdout=standstill)
        wait_until(lambda: len(each_world.cells()) == 25, "the days are stored")
        process.kill()
        process.communicate(timeout=60)
    now = sum(each_world.truth("2025-04-01", "2025-04-05").values())
    assert sums(each_world) == before | {"daily_sessions": now}

    each_world.source.requests.clear()
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert sums(each_world) == dict.fromkeys(before, now)
    assert each_world.source.requests == []


def test_after_a_kill_in_the_middle_of_the_snapshot_the_old_one_is_whole_and_the_same_command_makes_the_new(
    world: World,
) -> None:
    world.run("2025-04-01", "2025-04-03")
    before = sums(world)
    process = start("backfill", "2025-04-01", "2025-04-05")
    # A pipe in the place of the unfinished copy: there is something in it when the copying is under way, and it takes
    # less than the whole.
    snapshot = snapshot_of(world)
    unfinished = snapshot.with_name(f".{snapshot.name}.unfinished")
    os.mkfifo(unfinished)
    reading = os.open(unfinished, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([reading], [], [], 60)[0], "the snapshot is copied"
        process.kill()
        process.communicate(timeout=60)
    finally:
        os.close(reading)
    unfinished.unlink()
    unfinished.write_bytes(b"a part")
    now = sum(world.truth("2025-04-01", "2025-04-05").values())
    assert sums(world) == {table: before[table] if table.startswith("published ") else now for table in before}

    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-05")
    assert (code, err) == (0, "")
    assert "Nothing to do" in out
    assert sums(world) == dict.fromkeys(before, now)
    assert not unfinished.exists()


def test_two_backfills_at_once_both_succeed_and_double_nothing(each_world: World) -> None:
    both = [start("backfill", "2025-01-01", "2025-02-15") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "Traceback" not in err
    assert each_world.cells() == each_world.truth("2025-01-01", "2025-02-15")
    assert set(sums(each_world).values()) == {sum(each_world.cells().values())}


# Reading while something is written


def test_a_query_waits_for_nobody_who_has_the_warehouse_open_for_writing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("2025-04-01", "2025-04-02")
    with another_process() as writer:
        assert writer.open(world.database.path) == "done"
        assert writer.do("_ = connection.execute('begin; delete from daily_sessions')") == "done"
        count = ["query", "select count(*) as n from daily_sessions", "--csv"]
        assert in_this_process(capsys, world.environment, *count) == (0, "n\n10\n")


def test_who_reads_the_snapshot_and_a_run_that_replaces_it_never_wait_for_each_other(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("2025-04-01", "2025-04-03")
    count = "connection.execute('select count(*), sum(sessions_count)::bigint from daily_sessions').fetchone()"
    before = sum(world.cells().values())
    with another_process() as reader:
        opened = reader.do(f"connection = duckdb.connect({str(snapshot_of(world))!r}, read_only=True)")
        assert opened == "done"
        assert world.run("2025-04-04", "2025-04-05").success
        assert reader.ask(count) == str((15, before)), "whoever has the old one open keeps it"
    now = sum(world.truth("2025-04-01", "2025-04-05").values())
    total = ["query", "select sum(sessions_count) as n from daily_sessions", "--csv"]
    assert in_this_process(capsys, world.environment, *total) == (0, f"n\n{now}\n")


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_a_query_of_postgresql_waits_for_no_writer(each_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    each_world.run("2025-04-01", "2025-04-02")
    with each_world.database.transaction() as writer:
        writer.exec_driver_sql("delete from daily_sessions")
        count = ["query", "select count(*) as n from daily_sessions", "--csv"]
        assert in_this_process(capsys, each_world.environment, *count) == (0, "n\n10\n")


# What a query may not do


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("selec 1", "syntax error"),
        ("select * from nothing", "nothing"),
        ("delete from daily_sessions", "read-only"),
        ("copy daily_sessions to 'stolen.csv'", "disabled"),
        ("attach 'other.duckdb'", "disabled"),
    ],
)
def test_a_query_can_neither_change_nor_reach_anything_else(
    world: World, capsys: pytest.CaptureFixture[str], sql: str, sentence: str
) -> None:
    world.run("2025-04-01", "2025-04-01")
    code, shown = in_this_process(capsys, world.environment, "query", sql)
    assert code == exit_codes.WRONG_USE
    assert "The database refuses this SQL" in shown
    assert sentence in shown.lower()
    assert len(world.cells()) == 5


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_a_query_of_postgresql_changes_nothing_whatever_it_says(
    each_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    each_world.run("2025-04-01", "2025-04-01")
    for sql, sentence in (
        ("selec 1", "syntax error"),
        ("delete from daily_sessions", "read-only"),
        ("drop table daily_sessions", "read-only"),
        ("commit; delete from daily_sessions", ""),
        ("rollback; delete from daily_sessions", ""),
        ("set transaction read write; delete from daily_sessions", ""),
        ("select 1; commit; delete from daily_sessions", ""),
    ):
        code, shown = in_this_process(capsys, each_world.environment, "query", sql)
        assert len(each_world.cells()) == 5, f"changed by {sql}"
        assert code == exit_codes.WRONG_USE
        assert "The database refuses this SQL" in shown
        assert sentence in shown


def test_a_query_may_hold_any_sign_that_sql_knows(each_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    each_world.run("2025-04-01", "2025-04-01")
    signs = ["query", "select 'a%b:c' like '%b:c' as x, 7 % 4 as y", "--csv"]
    assert in_this_process(capsys, each_world.environment, *signs) == (0, "x,y\ntrue,3\n")


def test_a_query_that_asks_nothing_gets_a_sentence(each_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    each_world.run("2025-04-01", "2025-04-01")
    for nothing in ("", " -- nothing"):
        code, shown = in_this_process(capsys, each_world.environment, "query", nothing)
        assert code == exit_codes.WRONG_USE
        assert shown.strip()


def test_without_a_warehouse_query_and_status_say_so_and_make_none(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = in_this_process(capsys, world.environment, "query", "select 1")
    assert code == exit_codes.MISSING
    assert f"There is no snapshot at {snapshot_of(world)} yet. First load some days: " in shown
    code, shown = in_this_process(capsys, world.environment, "status")
    assert code == exit_codes.MISSING
    assert "0 of" in shown
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_an_empty_database_of_postgresql_stays_empty_whatever_is_asked(
    each_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = in_this_process(capsys, each_world.environment, "query", "select * from daily_sessions")
    assert code == exit_codes.WRONG_USE
    assert 'relation "daily_sessions" does not exist' in shown
    code, shown = in_this_process(capsys, each_world.environment, "status")
    assert code == exit_codes.MISSING
    assert "0 of" in shown
    with each_world.database.transaction(read_only=True) as connection:
        assert sa.inspect(connection).get_table_names() == []


# What is kept secret


@pytest.fixture
def with_password(each_world: World) -> World:
    """The warehouse is reached with a password, which this server does not look at."""
    url = sa.make_url(each_world.settings.warehouse_url).set(password=PASSWORD)
    each_world.configure(warehouse_url=url.render_as_string(hide_password=False))
    return each_world


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_neither_the_key_nor_the_password_is_in_anything_that_is_said_or_kept(
    with_password: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with_password.configure(devin_report_path=str(with_password.folder / "report.html"))
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert code == 0, err
    with_password.source.fail(status=503, path=SESSIONS_PATH, times=None)
    code, more_out, more_err = devin_sessions("backfill", "2025-04-01", "2025-04-03")
    assert code == exit_codes.MISSING
    with dagster_ui({}, subprocess.DEVNULL) as url:
        httpx.get(f"{url}/server_info").raise_for_status()
    for command in (["status"], ["query", "nothing"], ["query", "select 1/0"]):
        out += in_this_process(capsys, with_password.environment, *command)[1]
    said = (out + err + more_out + more_err).encode()
    kept = b"".join(path.read_bytes() for path in with_password.folder.rglob("*") if path.is_file())
    assert b"daily_sessions" in kept
    assert b"Devin sessions" in kept
    for secret in (PASSWORD, with_password.source.api_key):
        for form in written_forms(secret):
            assert form not in said
            assert form not in kept


def written_forms(secret: str) -> set[bytes]:
    """As it is, in a URL, in hexadecimal, and in base64 wherever it begins in a text."""
    plain = secret.encode()
    encoded = {base64.b64encode(b"x" * n + plain)[4 if n else 0 : -4] for n in range(3)}
    return {plain, quote(secret, safe="").encode(), plain.hex().encode(), *encoded}


def copy_of_the_project(folder: Path) -> Path:
    """The code in a folder of its own, so that its data/ and .env are not this checkout's."""
    for name in ("pipelines", "resources", "warehouse"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, folder)
    return folder


def test_the_demo_shows_tables_and_touches_nothing_but_its_own_folder(world: World) -> None:
    project = copy_of_the_project(world.folder / "project")
    (project / ".env").write_text(
        "DEVIN_API_KEY=apk_user_real\nDEVIN_ORG_IDS=org-real\nWAREHOUSE_URL=duckdb:///data/real.duckdb\n"
        "DEVIN_LOG_FORMAT=json\n",
        encoding="utf-8",
    )
    (project / ".env").chmod(0o600)
    for name in (
        "DEVIN_API_KEY",
        "DEVIN_API_URL",
        "DEVIN_ORG_IDS",
        "DEVIN_LOG_FORMAT",
        "WAREHOUSE_URL",
        "DAGSTER_HOME",
    ):
        world.environment.delenv(name)
    code, out, err = devin_sessions("demo", "--days", "35", "--organizations", "3", cwd=project)
    assert (code, err) == (0, "")
    for part in ("35 of 35", "Top organizations", "Last weeks", "demo --ui", "What to try next"):
        assert part in out
    assert sorted(entry.name for entry in (project / "data").iterdir()) == ["demo"]
    with duckdb.connect(str(project / "data/demo/warehouse.duckdb"), read_only=True) as connection:
        days = connection.sql("select count(*), max(day) from daily_totals").fetchone()
    assert days == (35, datetime.now(UTC).date() - timedelta(days=1)) or datetime.now(UTC).hour == 0

    query = next(line.strip() for line in out.splitlines() if "query" in line)
    variable, _, words = query.partition(" ")
    shown = subprocess.run(
        f"{variable} {sys.executable} -m pipelines {words[words.index('query') :]}",
        shell=True,
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "trailing_7_day_count" in shown.stdout


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_the_ui_serves_the_graph_and_runs_the_schedule_and_shows_no_password(with_password: World) -> None:
    question = {
        "query": "query Shown($of: RepositorySelector!) { assetNodes { assetKey { path } } "
        "schedulesOrError(repositorySelector: $of) "
        "{ ... on Schedules { results { name scheduleState { status } } } } "
        "allTopLevelResourceDetailsOrError(repositorySelector: $of) "
        "{ ... on ResourceDetailsList { results { name configuredValues { key value } } } } }",
        "variables": {"of": {"repositoryName": "__repository__", "repositoryLocationName": "devin_session_metrics"}},
    }
    output = with_password.folder / "output"
    with output.open("w") as file, dagster_ui({}, file) as url:
        answer = httpx.post(f"{url}/graphql", json=question, timeout=60).json()["data"]
    said = output.read_text()
    assert "the schedule runs as long as this does" in said
    assert "Warning" not in said
    assert PASSWORD not in json.dumps(answer) + said
    assert len(answer["assetNodes"]) == 5
    (schedule,) = answer["schedulesOrError"]["results"]
    assert schedule == {"name": "daily_refresh_schedule", "scheduleState": {"status": "RUNNING"}}
    resources = {r["name"]: r["configuredValues"] for r in answer["allTopLevelResourceDetailsOrError"]["results"]}
    assert "database" in resources
    assert not any(resources.values()), "no run's config can change them, and the UI shows nothing of them"
    assert (with_password.folder / "dagster" / "dagster.yaml").resolve() == PROJECT / "dagster.yaml"


NAME = "org_name"
NASTY = "\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\x9b31m\u2028\tTab\nLine"


def test_nothing_that_the_source_names_acts_on_the_terminal(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    first = world.source.organizations[0]

    def renamed(asked: Asked, page: Any) -> Any:
        return {
            **page,
            "items": [item | {NAME: NASTY} if item["org_id"] == first.org_id else item for item in page["items"]],
        }

    world.source.fail(rewrite=renamed, path=ORGANIZATIONS_PATH, times=None)
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    names = "select org_name from organizations"
    code, shown = in_this_process(capsys, world.environment, "query", names)
    assert code == 0
    assert r"\x1b]0;owned\x07\x1b[2J\u202eevil\u200b\x9b31m\u2028\tTab\nLine" in shown

    refusal = json.dumps({"detail": NASTY}).encode()
    world.source.fail(status=403, org_id=first.org_id, times=None, body=refusal)
    for command in (("backfill", "2025-04-01", "2025-04-03"), ("status",), ("probe", "--until", "2025-04-03")):
        _, out, err = devin_sessions(*command)
        assert "owned" in out + err
        shown += out + err
    assert [c for c in shown if not c.isprintable() and c != "\n"] == []

    with duckdb.connect(str(snapshot_of(world)), read_only=True) as connection:
        stored = {name for (name,) in connection.execute(names).fetchall()}
    process = start("query", "--csv", names)
    out, _ = process.communicate(timeout=120)
    assert NASTY in stored
    assert NASTY in {name for (name,) in csv.reader(io.StringIO(out, newline=""))}, "a program gets it as it is"


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_for_a_spreadsheet_no_text_is_a_formula_and_numbers_stay_numbers(each_world: World) -> None:
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    dangers = ("=1+1", "+1", "-1", "@sum(1)", "\t=1", "\r=1", 'Zoë, "quoted"', "")
    columns = ", ".join("'" + danger.replace("'", "''") + f"' as c{n}" for n, danger in enumerate(dangers))
    command = [sys.executable, "-m", "pipelines", "query", "--excel", f'select {columns}, -5 as "=n"']
    written = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True, timeout=120).stdout
    assert written.startswith(b"\xef\xbb\xbf")
    header, row = csv.reader(io.StringIO(written.decode("utf-8-sig"), newline=""))
    assert header[-1] == "'=n"
    assert row == [*(f"'{danger}" for danger in dangers[:6]), 'Zoë, "quoted"', "", "-5"]
    code, _, err = devin_sessions("query", "--csv", "--excel", "select 1")
    assert (code, "Choose one" in err) == (exit_codes.WRONG_USE, True)


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_an_answer_without_end_is_fetched_only_as_far_as_it_is_shown(each_world: World) -> None:
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
    table = "range(100000000000)" if each_world.database.is_duckdb else "generate_series(1, 100000000000)"
    # In the list of columns, a series is not computed before it is fetched.
    endless = f"select * from {table}" if each_world.database.is_duckdb else f"select {table}"
    code, out, _ = devin_sessions("query", endless)
    assert code == 0
    assert f"Only the first {cli.MOST_ROWS_SHOWN} rows are shown" in out
    head = f"{sys.executable} -m pipelines query --csv {shlex.quote(endless)} | head -n 3"
    done = subprocess.run(head, shell=True, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""


@pytest.mark.parametrize("power", ["superuser", "pg_execute_server_program", "pg_write_server_files"])
@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_nobody_queries_a_server_with_power_over_its_machine(
    each_world: World, power: str, postgresql: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    assert each_world.run("2025-04-01", "2025-04-02").success
    made = each_world.folder / "made"
    harm = ("query", f"copy (select 1) to program 'touch {made}'")
    code, shown = in_this_process(capsys, each_world.environment, *harm)
    assert (code, "permission denied" in shown) == (exit_codes.WRONG_USE, True)

    postgresql.empower(each_world.settings.warehouse_url, power)
    for command in (harm, ("query", "select 1"), ("query", "--csv", "set role none; select 1")):
        code, shown = in_this_process(capsys, each_world.environment, *command)
        assert code == exit_codes.WRONG_USE
        assert "is refused for queries" in shown
        assert power in shown
        assert "docs/postgresql-roles.sql" in shown
    assert not made.exists()


def test_a_file_with_the_key_that_others_can_read_is_said(world: World) -> None:
    project = copy_of_the_project(world.folder / "project")
    (project / ".env").write_text("DEVIN_LOG_FORMAT=text\n")
    for mode, is_said in ((0o644, True), (0o640, True), (0o600, False)):
        (project / ".env").chmod(mode)
        _, _, err = devin_sessions("status", cwd=project)
        assert (f"chmod 600 {project / '.env'}" in err) == is_said


def test_a_probe_that_reaches_nothing_fails(world: World) -> None:
    world.configure(devin_api_url="http://127.0.0.1:1")
    code, out, _ = devin_sessions("probe", "--until", "2025-04-03")
    assert (code, "unknown" in out) == (exit_codes.MISSING, True)


def test_days_that_are_contradicted_are_not_well_because_they_are_loaded(world: World) -> None:
    zero = b'{"sessions_count": 0}'
    world.source.fail(body=zero, when=lambda asked: not asked.org_ids, path=SESSIONS_PATH, times=None)
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == exit_codes.MISSING
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert (code, "Nothing to do" in out) == (exit_codes.MISSING, True)
    assert "Contradicted by the source itself: 2025-04-01…2025-04-02" in err
    world.source.heal()
    command = err[err.rindex("devin-sessions backfill") :].split()[1:]
    assert devin_sessions(*command)[0] == 0
    assert devin_sessions("backfill", "2025-04-01", "2025-04-02")[0] == 0
