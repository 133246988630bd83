"""Measures what Dagster's record of a run costs."""

import importlib.util
import json
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from resources.event_batches import materialize_in_one_batch, store_in_batches
from tests.bench.databases import FIRST_DAY, new_url
from tests.bench.sizes import Sizes
from tests.bench.table import Row

_LIBRARY = "dagster_postgres"  # docs/deployment.md shows how to install it


def failing(sizes: Sizes) -> list[Row]:
    """The seconds in which a run that fails tells Dagster, whose record is on PostgreSQL, which days it has stored."""
    what = f"failing run of {sizes.failing} days, Dagster's record on PostgreSQL, its bookkeeping, s"
    if importlib.util.find_spec(_LIBRARY) is None:
        return [Row(what, "≤ 5", f"not measured: {_LIBRARY} is not installed", None)]
    store_in_batches()
    with tempfile.TemporaryDirectory(prefix="bench-record-") as name:
        url = sa.make_url(new_url("PostgreSQL", Path(name))).set(drivername="postgresql+psycopg2")
        storage = {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}
        configuration = {"telemetry": {"enabled": False}, "storage": storage}
        Path(name, "dagster.yaml").write_text(json.dumps(configuration), encoding="utf-8")
        with dg.DagsterInstance.from_config(name) as instance:
            seconds = _run(instance, sizes.failing)
            told = len(instance.get_materialized_partitions(dg.AssetKey("sessions")))
    return [Row(what, "≤ 5", f"{seconds:.1f}", seconds <= 5, is_wrong=told != sizes.failing)]


def _run(instance: dg.DagsterInstance, days: int) -> float:
    last_day = FIRST_DAY + timedelta(days - 1)
    partitions = dg.DailyPartitionsDefinition(start_date=str(FIRST_DAY), end_date=str(FIRST_DAY + timedelta(days)))
    seconds = []

    @dg.asset(partitions_def=partitions)
    def sessions(context: dg.AssetExecutionContext) -> None:
        began = time.perf_counter()
        stored = [dg.AssetMaterialization(context.asset_key, partition=day) for day in context.partition_keys]
        materialize_in_one_batch(context, stored)
        seconds.append(time.perf_counter() - began)
        raise dg.Failure("the rest is missing", allow_retries=False)

    tags = {
        "dagster/asset_partition_range_start": str(FIRST_DAY),
        "dagster/asset_partition_range_end": str(last_day),
    }
    definitions = dg.Definitions([sessions], jobs=[dg.define_asset_job("all")], executor=dg.in_process_executor)
    definitions.resolve_job_def("all").execute_in_process(
        instance=instance,
        tags=tags,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    return sum(seconds)
