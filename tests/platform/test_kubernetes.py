"""Code locations in a company's Dagster, whose runs are Kubernetes Jobs: values.yaml, and a stand-in of a cluster."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import kubernetes_validate
import pytest
import sqlalchemy as sa

from resources.sandbox.server import Sandbox
from tests.platform import chart
from tests.platform.company import Company, company
from tests.platform.kubernetes_api import Cluster
from tests.support.held import Held
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_until
from tests.support.world import World, new_world

ACME, GLOBEX = "devin-acme", "devin-globex"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


@pytest.fixture
def warehouse_world(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql: PostgreSQL
) -> Iterator[World]:
    """A world whose warehouse is on PostgreSQL."""
    url = postgresql.database(unprivileged=True)
    with new_world(sandbox, tmp_path, monkeypatch, url) as world:
        yield world
    postgresql.drop(url)


@pytest.fixture
def dagster(warehouse_world: World, tmp_path: Path, postgresql: PostgreSQL) -> Iterator[Company]:
    """The company's Dagster. One of its two code locations has its warehouse in a file of its container."""
    world, record = warehouse_world, postgresql.database()
    variables = {"DEVIN_API_URL": world.source.url, "DEVIN_PUBLISH_URL": f"file://{tmp_path}/bucket"}
    acme = variables | {"DEVIN_FETCH": "direct", "DEVIN_SCHEMA": "public"}
    globex = variables | {"DEVIN_ASSET_PREFIX": "globex"}
    key, in_file = {"DEVIN_API_KEY": world.source.api_key}, f"duckdb:///{tmp_path}/pod/warehouse.duckdb"
    secrets = {ACME: key | {"WAREHOUSE_URL": os.environ["WAREHOUSE_URL"]}, GLOBEX: key | {"WAREHOUSE_URL": in_file}}
    database = sa.make_url(record).set(drivername="postgresql+psycopg2")
    with company(tmp_path, database, {ACME: acme, GLOBEX: globex}, secrets) as running:
        yield running
    postgresql.drop(record)


def test_the_stand_in_refuses_what_kubernetes_would(tmp_path: Path) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "dagster", "image": "image", "argss": []}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": {"spec": pod}}}
    cluster = Cluster(tmp_path, {}, {})
    with pytest.raises(kubernetes_validate.ValidationError, match="argss"):
        cluster.create("dagster", job)
    assert cluster.refused and not cluster.pods


def test_a_run_is_a_job_and_one_whose_pod_is_killed_goes_on_after_its_last_block(
    dagster: Company, warehouse_world: World
) -> None:
    world = warehouse_world
    in_a_file = dagster.launch(GLOBEX, "2025-07-01", "2025-07-01")
    second_block = Held(world, datetime(2025, 2, 1, tzinfo=UTC))
    run_id = dagster.launch(ACME, "2025-01-01", "2025-02-04")
    wait_until(second_block.reached.is_set, "the second block is asked for")
    wait_until(lambda: len(world.cells()) == 31 * 2, "the first block is stored")
    (pod,) = dagster.pods(run_id)
    pod.kill()
    world.source.heal()
    world.source.requests.clear()
    first, second = dagster.wait_for(run_id)
    statuses = [run.status for run in (first, second)]
    assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS], dagster.events(second.run_id)
    assert "K8s job" in dagster.events(first.run_id)
    assert [one.phase for one in dagster.pods(run_id)] == ["Failed", "Succeeded"]
    assert dagster.cluster.refused == [], "each Job is valid"
    assert world.cells() == world.truth("2025-01-01", "2025-02-04")
    assert min(q.start for q in world.asked() if q.start) == second_block.since, "stored days are not requested again"
    spec = pod.job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    launcher = chart.values()["runLauncher"]["config"]["k8sRunLauncher"]
    (deployment, _) = chart.values()["dagster-user-deployments"]["deployments"]
    assert pod.job["spec"].items() >= launcher["runK8sConfig"]["jobSpecConfig"].items()
    assert spec.items() >= launcher["runK8sConfig"]["podSpecConfig"].items()
    assert container["securityContext"] == launcher["securityContext"]
    assert container["resources"] == deployment["resources"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/data", "/tmp"}
    assert {"secretRef": {"name": ACME}} in container["envFrom"]
    assert world.source.api_key not in str(pod.job)
    assert os.environ["WAREHOUSE_URL"] not in str(pod.job)

    (refused,) = dagster.wait_for(in_a_file)
    assert refused.status is dg.DagsterRunStatus.FAILURE
    (message,) = {*dagster.failures(in_a_file)}
    assert "warehouse.duckdb is a DuckDB file, and is not here: K8sRunLauncher gives each run a container" in message
    assert not (world.directory / "pod" / "warehouse.duckdb").exists(), "nothing was created that would go with the pod"
