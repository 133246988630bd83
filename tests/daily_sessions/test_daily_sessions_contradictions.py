"""Days must add up, and refused organizations are retried; over real HTTP, databases and runs."""

from datetime import UTC, date, datetime

import dagster as dg
import pytest
import sqlalchemy as sa

from pipelines.schedules import range_tags
from resources.sandbox.server import Sandbox
from tests.support.world import World


def contradicted(world: World) -> list[tuple[date, str | None, int, int]]:
    return [
        (day, org_id, in_one, by_day)
        for day, org_id, in_one, by_day in world.rows(
            "select day, org_id, block_sessions_count, stored_sessions_count from contradictions order by day, org_id"
        )
    ]


@pytest.mark.parametrize("fetch", ["direct", "differenced"])
@pytest.mark.parametrize(("first", "last"), [("2025-04-01", "2025-04-04"), ("2025-04-04", "2025-04-04")])
def test_counting_the_end_of_a_window_contradicts_the_total_of_several_days(
    world: World, fetch: str, first: str, last: str
) -> None:
    with Sandbox(organizations=5, end_is_inclusive=True) as source:
        world.configure(devin_api_url=source.url, devin_fetch=fetch)
        org_id = source.organizations[0].org_id
        midnight = datetime(2025, 4, 4, tzinfo=UTC)
        source.add_sessions(org_id, midnight, count=3)
        result = world.run(first, last)
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
        result = world.run(first, last)
        assert world.checks(result)["blocks_add_up"].passed
        assert contradicted(world) == [], "a reading that adds up replaces one that did not"
        assert world.progress.result.contradictions == []


def test_a_temporary_refusal_is_retried_within_the_run(world: World) -> None:
    org_id = world.source.organizations[1].org_id
    for fetch in ("direct", "differenced"):
        world.configure(devin_fetch=fetch)
        world.source.fail(status=403, org_id=org_id, times=2)
        assert world.run("2025-04-01", "2025-04-10").success
        assert world.cells() == world.truth("2025-04-01", "2025-04-10")
        assert world.progress.result.lacking == {}
        assert world.rows("select count(*) from organizations where unavailable_since is not null") == [(0,)]


def test_a_day_that_lacks_a_refused_organization_is_completed_for_it_alone(world: World) -> None:
    refused, busy = world.source.organizations[1].org_id, world.source.organizations[0].org_id
    world.source.fail(status=403, org_id=refused, times=None)
    assert world.run("2025-04-01", "2025-04-10").success
    days = {day.day for day in world.days("2025-04-01", "2025-04-10")}
    assert world.progress.result.lacking == {day: {refused} for day in days}

    def complete() -> set[tuple[str, ...]]:
        """Complete these days. Returns the organizations of each question."""
        world.source.requests.clear()
        tags = range_tags("2025-04-01", "2025-04-11", complete_before=date(2025, 4, 11))
        assert world.run_with_tags(tags).success
        return {q.org_ids for q in world.asked() if q.start and q.start < datetime(2025, 4, 10, tzinfo=UTC)}

    assert complete() == set(), "one question, about the last day, shows that it is still refused"
    assert world.progress.result.lacking == {day: {refused} for day in days | {date(2025, 4, 11)}}
    world.source.heal()
    world.source.add_sessions(busy, datetime(2025, 4, 2, 12, tzinfo=UTC), count=3)
    assert {org_id for of_question in complete() for org_id in of_question} == {refused}
    assert world.progress.result.lacking == {}
    cells, truth = world.cells(), world.truth("2025-04-01", "2025-04-11")
    assert cells.pop((date(2025, 4, 2), busy)) == truth.pop((date(2025, 4, 2), busy)) - 3, "it is not read again"
    assert cells == truth
    assert set(world.rows("select orgs_expected, orgs_loaded from daily_totals")) == {(5, 5)}


def test_an_organization_that_is_not_in_the_newest_list_is_not_counted_even_if_the_clock_was_set_back(
    world: World,
) -> None:
    assert world.run("2025-04-01", "2025-04-01").success
    with world.database.transaction() as connection:
        connection.execute(sa.text("update organizations set last_seen_at = last_seen_at + interval '6 hours'"))
    gone = world.source.organizations[0].org_id
    left = [o.org_id for o in world.source.organizations if o.org_id != gone]
    world.configure(devin_org_ids=",".join(left))
    assert world.run("2025-04-02", "2025-04-02").success
    assert {org_id for day, org_id in world.cells() if day == date(2025, 4, 2)} == set(left)
