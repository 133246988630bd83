"""The `devin-sessions` command as its users see it: sentences, tables, exit codes."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.command import exit_codes
from tests.support.command import Here, command_here, devin_sessions, in_this_process
from tests.support.loads import fill
from tests.support.noon import NOON, ago
from tests.support.published import files_of, snapshot_of
from tests.support.world import World

IN_TWO_DAYS = f"{(datetime.now(UTC) + timedelta(days=2)).date()}"


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return command_here(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["backfill", "2025-02-30", "2025-03-01"], {}, '"2025-02-30" is not a day. Give a day such as'),
        (["backfill", "2025-03-01", "tomorrow"], {}, '"tomorrow" is not a day'),
        (["backfill", "-7"], {}, '"-7" is not a day'),
        (["backfill", "-0d"], {}, '"-0d" is not a day'),
        (["backfill", "-7m"], {}, '"-7m" is not a day'),
        (["backfill", "2025-03-01", "-7d"], {}, '"-7d" means the last days up to'),
        (["backfill", "2025-03-01", "to", "-7d"], {}, '"-7d" is an argument too many: devin-sessions backfill takes'),
        (["backfill", "--missing", "-7d"], {}, "--missing and -7d contradict each other"),
        (["backfill", "2025-03-02", "2025-03-01"], {}, "The range is reversed"),
        (["backfill", "2024-12-31", "2025-03-01"], {}, "before DEVIN_START_DATE=2025-01-01"),
        (["backfill", "2025-03-01", IN_TWO_DAYS], {}, "is not over yet. The last closed day is"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_API_KEY": ""}, "DEVIN_API_KEY is not set"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_API_VERSION": "v3"}, "DEVIN_API_VERSION='v3' is refused"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_API_KEY": "apk_secret"}, "DEVIN_API_KEY is refused"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_TIMEZONE": "Mars"}, "DEVIN_TIMEZONE='Mars' is refused"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_ORG_IDS": "a b"}, "'a b' is not an organization id"),
        (["backfill", "2025-03-01", "2025-03-01"], {"WAREHOUSE_URL": "duckdb:////tmp"}, "this is a directory"),
    ],
)
def test_wrong_use_is_explained_and_writes_nothing(
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
    assert list(world.directory.iterdir()) == []
    assert world.source.requests == []


@pytest.mark.parametrize("command", [["status"], ["query", "select 1"], ["backfill", "2025-03-01", "--dry-run"]])
def test_a_mistyped_variable_is_reported_once_even_if_another_is_refused(
    world: World, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    world.configure(devin_timezone="Mars", devin_request_per_minute="61")
    code, shown = in_this_process(capsys, world.environment, *command)
    assert code == exit_codes.WRONG_USE
    assert shown.count("DEVIN_REQUEST_PER_MINUTE is set in the environment, but there is no such setting.") == 1
    assert shown.index("Did you mean DEVIN_REQUESTS_PER_MINUTE?") < shown.index("DEVIN_TIMEZONE='Mars' is refused")
    assert "61" not in shown


def test_days_with_other_boundaries_are_refused_before_a_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    fill(world, "2025-04-01", "2025-04-02")
    world.configure(devin_day_start_hour="8")
    code, shown = in_this_process(capsys, world.environment, "backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.WRONG_USE
    assert "Different day boundaries are never mixed" in shown
    assert world.source.requests == []


def test_a_file_that_is_not_duckdb_is_refused_and_left_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for path, commands in (
        (world.directory / "warehouse.duckdb", (["status"], ["backfill", "2025-04-01", "2025-04-05"])),
        (snapshot_of(world), (["query", "select 1"],)),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text("dear diary", encoding="utf-8")
        for command in commands:
            code, shown = in_this_process(capsys, world.environment, *command)
            assert code == exit_codes.WRONG_USE
            assert f"{path} is not a DuckDB file" in shown
        assert path.read_text(encoding="utf-8") == "dear diary"


def test_from_the_first_load_to_sql(each_world: World, here: Here) -> None:
    code, out, err = devin_sessions("backfill", "2025-01-01", "2025-02-02")
    sessions = sum(each_world.truth("2025-01-01", "2025-02-02").values())
    assert code == 0, err
    assert re.search(r"2025-01-31 stored: [\d,]+ of 165 organization-days", out), "lines instead of a bar"
    assert f"33 of 33 days loaded: {sessions:,} sessions; 165 organization-days new, 0 changed, 0 unchanged; " in out
    assert f"; {len(each_world.source.requests)} calls (0 retries)" in out
    assert each_world.cells() == each_world.truth("2025-01-01", "2025-02-02")

    published = [path.stat() for path in files_of(each_world)]
    code, out, err = here("backfill", "2025-01-01", "2025-02-02")
    assert (code, err) == (0, "")
    nothing, place = out.splitlines()
    assert nothing == (
        "Nothing to do: 2025-01-01…2025-02-02 (33 days) already loaded. To read them again, add --refresh."
    )
    assert place.startswith("Counts, for SQL: ")
    assert [path.stat().st_ino for path in files_of(each_world)] == [file.st_ino for file in published]

    org_id = each_world.source.organizations[1].org_id
    each_world.source.add_sessions(org_id, datetime(2025, 1, 5, 12, tzinfo=UTC), count=2)
    code, out, _ = here("backfill", "2025-01-01", "2025-01-10", "--refresh")
    assert code == 0
    assert "10 of 10 days loaded" in out
    assert "0 organization-days new, 1 changed, 49 unchanged" in out

    code, out, _ = here("status", "--json")
    assert code == exit_codes.MISSING, "history since DEVIN_START_DATE is not loaded"
    whole = json.loads(out)
    assert list(whole) == ["organizations", "runs", "schedule", "next_tick", "queued", "backfills", "behind", "to_do"]
    status = whole["organizations"]
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
        "moved",
    ]
    assert (status["first_day"], status["days_loaded"], status["days_reconciled"]) == ("2025-01-01", 33, 33)
    assert (status["counted"], status["sessions_count"]) == (5, sessions + 2)
    assert list(status["days"].values()).count("proven") == 33
    assert [(run["days"], run["outcome"]) for run in whole["runs"]] == [
        ("2025-01-01…2025-01-10", "success"),
        ("2025-01-01…2025-02-02", "success"),
    ]

    each_world.configure(devin_start_date="2025-01-01")
    code, out, _ = here("status")
    assert "33 of" in out
    assert "devin-sessions backfill 2025-02-03" in out

    code, out, _ = here("query", 'select \'a"b\' as "x,y", null as n, true as t, 1.5 as f', "--csv")
    assert (code, list(csv.reader(io.StringIO(out)))) == (0, [["x,y", "n", "t", "f"], ['a"b', "", "true", "1.5"]])
    code, out, _ = here("query", "select org_id, sum(sessions_count) from daily_sessions group by 1")
    assert code == 0
    assert all(o.org_id in out for o in each_world.source.organizations)
    tables = ("daily_sessions", "weekly_sessions", "monthly_sessions", "enterprise_sessions")
    sums = ", ".join(f"(select sum(sessions_count) from {table}) as {table}" for table in tables)
    code, out, _ = here("query", f"select {sums}", "--csv")
    assert code == 0
    assert list(csv.reader(io.StringIO(out)))[1:] == [[str(sessions + 2)] * 4], "a query sees the latest load"


def test_only_what_is_not_loaded_is_requested_even_of_an_organization_that_was_added_to_the_setting(
    world: World, here: Here
) -> None:
    first, second = (o.org_id for o in world.source.organizations[:2])
    world.configure(devin_org_ids=first, devin_fetch="direct")
    fill(world, "2025-04-03", "2025-04-05")
    world.source.requests.clear()
    world.configure(devin_org_ids=f"{first},{second}")
    code, out, err = here("backfill", "2025-04-01", "2025-04-08")
    assert code == 0, err
    assert "8 of 8 days loaded" in out
    assert "13 organization-days new, 0 changed, 0 unchanged" in out, "stored cells are not requested again"
    asked = {
        org_id: {q.start.day for q in world.asked() if q.start and org_id in q.org_ids} for org_id in (first, second)
    }
    assert asked == {first: {1, 2, 6, 7, 8}, second: {*range(1, 9)}}
    truth = world.truth("2025-04-01", "2025-04-08")
    assert world.cells() == {cell: n for cell, n in truth.items() if cell[1] in (first, second)}


def test_missing_days_are_reported_and_stored_ones_are_in_the_rollups(world: World, here: Here) -> None:
    bad = datetime(2025, 4, 3, tzinfo=UTC)
    world.source.fail(status=503, when=lambda asked: asked.start == bad, times=None)
    code, out, err = here("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "4 of 5 days loaded" in out
    assert "2025-04-03" in err
    assert "503" in err
    assert "Run the same command again: devin-sessions backfill 2025-04-01 2025-04-05" in err
    loaded = {day for day, _ in world.cells()}
    assert {row[0] for row in world.rows("select day from enterprise_sessions")} == loaded


def test_a_refused_organization_is_reported_with_exit_code_1_until_its_counts_are_loaded(
    world: World, here: Here
) -> None:
    refused = world.source.organizations[1].org_id
    world.source.fail(status=404, body=b'{"detail": "no such organization"}', org_id=refused, times=None)
    command = ("backfill", "2025-04-01", "2025-04-05")
    code, out, err = here(*command)
    assert code == exit_codes.MISSING
    assert "5 of 5 days loaded" in out, "the others are loaded"
    assert "Check failed" not in out
    assert f"Check failed: The API refused to count 1 organization: {refused} on 2025-04-05" in err
    assert "or remove deleted ones from DEVIN_ORG_IDS." in err
    still_to_load = "Still to load: 2025-04-01…2025-04-05 (5 days). Run the same command again: devin-sessions backfill"
    assert still_to_load in err
    code, out, _ = here("status")
    assert (code, f"Not counted: {refused}" in out) == (exit_codes.MISSING, True)

    world.source.requests.clear()
    code, out, err = here(*command)
    assert code == exit_codes.MISSING
    assert "Nothing to do" not in out
    assert "Still to load: 2025-04-01…2025-04-05 (5 days)" in err
    assert [question.org_ids for question in world.asked()] == [(refused,)], (
        "one request shows that it is still refused"
    )

    world.source.heal()
    code, out, err = here(*command)
    assert (code, err) == (0, "")
    assert "5 of 5 days loaded" in out
    assert world.cells() == world.truth("2025-04-01", "2025-04-05")
    assert "Nothing to do" in here(*command)[1]


def test_days_that_do_not_add_up_are_stored_and_reported_with_exit_code_1_until_they_do(
    world: World, here: Here
) -> None:
    command, week = ("backfill", "2025-04-01", "2025-04-05"), world.days("2025-04-01", "2025-04-05")
    world.source.fail(
        body=b'{"sessions_count": 1}',
        times=None,
        when=lambda a: bool(a.start and a.end and a.end - a.start > timedelta(days=1) and not a.org_ids),
    )
    code, out, err = here(*command)
    assert code == exit_codes.MISSING
    assert "5 of 5 days loaded" in out
    total = sum(world.source.truth(day.start, day.end) for day in week)
    assert (
        f"The API contradicts itself: it counts 1 sessions from 2025-04-01 to 2025-04-05 in one question, but {total}"
        in err
    )
    assert "Loaded, but" not in err, "they are not reported twice"
    assert "Still to load" not in err
    assert world.cells() == world.truth("2025-04-01", "2025-04-05")
    code, out, err = here(*command)
    assert (code, "Nothing to do" in out) == (exit_codes.MISSING, True)
    assert "Loaded, but the API contradicts itself on 2025-04-01…2025-04-05" in err
    world.source.heal()
    code, _, err = here(*err[err.rindex("devin-sessions backfill") :].split()[1:])
    assert (code, err) == (0, "")
    assert here(*command)[0] == 0


def test_a_check_that_only_warns_is_a_note_and_not_an_error(world: World, here: Here) -> None:
    world.source.add_sessions("org-unlisted", datetime(2025, 4, 1, 12, tzinfo=UTC), count=2)
    code, out, err = here("backfill", "2025-04-01", "2025-04-02")
    assert (code, err) == (0, "")
    notes = [line for line in out.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 2
    assert "The API counts sessions that belong to no listed organization on 2025-04-01." in notes[0]
    assert "The latest closed day is not loaded yet: " in notes[1]


def test_checks_are_reported_as_they_are_after_the_last_of_several_runs(world: World, here: Here) -> None:
    days = [ago(n) for n in (5, 4, 3, 2, 1)]
    world.configure(devin_start_date=days[0], devin_timezone=NOON)
    fill(world, days[2], days[2])
    code, out, err = here("backfill", "--missing")
    assert (code, err) == (0, "")
    assert "4 of 4 days loaded" in out
    assert "Note" not in out, "the latest day was not loaded yet when the first run ended"


@pytest.mark.parametrize(
    ("command", "home"),
    [
        (["backfill", "2025-04-01", "2025-04-01"], "relative"),
        (["backfill", "2025-04-01", "2025-04-01"], "file"),
        (["backfill", "2025-04-01", "2025-04-01"], "in a file"),
    ],
    ids=str,
)
def test_a_home_that_dagster_cannot_use_is_refused_in_a_sentence(
    world: World, here: Here, tmp_path: Path, command: list[str], home: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    chosen = {"relative": "data/elsewhere", "file": str(file), "in a file": str(file / "dagster")}[home]
    world.configure(dagster_home=chosen)
    code, _, err = here(*command)
    assert code == exit_codes.WRONG_USE
    (message,) = err.splitlines()
    assert message.startswith(f"DAGSTER_HOME={chosen} ")
    assert ("Dagster needs an absolute path" if home == "relative" else f"{file} has to be a directory.") in message
    assert file.read_text() == "mine"
    assert world.source.requests == []


def test_a_wrong_key_stops_the_load_at_once_and_the_message_names_the_variable_to_set(world: World, here: Here) -> None:
    world.configure(devin_api_key="apk_user_wrong")
    code, _, err = here("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "DEVIN_API_KEY is not accepted" in err
    assert "Run the same command again" not in err, "that alone can't help"
    assert err.splitlines()[-1] == (
        "Still to load: 2025-04-01…2025-04-05 (5 days). Fix what the message above says, then run: devin-sessions "
        "backfill 2025-04-01 2025-04-05"
    )
    assert len(world.source.requests) == 1
    assert not (world.directory / "warehouse.duckdb").exists()


def test_status_works_and_says_so_if_dagster_cannot_use_its_home(world: World, here: Here) -> None:
    fill(world, "2025-04-01", "2025-04-02")
    world.configure(dagster_home="data/elsewhere")
    code, out, err = here("status")
    assert (code, err) == (exit_codes.MISSING, "")
    assert "2 of" in out
    assert "DAGSTER_HOME=data/elsewhere is refused: Dagster needs an absolute path" in out


def test_an_unreachable_api_is_explained(world: World, here: Here) -> None:
    world.source.stop()
    code, out, err = here("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert "0 of 5 days loaded" in out
    assert "the connection failed" in err
    assert "no request succeeded for" in err


def test_a_probe_that_cannot_reach_the_api_fails(world: World, here: Here) -> None:
    world.configure(devin_api_url="http://127.0.0.1:1")
    code, out, _ = here("probe", "--until", "2025-04-03")
    assert (code, "unknown" in out) == (exit_codes.MISSING, True)
    for activity, command in (("probe", ["probe", "--json"]), ("dry run", ["backfill", "2025-04", "--dry-run"])):
        code, out, err = here(*command)
        assert code == exit_codes.MISSING
        assert f"The {activity} ended, since it waits 1 s at most." in out + err
        assert "load stopped" not in out + err
