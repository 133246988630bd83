"""Dagster's events in batches, in whatever it stores them: one event at a time, a long run takes minutes to record."""

import os
import uuid
from collections.abc import Sequence

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata

VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"
_LARGEST = "1000"  # events


def store_in_batches() -> None:
    """Let Dagster store the events of this process and its children in batches, unless the environment says how."""
    os.environ.setdefault(VARIABLE, _LARGEST)


def materialize_in_one_batch(
    context: dg.AssetExecutionContext, materializations: Sequence[dg.AssetMaterialization]
) -> None:
    """Log these as `context.log_event` does one by one, in one batch if Dagster stores events in batches."""
    step, batch_id = context.get_step_execution_context(), str(uuid.uuid4())
    for number, materialization in enumerate(materializations, 1):
        is_end = number == len(materializations)
        DagsterEvent.asset_materialization(step, materialization, DagsterEventBatchMetadata(batch_id, is_end))
