"""A stand-in for Kubernetes: real HTTP for what Dagster's run launcher sends, and a real process for each Job.

A Job has one pod, which is not started again (`backoffLimit: 0`, as Dagster's are). Each Job is held against
Kubernetes' own schema. A pod whose Secret is missing waits for it, as in a real cluster.
"""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate

KUBERNETES = "1.34"
Starts = Callable[[dict[str, Any], list[str], dict[str, str], Path], Sequence[str]]
"""The command that runs a pod, of its specification, command, environment, and a directory of its own."""


def as_process(spec: dict[str, Any], command: list[str], environment: dict[str, str], directory: Path) -> list[str]:
    """Run a pod as a process of this machine, without its volumes."""
    return command


@dataclass
class Pod:
    """The one pod of a Job: where it is, and its process, if it could be started."""

    job: dict[str, Any]
    node: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None
    waits_for: str = ""
    deleted: bool = False

    @property
    def name(self) -> str:
        return f"{self.job['metadata']['name']}-{self.directory.name[-5:]}"

    @property
    def phase(self) -> str:
        if self.process is None:
            return "Pending"
        code = self.process.poll()
        return "Running" if code is None else "Failed" if code or self.deleted else "Succeeded"

    def kill(self) -> None:
        """End the pod as the kernel does without memory."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def state(self) -> dict[str, Any]:
        """What the kubelet reports of the container."""
        if self.process is None:
            return {"waiting": {"reason": "CreateContainerConfigError", "message": self.waits_for}}
        code = self.process.poll()
        if code is None:
            return {"running": {"startedAt": None}}
        return {"terminated": {"exitCode": code % 256, "reason": "Error" if code else "Completed"}}

    def shown(self) -> dict[str, Any]:
        template = self.job["spec"]["template"]
        container = template["spec"]["containers"][0]
        running = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
        status = {"phase": self.phase, "containerStatuses": [{**running, "ready": False, "state": self.state()}]}
        labels = {**template["metadata"].get("labels", {}), "job-name": self.job["metadata"]["name"]}
        metadata = {"name": self.name, "labels": labels, "namespace": self.job["metadata"]["namespace"]}
        return {
            "kind": "Pod",
            "metadata": metadata,
            "spec": {**template["spec"], "nodeName": self.node},
            "status": status,
        }


@dataclass
class Cluster:
    """The cluster: what it has been asked to keep, and its pods."""

    directory: Path
    secrets: dict[str, dict[str, str]]
    """Secrets and ConfigMaps, by name."""
    machine: Mapping[str, str]
    """The environment that the image and the machine give every pod."""
    nodes: Sequence[str] = ("node-1", "node-2")
    starts: Starts = as_process
    pods: list[Pod] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Why Jobs are not valid."""
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, namespace: str, job: dict[str, Any]) -> dict[str, Any]:
        """Accept a Job, and start its pod on the next node."""
        try:
            kubernetes_validate.validate(job, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            self.refused.append(f"{error.path}: {error.message}")
            raise
        with self.lock:
            job["metadata"]["namespace"] = namespace
            job["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
            number = len(self.pods)
            directory = self.directory / f"pod-{number:05}"
            directory.mkdir(parents=True)
            pod = Pod(job, self.nodes[number % len(self.nodes)], directory)
            self.pods.append(pod)
            self._start(pod)
        return self.shown(pod)

    def _start(self, pod: Pod) -> None:
        spec = pod.job["spec"]["template"]["spec"]
        container = spec["containers"][0]
        assert "command" not in container, "it would take the place of the image's entry point"
        try:
            environment = {**self.machine, **self._environment(container)}
        except KeyError as missing:
            pod.waits_for = f"secret {missing} not found".replace("'", '"')
            return
        with (pod.directory / "log").open("wb") as log:
            command = self.starts(spec, container["args"], environment, pod.directory)
            pod.process = subprocess.Popen(
                command, env=environment, cwd=pod.directory, stdout=log, stderr=log, start_new_session=True
            )

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            (reference,) = source.values()
            found |= self.secrets[reference["name"]]
        for variable in container.get("env", []):
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                found[variable["name"]] = self.secrets[reference["name"]][reference["key"]]
        return found

    def shown(self, pod: Pod) -> dict[str, Any]:
        """The Job of this pod, as the API shows it."""
        count = {"Succeeded": "succeeded", "Failed": "failed"}.get(pod.phase, "active")
        return {**pod.job, "status": {count: 1}}

    def of(self, job: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.job["metadata"]["name"] == job]

    def delete(self, pods: Sequence[Pod]) -> None:
        """Ask the processes of these pods to end, as the kubelet does first."""
        for pod in pods:
            pod.deleted = True
            if pod.process and pod.process.poll() is None:
                os.killpg(pod.process.pid, signal.SIGTERM)

    def lose(self, node: str) -> list[Pod]:
        """Switch a node off: all of its pods end at once. Return those that ran."""
        with self.lock:
            self.nodes = [other for other in self.nodes if other != node]
            lost = [pod for pod in self.pods if pod.node == node and pod.phase == "Running"]
        for pod in lost:
            pod.kill()
        return lost

    def kubeconfig(self) -> Path:
        """Write the file by which a client finds the cluster."""
        path = self.directory / "kubeconfig"
        named = {"name": "stand-in"}
        cluster = {**named, "cluster": {"server": self.url}}
        context = {**named, "context": {"cluster": "stand-in", "user": "stand-in"}}
        document = {"clusters": [cluster], "contexts": [context], "users": [{**named, "user": {"token": "none"}}]}
        text = {"apiVersion": "v1", "kind": "Config", "current-context": "stand-in", **document}
        path.write_text(json.dumps(text), encoding="utf-8")
        return path


@contextmanager
def served(cluster: Cluster) -> Iterator[Cluster]:
    """Serve the cluster's API until the block ends; then kill its pods."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        for pod in cluster.pods:
            if pod.phase == "Running":
                pod.kill()


_JOBS = re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/jobs(?:/(?P<name>[^/]+?))?(?:/status)?")
_PODS = re.compile(r"/api/v1/namespaces/[^/]+/pods(?:/(?P<name>[^/]+?))?(?P<log>/log)?")


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            found = _JOBS.fullmatch(self.path.split("?")[0])
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert found
            try:
                self._answer(201, cluster.create(found["namespace"], job))
            except kubernetes_validate.ValidationError as error:
                self._answer(422, {"kind": "Status", "message": error.message, "reason": "Invalid"})

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if found := _JOBS.fullmatch(path):
                pods = cluster.of(found["name"]) if found["name"] else cluster.pods
                shown = [cluster.shown(pod) for pod in pods]
                self._one_or_list(shown, "Job", is_one=bool(found["name"]))
            elif found := _PODS.fullmatch(path):
                name = re.search(r"job-name(?:=|%3D)([^&]+)", query)
                pods = [pod for pod in cluster.pods if not found["name"] or pod.name == found["name"]]
                pods = [pod for pod in pods if not name or pod.job["metadata"]["name"] == name[1]]
                if found["log"]:
                    self._send(200, pods[0].log().encode(), "text/plain")
                else:
                    self._one_or_list([pod.shown() for pod in pods], "Pod", is_one=bool(found["name"]))
            else:  # of events there are none
                self._answer(200, {"kind": "EventList", "items": []})

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            found = _JOBS.fullmatch(self.path.split("?")[0])
            cluster.delete(cluster.of(found["name"]) if found and found["name"] else [])
            self._answer(200, {"kind": "Status", "status": "Success"})

        def _one_or_list(self, shown: list[dict[str, Any]], kind: str, *, is_one: bool) -> None:
            if not is_one:
                self._answer(200, {"kind": f"{kind}List", "items": shown})
            elif shown:
                self._answer(200, shown[0])
            else:
                self._answer(404, {"kind": "Status", "reason": "NotFound", "code": 404})

        def _answer(self, code: int, body: dict[str, Any]) -> None:
            self._send(code, json.dumps(body).encode(), "application/json")

        def _send(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing."""

    return Handler
