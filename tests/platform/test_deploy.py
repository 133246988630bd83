"""The files in deploy/: what they promise about secrets, ports and rights."""

import re
from pathlib import Path
from typing import Any

import yaml

from pipelines.command import dagster_home
from pipelines.home import PROJECT
from tests.platform import chart
from tests.platform.rendered import OPTIONAL_SECRET, differences

DEPLOY = PROJECT / "deploy"
PAGE = PROJECT / "docs" / "platform.md"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if name != "postgresql"}


def test_compose_publishes_one_port_on_this_machine_and_gives_the_key_to_one_container() -> None:
    assert [port for service in COMPOSE["services"].values() for port in service.get("ports", ())] == [
        "127.0.0.1:3000:3000"
    ]
    assert "--read-only" in COMPOSE["services"]["webserver"]["command"], "the UI has no password"
    assert [name for name, service in COMPOSE["services"].items() if "env_file" in service] == ["sessions"]
    environments = [service["environment"] for service in COMPOSE["services"].values()]
    assert {name for each in environments for name in each} == {
        "DAGSTER_HOME",
        "DAGSTER_STORAGE_URL",
        "POSTGRES_USER",
        "POSTGRES_DB",
        "POSTGRES_PASSWORD",
    }
    assert all("${POSTGRES_PASSWORD:?" in f"{each}" for each in environments), "it has no default"
    assert COMPOSE["services"]["postgresql"]["networks"] == ["inside"] and COMPOSE["networks"]["inside"]["internal"]


def test_the_containers_of_compose_have_no_rights_a_read_only_root_and_a_health_check() -> None:
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in OURS.values())
    assert all(service["security_opt"] == ["no-new-privileges:true"] for service in OURS.values())
    assert all("/tmp" in service["tmpfs"] for service in OURS.values())
    assert OURS["sessions"]["volumes"] == ["data:/data"] and "data" in COMPOSE["volumes"], "the warehouse outlives it"
    assert all("/data/dagster:" in f"{OURS[name]['tmpfs']}" for name in ("daemon", "webserver"))
    assert all("healthcheck" in service for service in COMPOSE["services"].values())
    assert all(service["restart"] == "unless-stopped" for service in COMPOSE["services"].values())
    assert all(service["init"] for service in OURS.values()), "the code location's runs are reaped"
    assert OURS["sessions"]["stop_grace_period"] == "60s", "a run stores the block that it is at"


def test_the_instance_of_compose_is_the_projects_own_but_for_its_storage() -> None:
    own = yaml.safe_load(Path(dagster_home.__file__).with_name("dagster.yaml").read_text(encoding="utf-8"))
    ours = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    assert ours.keys() - own.keys() == {"storage"}
    assert COMPOSE["configs"]["dagster"] == {"file": "dagster.yaml"}
    variable = ours["storage"]["postgres"]["postgres_url"]["env"]
    for service in OURS.values():
        assert {"source": "dagster", "target": "/data/dagster/dagster.yaml"} in service["configs"]
        assert service["environment"][variable].startswith(chart.values()["postgresql"]["postgresqlScheme"] + "://")
    assert {name: ours[name] for name in ours if name != "storage"} == {
        name: own[name] for name in own if name != "event_log_storage"
    }


def test_the_image_has_a_command_without_an_entry_point_and_a_user_by_number() -> None:
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    final = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert not [line for line in lines if line.startswith("ENTRYPOINT")], "it would come before the command of a Job"
    assert "USER 10001:10001" in final
    assert any(line.startswith('CMD ["dagster", "api", "grpc"') for line in final)


def test_the_image_has_what_the_lock_hashes_no_installer_and_writes_to_its_volumes_alone() -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    _, build, final = re.split(r"^FROM ", text, flags=re.MULTILINE)
    assert [stage.splitlines()[0] for stage in (build, final)] == ["${BASE} AS build", "${BASE}"]
    installs = [line for line in text.splitlines() if re.search(r"pip install\b", line)]
    assert all("--require-hashes -r" in line or "--no-deps --no-build-isolation ." in line for line in installs)
    assert "pip uninstall --yes --quiet setuptools pip" in build
    assert re.findall(r"^RUN .*|^COPY .*", final, re.MULTILINE) == [
        "COPY --from=build /opt/devin-sessions /opt/devin-sessions",
        "RUN install -d -o 10001 -g 10001 -m 0700 /data /data/dagster",
    ]
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", final.partition("ENV ")[2].partition("\nWORKDIR")[0]))
    assert variables["PYTHONDONTWRITEBYTECODE"] == variables["DAGSTER_DISABLE_TELEMETRY"] == "1"
    assert variables["HOME"] == variables["DEVIN_HOME"] == "/data"
    assert variables["XDG_CACHE_HOME"].startswith("/tmp/")


def test_no_secret_is_in_the_values_and_each_enterprise_has_its_own() -> None:
    values = chart.values()
    shared = values["global"]["postgresqlSecretName"]
    assert not re.findall(r"(?i)\b\w*(?:password|token|apikey)\b:", chart.VALUES.read_text(encoding="utf-8"))
    assert values["generatePostgresqlPasswordSecret"] is values["postgresql"]["enabled"] is False
    assert f"create secret generic {shared} " in PAGE.read_text(encoding="utf-8")
    deployments = values["dagster-user-deployments"]["deployments"]
    named = [secret["name"] for one in deployments for secret in one["envSecrets"]]
    assert len(named) == len({*named}) == len(deployments) == 2
    variables = {variable["name"] for one in deployments for variable in one["env"]}
    assert not variables & {"DEVIN_API_KEY", "WAREHOUSE_URL"}
    enterprises = [v["value"] for one in deployments for v in one["env"] if v["name"] == "DEVIN_ENTERPRISE"]
    assert enterprises == ["acme", "globex"]
    for one in deployments:
        assert f"create secret generic {one['envSecrets'][0]['name']} " in PAGE.read_text(encoding="utf-8")
        assert one["dagsterApiGrpcArgs"] == ["--module-name", "pipelines.definitions"]


def test_code_locations_and_runs_have_no_rights_two_volumes_and_limits() -> None:
    values = chart.values()
    runs = values["runLauncher"]["config"]["k8sRunLauncher"]
    pods = runs["runK8sConfig"]["podSpecConfig"]
    for one in values["dagster-user-deployments"]["deployments"]:
        for container in (one["securityContext"], runs["securityContext"]):
            assert container["allowPrivilegeEscalation"] is False
            assert container["readOnlyRootFilesystem"] is True
            assert container["capabilities"] == {"drop": ["ALL"]}
        for pod in (one["podSecurityContext"], pods["securityContext"]):
            assert pod["runAsNonRoot"] is True
            assert {pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]} == {10001}
        assert {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]} == {"data": "/data", "tmp": "/tmp"}
        assert one["volumes"] == [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
        assert one["resources"]["requests"] and one["resources"]["limits"]["memory"]
        assert one["includeConfigInLaunchedRuns"] == {"enabled": True}, "or runs have neither key nor volumes"
    assert (
        pods["terminationGracePeriodSeconds"] >= 60 and runs["runK8sConfig"]["jobSpecConfig"]["ttlSecondsAfterFinished"]
    )


def test_the_values_are_what_the_page_gives_reasons_for() -> None:
    values = chart.values()
    daemon, concurrency = values["dagsterDaemon"], values["concurrency"]
    assert daemon["runMonitoring"]["enabled"] and daemon["runMonitoring"]["pollIntervalSeconds"] == 30
    assert daemon["runMonitoring"]["maxResumeRunAttempts"] == 0, "a run is started again, not resumed"
    assert daemon["runRetries"] == {"enabled": True, "maxRetries": 3, "retryOnAssetOrOpFailure": False}
    assert concurrency["pools"] == {"defaultLimit": 1, "granularity": "run"}
    (limit,) = concurrency["runs"]["tagConcurrencyLimits"]
    assert (limit["key"], limit["value"]) == (".dagster/repository", {"applyLimitPerUniqueValue": True})
    assert limit["limit"] < concurrency["runs"]["maxConcurrentRuns"]
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    assert values["postgresql"]["postgresqlParams"] == {"sslmode": "require"}
    assert values["telemetry"] == {"enabled": False}
    (said,) = [part for part in PAGE.read_text(encoding="utf-8").split("\n\n") if part.startswith("| in values.yaml |")]
    for words in ("runMonitoring.enabled", "runRetries.maxRetries: 3", "retryOnAssetOrOpFailure: false"):
        assert f"`{words}`" in said
    for words in (
        "defaultLimit: 1",
        "granularity: run",
        f"postgresqlScheme: {values['postgresql']['postgresqlScheme']}",
    ):
        assert f"`{words}`" in said
    assert "`.dagster/repository`" in said


def test_the_chart_is_that_of_the_locked_dagster() -> None:
    lock = (PROJECT / "requirements-kubernetes.lock").read_text(encoding="utf-8")
    (locked,) = re.findall(r"^dagster==(\S+)", lock, re.MULTILINE)
    pages = [chart.VALUES, PAGE]
    named = re.findall(r"upgrade --install .*--version (\S+)", "\n".join(p.read_text(encoding="utf-8") for p in pages))
    assert named == [locked, locked]


def _made(values: dict[str, Any]) -> list[dict[str, Any]]:
    """What Helm would make of these values, as far as it is compared."""
    files = {
        chart.INSTANCE: {"dagster.yaml": chart.instance(values)},
        "dagster-workspace-yaml": {"workspace.yaml": chart.workspace(values)},
    }
    made = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {file: yaml.safe_dump(content) for file, content in data.items()},
        }
        for name, data in files.items()
    ]
    for deployment in values["dagster-user-deployments"]["deployments"]:
        name, labels = deployment["name"], {"deployment": deployment["name"]}
        key = {"name": values["global"]["postgresqlSecretName"], "key": "postgresql-password"}
        variables = [{"name": name, "value": value} for name, value in chart.environment(deployment).items()]
        secrets = [{"name": one["name"]} for one in deployment["envSecrets"]]
        container = {
            "name": "dagster-user-deployments",
            "args": chart.command(deployment),
            "env": [{"name": chart.SHARED_PASSWORD, "valueFrom": {"secretKeyRef": key}}, *variables],
            "envFrom": [{"secretRef": one} for one in [*secrets, {"name": OPTIONAL_SECRET, "optional": True}]],
        }
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        made.append(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": f"{chart.SUBCHART}-{name}"},
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            }
        )
    return made


def test_what_helm_made_is_compared_with_what_the_tests_take_for_it() -> None:
    values = chart.values()
    assert [*differences(_made(values), values)] == []
    instance, _, acme, globex = made = _made(values)
    instance["data"]["dagster.yaml"] = instance["data"]["dagster.yaml"].replace("max_retries: 3", "max_retries: 0")
    (container,) = acme["spec"]["template"]["spec"]["containers"]
    container["argss"] = container["args"].copy()
    container["args"][-1] = "another.module"
    for variable in globex["spec"]["template"]["spec"]["containers"][0]["env"]:
        if variable["name"].endswith("CONTAINER_CONTEXT"):  # the same field, and another value
            variable["value"] = variable["value"].replace("security_context", "securityContext").replace("2Gi", "1Gi")
    container["envFrom"].append({"secretRef": {"name": "forgotten"}})
    found = "\n".join(differences(made, values))
    assert len(found.splitlines()) == 5
    assert "Kubernetes refuses it: " in found and "argss" in found
    assert "dagster.yaml: run_retries: max_retries: Helm has 0, " in found
    assert "devin-acme: args: Helm has " in found
    assert "devin-globex: environment: DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT" in found and "'1Gi'" in found
    assert "Secrets: Helm has ['dagster-celery-config-secret', 'dagster-postgresql', 'devin-acme'" in found


def test_a_run_has_the_security_contexts_whether_or_not_the_chart_passes_them_on() -> None:
    values = chart.values()
    launcher = chart.instance(values)["run_launcher"]["config"]
    for deployment in values["dagster-user-deployments"]["deployments"]:
        assert launcher["security_context"] == deployment["securityContext"]
        assert launcher["run_k8s_config"]["pod_spec_config"]["securityContext"] == deployment["podSecurityContext"]
