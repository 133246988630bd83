"""Loads that take counts from the list of sessions, over HTTP: no lie of the list makes a count wrong."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pipelines.loading.answers import DayAnswers
from pipelines.loading.collect import collect_listed
from pipelines.loading.fetching import ERRORS
from pipelines.loading.proposing import SessionList
from pipelines.loading.workers import Workers
from pipelines.partitions import Day
from resources.devin_api import DevinClient
from resources.devin_key import KEY_VARIABLE
from resources.sandbox.contract import LIST_PATH, Version
from resources.sandbox.lies import KnownIds, LeaveOut, Lie, Move, Refuse
from resources.sandbox.listed import MARKERS, Listed
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from resources.sandbox.sessions import NOBODY, microseconds
from tests.support.client import api, using
from tests.support.command import command_here
from tests.support.matrix import at_once
from tests.support.session_list import every_lie
from tests.support.world import World
from warehouse.dimensions import ORGANIZATIONS

FIRST, DAYS = date(2025, 3, 3), 10
LIES = every_lie((FIRST, FIRST + timedelta(3)))


@pytest.fixture(scope="module")
def lying() -> Iterator[Sandbox]:
    with Sandbox(organizations=6) as source:
        yield source


def days_of(asked: LoggedRequest) -> int:
    assert asked.start and asked.end
    return (asked.end - asked.start).days


def day(number: int) -> Day:
    start = datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(number)
    return Day(start.date(), start, start + timedelta(1))


async def collect(ids: Sequence[str], client: DevinClient) -> tuple[list[DayAnswers], SessionList]:
    async with Workers(8) as workers:
        sessions = SessionList(ORGANIZATIONS, client, workers, is_forced=True)

        async def count(start: datetime, end: datetime, ids: Sequence[str]) -> int:
            return await client.count(start, end, org_ids=ids)

        answers = await collect_listed(
            count,
            [day(number) for number in range(DAYS)],
            ids,
            before=day(-1),
            expected={},
            propose=partial(sessions.propose, {}, ids),
            judged=sessions.judge,
            sampled=20,
            dice=random.Random(1),
            workers=workers,
            errors=ERRORS,
            answered=lambda: None,
            may_proceed=at_once,
        )
        return answers, sessions


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_however_the_list_lies_no_count_is_wrong(
    lying: Sandbox, lie: Lie, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, lying.api_key if version == "v2" else lying.service_key)
    ids = [organization.org_id for organization in lying.organizations]
    lying.heal()
    lying.lie(lie)
    answers, sessions = using(api(lying.url, version=version), partial(collect, ids))
    assert len(answers) == DAYS
    for of_day in answers:
        window = of_day.day.start, of_day.day.end
        assert of_day.counts == {org_id: lying.truth(*window, [org_id]) for org_id in ids}
        assert (of_day.control_total, of_day.contradictions) == (lying.truth(*window), [])
    assert sessions.misplaces <= bool(sessions.why_not)


def test_an_honest_list_takes_a_fraction_of_the_requests_and_says_how_counts_are_known(world: World) -> None:
    world.configure(devin_fetch="listed")
    result = world.load("2025-03-01", "2025-04-10")
    assert result.success, world.failures(result)
    assert world.cells() == world.truth("2025-03-01", "2025-04-10")
    assert world.rows("select how, is_derived, count(*) from daily_sessions group by 1, 2") == [
        ("listed", True, 41 * 5)
    ]
    assert world.progress.metrics.cells.listed == 41 * 5
    assert len(world.asked()) == 41 + 2 + 2 * 5 + 2 * 5, "days, blocks, organizations of each block, random totals"
    assert world.progress.result.warnings == []


class MovesInApril(Move):
    """The list is right about the first block of a load that begins in March, and misplaces sessions in the second."""

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        begins, ends = (microseconds(datetime(2025, *day, tzinfo=UTC)) for day in ((4, 1), (5, 2)))
        right = [session for session in sessions if not begins <= session.at < ends]
        return right + super().hold([session for session in sessions if begins <= session.at < ends], ids)


def test_what_the_list_said_is_taken_back_once_it_misplaces_sessions(world: World) -> None:
    first, last = "2025-03-01", "2025-04-10"
    world.configure(devin_fetch="listed")
    world.source.lie(MovesInApril())
    result = world.load(first, last)
    assert result.success, world.failures(result)
    assert world.cells() == world.truth(first, last)
    assert world.rows("select count(*) from daily_sessions where how = 'listed'") == [(0,)]
    (warning,) = world.progress.result.warnings
    assert "contradicts the API's own counts" in warning


def test_two_blocks_are_read_at_once_and_neither_is_believed_if_the_other_finds_sessions_misplaced(
    world: World,
) -> None:
    first, last, april, may = "2025-03-01", "2025-05-12", datetime(2025, 4, 1, tzinfo=UTC), date(2025, 5, 2)
    world.configure(devin_fetch="listed")
    world.source.lie(MovesInApril())
    world.source.fail(delay=1, when=lambda asked: bool(asked.org_ids) and asked.start == april, times=1)
    result = world.load(first, last)
    assert result.success, world.failures(result)
    assert world.cells() == world.truth(first, last)
    assert world.rows("select count(*) from daily_sessions where how = 'listed'") == [(0,)]
    of_may = [asked for asked in world.source.requests if asked.start and asked.start.date() >= may]
    whole = [asked for asked in of_may if not asked.org_ids and asked.path != LIST_PATH and days_of(asked) > 1]
    assert len(whole) == 2, "May was read from the list and proven, and then asked for"
    assert world.progress.metrics.calls == len(world.source.requests)


def test_what_the_list_said_is_missing_until_it_is_asked_again(world: World) -> None:
    world.configure(devin_fetch="listed", devin_max_tries="1", devin_patience_seconds="1")
    world.source.lie(MovesInApril())
    world.source.fail(status=503, when=lambda asked: len(asked.org_ids) == 1 and days_of(asked) == 1, times=None)
    assert not world.load("2025-03-01", "2025-04-10", judged=False).success
    truth = world.truth("2025-03-01", "2025-04-10")
    assert world.cells().items() < truth.items()
    assert world.rows("select count(*) from daily_sessions where how = 'listed'") == [(0,)]
    loaded = {day for day, _ in world.cells()}
    assert {day for (day,) in world.rows("select day from daily_totals")} == loaded, "the others are missing"
    assert {date.fromisoformat(day) for day in world.materialized_days()} == loaded, "in Dagster too"


@pytest.mark.parametrize(("lie", "sentence"), [(Refuse(403), "the key may not read it"), (Refuse(500), "given up")])
def test_without_a_list_all_is_asked_for_and_the_closing_lines_say_why(
    world: World, capsys: pytest.CaptureFixture[str], lie: Lie, sentence: str
) -> None:
    world.configure(devin_fetch="listed", devin_max_tries="1", devin_report_path="off")
    world.source.lie(lie)
    code, out, err = command_here(capsys, world.environment)("backfill", "2025-03-01", "2025-04-10")
    assert code == 0
    assert world.cells() == world.truth("2025-03-01", "2025-04-10")
    assert sentence in " ".join((out + err).split())
    listed = [request for request in world.source.requests if request.path == LIST_PATH]
    assert len(listed) < 20, "it is not tried again for the second block"


def test_differenced_and_direct_never_read_the_list(world: World) -> None:
    for fetch in ("differenced", "direct"):
        world.configure(devin_fetch=fetch)
        assert world.load("2025-03-01", "2025-03-12", judged=False).success
    assert not [request for request in world.source.requests if request.path == LIST_PATH]


def test_nothing_private_of_a_session_is_kept_or_shown(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.configure(devin_fetch="listed")
    world.source.add_sessions("org-unlisted", datetime(2025, 3, 4, 5, tzinfo=UTC), 3, NOBODY)
    world.source.lie(LeaveOut())
    code, out, err = command_here(capsys, world.environment)("backfill", "2025-03-01", "2025-03-20")
    assert code == 0
    assert [request for request in world.source.requests if request.path == LIST_PATH]
    held = [path for path in Path(world.directory).rglob("*") if path.is_file()]
    assert any(path.suffix == ".duckdb" for path in held)
    shown = [(out + err).encode(), *(path.read_bytes() for path in held)]
    for marker in MARKERS:
        assert not any(marker.encode() in text for text in shown), marker
