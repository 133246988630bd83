"""Days must add up, and refused organizations are retried; over real HTTP, databases and runs."""

from collections import Counter
from datetime import UTC, date, datetime

import dagster as dg
import pytest
import sqlalchemy as sa

from resources.sandbox.server import Sandbox
from tests.support.loads import fill
from tests.support.world import World


def contradicted(world: World) -> list[tuple[date, str | None, int, int]]:
    return [
        (day, org_id, in_one, by_day)
        for day, org_id, in_one, by_day in world.rows(
            "select day, org_id, block_sessions_count, stored_sessions_count from contradictions order by day, org_id"
        )
    ]


@pytest.mark.parametrize(
    ("warehouse_url", "fetch", "first", "last"),
    [("duckdb", "direct", "2025-04-01", "2025-04-04"), ("postgresql", "differenced", "2025-04-04", "2025-04-04")],
    indirect=["warehouse_url"],
)
def test_counting_the_end_of_a_window_contradicts_the_total_of_several_days(
    each_world: World, fetch: str, first: str, last: str
) -> None:
    world = each_world
    with Sandbox(organizations=5, end_is_inclusive=True) as source:
        world.configure(devin_api_url=source.url, devin_fetch=fetch)
        org_id = source.organizations[0].org_id
        midnight = datetime(2025, 4, 4, tzinfo=UTC)
        source.add_sessions(org_id, midnight, count=3)
        result = world.load(first, last)
        assert result.success, world.failures(result)
        check = world.checks(result)["blocks_add_up"]
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
        days = [day.day for day in world.days(first, last)]
        found = [(day, in_one - by_day) for day, org_id, in_one, by_day in contradicted(world) if org_id is None]
        assert found == [(day, -3) for day in days]
        (sentence,) = [
            s for s in world.progress.result.contradictions if " of " not in s.partition(" in one question")[0]
        ]
        assert "The API contradicts itself" in sentence
        assert set(world.rows(f"select verdict, block_difference from reconciliation where day >= '{first}'")) >= {
            ("contradiction", -3)
        }

        world.configure(devin_window_end="inclusive")
        result = world.load(first, last)
        assert world.checks(result)["blocks_add_up"].passed
        assert contradicted(world) == [], "a reading that adds up replaces one that did not"
        assert world.progress.result.contradictions == []


@pytest.mark.parametrize("fetch", ["direct", "differenced"])
def test_a_temporary_refusal_and_a_temporary_failure_are_retried_within_the_run(world: World, fetch: str) -> None:
    org_id, bad = world.source.organizations[1].org_id, datetime(2025, 4, 2, tzinfo=UTC)
    world.configure(devin_fetch=fetch)
    world.source.fail(status=403, org_id=org_id, times=2)
    world.source.fail(status=503, when=lambda asked: asked.start == bad and not asked.org_ids)
    result = world.load("2025-04-01", "2025-04-03", judged=False)
    assert result.success, world.failures(result)
    assert Counter(q.status for q in world.asked() if q.status != 200) == {403: 2, 503: 1}
    assert world.cells() == world.truth("2025-04-01", "2025-04-03")
    assert world.progress.result.lacking == {}
    assert world.rows("select count(*) from organizations where unavailable_since is not null") == [(0,)]


def test_a_refused_organization_is_reported_and_its_days_are_completed_for_it_alone(world: World) -> None:
    refused, busy = world.source.organizations[1].org_id, world.source.organizations[0].org_id
    world.source.fail(status=403, body=b'{"detail": "no longer yours"}', org_id=refused, times=None)
    result = world.load("2025-04-01", "2025-04-04")
    assert result.success, world.failures(result)
    expected = {cell: n for cell, n in world.truth("2025-04-01", "2025-04-04").items() if cell[1] != refused}
    assert world.cells() == expected, "the others are loaded"
    check = world.checks(result)["every_organization_is_available"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    unavailable = "select unavailable_since, unavailable_reason from organizations where unavailable_since is not null"
    ((since, reason),) = world.rows(unavailable)
    assert reason.startswith("2025-04-04: ")
    assert refused in reason
    assert "no longer yours" in reason
    assert set(world.rows("select orgs_expected, orgs_loaded from daily_totals")) == {(5, 4)}
    days = {day.day for day in world.days("2025-04-01", "2025-04-04")}
    assert world.progress.result.lacking == {day: {refused} for day in days}

    def complete(*, judged: bool = True) -> tuple[dg.ExecuteInProcessResult, set[tuple[str, ...]]]:
        """Complete these days and load one more. Returns the organizations of each question about the former too."""
        world.source.requests.clear()
        result = world.load("2025-04-01", "2025-04-05", complete_before=date(2025, 4, 5), judged=judged)
        asked = {q.org_ids for q in world.asked() if q.start and q.start < datetime(2025, 4, 4, tzinfo=UTC)}
        return result, asked

    _, asked = complete(judged=False)
    assert asked == set(), "one question, about the last day, shows that it is still refused"
    assert world.progress.result.lacking == {day: {refused} for day in days | {date(2025, 4, 5)}}
    ((again, _),) = world.rows(unavailable)
    assert again == since, "the first refusal is kept"
    world.source.heal()
    world.source.add_sessions(busy, datetime(2025, 4, 2, 12, tzinfo=UTC), count=3)
    result, asked = complete()
    assert {org_id for of_question in asked for org_id in of_question} == {refused}
    assert world.checks(result)["every_organization_is_available"].passed
    assert world.progress.result.lacking == {}
    cells, truth = world.cells(), world.truth("2025-04-01", "2025-04-05")
    assert cells.pop((date(2025, 4, 2), busy)) == truth.pop((date(2025, 4, 2), busy)) - 3, "it is not read again"
    assert cells == truth
    assert set(world.rows("select orgs_expected, orgs_loaded from daily_totals")) == {(5, 5)}


def test_an_organization_that_is_not_in_the_newest_list_is_not_counted_even_if_the_clock_was_set_back(
    world: World,
) -> None:
    fill(world, "2025-04-01", "2025-04-01")
    with world.database.transaction() as connection:
        connection.execute(sa.text("update organizations set last_seen_at = last_seen_at + interval '6 hours'"))
    gone = world.source.organizations[0].org_id
    left = [o.org_id for o in world.source.organizations if o.org_id != gone]
    world.configure(devin_org_ids=",".join(left))
    assert world.load("2025-04-02", "2025-04-02", judged=False).success
    assert {org_id for day, org_id in world.cells() if day == date(2025, 4, 2)} == set(left)
