"""Whom to count is chosen, changed, or no longer chosen after days were loaded; and chosen ids that are misspelled."""

from datetime import date

import dagster as dg
import pytest

from pipelines.checks import counts_sum_to_control_totals
from tests.support.command import Here
from tests.support.loads import fill
from tests.support.noon import NOON, ago
from tests.support.published import seem_published
from tests.support.world import World
from warehouse.dimensions import ORGANIZATIONS
from warehouse.listing import is_list_outdated

FIRST, LAST = ago(2), ago(1)


@pytest.fixture
def chosen(world: World) -> World:
    """A world with two loaded days of the first two of five organizations, and all of its history."""
    world.configure(devin_timezone=NOON, devin_start_date=FIRST, devin_fetch="direct", devin_org_ids=ids(world, 0, 1))
    fill(world, FIRST, LAST)
    seem_published(world)
    return world


def ids(world: World, *numbers: int) -> str:
    return ",".join(world.source.organizations[number].org_id for number in numbers)


def test_everyone_is_counted_once_nobody_is_chosen_any_more(chosen: World, here: Here) -> None:
    world = chosen
    world.configure(devin_org_ids="")
    advice = "DEVIN_ORG_IDS has changed since the last load. To load: devin-sessions backfill --missing"
    assert advice in " ".join(here("status")[1].split())
    code, out, err = here("backfill", "--missing")
    assert (code, err) == (0, "")
    assert "DEVIN_ORG_IDS has changed since the last load. It now means 5 organizations." in out
    assert world.cells() == world.truth(FIRST, LAST)
    assert "DEVIN_ORG_IDS" not in here("status")[1]
    assert "Nothing to do" in here("backfill", "--missing")[1]


def test_fewer_and_other_chosen_ones_are_listed_without_a_question(chosen: World, here: Here) -> None:
    world = chosen
    world.configure(devin_org_ids=ids(world, 1))
    code, out, err = here("backfill", "--missing")
    assert (code, err, "It now means 1 organization." in out, "Nothing to do" in out) == (0, "", True, True)
    assert world.source.requests == []
    assert world.rows("select org_id from organizations where is_listed") == [(ids(world, 1),)]
    world.configure(devin_org_ids=ids(world, 1, 2))
    assert world.load(FIRST, LAST, complete_before=date.fromisoformat(ago(0)), judged=False).success
    assert {org_id for _, org_id in world.cells()} == {*ids(world, 0, 1, 2).split(",")}


def test_a_list_that_cannot_be_read_leaves_everything_and_says_what_to_fix(chosen: World, here: Here) -> None:
    world = chosen
    world.configure(devin_org_ids="")
    before = world.cells()
    world.source.fail(status=403, path="/v2/enterprise/organizations", times=None)
    code, out, err = here("backfill", "--missing")
    assert (code, "Nothing to do" in out, "set DEVIN_ORG_IDS to the ids to count" in err) == (1, False, True)
    assert world.cells() == before


def test_chosen_users_are_told_from_all_users(world: World) -> None:
    world.configure(devin_user_ids="discover")
    fill(world, "2025-03-01", "2025-03-01")
    dimension = world.settings.dimensions[1]
    with world.database.transaction(read_only=True) as connection:
        assert not is_list_outdated(connection, dimension, world.settings.chosen(dimension))
        world.configure(devin_user_ids=world.source.members[0].user_id)
        assert is_list_outdated(connection, dimension, world.settings.chosen(dimension))


def test_a_misspelled_id_is_noticed_from_what_is_stored(world: World, here: Here) -> None:
    world.configure(devin_timezone=NOON, devin_start_date=FIRST, devin_org_ids=f"{ids(world, 0)},org-misspelt")
    fill(world, FIRST, LAST)
    seem_published(world)
    code, out, err = here("backfill", FIRST, LAST)
    assert (code, err) == (0, "")
    shown, others = " ".join(out.split()), sum(world.truth(FIRST, LAST).values()) - sum(world.cells().values())
    assert "Note: No session on any loaded day: org-misspelt in DEVIN_ORG_IDS;" in shown
    assert f"{others:,} sessions belong to no id there." in shown


def test_a_choice_without_any_session_is_a_yellow_check(world: World) -> None:
    world.configure(devin_org_ids="org-misspelt")
    fill(world, "2025-03-03", "2025-03-04")
    with world.database.transaction(read_only=True) as connection:
        verdict = counts_sum_to_control_totals(connection, ORGANIZATIONS, world.settings)
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "org-misspelt in DEVIN_ORG_IDS" in verdict.sentence
