"""Launches loads in a Dagster UI, and follows what becomes of them."""

import time
from datetime import date
from typing import Any

from pipelines.names import JOB
from pipelines.schedules import range_tags
from tests.bench.processes import Failed
from tests.support.graphql import LAUNCH, graphql

PATIENCE_SECONDS = 600
_RUNS = """{
  runsOrError { ... on Runs { results { runId rootRunId parentRunId status startTime } } }
}"""


def launch(url: str, first: date, last: date) -> str:
    """Launch a run that loads these days. Returns its id. Raises Failed."""
    tags = [{"key": key, "value": value} for key, value in range_tags(f"{first}", f"{last}").items()]
    params: dict[str, Any] = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "devin_session_metrics",
            "jobName": JOB,
            "assetSelection": [{"path": ["organizations"]}, {"path": ["daily_sessions"]}],
        },
        "mode": "default",
        "runConfigData": {},
        "executionMetadata": {"tags": tags},
    }
    launched = graphql(url, LAUNCH % "launchRun", params=params)["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise Failed(f"{launched}")
    run_id: str = launched["run"]["runId"]
    return run_id


def runs(url: str) -> list[dict[str, Any]]:
    """The runs, newest first, as GraphQL shows them."""
    found: list[dict[str, Any]] = graphql(url, _RUNS)["runsOrError"]["results"]
    return found


def wait_until_loaded(url: str, launched: list[str]) -> None:
    """Wait until each of these runs, or one that Dagster started in its place, has succeeded. Raises Failed."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = runs(url)
        succeeded = {run["rootRunId"] or run["runId"] for run in found if run["status"] == "SUCCESS"}
        if succeeded.issuperset(launched):
            return
        if time.monotonic() > until:
            raise Failed(f"runs ended as { {run['runId'][:8]: run['status'] for run in found} }")
        time.sleep(1)  # each look costs the UI some CPU, which the runs need
