"""A company's Dagster on the stand-in of a cluster: PostgreSQL, code locations, a daemon, and the UI's GraphQL."""

import copy
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
import yaml
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from pipelines.failures import failure_message
from pipelines.home import PROJECT
from pipelines.schedules import range_tags
from tests.platform import chart
from tests.platform.kubernetes_api import Cluster, Pod, Starts, as_process, served
from tests.support.graphql import LAUNCH
from tests.support.ports import free_port
from tests.support.waiting import wait_until

BIN = PROJECT / ".venv" / "bin"
LOOPBACK = "127.0.0.1"


@dataclass
class Company:
    """A running Dagster, whose runs are Jobs of the cluster."""

    cluster: Cluster
    home: Path
    workspace: WorkspaceProcessContext
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """The process of each code location, and of the daemon."""

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.workspace.instance

    def query(self, text: str, **variables: object) -> dict[str, Any]:
        """Ask as the UI does."""
        answer = execute_dagster_graphql(self.workspace.create_request_context(), text, variables)
        assert not answer.errors, answer.errors
        data: dict[str, Any] = {**answer.data}
        return data

    def assets(self, location: str) -> dict[str, list[str]]:
        """The keys of a code location's assets, by their last part."""
        nodes = self._repository(location).get_asset_node_snaps()
        return {node.asset_key.path[-1]: list(node.asset_key.path) for node in nodes}

    def _repository(self, location: str) -> Any:
        code = self.workspace.create_request_context().get_code_location(location)
        return code.get_repository("__repository__")

    def launch(self, location: str, first: str, last: str, *names: str) -> str:
        """Launch a run over these days, of the assets of these names or of all. Returns its id."""
        jobs = [job.name for job in self._repository(location).get_all_jobs() if not job.name.startswith("__")]
        keys, tags = self.assets(location), range_tags(first, last)
        params = {
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": location,
                "jobName": jobs[0],
                "assetSelection": [{"path": keys[name]} for name in names or keys],
            },
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        launched = self.query(LAUNCH % "launchRun", params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id: str = launched["run"]["runId"]
        return run_id

    def family(self, run_id: str) -> list[dg.DagsterRun]:
        """A run, and those that Dagster started in its place, in order."""
        runs = self.instance.get_runs(dg.RunsFilter(tags={"dagster/root_run_id": run_id}))
        first = self.instance.get_run_by_id(run_id)
        assert first is not None
        return [first, *reversed([run for run in runs if run.run_id != run_id])]

    def events(self, run_id: str) -> str:
        """What happened in a run, a line each, for whoever reads why a test failed."""
        return "\n".join(record.message or record.user_message for record in self.instance.all_logs(run_id))

    def failures(self, run_id: str) -> list[str]:
        """The messages of a run's failed steps."""
        failed = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        return [failure_message(record.get_dagster_event(), run_id) for record in failed]

    def pods(self, run_id: str) -> list[Pod]:
        """The pods of a run and of those in its place, in order."""
        return [pod for run in self.family(run_id) for pod in self.cluster.of(f"dagster-run-{run.run_id}")]

    def wait_for(self, run_id: str, seconds: float = 60) -> list[dg.DagsterRun]:
        """Wait until a run, or one in its place, has succeeded, or none will, and its pods have ended. Return them."""
        until = time.monotonic() + seconds
        while True:
            runs = self.family(run_id)
            is_last = runs[-1].status is not dg.DagsterRunStatus.FAILURE or runs[-1].tags.get(WILL_RETRY_TAG) == "false"
            if runs[-1].is_finished and is_last and all(pod.phase != "Running" for pod in self.pods(run_id)):
                return runs
            assert time.monotonic() < until, self._account(run_id)
            time.sleep(0.1)  # each look is a query, of which the runs need the database

    def _account(self, run_id: str) -> str:
        pods = [f"{pod.name} on {pod.node}: {pod.phase} {pod.state()}\n{pod.log()}" for pod in self.cluster.pods]
        return "\n".join([*(self.events(run.run_id) for run in self.family(run_id)), *pods, *self.cluster.refused])


def values_for(cluster: Cluster, database: sa.URL, deployments: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The project's values with the stand-in's addresses, and intervals for a test that waits.

    Of the deployments, those named are kept; each is given these variables, which take the place of its own.
    """
    values = copy.deepcopy(chart.values())
    subchart = values["dagster-user-deployments"]
    subchart["deployments"] = [one for one in subchart["deployments"] if one["name"] in deployments]
    for one in subchart["deployments"]:
        given = deployments[one["name"]]
        one["env"] = [variable for variable in one["env"] if variable["name"] not in given]
        one["env"] += [{"name": name, "value": value} for name, value in given.items()]
    values["postgresql"] |= {
        "postgresqlHost": database.host or "",
        "postgresqlUsername": database.username,
        "postgresqlDatabase": database.database,
        "postgresqlParams": dict(database.query),
        "service": {"port": database.port or 5432},
    }
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    launcher |= {"loadInclusterConfig": False, "kubeconfigFile": str(cluster.kubeconfig())}
    daemon = values["dagsterDaemon"]
    daemon["runMonitoring"]["pollIntervalSeconds"] = 1
    daemon["runCoordinator"]["config"] = {"queuedRunCoordinator": {"dequeueIntervalSeconds": 1}}
    return values


@contextmanager
def company(
    directory: Path,
    database: sa.URL,
    deployments: Mapping[str, Mapping[str, str]],
    secrets: Mapping[str, dict[str, str]],
    *,
    starts: Starts = as_process,
    adjust: Any = lambda values: None,
) -> Iterator[Company]:
    """A Dagster with these deployments of values.yaml, until the block ends.

    `database` is for Dagster's record of runs. Secrets are by name. `adjust` changes the values that are used.
    """
    home = directory / "dagster_home"
    home.mkdir(parents=True)
    machine = {
        **{name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "HOME": str(directory),
        "DEVIN_HOME": str(directory / "data"),
        "XDG_CACHE_HOME": str(directory / "cache"),
    }
    kept = {**secrets, "dagster-postgresql": {"postgresql-password": database.password or "none"}}
    kept |= {f"{chart.SUBCHART}-{name}-user-env": {} for name in deployments}
    cluster = Cluster(directory / "cluster", kept, machine, starts=starts)
    cluster.directory.mkdir()
    with ExitStack() as stack:
        stack.enter_context(served(cluster))
        values = values_for(cluster, database, deployments)
        adjust(values)
        (home / "dagster.yaml").write_text(yaml.safe_dump(chart.instance(values)), encoding="utf-8")
        servers = {}
        for deployment in values["dagster-user-deployments"]["deployments"]:
            deployment["port"] = free_port()
            servers[deployment["name"]] = stack.enter_context(_code_server(cluster, deployment, machine))
        locations = chart.workspace(values)
        for location in locations["load_from"]:
            location["grpc_server"]["host"] = LOOPBACK  # where the Service of that name would lead
        workspace = directory / "workspace.yaml"
        workspace.write_text(yaml.safe_dump(locations), encoding="utf-8")
        os.environ[chart.SHARED_PASSWORD] = kept["dagster-postgresql"]["postgresql-password"]
        stack.callback(os.environ.pop, chart.SHARED_PASSWORD, None)
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        context = WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)]))
        stack.enter_context(context)
        daemon = {**machine, "DAGSTER_HOME": str(home), chart.SHARED_PASSWORD: os.environ[chart.SHARED_PASSWORD]}
        command = ["dagster-daemon", "run", "--workspace", str(workspace)]
        servers["daemon"] = stack.enter_context(_running(command, daemon, directory / "daemon.log"))
        yield Company(cluster, home, context, servers)


@contextmanager
def _code_server(
    cluster: Cluster, deployment: dict[str, Any], machine: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **machine,
        chart.SHARED_PASSWORD: cluster.secrets["dagster-postgresql"]["postgresql-password"],
        **{name: value for one in deployment["envSecrets"] for name, value in cluster.secrets[one["name"]].items()},
        **chart.environment(deployment),
    }
    log = cluster.directory / f"{deployment['name']}.log"
    with _running(chart.command(deployment, LOOPBACK), environment, log) as process:
        wait_until(lambda: process.poll() is not None or "Started Dagster code server" in log.read_text(), str(log))
        assert process.poll() is None, log.read_text()
        yield process


@contextmanager
def _running(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], env=environment, cwd=log.parent, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
