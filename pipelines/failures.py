"""Known failures in Dagster's terms: the one place that turns an error into the failure of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pipelines.ledger import OlderWarehouse
from pipelines.loading.changed_settings import Incompatible
from resources.database_errors import WarehouseError
from resources.devin_errors import DevinAPIError
from resources.file_errors import obstacle
from warehouse.migrations import UnfitWarehouse
from warehouse.parquet import CorruptWrite

UNUSABLE_WAREHOUSE = (WarehouseError, UnfitWarehouse, OlderWarehouse)
"""What reading a warehouse may raise."""

KNOWN = (*UNUSABLE_WAREHOUSE, DevinAPIError, Incompatible, CorruptWrite)
"""Errors whose message goes to the user as it is. None is retried here; the API client and the database did that."""

_INTERRUPTS = (dg.DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__)


@contextmanager
def known_errors_fail_the_step() -> Iterator[None]:
    """Turn a known error into dg.Failure, with its message and without a traceback."""
    try:
        yield
    except KNOWN as error:
        raise dg.Failure(str(error), allow_retries=False) from error


@contextmanager
def unwritten_files_fail_the_step(what: str, kept: str) -> Iterator[None]:
    """Turn a failed write of `what` into dg.Failure; `kept` is a sentence about what is still there."""
    try:
        yield
    except OSError as error:
        found = obstacle(error)
        raise dg.Failure(
            f"{what} could not be written: {found.why}. {kept} {found.fix} and run the same command again.",
            allow_retries=False,
        ) from error


def is_interrupt(event: dg.DagsterEvent) -> bool:
    """Whether a step failed only because it was stopped."""
    error = event.step_failure_data.error
    return error is not None and error.cls_name in _INTERRUPTS


def failure_message(event: dg.DagsterEvent, run_id: str) -> str:
    """The message of a step's failure, for the user."""
    failure = event.step_failure_data
    message = failure.user_failure_data.description if failure.user_failure_data else None
    error = failure.error and (failure.error.cause or failure.error)  # Dagster wraps what the step raised
    why = error.message.strip() if error else "no reason given"
    return message or f"{event.step_key}: {why} (details: run {run_id} in Dagster)"
