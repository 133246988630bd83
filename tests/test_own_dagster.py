"""A Dagster of the user's own, in which another code location has assets and resources of the same names."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from pipelines.command.dagster_home import CONFIGURATION, dagster_home, open_instance
from pipelines.command.status import status
from pipelines.follow import follow_sensor
from pipelines.home import PROJECT
from pipelines.names import JOB
from tests.support.command import devin_sessions
from tests.support.pages import blocks
from tests.support.world import World
from warehouse import tables

PAGE = PROJECT / "docs" / "own-dagster.md"
HOST = '''
import dagster as dg

@dg.asset
def organizations(database: dg.ResourceParam[str]) -> None:
    """The host's own table of this name."""

@dg.asset(deps=[organizations])
def daily_sessions(settings: dg.ResourceParam[str]) -> None:
    """The host's own table of this name."""

job = dg.define_asset_job("daily_refresh", ["organizations", "daily_sessions"])
defs = dg.Definitions(
    [organizations, daily_sessions],
    jobs=[job],
    schedules=[dg.ScheduleDefinition(name="daily_refresh_schedule", job=job, cron_schedule="0 3 * * *")],
    resources={"database": "the host's", "settings": "the host's"},
)
'''
OURS = {
    *("organizations", "daily_sessions", "published_snapshot", "activity_report"),
    *(rollup.name for rollup in tables.ROLLUPS),
}


@pytest.fixture
def beside_another(world: World) -> World:
    """A world whose assets have a prefix."""
    world.configure(devin_asset_prefix="metrics/devin", devin_report_path="")
    return world


@pytest.fixture
def workspace(beside_another: World) -> Iterator[WorkspaceProcessContext]:
    """The workspace of the page, with a host project beside this one, as a webserver loads it."""
    (beside_another.directory / "host.py").write_text(HOST, encoding="utf-8")
    (text,) = (block for block in blocks(PAGE, "yaml") if "load_from" in block)
    path = beside_another.directory / "workspace.yaml"
    lines = [line for line in text.splitlines() if "executable_path" not in line]
    host = ["  - python_file:", "      relative_path: host.py", "      location_name: host"]
    path.write_text("\n".join([*lines, *host]), encoding="utf-8")
    configuration = dagster_home() / CONFIGURATION  # else a code server may end in the middle of the next test
    configuration.write_text("code_servers: {wait_for_local_processes_on_shutdown: true}\n", encoding="utf-8")
    with (
        open_instance(for_the_ui=True) as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(path)])) as context,
    ):
        yield context


def test_both_code_locations_load_and_no_asset_is_in_both(workspace: WorkspaceProcessContext) -> None:
    request = workspace.create_request_context()
    assert {entry.origin.location_name: entry.load_error for entry in request.get_code_location_entries().values()} == {
        "devin_session_metrics": None,
        "host": None,
    }
    keys = {
        name: {
            node.asset_key.to_user_string()
            for node in request.get_code_location(name).get_repository("__repository__").get_asset_node_snaps()
        }
        for name in ("devin_session_metrics", "host")
    }
    assert keys["host"] == {"organizations", "daily_sessions"}
    assert keys["devin_session_metrics"] == {f"metrics/devin/{name}" for name in OURS}


def test_with_a_prefix_a_run_loads_checks_and_publishes_under_it(beside_another: World) -> None:
    result = beside_another.run("2025-04-01", "2025-04-03")
    assert result.success, beside_another.failures(result)
    assert beside_another.cells() == beside_another.truth("2025-04-01", "2025-04-03")
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    assert made == {f"metrics/devin/{name}" for name in OURS}
    checked = {tuple(check.asset_key.path[:-1]) for check in result.get_asset_check_evaluations()}
    assert checked == {("metrics", "devin")}
    days = beside_another.instance.get_materialized_partitions(dg.AssetKey(["metrics", "devin", "daily_sessions"]))
    assert days == {"2025-04-01", "2025-04-02", "2025-04-03"}


def test_the_command_records_its_runs_under_the_prefix(beside_another: World) -> None:
    code, _, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert (code, err) == (0, "")
    with open_instance() as instance:
        keys = {key.to_user_string() for key in instance.get_asset_keys()}
    assert keys == {f"metrics/devin/{name}" for name in OURS}


def test_the_sensor_neither_waits_for_nor_follows_the_runs_of_other_projects(beside_another: World) -> None:
    key = dg.AssetKey("organizations")

    @dg.asset(key=key)
    def another() -> None: ...

    job = dg.Definitions([another], jobs=[dg.define_asset_job(JOB, [another])]).resolve_job_def(JOB)
    beside_another.instance.create_run_for_job(
        job, asset_selection=frozenset({key}), status=dg.DagsterRunStatus.STARTED
    )
    job.execute_in_process(instance=beside_another.instance, asset_selection=[key])
    beside_another.load("2025-04-01", "2025-04-01")
    assert [run.days for run in status(beside_another.settings, beside_another.instance).runs] == ["2025-04-01"]
    tick = follow_sensor(beside_another.settings).evaluate_tick(dg.build_sensor_context(beside_another.instance))
    assert tick.skip_message == "A run ended just now; another may follow at once.", "that of the load"


@pytest.mark.parametrize("bad", ["a//b", "/a", "a/", "a-b", "a b", "ä"])
def test_a_prefix_that_dagster_would_not_take_is_refused(world: World, bad: str) -> None:
    world.configure(devin_asset_prefix=bad)
    with pytest.raises(ValueError, match=r"DEVIN_ASSET_PREFIX=.* is refused"):
        _ = world.settings


def test_the_host_of_the_page_is_a_file_that_dagster_loads(beside_another: World, tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "python")
    namespace: dict[str, object] = {}
    exec(compile(text, "own-dagster.md", "exec"), namespace)
    defs = namespace["defs"]
    assert isinstance(defs, dg.Definitions)
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert {f"metrics/devin/{name}" for name in OURS} < keys
