"""Several enterprises in one Dagster: each has its own names, and nothing of one is taken for another's."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.server import wait_for_grpc_server
from dagster_graphql.test.utils import execute_dagster_graphql
from pydantic import SecretStr

from pipelines import names
from pipelines.asset_keys import asset_key
from pipelines.code_locations import clashes, register
from pipelines.command.dagster_home import open_instance
from pipelines.command.status import status
from pipelines.follow import follow_sensor
from pipelines.home import PROJECT
from pipelines.settings import Settings
from resources.sandbox.server import Sandbox
from tests.support.command import Here, devin_sessions
from tests.support.noon import NOON, ago
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.receiver import Receiver
from tests.support.world import World

ACME, GLOBEX = "acme", "globex"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


@pytest.fixture
def shared(world: World) -> World:
    """A world in which several enterprises share DEVIN_HOME and DAGSTER_HOME, and nothing else is set."""
    world.configure(
        devin_home=str(world.directory), warehouse_url="", devin_report_path="", devin_enterprise=ACME,
        devin_timezone=NOON, devin_start_date=ago(2),
    )  # fmt: skip
    return world


# One of them fails


def test_a_revoked_key_of_one_touches_no_run_day_check_or_alert_of_the_other(
    shared: World, here: Here, receiver: Receiver
) -> None:
    world = shared
    world.configure(devin_alert_webhook_url=receiver.url)
    assert here("backfill", ago(2), ago(1))[0] == 0
    report = world.directory / ACME / "published" / "report.html"
    assert f"<h1>Devin sessions of {ACME}</h1>" in report.read_text(encoding="utf-8")
    loaded_at = datetime.now(UTC)
    with Sandbox(organizations=3, seed=2) as theirs, open_instance() as instance:
        world.configure(devin_enterprise=GLOBEX, devin_api_url=theirs.url)
        for key, why in ((f"{world.source.api_key}x", "401"), ("", "DEVIN_API_KEY is not set")):
            world.configure(devin_api_key=key)
            result = world.definitions.resolve_job_def(f"{GLOBEX}_daily_refresh").execute_in_process(
                instance=instance, raise_on_error=False, asset_selection=[asset_key(world.settings, "organizations")]
            )
            assert why in world.failures(result)
        found = status(world.settings, instance)
        assert [run.outcome for run in found.runs] == ["failure", "failure"]
        everything = world.definitions.resolve_implicit_global_asset_job_def()
        check = min(everything.asset_layer.asset_graph.asset_check_keys, key=str)
        alone = everything.get_subset(asset_selection=set(), asset_check_selection={check})
        alone.execute_in_process(instance=instance, raise_on_error=False)
        assert len(status(world.settings, instance).runs) == 3
        assert found.dimensions.popitem()[1].coverage.days_loaded == 0
        assert [text.splitlines()[0] for text in alerts(world, instance, receiver)] == [
            f"{GLOBEX}: Run failed in {GLOBEX}__organizations"
        ]
        world.configure(devin_enterprise=ACME, devin_api_url=world.source.url, devin_api_key=world.source.api_key)
        found = status(world.settings, instance)
        assert ([run.outcome for run in found.runs], found.to_do) == (["success"], [])
        assert world.cells() == world.truth(ago(2), ago(1))
        assert alerts(world, instance, receiver) == []
        context = dg.build_sensor_context(instance, cursor=loaded_at.isoformat())
        tick = follow_sensor(world.settings).evaluate_tick(context)
        assert tick.skip_message == "No run has ended.", "of its own"


def alerts(world: World, instance: dg.DagsterInstance, receiver: Receiver) -> list[str]:
    """The messages of one tick of this enterprise's sensor."""
    before = len(receiver.texts)
    sensor = world.definitions.resolve_sensor_def(names.alerts(world.settings))
    with dg.build_sensor_context(instance=instance) as context:
        sensor.evaluate_tick(context)
    return receiver.texts[before:]


def test_status_and_backfill_say_which_enterprise_they_are_about(shared: World, here: Here) -> None:
    code, out, _ = here("backfill", ago(1))
    assert code == 0
    assert f"Counts of {ACME}, for SQL: {shared.directory}/{ACME}/published/devin_sessions.duckdb" in out
    assert here("status")[1].startswith(f"Enterprise: {ACME}\n")
    assert json.loads(here("status", "--json")[1])["enterprise"] == ACME
    code, out, _ = here("query", "--csv", "select count(*) as days from enterprise_sessions")
    assert (code, out) == (0, "days\n1\n")
    assert here("restore")[0] == 0
    code, out, _ = devin_sessions("demo", "--days", "1", "--organizations", "1")
    assert (code, "/demo DEVIN_ENTERPRISE= WAREHOUSE_URL=" in out) == (0, True), "the demo is of no enterprise"
    shared.configure(devin_enterprise="")
    assert "enterprise" not in json.loads(here("status", "--json")[1])


def test_status_points_to_the_warehouse_that_was_loaded_before_the_enterprise_had_a_name(
    shared: World, here: Here
) -> None:
    shared.configure(devin_enterprise="")
    assert here("backfill", ago(1))[0] == 0
    former = shared.database.path
    shared.configure(devin_enterprise=ACME)
    keep = f"set WAREHOUSE_URL=duckdb:///{former}"
    assert keep in " ".join(status(shared.settings, None).to_do)
    shared.configure(warehouse_url=f"duckdb:///{former}")
    found = status(shared.settings, None)
    assert keep not in " ".join(found.to_do)
    assert found.dimensions.popitem()[1].coverage.days_loaded == 1


def test_two_enterprises_have_a_schema_each_in_one_database(shared: World, postgresql: PostgreSQL) -> None:
    url = postgresql.database(unprivileged=True)
    for enterprise, day in ((ACME, ago(1)), (GLOBEX, ago(2))):
        shared.configure(devin_enterprise=enterprise, warehouse_url=url)
        assert shared.run(day, day).success
        assert (shared.directory / enterprise / "published" / "report.html").is_file()
    with shared.database.transaction(read_only=True) as connection:
        for enterprise, day in ((ACME, ago(1)), (GLOBEX, ago(2))):
            stored = connection.execute(sa.text(f"select distinct cast(day as text) from {enterprise}.daily_sessions"))
            assert stored.scalars().all() == [day]


def test_a_schedule_that_is_switched_off_is_that_of_one_enterprise(
    daemon: "Daemon", acme: Settings, globex: Settings
) -> None:
    origin = RemoteInstigatorOrigin(daemon.repository("a"), "acme_daily_refresh_schedule")
    data = ScheduleInstigatorData("30 2 * * *")
    daemon.instance.add_instigator_state(
        InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.STOPPED, data)
    )
    assert [status(one, daemon.instance).schedule for one in (acme, globex)] == ["switched off", "not running"]


# Two that are not told apart


@dataclass
class Daemon:
    """The record that a daemon keeps of ticks, on a clock of its own."""

    instance: dg.DagsterInstance
    at: datetime = datetime(2025, 6, 1, tzinfo=UTC)

    def tick(self, location: str, settings: Settings) -> list[str]:
        """What the sensor of this code location has to say in its next tick, ten seconds later."""
        self.at += timedelta(seconds=10)
        said = register(self.instance, settings, location, self.at)
        origin = RemoteInstigatorOrigin(self.repository(location), names.follow(settings))
        state = InstigatorState(
            origin,
            InstigatorType.SENSOR,
            InstigatorStatus.DECLARED_IN_CODE,
            SensorInstigatorData(self.at.timestamp()),
        )
        if self.instance.get_instigator_state(origin.get_id(), origin.get_selector().get_id()):
            self.instance.update_instigator_state(state)
        else:
            self.instance.add_instigator_state(state)
        return said

    @staticmethod
    def repository(location: str) -> RemoteRepositoryOrigin:
        """What Dagster calls the definitions of a code location."""
        return RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("host", 1, location_name=location), "__repository__")

    def last_of(self, *ticks: tuple[str, Settings]) -> list[str]:
        """What is said in the last of three rounds of these ticks."""
        for _ in range(3):
            said = [sentence for tick in ticks for sentence in self.tick(*tick)]
        return said

    def status(self, settings: Settings) -> list[str]:
        return clashes(self.instance, settings, self.at)


@pytest.fixture
def daemon(shared: World) -> Iterator[Daemon]:
    with open_instance() as instance:
        yield Daemon(instance)


@pytest.fixture
def acme(shared: World) -> Settings:
    return shared.settings


@pytest.fixture
def globex(shared: World, acme: Settings) -> Settings:
    shared.configure(devin_enterprise=GLOBEX, devin_api_key="cog_of_globex")
    return shared.settings


SAME_NAMES = "have the same names, so Dagster takes the assets and runs of one for those of the other."


@pytest.mark.parametrize("enterprise", ["", ACME])
def test_two_code_locations_of_one_enterprise_or_of_none_are_reported(
    shared: World, daemon: Daemon, enterprise: str
) -> None:
    shared.configure(devin_enterprise=enterprise)
    settings = shared.settings
    said = daemon.last_of(("a", settings), ("b", settings))
    a, b = (f"{name} ({enterprise})" if enterprise else name for name in "ab")
    assert len(said) == 2, "one in each"
    assert {*said} == {*daemon.status(settings)}
    assert said[0].startswith(f"The code locations {a} and {b} {SAME_NAMES} Set DEVIN_ENTERPRISE to another name")


def test_one_key_or_one_warehouse_for_two_enterprises_is_reported(
    daemon: Daemon, acme: Settings, globex: Settings
) -> None:
    assert daemon.last_of(("a", acme), ("b", globex)) == daemon.status(globex) == []
    (said, _) = daemon.last_of(("a", acme), ("b", with_(globex, warehouse_url=acme.warehouse_url)))
    assert said.startswith("The code locations a (acme) and b (globex) have the same warehouse, which then mixes")
    (said, _) = daemon.last_of(("a", acme), ("b", with_(globex, devin_api_key=acme.devin_api_key)))
    assert said.startswith("The code locations a (acme) and b (globex) have the same key, so both count")
    assert daemon.status(acme) == daemon.status(globex) == [said]
    initech = with_(acme, devin_enterprise="initech", devin_asset_prefix=("initech",))
    assert [sentence.partition(" have")[0] for sentence in daemon.status(initech)] == [
        "The code locations a (acme) and this one (initech)",
        "The code locations b (globex) and this one (initech)",
    ], "before it has a code location"
    notes = {f"devin-sessions/code-location/{name}" for name in "ab"}
    stored = daemon.instance.daemon_cursor_storage.get_cursor_values(notes)
    assert stored.keys() == notes
    assert acme.devin_api_key
    assert acme.devin_api_key.get_secret_value() not in str(stored)


def test_what_was_renamed_moved_or_removed_or_has_a_new_key_is_not_reported(
    daemon: Daemon, acme: Settings, globex: Settings
) -> None:
    def said_by(*ticks: tuple[str, Settings], rounds: int = 3) -> list[str]:
        found = []
        for location, settings in ticks * rounds:
            found += daemon.tick(location, settings)
            found += daemon.status(settings)
        return found

    rotated = with_(acme, devin_api_key=SecretStr("cog_rotated"))
    initech = with_(acme, devin_enterprise="initech", devin_asset_prefix=("initech",))
    assert said_by(("old", acme), ("b", globex)) == []
    assert said_by(("new", acme), ("b", globex)) == [], "renamed"
    assert said_by(("new", initech), ("b", globex)) == [], "another enterprise by the same name"
    assert said_by(("new", rotated), ("b", globex)) == [], "and back, with another key"
    daemon.at += timedelta(days=30)
    assert said_by(("c", initech), ("b", globex)) == [], "acme was removed last month"
    daemon.at += timedelta(days=30)
    assert said_by(("new", acme), ("b", globex), rounds=10) == [], "initech was, and acme is back"
    assert said_by(("old", acme), ("b", globex)) == [], "renamed back"
    assert said_by(("old", globex), ("b", acme)) == [], "the other way round"
    assert said_by(("old", acme), ("b", globex)) == [], "and back"
    twin = with_(globex, devin_api_key=acme.devin_api_key)
    assert said_by(("old", acme), ("b", twin)) != []
    said_by(("b", twin), rounds=20)
    assert said_by(("b", twin)) == [], "acme was removed some minutes ago"


def test_databases_that_only_look_alike_are_not_taken_for_one(daemon: Daemon, acme: Settings, globex: Settings) -> None:
    def said_of(a: str, b: str, *schemas: str) -> list[str]:
        return daemon.last_of(
            ("a", with_(acme, warehouse_url=a, devin_schema=schemas[0])),
            ("b", with_(globex, warehouse_url=b, devin_schema=schemas[-1])),
        )

    assert said_of("duckdb:///md:sessions", "duckdb:///md:sessions", "") == [], "accounts of MotherDuck"
    users = [f"postgresql+psycopg://{user}@127.0.0.1/sessions" for user in (ACME, GLOBEX)]
    assert said_of(*users, "") == [], "each user may have a search_path"
    assert said_of(*users, ACME, GLOBEX) == []
    assert len(said_of(*users, "metrics")) == len(said_of(users[0], users[0], "")) == 2


def with_(settings: Settings, **values: object) -> Settings:
    """These settings with other values."""
    return settings.model_copy(update=values)


# As the daemon and the UI see them


@dataclass
class CodeServer:
    """A process of this project for one enterprise, as `deploy/` starts it."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, enterprise: str, log: Path) -> "CodeServer":
        port = free_port()
        unit = (PROJECT / "deploy" / "devin-sessions@.service").read_text(encoding="utf-8")
        command = unit.replace("\\\n", "").partition("ExecStart=")[2].partition("\n")[0]
        _, *arguments = command.replace("${PORT}", str(port)).replace("%i", enterprise).split()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster", *arguments],
                env={**os.environ, "DEVIN_ENTERPRISE": enterprise},
                stdout=output,
                stderr=output,
            )
        return cls(port, process, log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def servers(shared: World) -> Iterator[dict[str, CodeServer]]:
    """A code server for each of two enterprises, both with the same key."""
    with ExitStack() as stopping:
        found = {}
        for enterprise in (ACME, GLOBEX):
            found[enterprise] = CodeServer.start(enterprise, shared.directory / f"{enterprise}.log")
            stopping.callback(found[enterprise].stop)
        for server in found.values():
            wait_for_grpc_server(server.process, DagsterGrpcClient(port=server.port, host="127.0.0.1"), [], timeout=120)
        yield found


GRAPH = """query Graph($keys: [AssetKeyInput!]!) {
  assetNodes { assetKey { path } }
  assetNodeDefinitionCollisions(assetKeys: $keys) { assetKey { path } repositories { location { name } } }
}"""


@pytest.mark.filterwarnings("ignore:Found MATERIALIZATION nodes for some asset keys")  # the twin's, by Dagster
def test_two_code_servers_show_two_graphs_and_the_daemon_finds_what_they_share(
    shared: World, servers: dict[str, CodeServer], receiver: Receiver
) -> None:
    workspace = yaml.safe_load((PROJECT / "deploy" / "workspace.yaml").read_text(encoding="utf-8"))
    for location in workspace["load_from"]:
        location["grpc_server"]["port"] = servers[location["grpc_server"]["location_name"]].port
    path = shared.directory / "workspace.yaml"
    with open_instance(for_the_ui=True) as instance:
        keys = {
            (enterprise, key.path[-1])
            for enterprise in (ACME, GLOBEX)
            for key in shared.definitions.resolve_asset_graph().get_all_asset_keys()
        }
        found = graph(instance, path, workspace, keys)
        assert found["assetNodeDefinitionCollisions"] == []
        assert {tuple(node["assetKey"]["path"]) for node in found["assetNodes"]} == keys
        twin = json.loads(json.dumps(workspace["load_from"][0]))
        twin["grpc_server"]["location_name"] = "twin"
        workspace["load_from"].append(twin)
        collisions = graph(instance, path, workspace, keys)["assetNodeDefinitionCollisions"]
        assert {node["assetKey"]["path"][0] for node in collisions} == {ACME}, "what the names keep apart"
        with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(path)])) as context:
            for _ in range(3):
                for _ in execute_sensor_iteration(context, logging.getLogger("test"), None, None):
                    pass
                ten_seconds_pass(instance)
        to_do = status(shared.settings, instance).to_do
        key = "The code locations acme and globex have the same key"
        same = f"The code locations acme and twin (acme) {SAME_NAMES}"
        assert sum(sentence.startswith(same) for sentence in to_do) == 1
        assert sum(sentence.startswith(key) for sentence in to_do) == 1
        shared.configure(devin_alert_webhook_url=receiver.url)
        (message,) = alerts(shared, instance, receiver)
        assert message.startswith(f"{ACME}: Code locations are not told apart\n")
        reasons = {
            state.name: tick.skip_reason or ""
            for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        }
        assert key in reasons[f"{GLOBEX}_loaded_days_follow"]
        assert same in reasons[f"{ACME}_loaded_days_follow"]
        pools = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
        assert pools == {f"devin_api_{ACME}": 1, f"devin_api_{GLOBEX}": 1}
    log = servers[GLOBEX].log.read_text()
    assert log.count(f"WARNING - __repository__ - {GLOBEX}_loaded_days_follow - {key}") == 1, "once, not at each tick"


def graph(
    instance: dg.DagsterInstance, path: Path, workspace: dict[str, Any], keys: set[tuple[str, str]]
) -> Mapping[str, Any]:
    """The asset graph of this workspace, as the UI gets it, with what is defined twice among these assets."""
    path.write_text(yaml.safe_dump(workspace), encoding="utf-8")
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(path)])) as context:
        asked = {"keys": [{"path": list(key)} for key in keys]}
        return execute_dagster_graphql(context.create_request_context(), GRAPH, asked).data


def ten_seconds_pass(instance: dg.DagsterInstance) -> None:
    """Let all that happened have been ten seconds earlier, so that the next ticks are due."""
    notes = {f"devin-sessions/code-location/{name}" for name in (ACME, GLOBEX, "twin")}
    for key, stored in instance.daemon_cursor_storage.get_cursor_values(notes).items():
        note = json.loads(stored)
        instance.daemon_cursor_storage.set_cursor_values({key: json.dumps(note | {"since": note["since"] - 10})})
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.instigator_data
        assert isinstance(data, SensorInstigatorData)
        assert data.last_tick_timestamp
        assert data.last_tick_start_timestamp
        earlier = data._replace(
            last_tick_timestamp=data.last_tick_timestamp - 10,
            last_tick_start_timestamp=data.last_tick_start_timestamp - 10,
        )
        instance.update_instigator_state(state.with_data(earlier))
