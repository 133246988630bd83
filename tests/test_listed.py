"""Loads that take counts from the list of sessions, over HTTP: no lie of the list makes a count wrong."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pipelines.loading.answers import DayAnswers
from pipelines.loading.collect import collect_listed
from pipelines.loading.fetching import ERRORS
from pipelines.loading.listed_days import MOST_COUNTS, ListedDays
from pipelines.loading.proposing import SessionList
from pipelines.loading.workers import Workers
from pipelines.partitions import Day
from resources.devin_api import DevinClient
from resources.devin_key import KEY_VARIABLE
from resources.sandbox.contract import LIST_PATH, Version
from resources.sandbox.lies import Double, KnownIds, LeaveOut, Lie, Move, Refuse, Shift
from resources.sandbox.listed import MARKERS, Listed
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from resources.sandbox.sessions import NOBODY, microseconds
from tests.support.client import api, using
from tests.support.command import command_here
from tests.support.matrix import at_once
from tests.support.session_list import every_lie
from tests.support.world import World
from warehouse.dimensions import DIMENSIONS, ORGANIZATIONS, USERS, Dimension

FIRST, DAYS = date(2025, 3, 3), 10
LIES = every_lie((FIRST, FIRST + timedelta(3)))


@pytest.fixture(scope="module")
def lying() -> Iterator[Sandbox]:
    with Sandbox(organizations=4) as source:
        yield source


def days_of(asked: LoggedRequest) -> int:
    assert asked.start and asked.end
    return (asked.end - asked.start).days


def day(number: int) -> Day:
    start = datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(number)
    return Day(start.date(), start, start + timedelta(1))


async def collect(
    ids: Sequence[str],
    client: DevinClient,
    dimension: Dimension = ORGANIZATIONS,
    listed_days: ListedDays | None = None,
) -> tuple[list[DayAnswers], SessionList]:
    async with Workers(8) as workers:
        later = DIMENSIONS[DIMENSIONS.index(dimension) + 1 :]
        sessions = SessionList(dimension, client, workers, True, listed_days or ListedDays(), later)

        async def count(start: datetime, end: datetime, ids: Sequence[str]) -> int:
            return await client.count(start, end, **{dimension.question_filter: ids})

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


@pytest.fixture(scope="module")
def memberless() -> Iterator[Sandbox]:
    """Some of its sessions are nobody's or a service user's."""
    with Sandbox(organizations=2, memberless=0.2) as source:
        yield source


LIES_ABOUT_USERS = {name: lie for name, lie in LIES.items() if "user" in name or type(lie) in (LeaveOut, Double, Shift)}


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("lie", [None, *LIES_ABOUT_USERS.values()], ids=["honest", *LIES_ABOUT_USERS])
def test_however_the_list_lies_no_count_of_a_user_is_wrong(
    memberless: Sandbox, lie: Lie | None, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, memberless.api_key if version == "v2" else memberless.service_key)
    ids = [member.user_id for member in memberless.members]
    memberless.heal()
    if lie:
        memberless.lie(lie)
    answers, sessions = using(api(memberless.url, version=version), partial(collect, ids, dimension=USERS))
    for of_day in answers:
        window = of_day.day.start, of_day.day.end
        assert of_day.counts == {user_id: memberless.truth(*window, user_ids=[user_id]) for user_id in ids}
        assert (of_day.control_total, of_day.contradictions) == (memberless.truth(*window), [])
    service_users = {id_ for of_day in answers for id_ in of_day.others if id_ and id_ not in ids}
    if lie is None:
        assert all(of_day.rest == sum(of_day.others.values()) for of_day in answers)
        assert len(service_users) == 1 and any(None in of_day.others for of_day in answers)
        assert sessions.listed_days.service_users == (service_users if version == "v3" else None)


@pytest.mark.parametrize("meanwhile", ["nothing", "a session is added", "the list misplaced some"])
def test_users_are_counted_from_the_pages_that_were_read_for_organizations_while_these_hold(
    meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(organizations=4, memberless=0.2) as source:
        monkeypatch.setenv(KEY_VARIABLE, source.api_key)
        org_ids = [organization.org_id for organization in source.organizations]
        user_ids = [member.user_id for member in source.members]
        if meanwhile == "the list misplaced some":
            source.lie(Move())
        listed_days = ListedDays()
        read = []
        for dimension, ids in ((ORGANIZATIONS, org_ids), (USERS, user_ids)):
            source.requests.clear()
            answers, _ = using(api(source.url), partial(collect, ids, dimension=dimension, listed_days=listed_days))
            read.append(len([asked for asked in source.requests if asked.path == LIST_PATH]))
            for of_day in answers:
                window = of_day.day.start, of_day.day.end
                truth = {
                    id_: source.truth(*window, *([id_], None) if dimension is ORGANIZATIONS else (None, [id_]))
                    for id_ in ids
                }
                assert of_day.counts == truth
            source.heal()
            if meanwhile == "a session is added":
                source.add_sessions(org_ids[1], datetime(2025, 3, 5, 12, tzinfo=UTC), 1, user_ids[0])
        assert read[0] > 0
        assert (read[1] == 0) == (meanwhile == "nothing")
        assert not any(listed_days.has(USERS, [of_day]) for of_day in answers), "nothing is kept once both are loaded"


def test_no_more_counts_are_kept_for_users_than_fit_in_a_little_memory() -> None:
    listed_days, days = ListedDays(), [DayAnswers(day(number), control_total=MOST_COUNTS) for number in range(4)]
    many: Counter[str | None] = Counter({f"user-{number}": 1 for number in range(MOST_COUNTS // 2)})
    listed_days.keep(USERS, days, [many, many, many, Counter()])
    assert [listed_days.has(USERS, [of_day]) for of_day in days] == [True, True, False, True]
    assert not listed_days.has(USERS, days[:3]) and not listed_days.has(ORGANIZATIONS, days[:1])
    assert listed_days.take(USERS, days[:1]) == [many]
    assert listed_days.take(USERS, days[:1]) is None, "whoever takes a day has it alone"
    listed_days.keep(USERS, days[2:3], [many])
    assert listed_days.has(USERS, days[1:]), "there is room again"


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


def test_a_single_day_from_the_list_is_compared_together_with_the_day_before(world: World) -> None:
    world.configure(devin_fetch="listed")
    assert world.load("2025-03-02", "2025-03-02").success
    assert world.cells() == world.truth("2025-03-02", "2025-03-02")
    assert [days_of(asked) for asked in world.asked() if not asked.org_ids and asked.path != LIST_PATH] == [1, 1, 2]


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
    first, last, april, july = "2025-03-01", "2025-07-06", datetime(2025, 4, 1, tzinfo=UTC), date(2025, 7, 3)
    world.configure(devin_fetch="listed")
    world.source.lie(MovesInApril())
    world.source.fail(delay=1, when=lambda asked: bool(asked.org_ids) and asked.start == april, times=1)
    result = world.load(first, last)
    assert result.success, world.failures(result)
    assert world.cells() == world.truth(first, last)
    assert world.rows("select count(*) from daily_sessions where how = 'listed'") == [(0,)]
    of_july = [asked for asked in world.source.requests if asked.start and asked.start.date() >= july]
    whole = [asked for asked in of_july if not asked.org_ids and asked.path != LIST_PATH and days_of(asked) > 1]
    assert len(whole) == 2, "July was read from the list and proven, and then asked for"
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


def test_blocks_are_longer_while_the_list_is_used(world: World) -> None:
    world.configure(devin_fetch="listed")
    result = world.load("2025-01-01", "2025-06-30")
    assert result.success, world.failures(result)
    assert world.cells() == world.truth("2025-01-01", "2025-06-30")
    counts = [asked for asked in world.asked() if asked.path != LIST_PATH]
    whole = [days_of(asked) for asked in counts if not asked.org_ids and days_of(asked) > 1]
    assert sorted(whole) == [31, 57, 93], "the first block shows whether the list can be used"


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        (Refuse(403), "the key may not read it"),
        (Refuse(500), "given up"),
        (LeaveOut(share=0.5), "differs from the API's own counts too often"),
    ],
)
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


def test_a_proof_that_lacks_an_answer_is_held_against_its_block_alone(world: World) -> None:
    world.configure(devin_fetch="listed", devin_max_tries="1", devin_patience_seconds="1")
    world.source.fail(status=503, when=lambda asked: bool(asked.org_ids) and days_of(asked) == 31, times=1)
    result = world.load("2025-03-01", "2025-04-10", judged=False)
    assert result.success, world.failures(result)
    assert world.cells() == world.truth("2025-03-01", "2025-04-10")
    assert world.rows("select min(day), count(*) from daily_sessions where how = 'listed'") == [(date(2025, 4, 1), 50)]


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
