"""While the API is down: what is sent, what waits, how it is reported, and when it ends. Over real HTTP."""

import asyncio
import email.utils
import io
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from pipelines.command import main, probe, screen
from pipelines.command.live_progress import LiveProgress
from pipelines.loading import progress as progress_module
from pipelines.loading.progress import WaitLines
from resources.calls import Calls
from resources.devin_api import DevinClient
from resources.devin_errors import DevinAPIError, SourceDown, Unauthorized, Unavailable
from resources.devin_key import KEY_VARIABLE
from resources.outage import Waiting
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.support.client import END, KEY, NOW, SAFETY_SECONDS, START, api, count, using
from tests.support.examples import examples
from tests.support.http import http, raw
from tests.support.waiting import wait_until
from tests.support.world import World

ORG_IDS = [f"org-{n}" for n in range(40)]


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with Sandbox(api_key=KEY, clock=lambda: NOW) as sandbox:
        yield sandbox


async def ask_all(client: DevinClient) -> list[int | BaseException]:
    """One good request, then many at once."""
    await client.count(START, END)
    many = (client.count(START, END, org_ids=[org_id]) for org_id in ORG_IDS)
    return await asyncio.gather(*many, return_exceptions=True)


def down_until(source: Sandbox, probes: int) -> list[LoggedRequest]:
    """The API is down from the second request on, until this number of known-good requests has failed."""
    struck: list[LoggedRequest] = []

    def is_down(asked: LoggedRequest) -> bool:
        if len(source.requests) == 0 or sum(not a.org_ids for a in struck) == probes:
            return False
        struck.append(asked)
        return True

    source.fail(status=503, when=is_down, times=None)
    return struck


def test_an_outage_is_sat_out_while_one_request_probes(source: Sandbox) -> None:
    struck = down_until(source, probes=6)
    calls = Calls()
    fields = {"max_tries": 2, "backoff_seconds": 0.05, "max_backoff_seconds": 0.05}
    answers = using(api(source.url, patience_seconds=SAFETY_SECONDS, **fields), ask_all, calls)
    assert answers == [0] * len(ORG_IDS)
    assert sum(not asked.org_ids for asked in struck) == 6
    assert len(struck) <= 2 * len(ORG_IDS) + 6, "other requests are only sent until the outage is noticed"
    assert calls.waiting is None, "and the wait is over"


def test_an_outage_before_anything_was_answered_is_sat_out_too(source: Sandbox) -> None:
    source.fail(status=503, times=12)
    calls = Calls()
    asked = api(source.url, patience_seconds=SAFETY_SECONDS, max_tries=1)
    assert count(asked, calls) == source.truth(START, END)
    assert calls.sent == 13


def test_when_patience_runs_out_every_request_ends_with_the_same_failure(source: Sandbox) -> None:
    source.fail(status=503, when=lambda asked: len(source.requests) > 0, times=None)
    fields = {"max_tries": 2, "backoff_seconds": 0.05, "max_backoff_seconds": 0.05}
    answers = using(api(source.url, patience_seconds=0.3, **fields), ask_all)
    assert {type(answer) for answer in answers} == {SourceDown}
    message = str(answers[0])
    assert "organization org-0 from 2025-03-03T00:00:00Z" in message
    assert "the API returned 503 (Service Unavailable), and no request succeeded for" in message
    assert "DEVIN_PATIENCE_SECONDS=0.3. Everything stored before is kept" in message


def test_nothing_more_is_sent_once_the_load_has_stopped(source: Sandbox) -> None:
    source.fail(status=503, times=None)

    async def ask(client: DevinClient) -> None:
        for _ in range(2):
            with pytest.raises(SourceDown):
                await client.count(START, END)

    using(api(source.url), ask)
    assert len(source.requests) == 2


def test_one_failing_request_does_not_stop_the_others(source: Sandbox) -> None:
    source.fail(status=503, org_id="org-7", times=None)
    answers = using(api(source.url, max_tries=3, patience_seconds=SAFETY_SECONDS), ask_all)
    assert isinstance(answers[7], Unavailable)
    assert "after 3 tries" in str(answers[7])
    assert [answer for answer in answers if isinstance(answer, DevinAPIError)] == [answers[7]]


def test_a_key_that_expires_during_an_outage_ends_the_load(source: Sandbox) -> None:
    def is_down(asked: LoggedRequest) -> bool:
        return len(source.requests) > 0 and bool(asked.org_ids)

    source.fail(status=401, when=lambda asked: len(source.requests) > 0 and not asked.org_ids, times=None)
    source.fail(status=503, when=is_down, times=None)
    answers = using(api(source.url, patience_seconds=SAFETY_SECONDS), ask_all)
    assert {type(answer) for answer in answers} == {Unauthorized}


# The pause that the API asks for


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_beyond_patience_ends_the_load_at_once_and_says_when_to_try_again(source: Sandbox, status: int) -> None:
    source.fail(status=status, retry_after="7200", times=None)
    with pytest.raises(SourceDown) as down:
        count(api(source.url, patience_seconds=300))
    assert len(source.requests) == 1
    back = re.search(r"Run the same command again at (.+) UTC, in 2 h 0 min\.$", str(down.value))
    assert back
    left = datetime.fromisoformat(back[1]).replace(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=118) < left < timedelta(minutes=121)


def test_a_pause_beyond_patience_for_one_organization_only_fails_that_one(source: Sandbox) -> None:
    source.fail(retry_after="7200", org_id="org-7", times=None)
    answers = using(api(source.url, patience_seconds=300), ask_all)
    assert isinstance(answers[7], Unavailable)
    assert [answer for answer in answers if isinstance(answer, DevinAPIError)] == [answers[7]]


def test_a_pause_within_patience_is_kept_and_reported(source: Sandbox) -> None:
    source.fail(retry_after="1", times=2)
    calls = Calls()
    waits: list[Waiting] = []
    calls.watchers.append(waits.append)
    count(api(source.url, patience_seconds=SAFETY_SECONDS), calls)
    lengths = [wait.until - wait.since for wait in waits]
    assert all(length > least for length, least in zip(lengths, [0.9, 0.9, 1.9], strict=True))
    assert all("429 (Too Many Requests)" in str(wait) for wait in waits)
    assert calls.waited > 0.9


# In the past or the future, as a machine's clock may be.
moments = st.integers(631_152_000, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


def test_a_retry_after_date_is_compared_with_the_responses_own_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    answers: list[bytes] = []

    with raw(lambda head, send: send(answers[-1])) as server:
        # Each load ends at its first response, so each needs its own client.
        @examples(15)
        @given(moments, st.integers(1, 10**7))
        @example(datetime(1990, 1, 1, tzinfo=UTC), 1)
        def ask(now: datetime, seconds: int) -> None:
            dates = [email.utils.format_datetime(at, usegmt=True) for at in (now, now + timedelta(seconds=seconds))]
            answers.append(http(b"", "503 X", f"Date: {dates[0]}", f"Retry-After: {dates[1]}"))
            with pytest.raises(SourceDown, match=rf"with Retry-After: {seconds}\."):
                count(api(server.url))

        ask()


@pytest.mark.parametrize("seconds", [1, 3600, 10**9, 10**12, 10**30])
def test_any_number_of_seconds_in_retry_after_gives_a_readable_message(source: Sandbox, seconds: int) -> None:
    source.fail(retry_after=str(seconds))
    with pytest.raises(SourceDown) as down:
        count(api(source.url))
    when = r"again (at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, )?in [\d,]+ (h \d+ min|min \d+ s|s)\.$"
    assert re.search(when, str(down.value))


# Retries


@pytest.mark.parametrize(("expected", "fewest", "most"), [(0, 0, 60), (5000, 150, 400)])
def test_the_retry_budget_grows_with_the_size_of_the_load(
    source: Sandbox, expected: int, fewest: int, most: int
) -> None:
    source.fail(status=503, when=lambda asked: bool(asked.org_ids), times=None)
    calls = Calls(expected=expected)

    async def ask(client: DevinClient) -> None:
        await client.count(START, END)
        for org_id in ORG_IDS[:10]:
            with pytest.raises(Unavailable):
                await client.count(START, END, org_ids=[org_id])

    using(api(source.url, max_tries=20, max_connections=4, patience_seconds=SAFETY_SECONDS), ask, calls)
    assert fewest <= calls.retried <= most


# How it is reported


def a_wait(seconds: float, reason: str = "the API returned 503") -> Waiting:
    at = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    return Waiting(reason, 100.0, 100.0 + seconds, at, at + timedelta(seconds=90))


def test_only_long_waits_are_printed_and_not_one_right_after_the_other() -> None:
    said: list[Waiting] = []
    lines = WaitLines(said.append)
    for seconds in (0.2, 4.9, 5.1, 60.0):
        lines(a_wait(seconds))
    assert said == [a_wait(5.1)]


def test_without_a_progress_bar_the_wait_is_printed_as_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveProgress() as shown:
        shown.calls.record_wait(a_wait(8))
        shown.calls.record_wait(a_wait(20))
    assert capsys.readouterr().out == (
        "Waiting since 03:01:53, next try at 03:02:01 UTC: the API returned 503. Without an answer, the load stops at "
        "03:03:31 UTC.\n"
    )


def test_a_narrow_terminal_shows_all_of_a_wait_in_place_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screenful = io.StringIO()
    monkeypatch.setattr(screen, "out", Console(file=screenful, force_terminal=True, width=60, color_system=None))

    def lines() -> list[str]:
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", screenful.getvalue()).splitlines()]

    with LiveProgress() as shown:
        shown.expect(1300)
        shown.calls.record_wait(a_wait(8, "the API returned 503 (Service Unavailable)"))
        wait_until(lambda: lines()[-1].startswith("load stops"), "the wait is shown")
        assert [line.split("\r")[-1] for line in lines()[-3:]] == [
            "Waiting since 03:01:53, next try at 03:02:01 UTC: the API",
            "returned 503 (Service Unavailable). Without an answer, the",
            "load stops at 03:03:31 UTC.",
        ]
    assert "0/1300 organization-days" in lines()[-1], "what is left on the screen in the end is the count"


def test_a_wait_is_in_the_runs_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_WORTH_A_LINE", 0.0)
    world.configure(devin_patience_seconds="60")
    path = "/v2/enterprise/metrics/sessions"
    world.source.fail(status=503, path=path, times=3)
    result = world.load("2025-02-01", "2025-02-01")
    assert result.success, world.failures(result)
    logged = [entry.user_message for entry in world.instance.all_logs(result.run_id)]
    assert any(message.startswith("Waiting since ") for message in logged)


def test_a_load_that_runs_out_of_patience_keeps_what_is_stored_and_has_no_second_pass(world: World) -> None:
    second_block = world.days("2025-02-01", "2025-03-06")[31].start
    down: list[LoggedRequest] = []

    def is_down(asked: LoggedRequest) -> bool:
        if asked.start is not None and asked.start >= second_block:
            down.append(asked)
        return bool(down)

    world.source.fail(status=503, when=is_down, times=None)
    world.configure(devin_fetch="direct")
    result = world.load("2025-02-01", "2025-03-06")
    assert not result.success
    assert "no request succeeded for" in world.failures(result)
    assert "DEVIN_PATIENCE_SECONDS=1" in world.failures(result)
    assert world.materialized_days() <= {f"{day.day}" for day in world.days("2025-02-01", "2025-03-03")}
    logged = [entry.user_message for entry in world.instance.all_logs(result.run_id)]
    assert not any("Retrying incomplete days" in message for message in logged)


def test_probe_does_not_sit_out_an_outage(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.configure(devin_patience_seconds="86400")
    monkeypatch.setattr(probe, "PATIENCE_SECONDS", 0.1)
    world.source.fail(status=503, times=None)
    monkeypatch.setattr(sys, "argv", ["devin-sessions", "probe", "--json"])
    with pytest.raises(SystemExit):
        main.main()
    assert "no request succeeded for" in json.loads(capsys.readouterr().out)[0]["seen"]
