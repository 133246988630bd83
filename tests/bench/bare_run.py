"""A Dagster run of one empty asset in a new instance, to compare the job's runs with: python -m tests.bench.bare_run"""

import tempfile
from pathlib import Path

import dagster as dg


@dg.asset
def empty() -> None:
    pass


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        Path(name, "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
        with dg.DagsterInstance.from_config(name) as instance:
            dg.materialize([empty], instance=instance)
