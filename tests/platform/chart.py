"""What Dagster's Helm chart makes of values.yaml: the instance, and what each code location is started with.

It follows the chart's templates by hand, as far as values.yaml sets anything: the chart itself needs Helm.
"""

from pathlib import Path
from typing import Any

import yaml

from pipelines.home import PROJECT

VALUES = PROJECT / "deploy" / "kubernetes" / "values.yaml"
NAMESPACE = "dagster"
INSTANCE, SHARED_PASSWORD = "dagster-instance", "DAGSTER_PG_PASSWORD"
SUBCHART = "dagster-dagster-user-deployments"
"""The full name of the chart's part for code locations, in a release called dagster."""


def values() -> dict[str, Any]:
    """The values of the file that the project ships."""
    found: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    return found


def instance(values: dict[str, Any], dagster_home: Path) -> dict[str, Any]:
    """The dagster.yaml of the chart's ConfigMap: `configmap-instance.yaml`."""
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
    return {
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
                "dagster_home": str(dagster_home),
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
            "config": daemon["runCoordinator"].get("config", {}),
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


def container_context(deployment: dict[str, Any]) -> dict[str, Any]:
    """What the runs of a code location are given of its deployment: `dagsterUserDeployments.k8sContainerContext`."""
    assert deployment["includeConfigInLaunchedRuns"]["enabled"]
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
            "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
        }
    }
