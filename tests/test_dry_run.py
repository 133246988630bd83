"""`devin-sessions backfill --dry-run`: how many requests a load takes, before it sends one."""

import json
import re
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command import exit_codes
from pipelines.loading.block_size import PlannedBlock
from pipelines.loading.cost import Cost, cost_of, differenced_requests
from pipelines.partitions import Day
from tests.support.command import Here, command_here
from tests.support.examples import examples
from tests.support.loads import fill
from tests.support.world import World
from warehouse import tables

FIRST = date(2025, 1, 1)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return command_here(capsys, monkeypatch)


def numbers_of(here: Here, *arguments: str) -> dict[str, int | None]:
    """What the dry run says, in JSON."""
    code, out, err = here("backfill", *arguments, "--dry-run")
    assert (code, out) == (0, "")
    (planned,) = (line for line in map(json.loads, err.splitlines()) if line["event"] == "planned")
    return {name: planned[f"requests_{name}"] for name in ("least", "most", "likely")}


def sent(world: World, first: str, last: str, *, refresh: bool = False) -> int:
    """How many requests a run sends that `backfill` starts for these days."""
    before = len(world.source.requests)
    day_after = date.fromisoformat(last) + timedelta(1)
    result = world.load(first, last, complete_before=None if refresh else day_after, judged=False)
    assert result.success, world.failures(result)
    return len(world.source.requests) - before


def sent_by_command(world: World, here: Here, *arguments: str) -> int:
    """How many requests the whole command sends, which may start several runs."""
    before = len(world.source.requests)
    code, out, err = here("backfill", *arguments)
    assert code == 0, out + err
    return len(world.source.requests) - before


def test_a_dry_run_asks_only_who_is_listed_stores_nothing_and_shows_how_long_each_rate_takes(
    world: World, here: Here
) -> None:
    code, out, err = here("backfill", "2025-03", "--dry-run")
    assert (code, err) == (0, "")
    assert len(world.source.requests) == 1
    assert not [path for path in world.directory.iterdir() if path.name != "dagster"]
    assert "The API lists 5: 1 request." in out
    assert "To load: 2025-03-01…2025-03-31 (31 days) for 5 organizations, which are 155 organization-days." in out
    assert "Requests: at least 34, at most 200." in out
    assert re.search(r"│ +60 │ 3 min 20 s +│", out)
    world.configure(devin_requests_per_minute="100")
    code, out, err = here("backfill", "2025-03", "--dry-run")
    assert re.search(r"│ +100 │ 2 min 0 s +│", out), "the rate that is set"
    assert not re.search(r"│ +60 │", out)


def test_a_load_sends_as_many_requests_as_the_dry_run_said(world: World, here: Here) -> None:
    world.configure(devin_log_format="json", devin_lookback_days="3")
    few = "2025-03-04", "2025-03-06"
    planned = numbers_of(here, *few)
    assert planned["least"] == planned["most"] == sent(world, *few), "few days are requested one by one"
    whole = "2025-03-01", "2025-03-14"
    planned = numbers_of(here, *whole)
    assert planned["likely"] is not None
    really = sent(world, *whole)
    assert planned["least"] and planned["most"]
    assert planned["least"] <= really <= planned["most"]
    planned = numbers_of(here, *whole, "--refresh")
    really = sent(world, *whole, refresh=True)
    assert planned["likely"] == pytest.approx(really, rel=0.25), "judged by the stored counts of the same days"


def test_sessions_without_a_name_may_cost_a_few_pages_more(world: World, here: Here) -> None:
    world.configure(devin_log_format="json")
    for day in (3, 4):
        world.source.add_sessions("org-unlisted", datetime(2025, 3, day, 12, tzinfo=UTC), 3)
    sent(world, "2025-03-03", "2025-03-03")
    planned = numbers_of(here, "2025-03-04", "2025-03-04")
    assert planned["least"] and planned["most"]
    assert planned["least"] < sent(world, "2025-03-04", "2025-03-04") <= planned["most"]
    world.configure(devin_fetch="direct")
    planned = numbers_of(here, "2025-03-04", "2025-03-04", "--refresh")
    assert planned["least"] == planned["most"]


def test_days_that_are_loaded_cost_nothing_and_a_new_organization_only_its_own_days(world: World, here: Here) -> None:
    ids = [organization.org_id for organization in world.source.organizations]
    world.configure(devin_log_format="json", devin_org_ids=",".join(ids[:-1]))
    fill(world, "2025-03-01", "2025-03-03")
    assert "Nothing to do" in here("backfill", "2025-03-01", "2025-03-03", "--dry-run")[2]
    world.configure(devin_org_ids=",".join(ids))
    planned = numbers_of(here, "2025-03-01", "2025-03-03")
    assert planned["most"] == sent(world, "2025-03-01", "2025-03-03") == 3 + 3 + 1


@pytest.mark.parametrize("fetch", ["direct", "differenced"])
def test_organizations_that_the_api_refuses_cost_what_the_dry_run_said(world: World, here: Here, fetch: str) -> None:
    world.configure(devin_log_format="json", devin_fetch=fetch)
    for organization in world.source.organizations[:2]:
        world.source.fail(status=403, org_id=organization.org_id, times=None)
    sent(world, "2025-03-01", "2025-03-03")
    for first, last, refresh in (
        ("2025-03-01", "2025-03-03", False),
        ("2025-03-02", "2025-03-06", False),
        ("2025-03-02", "2025-03-04", True),
    ):
        planned = numbers_of(here, first, last, *["--refresh"] * refresh)
        really = sent(world, first, last, refresh=refresh)
        assert world.progress.result.lacking
        assert planned["least"] is not None and planned["most"] is not None
        assert planned["least"] <= really <= planned["most"]
        if fetch == "direct" or last == "2025-03-03":
            assert planned["least"] == planned["most"]
    world.source.heal()
    gone = world.source.organizations[2].org_id
    world.configure(devin_org_ids=",".join(o.org_id for o in world.source.organizations if o.org_id != gone))
    assert numbers_of(here, "2025-03-01", "2025-03-03")["most"] == 2, "the two are asked about once"


def test_moved_days_cost_the_organizations_too_that_are_no_longer_counted(world: World, here: Here) -> None:
    world.configure(devin_log_format="json", devin_timezone="Europe/Istanbul", devin_start_date="2025-03-26")
    fill(world, "2025-03-26", "2025-04-02")
    with world.database.transaction() as connection:
        connection.execute(sa.update(tables.day_boundary).values(timezone="Europe/Kyiv"))
    ids = [organization.org_id for organization in world.source.organizations]
    world.configure(devin_timezone="Europe/Kyiv", devin_fetch="direct", devin_org_ids=",".join(ids[:2]))
    days = "2025-03-29", "2025-04-01"
    planned = numbers_of(here, *days, "--refresh")
    really = sent(world, *days, refresh=True)
    assert planned["least"] == planned["most"] == really
    assert really == 3 + (2 + 2 * 5 + 1) + (2 + 2 * 2 + 1)


def test_a_list_that_is_no_longer_chosen_is_asked_for_and_who_is_new_on_it_is_counted(world: World, here: Here) -> None:
    ids = [organization.org_id for organization in world.source.organizations]
    world.configure(devin_log_format="json", devin_fetch="direct", devin_org_ids=",".join(ids[:2]))
    fill(world, "2025-03-01", "2025-03-03")
    world.configure(devin_org_ids="")
    planned = numbers_of(here, "2025-03-01", "2025-03-03")
    really = sent_by_command(world, here, "2025-03-01", "2025-03-03")
    assert planned["least"] == planned["most"] == really
    assert world.cells() == world.truth("2025-03-01", "2025-03-03")
    assert "Nothing to do" in here("backfill", "2025-03-01", "2025-03-03", "--dry-run")[2]
    assert sent_by_command(world, here, "2025-03-01", "2025-03-03") == 0


def test_without_a_key_the_list_of_organizations_decides_whether_a_dry_run_is_possible(
    world: World, here: Here
) -> None:
    world.configure(devin_api_key="")
    code, _, err = here("backfill", "-7d", "--dry-run")
    assert (code, "DEVIN_API_KEY is not set" in err) == (exit_codes.WRONG_USE, True)


def test_a_list_that_cannot_be_read_is_planned_in_a_sentence(world: World, here: Here) -> None:
    world.configure(devin_patience_seconds="1", devin_max_tries="1")
    for status in (403, 503):
        world.source.faults.clear()
        world.source.fail(status=status, times=None)
        code, _, err = here("backfill", "-7d", "--dry-run")
        assert (code, f"{status}" in err) == (exit_codes.MISSING, True)


@examples(40)
@given(
    st.integers(1, 8).flatmap(
        lambda ids: st.lists(st.lists(st.integers(0, 3), min_size=ids, max_size=ids), min_size=1, max_size=12)
    )
)
def test_no_data_take_more_requests_than_the_most_nor_fewer_than_the_least(matrix: list[list[int]]) -> None:
    midnight = datetime(2025, 1, 1, tzinfo=UTC)
    days = [Day(FIRST + timedelta(n), midnight + timedelta(n), midnight + timedelta(n + 1)) for n in range(len(matrix))]
    ids = [f"org-{n}" for n in range(len(matrix[0]))]
    cost = cost_of(PlannedBlock(days, ids), "differenced")
    counts = {day.day: dict(zip(ids, row, strict=True)) for day, row in zip(days, matrix, strict=True)}
    assert cost.least <= differenced_requests(counts) <= cost.most
    assert cost_of(PlannedBlock(days, ids), "direct").most <= cost.most + 1


def test_costs_add_up() -> None:
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)
