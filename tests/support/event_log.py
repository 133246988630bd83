"""Dagster instances with the project's event log."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

OURS = {"event_log_storage": {"module": "resources.event_log", "class": "BatchingSqliteEventLogStorage"}}


@contextmanager
def instance_in(home: Path, config: dict[str, Any]) -> Iterator[dg.DagsterInstance]:
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(json.dumps({"telemetry": {"enabled": False}} | config))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance
