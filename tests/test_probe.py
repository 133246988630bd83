"""The probe against an API that behaves well, and against one for each way to misbehave."""

import json
import math
from datetime import date, datetime, timedelta
from typing import Any, Literal

import pytest

from pipelines.command import exit_codes
from pipelines.command.probe import Finding, probe
from pipelines.definitions import devin_api_for
from pipelines.partitions import closed_days, daily_partitions
from resources.calls import Calls
from resources.sandbox.server import Sandbox
from tests.support.command import in_this_process
from tests.support.world import World

FIRST, LAST = "2025-03-03", "2025-03-09"


def findings(world: World, calls: Calls | None = None) -> dict[str, Finding]:
    """What the probe finds about a week, by question."""
    found = probe(devin_api_for(world.settings), world.settings, world.days(FIRST, LAST), calls or Calls())
    return {finding.question: finding for finding in found}


def found_at(world: World, **behaviour: Any) -> dict[str, Finding]:
    """The same for a sandbox with this behaviour."""
    with Sandbox(organizations=5, **behaviour) as source:
        world.configure(devin_api_url=source.url)
        return findings(world)


def test_an_api_that_behaves_well_is_good_in_everything_but_counting_unknown_ids_as_0(world: World) -> None:
    found = findings(world)
    assert {question: finding.verdict for question, finding in found.items()} == {
        "Is the key accepted?": "good",
        "Can organizations be listed?": "good",
        "Do days add up?": "good",
        "Do several org_ids add up?": "good",
        "Do organizations add up to the total?": "good",
        "What does an unknown organization return?": "note",
        "How fast does it respond?": "good",
        "Does it report a rate limit?": "good",
    }
    days = world.days(FIRST, LAST)
    assert f"{world.source.truth(days[0].start, days[-1].end):,} sessions" in found["Is the key accepted?"].seen
    assert "by v2 of the API" in found["Is the key accepted?"].seen


def test_a_key_that_is_refused_is_the_only_finding(world: World) -> None:
    world.configure(devin_api_key="apk_user_of_nobody")
    (finding,) = findings(world).values()
    assert (finding.question, finding.verdict) == ("Is the key accepted?", "bad")
    assert "DEVIN_API_KEY" in finding.seen
    assert finding.advice.startswith("Fix the key first")
    assert len(world.source.requests) == 1


def test_an_api_that_does_not_respond_is_the_only_finding(world: World) -> None:
    world.source.stop()
    (finding,) = findings(world).values()
    assert finding.verdict == "unknown"
    assert "the connection failed" in finding.seen


def test_a_key_that_may_not_list_organizations_is_bad_unless_their_ids_are_set(world: World) -> None:
    with Sandbox(organizations=5, lists_organizations=False) as source:
        world.configure(devin_api_url=source.url)
        found = findings(world)
        assert found["Can organizations be listed?"].verdict == "bad"
        assert "DEVIN_ORG_IDS" in found["Can organizations be listed?"].advice
        assert found["Do organizations add up to the total?"].verdict == "unknown"
        world.configure(devin_org_ids=",".join(o.org_id for o in source.organizations))
        found = findings(world)
        assert found["Can organizations be listed?"].verdict == "note"
        assert found["Do organizations add up to the total?"].verdict == "good"


def test_an_id_in_the_setting_that_is_not_listed_is_reported(world: World) -> None:
    world.configure(devin_org_ids=f"{world.source.organizations[0].org_id},org-misspelt")
    finding = findings(world)["Can organizations be listed?"]
    assert finding.verdict == "note"
    assert "org-misspelt" in finding.seen
    assert "Check the ids" in finding.advice


@pytest.mark.parametrize("key", ["api_key", "service_key"])
def test_an_inclusive_end_is_detected_and_good_once_it_is_set_in_each_version(world: World, key: str) -> None:
    with Sandbox(organizations=5, end_is_inclusive=True) as source:
        world.configure(devin_api_url=source.url, devin_api_key=getattr(source, key))
        midnight = world.days("2025-03-05", "2025-03-05")[0].start
        source.add_sessions(source.organizations[0].org_id, midnight, count=3)
        finding = findings(world)["Do days add up?"]
        assert finding.verdict == "bad"
        assert finding.advice == "Set DEVIN_WINDOW_END=inclusive."
        world.configure(devin_window_end="inclusive")
        found = findings(world)
        assert found["Do days add up?"].verdict == "good"
        assert f"by {'v2' if key == 'api_key' else 'v3'} of the API" in found["Is the key accepted?"].seen


def test_an_end_that_is_wrongly_set_as_inclusive_is_detected(world: World) -> None:
    just_before_midnight = world.days("2025-03-05", "2025-03-05")[0].end - timedelta(microseconds=1)
    world.source.add_sessions(world.source.organizations[0].org_id, just_before_midnight, count=3)
    world.configure(devin_window_end="inclusive")
    finding = findings(world)["Do days add up?"]
    assert finding.verdict == "bad"
    assert finding.advice == "Set DEVIN_WINDOW_END=exclusive."


def test_a_load_with_an_inclusive_end_counts_no_session_twice(world: World) -> None:
    with Sandbox(organizations=5, end_is_inclusive=True) as source:
        world.configure(devin_api_url=source.url, devin_window_end="inclusive")
        midnight: datetime = world.days("2025-03-05", "2025-03-05")[0].start
        source.add_sessions(source.organizations[0].org_id, midnight, count=3)
        world.source = source
        assert world.load("2025-03-03", "2025-03-09").success
        assert world.cells() == world.truth("2025-03-03", "2025-03-09")


@pytest.mark.parametrize("taken", ["first", "last"])
def test_a_filter_that_uses_only_one_of_its_ids_is_detected(world: World, taken: str) -> None:
    found = found_at(world, org_ids_semantics=taken)
    assert found["Do several org_ids add up?"].verdict == "bad"
    assert "DEVIN_FETCH=direct" in found["Do several org_ids add up?"].advice
    assert found["Do organizations add up to the total?"].verdict == "good", "they are then requested one by one"


def test_sessions_of_no_listed_organization_are_reported(world: World) -> None:
    world.source.add_sessions("org-unlisted", world.days("2025-03-05", "2025-03-05")[0].start, count=4)
    finding = findings(world)["Do organizations add up to the total?"]
    assert finding.verdict == "note"
    assert "unattributed_count" in finding.advice


def test_sessions_of_organizations_that_were_not_chosen_are_explained(world: World) -> None:
    world.configure(devin_org_ids=",".join(o.org_id for o in world.source.organizations[:2]))
    finding = findings(world)["Do organizations add up to the total?"]
    assert (finding.verdict, "DEVIN_ORG_IDS has only some" in finding.advice) == ("note", True)


def test_no_more_than_50_requests_are_sent_about_many_organizations(world: World) -> None:
    with Sandbox(organizations=60, first_day=date(2026, 1, 1)) as source:
        world.configure(devin_api_url=source.url)
        found = findings(world)
        assert found["Do organizations add up to the total?"].seen == "It would take 60 requests."
        assert found["Do organizations add up to the total?"].verdict == "unknown"
        assert len([asked for asked in source.requests if asked.org_ids]) == 50 + 1, "and the unknown one"


def test_organizations_that_have_more_sessions_than_the_total_are_detected(world: World) -> None:
    def is_of_the_whole_week(asked: Any) -> Any:
        return not asked.org_ids and asked.start and asked.end - asked.start == timedelta(days=7)

    world.source.fail(body=b'{"sessions_count": 1}', when=is_of_the_whole_week, times=None)
    found = findings(world)
    assert found["Do organizations add up to the total?"].verdict == "bad"
    assert found["Do days add up?"].verdict == "bad"


@pytest.mark.parametrize(("given", "verdict"), [("zero", "note"), ("forbidden", "good"), ("not_found", "good")])
def test_what_an_unknown_organization_returns_is_reported(world: World, given: str, verdict: str) -> None:
    assert found_at(world, unknown_organization=given)["What does an unknown organization return?"].verdict == verdict


def test_a_filter_that_is_ignored_is_detected_with_the_unknown_organization(world: World) -> None:
    world.source.fail(body=b'{"sessions_count": 9}', when=lambda asked: bool(asked.org_ids), times=None)
    assert findings(world)["What does an unknown organization return?"].verdict == "bad"


def test_a_rate_limit_that_is_announced_or_reached_is_reported(world: World) -> None:
    announced = found_at(world, rate_limit=1000, rate_limit_headers=True)["Does it report a rate limit?"]
    assert (announced.verdict, "x-ratelimit-limit: 1000" in announced.seen) == ("note", True)
    world.configure(devin_api_url=world.source.url, devin_max_tries="2")
    world.source.fail(retry_after="0", times=1)
    calls = Calls()
    reached = findings(world, calls)["Does it report a rate limit?"]
    assert reached.verdict == "note"
    assert f"1 of {calls.sent} requests" in reached.seen
    assert "DEVIN_REQUESTS_PER_MINUTE" in reached.advice


def test_days_without_sessions_are_unknown_and_the_advice_is_to_probe_busier_ones(world: World) -> None:
    found = found_at(world, first_day=date(2026, 1, 1))
    assert found["Do days add up?"].verdict == "unknown"
    assert "--until" in found["Do several org_ids add up?"].advice


def test_a_request_that_fails_is_a_finding_and_the_other_questions_are_still_answered(world: World) -> None:
    world.source.fail(status=503, when=lambda asked: len(asked.org_ids) > 1, times=None)
    found = findings(world)
    assert found["Do several org_ids add up?"].verdict == "unknown"
    assert found["What does an unknown organization return?"].verdict == "note"


def test_latency_is_measured_over_all_requests(world: World) -> None:
    calls = Calls()
    finding = findings(world, calls)["How fast does it respond?"]
    assert len(calls.latencies) == calls.sent == len(world.source.requests)
    ordered = sorted(calls.latencies)
    median, most = ordered[(len(ordered) - 1) // 2], ordered[math.ceil(0.95 * len(ordered)) - 1]
    assert finding.seen == f"Median {median:.3f} s, 95 % within {most:.3f} s, over {calls.sent} requests."


@pytest.mark.parametrize("start", ["2025-01-01", "2025-03-07"])
def test_the_command_probes_the_week_up_to_a_given_day(
    world: World, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    world.configure(devin_start_date=start)
    _, shown = in_this_process(capsys, world.environment, "probe", "--until", LAST, "--json")
    found = json.loads(shown)
    assert [list(finding) for finding in found] == [["question", "verdict", "seen", "advice"]] * 8
    assert found[0]["seen"].endswith(f" sessions, {max(start, FIRST)} to {LAST}.")
    assert found[5]["advice"].startswith("Check the ids in DEVIN_ORG_IDS")


def test_the_command_probes_the_last_closed_week_if_no_day_is_given(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shown = in_this_process(capsys, world.environment, "probe", "--json")
    last = closed_days(daily_partitions(world.settings))[-1]
    assert json.loads(shown)[0]["seen"].endswith(f" sessions, {last - timedelta(days=6)} to {last}.")


@pytest.mark.parametrize(
    ("org_ids_semantics", "as_json", "expected"),
    [("union", False, 0), ("last", False, exit_codes.MISSING), ("last", True, exit_codes.MISSING)],
)
def test_the_command_shows_findings_and_fails_if_one_is_bad(
    world: World,
    capsys: pytest.CaptureFixture[str],
    org_ids_semantics: Literal["union", "last"],
    as_json: bool,
    expected: int,
) -> None:
    with Sandbox(organizations=5, org_ids_semantics=org_ids_semantics) as source:
        world.configure(devin_api_url=source.url)
        arguments = ["--until", LAST, *["--json"] * as_json]
        code, shown = in_this_process(capsys, world.environment, "probe", *arguments)
    assert code == expected
    if as_json:
        verdicts = {item["question"]: item["verdict"] for item in json.loads(shown)}
        assert verdicts["Do several org_ids add up?"] == "bad"
    else:
        assert ("bad" in shown) == bool(code)
        assert ("DEVIN_FETCH=direct" in shown) == bool(code)
    assert not list(world.directory.glob("*.duckdb*")), "nothing is stored"
