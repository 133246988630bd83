"""A backfill of more days than DEVIN_DAYS_PER_RUN: one list of organizations, several loads, published once."""

from datetime import date

import dagster as dg
import pytest
from dagster._core.instance.config import PoolGranularity

from pipelines.command.dagster_home import open_instance
from pipelines.names import POOL
from pipelines.partitions import parts
from pipelines.pool import limit_the_pool
from resources.sandbox.contract import SESSIONS_PATH
from tests.support.command import Here, command_here
from tests.support.loads import fill
from tests.support.world import World
from warehouse import tables

LOADS = {"organizations", "daily_sessions"}
DOWNSTREAM = {*(rollup.name for rollup in tables.ROLLUPS), "published_snapshot"}


@pytest.fixture
def here(world: World, capsys: pytest.CaptureFixture[str]) -> Here:
    world.configure(devin_days_per_run="3", devin_start_date="2025-04-01")
    return command_here(capsys, world.environment)


def made() -> list[tuple[str, str, set[str], int]]:
    """Of each run, in order: its first and last day, the assets that it materialized, and how many checks it judged."""
    with open_instance() as instance:
        return [
            (
                run.tags.get("dagster/asset_partition_range_start", ""),
                run.tags.get("dagster/asset_partition_range_end", ""),
                {
                    entry.asset_key.to_user_string()
                    for entry in (
                        event.get_dagster_event()
                        for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
                    )
                    if entry.asset_key
                },
                len(instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)),
            )
            for run in reversed(instance.get_runs())
        ]


def test_a_long_backfill_lists_once_loads_in_parts_and_publishes_once(world: World, here: Here) -> None:
    fill(world, "2025-04-03", "2025-04-03")
    fill(world, "2025-04-06", "2025-04-06")
    world.source.requests.clear()
    code, out, err = here("backfill", "2025-04-01", "2025-04-09")
    assert (code, err) == (0, "")
    assert "7 of 7 days loaded" in out
    checks = len(world.definitions.resolve_asset_graph().asset_check_keys)
    assert made() == [
        ("2025-04-01", "2025-04-02", LOADS, 1),
        ("2025-04-04", "2025-04-05", {"daily_sessions"}, 0),
        ("2025-04-07", "2025-04-09", {"daily_sessions", *DOWNSTREAM}, checks - 1),
    ]
    assert len([q for q in world.source.requests if q.path != SESSIONS_PATH]) == 1, "one page of organizations"
    assert world.cells() == world.truth("2025-04-01", "2025-04-09")
    assert len(world.rows("select day from enterprise_sessions")) == 9


def test_lone_missing_days_are_one_run_that_reads_nothing_in_between(world: World, here: Here) -> None:
    world.configure(devin_days_per_run="366", devin_fetch="direct")
    for day in range(1, 10, 2):
        fill(world, f"2025-04-{day:02}", f"2025-04-{day:02}")
    world.source.requests.clear()
    code, out, err = here("backfill", "2025-04-01", "2025-04-09")
    assert (code, err) == (0, "")
    assert "4 of 4 days loaded" in out
    assert made() == [("2025-04-02", "2025-04-08", LOADS | DOWNSTREAM, 8)]
    # One question for a total over several days reaches over those in between.
    assert {q.start.day for q in world.asked() if q.start and q.org_ids} == {2, 4, 6, 8}
    assert world.cells() == world.truth("2025-04-01", "2025-04-09")


def test_a_part_that_fails_ends_the_backfill_and_what_is_stored_is_published(world: World, here: Here) -> None:
    (day,) = world.days("2025-04-05", "2025-04-05")
    world.source.fail(status=503, times=None, when=lambda asked: asked.start == day.start)
    code, _, err = here("backfill", "2025-04-01", "2025-04-07")
    assert code == 1
    assert "Still to load: 2025-04-05, 2025-04-07 (2 days)" in err
    assert [assets for _, _, assets, _ in made()] == [LOADS, {"daily_sessions"}, DOWNSTREAM]
    stored = {date(2025, 4, day) for day in (1, 2, 3, 4, 6)}
    assert {day for (day,) in world.rows("select day from enterprise_sessions")} == stored
    assert {day for day, _ in world.cells()} == stored


def test_no_part_is_longer_than_allowed_and_none_begins_or_ends_with_another_day() -> None:
    days = [date(2025, 4, day) for day in (1, 2, 9, 10, 11, 12, 30)]
    found = {longest: [(first.day, last.day) for first, last in parts(days, longest)] for longest in (1, 2, 3, 9, 30)}
    assert found == {
        1: [(1, 1), (2, 2), (9, 9), (10, 10), (11, 11), (12, 12), (30, 30)],
        2: [(1, 2), (9, 10), (11, 12), (30, 30)],
        3: [(1, 2), (9, 11), (12, 12), (30, 30)],
        9: [(1, 9), (10, 12), (30, 30)],
        30: [(1, 30)],
    }


def test_what_asks_is_in_the_pool_which_has_one_place_before_the_first_run(world: World) -> None:
    world.configure(devin_user_ids="discover", devin_days_per_run="31")
    graph = world.definitions.resolve_asset_graph()
    in_pool = {node.key.to_user_string() for node in graph.asset_nodes if POOL in (node.pools or ())}
    assert in_pool == {"organizations", "daily_sessions", "users", "user_daily_sessions"}
    counts = [graph.get(dg.AssetKey(name)).backfill_policy for name in ("daily_sessions", "user_daily_sessions")]
    assert counts == [dg.BackfillPolicy.multi_run(31)] * 2
    with open_instance() as instance:
        limit_the_pool(instance, world.settings)
        assert [(pool.name, pool.limit) for pool in instance.event_log_storage.get_pool_limits()] == [(POOL, 1)]
        granularity = instance.get_concurrency_config().pool_config.pool_granularity
        assert granularity is PoolGranularity.RUN, "the others stay queued"
        instance.event_log_storage.set_concurrency_slots(POOL, 4)
        limit_the_pool(instance, world.settings)
        assert [pool.limit for pool in instance.event_log_storage.get_pool_limits()] == [4], "the user's own limit"
        world.configure(devin_enterprise="acme")
        limit_the_pool(instance, world.settings)
        limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
        assert limits == {POOL: 4, "devin_api_acme": 1}
