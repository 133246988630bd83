"""What Dagster's Helm chart makes of values.yaml: the instance, and what each code location is started with.

Written by hand, as far as values.yaml sets anything or runs depend on a default, so that no test needs Helm and the
chart. `rendered` holds it against what they make.
"""

import json
from typing import Any

import yaml

from pipelines.home import PROJECT

VALUES = PROJECT / "deploy" / "kubernetes" / "values.yaml"
NAMESPACE = "dagster"
INSTANCE, SHARED_PASSWORD = "dagster-instance", "DAGSTER_PG_PASSWORD"
DAGSTER_HOME = "/opt/dagster/dagster_home"
"""That of every container. Only the daemon's and the webserver's have it, with the instance in it."""
SUBCHART = "dagster-dagster-user-deployments"
"""The full name of the chart's part for code locations, in a release called dagster."""
_THREADS = {"use_threads": True, "num_workers": 4}


def values() -> dict[str, Any]:
    """The values of the file that the project ships."""
    found: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    return found


def instance(values: dict[str, Any]) -> dict[str, Any]:
    """The dagster.yaml of the chart's ConfigMap."""
    database, daemon, runs = values["postgresql"], values["dagsterDaemon"], values["concurrency"]["runs"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    storage = {
        "postgres_db": {
            "username": database["postgresqlUsername"],
            "password": {"env": SHARED_PASSWORD},
            "hostname": database["postgresqlHost"],
            "db_name": database["postgresqlDatabase"],
            "port": database["service"]["port"],
            "params": database["postgresqlParams"],
            "scheme": database["postgresqlScheme"],
        }
    }
    monitoring, retries, pools = daemon["runMonitoring"], daemon["runRetries"], values["concurrency"]["pools"]
    queue = daemon["runCoordinator"].get("config", {}).get("queuedRunCoordinator", {})
    interval = {"dequeue_interval_seconds": queue["dequeueIntervalSeconds"]} if queue else {}
    return {
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        **{
            f"{name}_storage": {"module": f"dagster_postgres.{module}", "class": class_, "config": storage}
            for name, module, class_ in (
                ("run", "run_storage", "PostgresRunStorage"),
                ("event_log", "event_log", "PostgresEventLogStorage"),
                ("schedule", "schedule_storage", "PostgresScheduleStorage"),
            )
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": {
                "load_incluster_config": launcher["loadInclusterConfig"],
                **({"kubeconfig_file": launcher["kubeconfigFile"]} if "kubeconfigFile" in launcher else {}),
                "job_namespace": NAMESPACE,
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": "dagster",
                "dagster_home": DAGSTER_HOME,
                "instance_config_map": INSTANCE,
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "security_context": launcher["securityContext"],
                "run_k8s_config": {
                    "pod_spec_config": launcher["runK8sConfig"]["podSpecConfig"],
                    "job_spec_config": launcher["runK8sConfig"]["jobSpecConfig"],
                },
            },
        },
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": {**interval, **{f"dequeue_{name}": value for name, value in _THREADS.items()}},
        },
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "cancel_timeout_seconds": monitoring["cancelTimeoutSeconds"],
            "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
            "free_slots_after_run_end_seconds": monitoring["freeSlotsAfterRunEndSeconds"],
        },
        "run_retries": {
            "enabled": retries["enabled"],
            "max_retries": retries["maxRetries"],
            "retry_on_asset_or_op_failure": retries["retryOnAssetOrOpFailure"],
        },
        "sensors": _THREADS,
        "schedules": _THREADS,
        "concurrency": {
            "pools": {"default_limit": pools["defaultLimit"], "granularity": pools["granularity"]},
            "runs": {
                "max_concurrent_runs": runs["maxConcurrentRuns"],
                "tag_concurrency_limits": runs["tagConcurrencyLimits"],
            },
        },
        "compute_logs": {
            "module": "dagster.core.storage.noop_compute_log_manager",
            "class": values["computeLogManager"]["type"],
        },
        "telemetry": values["telemetry"],
    }


def workspace(values: dict[str, Any]) -> dict[str, Any]:
    """The workspace.yaml of the chart's ConfigMap: each code location's Service has its name."""
    deployments = values["dagster-user-deployments"]["deployments"]
    servers = [{"host": one["name"], "port": one["port"], "location_name": one["name"]} for one in deployments]
    return {"load_from": [{"grpc_server": server} for server in servers]}


def command(deployment: dict[str, Any], host: str = "0.0.0.0") -> list[str]:
    """What the container of a code location runs."""
    return ["dagster", "api", "grpc", "-h", host, "-p", f"{deployment['port']}", *deployment["dagsterApiGrpcArgs"]]


def environment(deployment: dict[str, Any]) -> dict[str, str]:
    """The variables of a code location's container, without those of Secrets."""
    image = deployment["image"]
    return {
        "DAGSTER_HOME": DAGSTER_HOME,
        "DAGSTER_K8S_PIPELINE_RUN_NAMESPACE": NAMESPACE,
        "DAGSTER_K8S_PIPELINE_RUN_ENV_CONFIGMAP": f"{SUBCHART}-pipeline-env",
        "DAGSTER_CURRENT_IMAGE": f"{image['repository']}:{image['tag']}",
        "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT": json.dumps(container_context(deployment)),
        **{variable["name"]: variable["value"] for variable in deployment["env"]},
    }


def container_context(deployment: dict[str, Any]) -> dict[str, Any]:
    """What the runs of a code location are given of its deployment."""
    assert deployment["includeConfigInLaunchedRuns"]["enabled"]
    pod = {"automount_service_account_token": True, "security_context": deployment["podSecurityContext"]}
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_config_maps": [f"{SUBCHART}-{deployment['name']}-user-env"],
            "env_secrets": [secret["name"] for secret in deployment["envSecrets"]],
            "volume_mounts": deployment["volumeMounts"],
            "volumes": deployment["volumes"],
            "resources": deployment["resources"],
            "namespace": NAMESPACE,
            "service_account_name": f"{SUBCHART}-user-deployments",
            "env": deployment["env"],
            "run_k8s_config": {"pod_spec_config": pod},
        }
    }
