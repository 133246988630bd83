"""The numbers of a run in Dagster, in the closing lines and in JSON. The sandbox's own log is the oracle."""

import json
import os
import pty
import select
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from pipelines.command import exit_codes
from pipelines.command.screen import say, set_output
from pipelines.loading.answers import Cells
from pipelines.loading.load_metrics import LoadMetrics
from pipelines.loading.progress import Progress
from pipelines.names import JOB
from resources.calls import Calls
from tests.support.command import command_here, devin_sessions, in_this_process
from tests.support.forks import Command, make_home
from tests.support.held import Held
from tests.support.numbers import ASSET, in_dagster, lines_of, objects_in
from tests.support.waiting import wait_until
from tests.support.world import World
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Changes

FIRST, LAST = "2025-04-01", "2025-04-10"


def statuses(world: World) -> Counter[str]:
    """The API's response statuses to the questions for counts."""
    return Counter(str(asked.status) for asked in world.asked())


# In Dagster


@pytest.mark.parametrize("fetch", ["direct", "differenced"])
def test_a_load_records_its_numbers_on_the_asset_in_one_event_and_those_of_its_days_add_up_to_them(
    world: World, fetch: str
) -> None:
    world.configure(devin_fetch=fetch)
    assert world.load(FIRST, LAST).success
    (numbers,) = in_dagster(world)
    truth = world.truth(FIRST, LAST)
    assert numbers["days"] == 10
    assert numbers["sessions"] == sum(truth.values())
    assert numbers["unattributed"] == 0
    assert numbers["calls"] == len(world.asked()), "without those for the list of organizations"
    assert numbers["calls_by_outcome"] == statuses(world) == {"200": numbers["calls"]}
    assert numbers["retries"] == 0
    assert numbers["cells"] == len(truth) == 50
    assert (numbers["rows_inserted"], numbers["rows_changed"], numbers["rows_unchanged"]) == (50, 0, 0)
    assert 0 < numbers["latency_median_ms"] <= numbers["latency_p95_ms"] <= numbers["latency_p99_ms"]
    assert numbers["latency_p99_ms"] / 1000 < numbers["seconds"]
    assert numbers["waited_seconds"] < 0.05, "there is no rate limit"

    kinds = dict.fromkeys(("asked", "derived", "proven_zero"), 0)
    for is_derived, count in world.rows("select is_derived, sessions_count from daily_sessions"):
        kinds["asked" if not is_derived else "derived" if count else "proven_zero"] += 1
    assert {kind: numbers[f"cells_{kind}"] for kind in kinds} == kinds
    assert sum(kinds.values()) == numbers["cells"]
    assert all(kinds.values()) if fetch == "differenced" else kinds["asked"] == 50

    days: list[dict[str, Any]] = [
        {name: value.value for name, value in record.asset_materialization.metadata.items()}
        for record in world.instance.fetch_materializations(ASSET, limit=100).records
        if record.asset_materialization
    ]
    assert len(days) == 10
    for name in ("cells_asked", "cells_derived", "cells_proven_zero", "cells_listed", "rows_inserted"):
        assert sum(day[name] for day in days) == numbers[name]
    assert sum(day["sessions_count"] for day in days) == numbers["sessions"]


def test_the_numbers_are_those_of_the_load_without_earlier_loads_of_the_process(world: World) -> None:
    world.configure(devin_fetch="differenced")
    job = world.definitions.resolve_job_def(JOB)  # one progress for both runs, as in one process
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    org_id = world.source.organizations[0].org_id
    rows: list[tuple[int, int, int]] = []
    asked, seconds = 0, 0.0
    for added in (0, 3):
        world.source.requests.clear()
        world.source.add_sessions(org_id, datetime(2025, 4, 2, 12, tzinfo=UTC), count=added)
        assert job.execute_in_process(
            instance=world.instance,
            asset_selection=[dg.AssetKey(ORGANIZATIONS.listed.name), ASSET],
            tags={f"dagster/asset_partition_range_{end}": f"2025-04-0{n}" for end, n in (("start", 1), ("end", 3))},
            run_config=quiet,
        ).success
        numbers = in_dagster(world)[0]
        asked += len(world.asked())
        seconds += numbers["seconds"]
        assert (numbers["days"], numbers["cells"]) == (3, 15)
        assert numbers["cells_proven_zero"] > 0
        assert numbers["calls"] == sum(numbers["calls_by_outcome"].values()) == len(world.asked())
        assert numbers["sessions"] == sum(world.truth("2025-04-01", "2025-04-03").values())
        rows.append((numbers["rows_inserted"], numbers["rows_changed"], numbers["rows_unchanged"]))
    assert rows == [(15, 0, 0), (0, 1, 14)]
    assert world.progress.calls.sent > asked, "the requests for lists of organizations come on top"
    assert seconds < world.progress.seconds


def record_load(progress: Progress, days: int) -> None:
    """Record a load of this many days in which everything happens; every number is different."""
    stored = LoadMetrics(
        days=1, sessions=50, unattributed=3, cells=Cells(12, 6, 2), changes=Changes(inserted=7, changed=2, unchanged=11)
    )
    result = progress.begin()
    for n in range(days):
        result.record(date(2025, 4, 1) + timedelta(days=n), stored)
    progress.calls.sent += 17 * days
    progress.calls.retried += 4 * days
    progress.calls.outcomes.update({"200": 13 * days, "503": 4 * days})
    progress.calls.record_hold(100.0 / days, 100.0 / days + 1.5)
    progress.calls.latencies.extend(n / 1000 for n in range(days, 101))


def test_the_difference_of_two_numbers_is_what_happened_in_between() -> None:
    both, alone = Progress(), Progress()
    record_load(both, 3)
    before = both.metrics
    record_load(both, 1)
    record_load(alone, 1)
    between = (both.metrics - before).as_fields()
    assert between | {"seconds": 0} == alone.metrics.as_fields() | {"seconds": 0}


def test_the_numbers_are_shown_with_their_units() -> None:
    progress = Progress()
    record_load(progress, 1)
    numbers = progress.metrics
    fields = numbers.as_fields()
    assert [fields[f"latency_{name}_ms"] for name in ("median", "p95", "p99")] == [50, 95, 99]
    assert fields["retries"] == 4
    assert numbers.sentences("organization-days") == [
        "Calls by outcome: 200 (13), 503 (4); answered in 50 ms (median), 95 ms (p95), 99 ms (p99); "
        "1.5 s waited for the API.",
        "Organization-days: 12 asked, 6 derived, 2 proven zero; 3 sessions unattributed.",
    ]


def test_without_any_response_no_latency_is_shown() -> None:
    numbers = LoadMetrics(calls=2, outcomes=Counter({"connection failed": 2}), waited_seconds=1.5)
    assert numbers.sentences("user-days")[0] == "Calls by outcome: connection failed (2); 1.5 s waited for the API."
    assert not [name for name in numbers.as_fields() if name.startswith("latency")]


def test_failed_requests_retries_and_unattributed_sessions_are_in_the_numbers(world: World) -> None:
    world.configure(devin_max_tries="4", devin_fetch="direct")
    bad = datetime(2025, 4, 2, tzinfo=UTC)
    world.source.add_sessions("org-hidden", bad + timedelta(hours=1), count=4)
    world.source.fail(status=503, when=lambda asked: asked.start == bad)
    world.source.fail(retry_after="0", when=lambda asked: asked.start == bad, times=2)
    result = world.load("2025-04-01", "2025-04-03")
    assert result.success, world.failures(result)
    (numbers,) = in_dagster(world)
    answered = statuses(world)["200"]
    assert numbers["calls_by_outcome"] == statuses(world) == {"200": answered, "429": 2, "503": 1}
    # If nothing else is answered meanwhile, repeating a question that was answered before tells what is at fault.
    assert numbers["retries"] == 3 + answered - 19 <= 3 + 2
    assert numbers["unattributed"] == 4


def test_time_waited_on_a_rate_limit_counts_once_for_all_waiting_requests(world: World) -> None:
    world.configure(devin_requests_per_minute="1200", devin_fetch="direct")
    assert world.load("2025-04-01", "2025-04-03").success
    (numbers,) = in_dagster(world)
    # 18 questions at 20 per second: each but the first is sent a twentieth of a second after the one before it.
    assert 17 / 20 * 0.9 < numbers["waited_seconds"] <= numbers["seconds"]


def test_waits_that_overlap_count_once() -> None:
    calls = Calls()
    for since, until in ((0.0, 0.0), (10.0, 12.0), (10.5, 13.0), (11.0, 13.5), (20.0, 20.0), (30.0, 31.0)):
        calls.record_hold(since, until)
    assert calls.waited == pytest.approx(3.5 + 1)


def test_a_load_that_fails_records_its_numbers_too(world: World) -> None:
    bad = datetime(2025, 4, 3, tzinfo=UTC)
    world.source.fail(status=503, when=lambda asked: asked.start == bad, times=None)
    assert not world.load("2025-04-01", "2025-04-05").success
    (numbers,) = in_dagster(world)
    assert numbers["days"] == 4
    assert numbers["cells"] == 20 == numbers["rows_inserted"]
    assert numbers["calls_by_outcome"] == statuses(world)
    assert numbers["calls_by_outcome"]["503"] > 0


def test_calls_by_outcome_add_up_to_all_calls_even_if_the_key_expires(world: World) -> None:
    world.configure(devin_org_ids=",".join(o.org_id for o in world.source.organizations))
    world.source.fail(status=401, when=lambda a: bool(a.start and a.start.day > 3), times=None)
    assert not world.load("2025-04-01", "2025-04-10").success
    (numbers,) = in_dagster(world)
    assert sum(numbers["calls_by_outcome"].values()) == numbers["calls"]
    assert numbers["calls_by_outcome"]["401"] >= 1


def test_endless_responses_and_failed_connections_are_outcomes_too(world: World) -> None:
    world.source.fail(endless=True, when=lambda a: a.start == datetime(2025, 4, 1, tzinfo=UTC), times=1)
    world.source.fail(drop=True, when=lambda a: a.start == datetime(2025, 4, 2, tzinfo=UTC), times=1)
    assert world.load("2025-04-01", "2025-04-03").success, "failed days are retried"
    (numbers,) = in_dagster(world)
    assert numbers["calls_by_outcome"]["answer too long"] == 1
    assert numbers["calls_by_outcome"]["connection failed"] == 1
    assert sum(numbers["calls_by_outcome"].values()) == numbers["calls"] == len(world.asked())


# In words


def test_the_closing_lines_show_the_numbers(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.configure(devin_max_tries="3")
    world.source.fail(status=503, when=lambda asked: asked.start is not None, times=2)
    code, out, err = command_here(capsys, world.environment)("backfill", FIRST, LAST)
    assert code == 0, err
    *_, closing, calls, cells, note, _place = out.splitlines()
    assert note.startswith("Note: ")
    sent = len(world.source.requests)
    assert f"{sent} calls (2 retries)" in closing
    assert calls.startswith(f"Calls by outcome: 200 ({sent - 2}), 503 (2); answered in ")
    assert all(part in calls for part in (" ms (median)", " ms (p95)", " ms (p99)", " s waited for the API."))
    known = Counter(dict(world.rows("select how, count(*) from daily_sessions group by 1")))
    assert cells == (
        f"Organization-days: {known['asked']} asked, 0 derived, 0 proven zero, {known['listed']} listed and proven; "
        "0 sessions unattributed."
    )


# In JSON


@pytest.fixture
def in_json(world: World) -> Iterator[World]:
    world.configure(devin_log_format="json")
    yield world
    set_output(json_lines=False)


def test_in_json_each_line_is_an_object_and_the_last_about_the_load_has_the_numbers(
    in_json: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = lines_of("backfill", FIRST, LAST)
    assert (code, err) == (0, [])
    progress, loaded, note, published = out
    assert (published["event"], published["counts"]) == ("published", str(in_json.settings.published_snapshot))
    assert note["event"] == "check_warned"
    assert note["message"].startswith("Note: The latest closed day is not loaded yet: "), "later days are closed too"
    assert (progress["event"], progress["last_day"]) == ("progress", LAST)
    assert progress["cells"] == progress["cells_expected"] == 50
    assert loaded["event"] == "loaded"
    assert loaded["message"].startswith("10 of 10 days loaded: ")
    assert (loaded["counted"], loaded["days"], loaded["days_wanted"]) == ("organizations", 10, 10)
    assert loaded["calls"] == len(in_json.source.requests)
    assert loaded["calls_by_outcome"] == {"200": loaded["calls"]}
    assert loaded["sessions"] == sum(in_json.truth(FIRST, LAST).values())
    assert loaded["cells_asked"] + loaded["cells_listed"] == loaded["cells"] == 50
    assert loaded["rows_inserted"] == 50
    names = {"retries", "waited_seconds", "latency_median_ms", "latency_p95_ms", "latency_p99_ms", "unattributed"}
    assert names < loaded.keys()

    code, shown = in_this_process(capsys, in_json.environment, "backfill", FIRST, LAST)
    assert (code, [line["event"] for line in objects_in(shown, "info")]) == (0, ["nothing_to_do", "published"])


def test_in_json_each_line_is_written_at_once(in_json: World) -> None:
    file = in_json.directory / "out"
    set_output(json_lines=True)
    with file.open("w", encoding="utf-8") as buffered, in_json.environment.context() as environment:
        environment.setattr(sys, "stderr", buffered)
        say("A block is stored.", "progress")
        (line,) = objects_in(file.read_text(encoding="utf-8"), "info")
    assert (line["event"], line["message"]) == ("progress", "A block is stored.")


def test_in_json_an_interrupt_cuts_no_line(in_json: World) -> None:
    second_block = Held(in_json, datetime(2025, 5, 2, tzinfo=UTC))
    make_home(in_json.directory / "dagster")
    out, err = in_json.directory / "out", in_json.directory / "err"
    command = Command(("backfill", FIRST, "2025-05-02"), os.environ, out, err)
    assert second_block.reached.wait(60)
    wait_until(err.read_text, "a line is written while the API does not respond")
    assert command.send(signal.SIGINT)
    ended = command.ended()
    progress, loaded = objects_in(ended.errors, "info")
    assert (progress["event"], progress["last_day"]) == ("progress", "2025-05-01")
    assert (ended.code, loaded["event"], loaded["days"]) == (130, "loaded", 31)
    assert loaded["calls_by_outcome"]["given up"] > 0
    assert sum(loaded["calls_by_outcome"].values()) == loaded["calls"]
    assert objects_in(ended.errors, "error")[-1]["is_interrupted"] is True


def test_in_json_there_is_no_bar_on_a_terminal_either(in_json: World) -> None:
    make_home(in_json.directory / "dagster")
    terminal, its_other_end = pty.openpty()
    arguments = ("backfill", "2025-04-01", "2025-04-02")
    command = Command(arguments, os.environ, in_json.directory / "out", Path(os.ttyname(its_other_end)))
    shown = b""
    while command.is_running(0.05) or select.select([terminal], [], [], 0)[0]:
        if select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 4096)
    os.close(terminal)
    os.close(its_other_end)
    assert [line["event"] for line in objects_in(shown.decode(), "info")] == [
        "progress",
        "loaded",
        "check_warned",
        "published",
    ]


def test_in_json_missing_days_are_fields_and_the_key_is_in_no_line_even_if_the_api_echoes_it(in_json: World) -> None:
    bad, key = datetime(2025, 4, 3, tzinfo=UTC), in_json.source.api_key
    echo = f"you sent Authorization: Bearer {key}".encode()
    in_json.source.fail(status=503, body=echo, when=lambda asked: asked.start == bad, times=None)
    code, out, err = lines_of("backfill", "2025-04-01", "2025-04-05")
    assert code == exit_codes.MISSING
    assert next(line for line in out if line["event"] == "loaded")["days"] == 4
    assert [line["event"] for line in err][-2:] == ["not_loaded", "days_missing"]
    assert "503" in err[-2]["message"]
    assert "you sent Authorization" in err[-2]["message"]
    assert key not in str(out) + str(err)
    assert err[-1]["days"] == ["2025-04-03"]
    assert err[-1]["is_interrupted"] is False


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["backfill", "2025-02-30", "2025-03-01"], {}, '"2025-02-30" is not a day'),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_API_KEY": "apk_secret"}, "DEVIN_API_KEY is refused"),
        (["backfill", "2025-03-01", "2025-03-01"], {"DEVIN_TIMEZONE": "Mars"}, "DEVIN_TIMEZONE='Mars' is refused"),
        (["backfill", "--fast"], {}, "--fast"),
        (["bakfill"], {}, "bakfill"),
        (["query", "-o", "rows", "select 1"], {}, "says no format"),
        (["query", "select 1"], {}, "There is no snapshot"),
    ],
)
def test_in_json_a_refusal_is_an_object_too(
    in_json: World,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    in_json.configure(**environment)
    code, shown = in_this_process(capsys, in_json.environment, *arguments)
    assert code in (exit_codes.WRONG_USE, exit_codes.MISSING)
    (refused,) = objects_in(shown, "error")
    assert (refused["event"], refused["exit_code"]) == ("refused", code)
    assert sentence in refused["message"]
    assert "secret" not in str(refused)


def test_an_env_file_can_ask_for_json_too(in_json: World, capsys: pytest.CaptureFixture[str]) -> None:
    file = in_json.directory / ".env"
    file.write_text("DEVIN_LOG_FORMAT=json\nDEVIN_TIMEZONE=Mars\n", encoding="utf-8")
    file.chmod(0o600)
    in_json.environment.chdir(file.parent)
    for name in ("DEVIN_LOG_FORMAT", "DEVIN_TIMEZONE"):
        in_json.environment.delenv(name)
    code, shown = in_this_process(capsys, in_json.environment, "backfill", "2025-04-01", "2025-04-02")
    (refused,) = objects_in(shown, "error")
    assert (code, refused["exit_code"]) == (exit_codes.WRONG_USE, exit_codes.WRONG_USE)
    assert "DEVIN_TIMEZONE='Mars' is refused" in refused["message"]


def test_in_json_a_warning_of_a_library_is_an_object_too(in_json: World, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        in_this_process(capsys, in_json.environment, "status")
        warnings.warn("this will go", FutureWarning, stacklevel=1)
    (warning,) = objects_in(capsys.readouterr().err, "warning")
    assert (warning["event"], warning["message"]) == ("warning", "FutureWarning: this will go")


def test_in_json_an_unexpected_error_is_an_object_too(in_json: World, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("this installation is broken")

    in_json.environment.setattr("pipelines.command.status.status", fail)
    code, shown = in_this_process(capsys, in_json.environment, "status")
    assert code == exit_codes.MISSING
    (crashed,) = objects_in(shown, "error")
    assert crashed["event"] == "crashed"
    assert crashed["message"] == "RuntimeError: this installation is broken"
    assert crashed["traceback"].startswith("Traceback")


def test_in_json_standard_error_has_an_object_on_each_line_and_standard_output_the_result_alone(
    in_json: World, capsys: pytest.CaptureFixture[str]
) -> None:
    env_file = in_json.directory / ".env"
    env_file.write_text("DEVIN_LOG_FORMAT=json\n", encoding="utf-8")
    env_file.chmod(0o644)
    in_json.environment.chdir(env_file.parent)
    in_json.environment.delenv("DEVIN_LOG_FORMAT")
    in_json.configure(devin_home=str(in_json.directory / "home"))
    snapshot = in_json.settings.published_snapshot
    assert snapshot
    snapshot.parent.mkdir(parents=True)
    duckdb.connect(str(snapshot)).close()
    here = command_here(capsys, in_json.environment)
    for run, has_result, arguments in (
        (here, True, ["--help"]),
        (here, True, ["--version"]),
        (here, True, []),
        (here, True, ["status"]),
        (here, True, ["probe"]),
        (here, True, ["query", "from range(300)"]),
        (here, False, ["query", "select 1", "-o", "rows.csv"]),
        (here, False, ["query", "select error('no')"]),
        (here, False, ["backfill", "--missing", "2025-01-01"]),
        (here, False, ["backfill", "2025-04-01", "--dry-run"]),
        (here, False, ["ui", "--port", "x"]),
        (here, False, ["sandbox", "--port", "70000"]),
        (here, False, ["restore"]),
        (devin_sessions, True, ["demo", "--days", "1", "--organizations", "1"]),
    ):
        _, out, err = run(*arguments)
        assert bool(out) is has_result, arguments
        assert '"event"' not in out, arguments
        assert [json.loads(line)["event"] for line in err.splitlines()][:1] == ["env_file"], arguments


@pytest.mark.parametrize("content", ["DEVIN_LOG_FORMAT=json\nnot a line\n", "DEVIN_LOG_FORMAT=json\n\xff"])
@pytest.mark.parametrize("command", ["--help", "status"])
def test_in_json_a_refused_env_file_is_an_object_too(
    in_json: World, capsys: pytest.CaptureFixture[str], content: str, command: str
) -> None:
    env_file = in_json.directory / ".env"
    env_file.write_bytes(content.encode("latin-1"))
    env_file.chmod(0o600)
    in_json.environment.chdir(env_file.parent)
    if env_file.read_bytes().isascii():
        in_json.environment.delenv("DEVIN_LOG_FORMAT")
    code, out, err = command_here(capsys, in_json.environment)(command)
    assert (code, out) == (exit_codes.WRONG_USE, "")
    (refused,) = objects_in(err, "error")
    assert str(env_file) in refused["message"]


def test_in_json_status_and_probe_print_what_their_option_json_prints(
    in_json: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("status", "probe"):
        _, shown = in_this_process(capsys, in_json.environment, command)
        _, with_option = in_this_process(capsys, in_json.environment, command, "--json")
        assert type(json.loads(shown)) is type(json.loads(with_option))
