"""Dagster instances with the project's event log, and how many transactions they take."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

OURS = {"event_log_storage": {"module": "resources.event_log", "class": "BatchingSqliteEventLogStorage"}}


@contextmanager
def instance_in(home: Path, config: dict[str, Any]) -> Iterator[dg.DagsterInstance]:
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(json.dumps({"telemetry": {"enabled": False}} | config))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@contextmanager
def commits() -> Iterator[Counter[str]]:
    """How many transactions this process has committed on each database, by the name of its file."""
    count: Counter[str] = Counter()

    def note(connection: sa.Connection) -> None:
        count[Path(connection.engine.url.database or "").name] += 1

    sa.event.listen(sa.Engine, "commit", note)
    try:
        yield count
    finally:
        sa.event.remove(sa.Engine, "commit", note)
