"""The files in deploy/: what they promise about secrets, ports and rights."""

from pathlib import Path
from typing import Any

import yaml

from pipelines.command import dagster_home
from pipelines.home import PROJECT
from tests.platform import chart

DEPLOY = PROJECT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if name != "postgresql"}


def test_compose_publishes_one_port_on_this_machine_and_gives_the_key_to_one_container() -> None:
    assert [port for service in COMPOSE["services"].values() for port in service.get("ports", ())] == [
        "127.0.0.1:3000:3000"
    ]
    assert "--read-only" in COMPOSE["services"]["webserver"]["command"], "the UI has no password"
    assert [name for name, service in COMPOSE["services"].items() if "env_file" in service] == ["sessions"]
    assert COMPOSE["services"]["postgresql"]["networks"] == ["inside"] and COMPOSE["networks"]["inside"]["internal"]


def test_the_containers_of_compose_have_no_rights_a_read_only_root_and_a_health_check() -> None:
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in OURS.values())
    assert all("healthcheck" in service for service in COMPOSE["services"].values())


def test_the_instance_of_compose_is_the_projects_own_but_for_its_storage() -> None:
    own = yaml.safe_load(Path(dagster_home.__file__).with_name("dagster.yaml").read_text(encoding="utf-8"))
    ours = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    assert ours.keys() - own.keys() == {"storage"}
    assert {name: ours[name] for name in ours if name != "storage"} == {
        name: own[name] for name in own if name != "event_log_storage"
    }


def test_the_image_has_a_command_without_an_entry_point_and_a_user_by_number() -> None:
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    final = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert not [line for line in lines if line.startswith("ENTRYPOINT")], "it would come before the command of a Job"
    assert "USER 10001:10001" in final
    assert any(line.startswith('CMD ["dagster", "api", "grpc"') for line in final)


def test_no_secret_is_in_the_values_and_each_enterprise_has_its_own() -> None:
    deployments = chart.values()["dagster-user-deployments"]["deployments"]
    named = [secret["name"] for one in deployments for secret in one["envSecrets"]]
    assert len(named) == len({*named}) == len(deployments) == 2
    variables = {variable["name"] for one in deployments for variable in one["env"]}
    assert not variables & {"DEVIN_API_KEY", "WAREHOUSE_URL"}
    enterprises = [v["value"] for one in deployments for v in one["env"] if v["name"] == "DEVIN_ENTERPRISE"]
    assert enterprises == ["acme", "globex"]
    for one in deployments:
        assert one["podSecurityContext"]["runAsUser"] == 10001
        assert {mount["mountPath"] for mount in one["volumeMounts"]} == {"/data", "/tmp"}
