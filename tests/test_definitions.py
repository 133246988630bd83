"""What the Dagster catalogue shows."""

import dagster as dg
import pytest

from pipelines.checks import claims_of
from pipelines.definitions import defs
from pipelines.loading.counted_ids import LIST_IS_WHOLE
from pipelines.names import JOB
from pipelines.settings import SettingsRefused
from tests.support.client import everything_shown_by
from tests.support.world import World
from warehouse import tables
from warehouse.dimensions import ORGANIZATIONS

ROLLUPS = [rollup.name for rollup in tables.ROLLUPS]
ASSETS = ["organizations", "daily_sessions", *ROLLUPS]


def test_every_asset_is_described_by_its_table(world: World) -> None:
    specs = {spec.key.to_user_string(): spec for spec in world.definitions.resolve_all_asset_specs()}
    assert set(specs) == {*ASSETS, "published_snapshot"}
    assert specs.pop("published_snapshot").description
    for name, spec in specs.items():
        table = tables.metadata.tables[name]
        assert spec.description == table.comment
        assert spec.group_name == "devin_sessions"
        assert spec.owners
        assert "sql" in spec.kinds
        schema = spec.metadata["dagster/column_schema"]
        assert isinstance(schema, dg.TableSchema)
        assert [(c.name, c.description) for c in schema.columns] == [(c.name, c.comment) for c in table.columns]


def test_no_dagster_resource_holds_the_key(world: World) -> None:
    world.configure(devin_api_key="apk_user_very_secret")
    held = world.definitions.resources
    assert held
    for resource in held.values():
        assert "very_secret" not in repr(vars(resource))
        assert getattr(resource, "devin_api_key", None) is None


def test_no_run_config_changes_where_a_resource_reads_or_writes(world: World) -> None:
    job = world.definitions.resolve_job_def(JOB)
    resources = job.resource_defs
    assert {"database", "devin_api", "io_manager", "settings"} <= set(resources)
    assert dg.validate_run_config(job, {})
    for name in resources:
        for setting in ("base_dir", "url", "base_url"):
            with pytest.raises(dg.DagsterInvalidConfigError):
                dg.validate_run_config(job, {"resources": {name: {"config": {setting: "/elsewhere"}}}})


def test_one_job_holds_every_asset_and_check(world: World) -> None:
    job = world.definitions.resolve_job_def(JOB)
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {*ASSETS, "published_snapshot"}
    assert {check.name for check in job.asset_layer.asset_graph.asset_check_keys} == {
        LIST_IS_WHOLE,
        *(claim.name for claim in claims_of(ORGANIZATIONS)),
    }


def test_organizations_come_first_then_rollups_and_the_snapshot_last(world: World) -> None:
    result = world.run("2025-04-01", "2025-04-01")
    order = [event.asset_key for event in result.get_asset_materialization_events()]
    names = [key.to_user_string() for key in order if key]
    assert names[:2] == ["organizations", "daily_sessions"]
    assert sorted(names[2:-1]) == sorted(ROLLUPS)
    assert names[-1] == "published_snapshot"


@pytest.mark.parametrize(("variable", "value"), [("DEVIN_TIMEZONE", "Mars/Base"), ("DEVIN_API_KEY", "apk_secret_1")])
def test_a_wrong_setting_is_refused_when_the_code_loads(world: World, variable: str, value: str) -> None:
    world.configure(**{variable: value})
    with pytest.raises(SettingsRefused) as refused:
        defs()
    shown = everything_shown_by(refused.value)
    assert f"{variable}" in str(refused.value).splitlines()[-1]
    assert "Allowed:" in str(refused.value)
    assert "secret" not in shown
