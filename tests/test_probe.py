"""The probe against an API that behaves well, and against one for each way to misbehave."""

import json
import math
import re
from datetime import date, datetime, timedelta
from typing import Any, Literal

import pytest

from pipelines.command import exit_codes
from pipelines.command.findings import Finding
from pipelines.command.probe import probe
from pipelines.definitions import devin_api_for
from pipelines.partitions import closed_days, daily_partitions
from resources.calls import Calls
from resources.sandbox.contract import LIST_PATH, LIST_PATH_V3
from resources.sandbox.faults import Fault
from resources.sandbox.lies import Double, Enlarge, LeaveOut, Lie, Move, NeverEnd, Refuse, Shift, Spoil
from resources.sandbox.listed import MARKERS
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from resources.sandbox.sessions import NOBODY
from tests.support.command import in_this_process
from tests.support.world import World

FIRST, LAST = "2025-03-03", "2025-03-09"
LIST = "Does the list of sessions agree?"
START_AND_END = "Does the API count by start and end too?"
each_version = pytest.mark.parametrize("key", ["api_key", "service_key"], ids=["v2", "v3"])


def findings(world: World, calls: Calls | None = None) -> dict[str, Finding]:
    """What the probe finds about a week, by question."""
    api = devin_api_for(world.settings, world.database)
    found = probe(api, world.settings, world.days(FIRST, LAST), calls or Calls())
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
        "Does the list of sessions agree?": "good",
        "What does an unknown organization return?": "note",
        "Does the API count by start and end too?": "good",
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


@each_version
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
        assert world.load("2025-03-04", "2025-03-06", judged=False).success
        assert world.cells() == world.truth("2025-03-04", "2025-03-06")


@pytest.mark.parametrize("taken", ["first", "last"])
def test_a_filter_that_uses_only_one_of_its_ids_is_detected(world: World, taken: str) -> None:
    found = found_at(world, org_ids_semantics=taken)
    assert found["Do several org_ids add up?"].verdict == "bad"
    assert "DEVIN_FETCH=direct" in found["Do several org_ids add up?"].advice
    assert found["Do organizations add up to the total?"].verdict == "good", "they are then requested one by one"
    assert found[LIST].verdict == "good", "what the filter gets wrong is not the list's fault"


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
    assert [found[it].verdict for it in ("Do days add up?", LIST, START_AND_END)] == ["unknown"] * 3
    assert all("--until" in found[it].advice for it in (LIST, START_AND_END))
    assert "--until" in found["Do several org_ids add up?"].advice


def test_a_request_that_fails_is_a_finding_and_the_other_questions_are_still_answered(world: World) -> None:
    world.source.fail(status=503, when=lambda asked: len(asked.org_ids) > 1, times=None)
    found = findings(world)
    assert found["Do several org_ids add up?"].verdict == "unknown"
    assert found["What does an unknown organization return?"].verdict == "note"


def list_finding(world: World, key: str, *lies: Lie) -> Finding:
    """What the probe finds of the list of sessions, with these lies in it."""
    world.configure(devin_api_key=getattr(world.source, key))
    world.source.lie(*lies)
    return findings(world)[LIST]


def pages_read(source: Sandbox) -> int:
    return sum(asked.path in (LIST_PATH, LIST_PATH_V3) for asked in source.requests)


@each_version
def test_a_list_of_sessions_that_agrees_saves_requests_and_takes_few_itself(world: World, key: str) -> None:
    finding = list_finding(world, key)
    days = world.days(FIRST, LAST)
    sessions = world.source.truth(days[0].start, days[-1].end)
    assert finding.verdict == "good"
    assert finding.seen.startswith(f"Yes: {sessions:,} sessions, compared on 7 days and for 5 of 5 organizations.")
    assert "far fewer requests, and each count is still proven" in finding.seen
    assert pages_read(world.source) == math.ceil(sessions / 200)


@each_version
@pytest.mark.parametrize(
    ("lie", "by"),
    [(LeaveOut(share=0.5), "fewer"), (Double(share=0.5, has_same_id=False), "more"), (LeaveOut(share=1.0), "fewer")],
    ids=["leaves out", "doubles", "empty"],
)
def test_a_list_that_leaves_out_or_doubles_sessions_is_a_note_with_the_days_and_organizations(
    world: World, key: str, lie: Lie, by: str
) -> None:
    finding = list_finding(world, key, lie)
    day, busiest = world.days(FIRST, FIRST)[0], world.source.organizations[0]
    counted = world.source.truth(day.start, day.end)
    assert finding.verdict == "note"
    assert f" are counted. 7 of 7 days differ: {FIRST} " in finding.seen
    assert f", not {counted:,} (" in finding.seen
    assert finding.seen.count(f" {by})") == 2 * 3, "three days, three organizations"
    assert f"Organizations that differ: {busiest.org_id} " in finding.seen
    assert "asks for what differs itself, which takes more requests" in finding.advice


def test_a_list_that_is_an_hour_off_differs_by_days(world: World) -> None:
    assert "days differ" in list_finding(world, "api_key", Shift(timedelta(hours=5))).seen


@each_version
def test_a_list_that_moves_sessions_to_other_organizations_is_a_note(world: World, key: str) -> None:
    finding = list_finding(world, key, Move(share=0.5))
    assert finding.verdict == "note"
    assert finding.seen.startswith("No: it agrees on each day, but not for each organization: org-")
    assert " more)" in finding.seen
    assert " fewer)" in finding.seen
    assert "DEVIN_FETCH=differenced saves the attempt" in finding.advice


def test_sessions_that_the_list_moves_to_an_organization_without_any_are_noticed_too(world: World) -> None:
    world.configure(devin_org_ids=f"org-idle,{','.join(o.org_id for o in world.source.organizations[-1:])}")
    finding = list_finding(world, "api_key", Move(share=0.1, to="org-idle"))
    assert re.search(r": org-idle \d+, not 0 \(\d+ more\)", finding.seen)


@each_version
@pytest.mark.parametrize("status", [403, 404])
def test_a_key_that_may_not_read_the_list_is_a_note_that_names_what_it_takes(
    world: World, key: str, status: int
) -> None:
    finding = list_finding(world, key, Refuse(status))
    assert finding.verdict == "note"
    assert finding.seen.startswith("The key may not read it. Listing sessions from 2025-03-03")
    assert f"returned {status}" in finding.seen
    assert finding.advice.startswith("None needed: the job asks for each count instead")
    assert ("ViewAccountSessions" if key == "service_key" else "personal key") in finding.advice
    assert "DEVIN_FETCH=differenced never tries" in finding.advice


@each_version
@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        (Refuse(500), "the API returned 500"),
        (Refuse(422), "the API returned 422"),
        (Enlarge(), "the response is longer than"),
        (NeverEnd(), "the list does not end"),
        (NeverEnd(repeats=True), "the list does not end"),
    ],
    ids=["500", "422", "10 MB", "never ends", "repeats"],
)
def test_a_list_that_fails_is_unknown_and_the_other_questions_are_still_answered(
    world: World, key: str, lie: Lie, sentence: str
) -> None:
    world.configure(devin_api_key=getattr(world.source, key))
    world.source.lie(lie)
    found = findings(world)
    assert found[LIST].verdict == "unknown"
    assert sentence in found[LIST].seen
    assert "nothing is wrong: the job asks for each count instead" in found[LIST].advice
    assert found["What does an unknown organization return?"].verdict == "note"


def test_no_more_than_50_pages_are_read(world: World) -> None:
    busy, noon = world.source.organizations[0].org_id, world.days(FIRST, FIRST)[0].start + timedelta(hours=12)
    days = world.days(FIRST, LAST)

    def shorten(asked: LoggedRequest, page: Any) -> Any:
        return page | {"items": page["items"][:1], "has_more": True}

    fault: Fault = world.source.fail(path=LIST_PATH, rewrite=shorten, times=None)
    world.source.add_sessions(busy, noon, 50 * 200 - world.source.truth(days[0].start, days[-1].end))
    finding = findings(world)[LIST]
    assert (finding.verdict, finding.seen) == ("unknown", "The list of sessions did not end within 50 pages.")
    assert pages_read(world.source) == 51
    fault.heal()
    assert findings(world)[LIST].verdict == "good"
    world.source.add_sessions(busy, noon)
    read = pages_read(world.source)
    finding = findings(world)[LIST]
    assert (finding.verdict, finding.seen) == ("unknown", "It was not read: that would take 51 requests.")
    assert pages_read(world.source) == read


@pytest.mark.parametrize("fetch", ["differenced", "direct"])
def test_the_list_is_not_read_if_the_setting_says_so(world: World, fetch: str) -> None:
    world.configure(devin_fetch=fetch)
    finding = findings(world)[LIST]
    assert (finding.verdict, pages_read(world.source)) == ("note", 0)
    assert f"DEVIN_FETCH={fetch} never reads it" in finding.seen


@pytest.mark.parametrize("are_chosen", [False, True])
def test_organizations_in_the_list_that_nobody_listed_are_named(world: World, are_chosen: bool) -> None:
    noon = world.days(FIRST, FIRST)[0].start + timedelta(hours=12)
    for number in range(4):
        world.source.add_sessions(f"org-unlisted-{number}", noon, 5 - number, NOBODY)
    if are_chosen:
        world.configure(devin_org_ids=f"{world.source.organizations[0].org_id},org-unlisted-0")
    finding = findings(world)[LIST]
    assert (finding.verdict, finding.seen[:3]) == ("note", "Yes")
    unlisted = [f"org-unlisted-{number} ({5 - number})" for number in range(4)][are_chosen:]
    shown = ", ".join(unlisted if are_chosen else [*unlisted[:3], "and 1 more"])
    assert finding.seen.endswith(f"It has sessions of organizations that aren't listed: {shown}.")
    assert "set DEVIN_ORG_IDS" in finding.advice


def test_sessions_without_an_organization_in_the_list_are_named_too(world: World) -> None:
    finding = list_finding(world, "api_key", Spoil(name="org_id", value=None, share=0.5))
    assert finding.seen.startswith("No: it agrees on each day, but not for each organization: ")
    assert re.search(r"organizations that aren't listed: without an id \(\d+\)\.$", finding.seen)


def test_an_organization_that_the_api_refuses_to_count_is_not_compared(world: World) -> None:
    refused = world.source.organizations[3].org_id
    world.source.fail(status=403, when=lambda asked: asked.org_ids == (refused,), times=None)
    finding = findings(world)[LIST]
    assert finding.verdict == "good"
    assert "for 4 of 5 organizations" in finding.seen


def test_nothing_private_of_the_list_is_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def cut(asked: LoggedRequest) -> bool:
        return asked.path == LIST_PATH

    page = json.dumps({"items": [{"title": MARKERS[0], "url": MARKERS[2]}]}).encode()
    for body in (None, page, page[:-1], b"[" + page + b"]"):
        world.source.heal()
        if body:
            world.source.fail(status=200, body=body, when=cut, times=None)
        _, shown = in_this_process(capsys, world.environment, "probe", "--until", LAST, "--json")
        (finding,) = [it for it in json.loads(shown) if it["question"] == LIST]
        assert finding["verdict"] == ("unknown" if body else "good")
        assert not [marker for marker in MARKERS if marker in shown]


def sends_start_and_end(asked: LoggedRequest) -> bool:
    return [name for name, _ in asked.params] == ["start", "end"]


@each_version
def test_the_pair_start_and_end_is_tried_once(world: World, key: str) -> None:
    world.configure(devin_api_key=getattr(world.source, key))
    finding = findings(world)[START_AND_END]
    (asked,) = filter(sends_start_and_end, world.source.requests)
    assert finding.verdict == "good"
    if key == "api_key":
        assert (asked.start, asked.end) == (world.days(FIRST, FIRST)[0].start, world.days(LAST, LAST)[0].end)
        assert finding.seen.endswith(" sessions, as by start_date and end_date, which the job sends.")
    else:
        assert finding.seen == "No, it refuses them (422). The job sends time_after and time_before."


@each_version
@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_pair_that_is_refused_does_not_speak_of_the_key(world: World, key: str, status: int) -> None:
    world.configure(devin_api_key=getattr(world.source, key))
    world.source.fail(status=status, when=sends_start_and_end, times=None)
    finding = findings(world)[START_AND_END]
    assert finding.verdict == "good"
    assert finding.seen.startswith(f"No, it refuses them ({status}).")


def test_a_pair_that_is_ignored_is_a_note_with_both_numbers(world: World) -> None:
    world.source.fail(body=b'{"sessions_count": 12345}', when=sends_start_and_end, times=None)
    finding = findings(world)[START_AND_END]
    assert finding.verdict == "note"
    assert finding.seen.startswith("No: with them it counts 12,345 sessions, not ")
    assert "the job sends start_date and end_date" in finding.advice


def test_a_pair_that_fails_is_unknown(world: World) -> None:
    world.source.fail(status=503, when=sends_start_and_end, times=None)
    assert findings(world)[START_AND_END].verdict == "unknown"


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
    assert [list(finding) for finding in found] == [["question", "verdict", "seen", "advice"]] * 10
    assert found[0]["seen"].endswith(f" sessions, {max(start, FIRST)} to {LAST}.")
    assert found[6]["advice"].startswith("Check the ids in DEVIN_ORG_IDS")


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
