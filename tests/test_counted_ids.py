"""Which ids are counted if the API's list contradicts itself."""

import json

import dagster as dg

from pipelines.loading.counted_ids import LIST_IS_WHOLE
from resources.sandbox.contract import ORGANIZATIONS_PATH
from tests.support.world import World


def test_a_list_that_contradicts_itself_turns_a_check_red_and_all_in_it_are_counted(world: World) -> None:
    items = [{"org_id": o.org_id, "org_name": o.org_name, "created_at": None} for o in world.source.organizations]
    page = {"items": items, "total": len(items) + 1, "has_more": False}
    world.source.fail(body=json.dumps(page).encode(), path=ORGANIZATIONS_PATH, times=2)
    result = world.load("2025-04-01", "2025-04-01")
    check = world.checks(result)[LIST_IS_WHOLE]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "its total is 6, and it lists 5 distinct ones" in (check.description or "")
    assert world.cells() == world.truth("2025-04-01", "2025-04-01")
    assert world.checks(world.load("2025-04-01", "2025-04-01"))[LIST_IS_WHOLE].passed


def test_alerts_watch_the_list_too(world: World) -> None:
    world.configure(devin_alert_webhook_url="http://127.0.0.1:9/nobody")
    world.source.fail(body=b'{"items": [{"org_id": "a"}], "total": 2, "has_more": false}', times=2)
    world.load("2025-04-01", "2025-04-01")
    with dg.build_sensor_context(instance=world.instance) as context:
        cursor = world.definitions.resolve_sensor_def("alerts").evaluate_tick(context).cursor
    assert f"Check {LIST_IS_WHOLE} of organizations: error" in (cursor or "")
