"""Holds what Helm makes of values.yaml against `chart`, which the tests take for it, and against Kubernetes' schemas.

docs/platform.md has the command that renders it, for `make chart`. That prints each difference, and exits with 1 if
there is one.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from dagster_k8s.container_context import K8sContainerContext

from tests.platform import chart
from tests.platform.kubernetes_api import KUBERNETES

OPTIONAL_SECRET = "dagster-celery-config-secret"


def differences(objects: Sequence[dict[str, Any]], values: dict[str, Any]) -> Iterator[str]:
    """How these objects differ from what `chart` makes of these values, a line each."""
    yield from filter(None, map(_refusal, objects))
    named = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    for name, file, ours in (
        (chart.INSTANCE, "dagster.yaml", chart.instance(values)),
        ("dagster-workspace-yaml", "workspace.yaml", chart.workspace(values)),
    ):
        theirs = yaml.safe_load(named["ConfigMap", name]["data"][file])
        yield from _unequal(file, theirs, ours)
    deployments = values["dagster-user-deployments"]["deployments"]
    for deployment in deployments:
        name = deployment["name"]
        (container,) = named["Deployment", f"{chart.SUBCHART}-{name}"]["spec"]["template"]["spec"]["containers"]
        yield from _unequal(f"{name}: args", container["args"], chart.command(deployment))
        yield from _unequal(f"{name}: environment", _environment(container, named), chart.environment(deployment))
    secrets = {secret["name"] for one in deployments for secret in one["envSecrets"]}
    secrets |= {values["global"]["postgresqlSecretName"], OPTIONAL_SECRET}
    yield from _unequal("Secrets", sorted({*_secrets(objects)}), sorted(secrets))


def _refusal(one: dict[str, Any]) -> str:
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{one['kind']} {one['metadata']['name']}: Kubernetes refuses it: {error.message}"
    return ""


def _environment(container: dict[str, Any], named: dict[tuple[str, str], dict[str, Any]]) -> dict[str, str]:
    """The variables of a container, without those of Secrets."""
    maps = [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
    found = {key: value for name in maps for key, value in (named["ConfigMap", name].get("data") or {}).items()}
    return found | {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def _secrets(part: Any) -> Iterator[str]:
    """The names of all Secrets that are referred to."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key in ("secretRef", "secretKeyRef"):
            yield value["name"]
        else:
            yield from _secrets(value)


def _unequal(where: str, theirs: Any, ours: Any) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _unequal(f"{where}: {key}", theirs.get(key), ours.get(key))
    elif where.endswith("CONTAINER_CONTEXT"):
        yield from _unequal(f"{where}, as Dagster reads it", _as_read(theirs), _as_read(ours))
    elif theirs != ours:
        yield f"{where}: Helm has {theirs!r}, tests/platform/chart.py has {ours!r}"


def _as_read(context: str) -> dict[str, Any]:
    """What Dagster makes of a context, in which the names of fields may be written in two ways."""
    read = K8sContainerContext.create_from_config(json.loads(context))
    return {"namespace": read.namespace, **read.run_k8s_config._asdict()}


def main(path: str) -> int:
    """Print the differences of the file that `helm template` has written. Returns the exit code."""
    objects = [one for one in yaml.safe_load_all(Path(path).read_text(encoding="utf-8")) if one]
    found = [*differences(objects, chart.values())]
    sys.stdout.write("\n".join([*found, f"{len(objects)} objects, {len(found)} differences\n"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
