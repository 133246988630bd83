"""Sessions of no counted organization get its id, from the list of sessions, in the warehouse and in a check."""

from datetime import date, datetime, timedelta

import dagster as dg
import pytest

from pipelines.unattributed import Named
from resources.sandbox.contract import LIST_PATH
from resources.sandbox.lies import KnownIds, LeaveOut, Lie, Move, Refuse
from resources.sandbox.listed import Listed
from resources.sandbox.sessions import DAY, microseconds
from tests.support.world import World
from warehouse.dimensions import ORGANIZATIONS, USERS
from warehouse.unattributed import Owner

FIRST, SECOND = "2025-04-01", "2025-04-02"
NAMES = "select day, org_id, sessions_count from unattributed_sessions order by 1, 2"
CLAIM = "counts_sum_to_control_totals"


def add_unlisted(world: World, org_id: str, day: str, count: int) -> None:
    world.source.add_sessions(org_id, datetime.fromisoformat(f"{day}T12:00:00Z"), count)


def pages(world: World) -> int:
    """How many pages of the list were asked for."""
    return len([asked for asked in world.source.requests if asked.path == LIST_PATH])


def test_a_night_names_whose_the_unattributed_sessions_are_once(each_world: World) -> None:
    world = each_world
    add_unlisted(world, "org-x", FIRST, 5)
    add_unlisted(world, "org-x", SECOND, 7)
    add_unlisted(world, "org-y", SECOND, 1)
    result = world.load(FIRST, "2025-04-03")
    assert result.success, world.failures(result)
    named = [(date(2025, 4, 1), "org-x", 5), (date(2025, 4, 2), "org-x", 7), (date(2025, 4, 2), "org-y", 1)]
    assert world.rows(NAMES) == named
    check = world.checks(result)[CLAIM]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == (
        "The API counts sessions that belong to no listed organization on 2025-04-01…2025-04-02 (2 days). "
        "12 sessions on 2 days belong to org-x, 1 session on 1 day to org-y, which are not in the list of "
        "organizations. The key may lack permission to list every organization. To count org-x, org-y too, list all "
        "organizations in DEVIN_ORG_IDS, then run: devin-sessions backfill --missing"
    )
    assert check.metadata["unattributed_organizations"].value == 2
    assert check.metadata["named_unattributed_sessions"].value == 13
    assert check.metadata["sessions_of_unattributed_organizations"].value == {
        "org-x": {"sessions": 12, "days": 2},
        "org-y": {"sessions": 1, "days": 1},
    }
    read = pages(world)
    assert 2 <= read <= 5, "of the two days"
    assert world.load(FIRST, "2025-04-03", judged=False).success
    assert (pages(world), world.rows(NAMES)) == (read, named), "the names still add up, and are not read again"

    everyone = [organization.org_id for organization in world.source.organizations]
    world.configure(devin_org_ids=",".join([*everyone, "org-x"]))
    result = world.load(FIRST, "2025-04-03")
    assert world.rows(NAMES) == [], "org-x is counted"
    assert world.checks(result)[CLAIM].passed
    assert pages(world) == read, "who is not chosen is expected to be left out"


def test_chosen_organizations_leave_others_out_whom_the_check_names_without_a_fault(world: World) -> None:
    one, *others = (organization.org_id for organization in world.source.organizations)
    world.configure(devin_org_ids=one, devin_fetch="listed")
    result = world.load(FIRST, "2025-04-05")
    truth = world.truth(FIRST, "2025-04-05")
    assert {(day, org_id): n for day, org_id, n in world.rows(NAMES)} == {
        cell: n for cell, n in truth.items() if n and cell[1] != one
    }
    sums = {org_id: sum(n for cell, n in truth.items() if cell[1] == org_id) for org_id in others}
    busiest = max(sums, key=lambda org_id: sums[org_id])
    check = world.checks(result)[CLAIM]
    assert check.passed and check.description
    assert f" {sum(sums.values()):,} sessions belong to organizations that are not in DEVIN_ORG_IDS: " in (
        check.description
    )
    days = sum(1 for (_, org_id), n in truth.items() if n and org_id == busiest)
    assert f"DEVIN_ORG_IDS: {sums[busiest]:,} sessions on {days} days to {busiest}, " in check.description


@pytest.mark.parametrize("fetch", ["direct", "differenced"])
def test_where_the_list_is_not_to_be_read_nobody_is_named(world: World, fetch: str) -> None:
    add_unlisted(world, "org-x", FIRST, 5)
    world.configure(devin_fetch=fetch)
    result = world.load(FIRST, FIRST)
    assert (pages(world), world.rows(NAMES)) == (0, [])
    assert "If you know of others, list all of them in DEVIN_ORG_IDS" in str(world.checks(result)[CLAIM].description)


class Cross(Lie):
    """List a session of org-x in the busiest organization, and one of the next in org-y: as many are unattributed."""

    def hold(self, sessions: list[Listed], ids: KnownIds) -> list[Listed]:
        busiest, following, *_ = ids["org_id"]
        begins = microseconds(datetime.fromisoformat(f"{FIRST}T00:00:00Z"))
        moved = {
            session: session._replace(org_id=to)
            for source, to in (("org-x", busiest), (following, "org-y"))
            for session in [it for it in sessions if it.org_id == source and begins <= it.at < begins + DAY][:1]
        }
        return [moved.get(session, session) for session in sessions]


@pytest.mark.parametrize(
    "lie", [LeaveOut(), Move(), Cross(), Refuse(403), Refuse(500)], ids=lambda lie: type(lie).__name__
)
def test_a_list_that_disagrees_with_the_counts_or_is_refused_names_nobody_and_fails_nothing(
    world: World, lie: Lie
) -> None:
    add_unlisted(world, "org-x", FIRST, 300)
    world.source.lie(lie)
    result = world.load(FIRST, FIRST)
    assert result.success, world.failures(result)
    assert world.rows(NAMES) == []
    assert world.cells() == world.truth(FIRST, FIRST)
    assert world.progress.result.warnings == []
    assert pages(world) >= 1
    assert "belong to no listed organization" in str(world.checks(result)[CLAIM].description)


def test_a_few_pages_are_read_of_the_latest_days_and_no_more(world: World) -> None:
    for day in (FIRST, SECOND):
        add_unlisted(world, "org-x", day, 600)
    assert world.load(FIRST, SECOND, judged=False).success
    assert [day for day, *_ in world.rows(NAMES)] == [date(2025, 4, 2)]
    assert pages(world) <= 5
    add_unlisted(world, "org-x", SECOND, 600)
    read = pages(world)
    assert world.load(SECOND, SECOND, judged=False).success
    assert (pages(world), world.rows(NAMES)) == (read, []), "seven pages are too many, and the old names are wrong now"


def test_a_refused_organization_is_named_as_one_without_a_count(world: World) -> None:
    refused = world.source.organizations[0].org_id
    world.source.fail(status=403, when=lambda asked: asked.org_ids == (refused,), times=None)
    result = world.load(FIRST, FIRST)
    (day,) = world.days(FIRST, FIRST)
    sessions = world.source.truth(day.start, day.end, [refused])
    assert world.rows(NAMES) == [(day.day, refused, sessions)]
    assert (
        f"{sessions} sessions on 1 day belong to {refused}, which has no count on these days. To read them again: "
        f"devin-sessions backfill {FIRST} {FIRST} --refresh" in str(world.checks(result)[CLAIM].description)
    )
    world.source.heal()
    assert world.load(FIRST, FIRST, judged=False).success
    assert world.rows(NAMES) == []


def owner(id_: str, sessions: int, days: int = 1, is_service_user: bool | None = False) -> Owner:
    first = date(2025, 4, 1)
    return Owner(id_, sessions, days, first, first + timedelta(days - 1), False, False, is_service_user)


def test_three_ids_are_in_a_sentence_and_all_in_the_metadata() -> None:
    named = Named([owner(f"org-{n}", 50 - n, 2) for n in range(5)])
    assert named.advice(ORGANIZATIONS).startswith(
        "50 sessions on 2 days belong to org-0, 49 sessions on 2 days to org-1, 48 sessions on 2 days to org-2 and "
        "2 more, which are not in the list of organizations. "
    )
    assert "To count org-0, org-1, org-2 and 2 more too" in named.advice(ORGANIZATIONS)
    assert set(named.metadata(ORGANIZATIONS)["sessions_of_unattributed_organizations"].value) == {
        f"org-{n}" for n in range(5)
    }


@pytest.mark.parametrize(
    ("owners", "expected", "whose"),
    [
        ([owner("", 5), owner("s", 7, is_service_user=True)], 12, "5 sessions without a user, 7 of service users"),
        ([owner("s", 1, is_service_user=True)], 1, "1 session of service users"),
        (
            [owner("u", 2), owner("", 5), owner("s", 7, is_service_user=None)],
            12,
            "5 sessions without a user, 7 of service users or former members",
        ),
        ([owner("u", 2)], 0, ""),
        ([], 0, ""),
    ],
)
def test_sessions_of_nobody_and_of_service_users_are_expected_per_user_and_not_per_organization(
    owners: list[Owner], expected: int, whose: str
) -> None:
    assert Named(owners).expected(USERS) == (expected, whose)
    assert Named(owners).expected(ORGANIZATIONS) == (0, "")
