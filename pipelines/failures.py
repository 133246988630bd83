"""Known failures in Dagster's terms: the one place that turns an error into the failure of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pipelines.ledger import OlderWarehouse
from pipelines.loading.changed_settings import Incompatible
from pipelines.loading.open_days import ClockAhead
from pipelines.manifest import ForeignManifest
from resources.database_errors import WarehouseError, WarehouseLocked, WarehouseLost
from resources.devin_errors import DevinAPIError, SourceDown, Unavailable
from resources.file_errors import obstacle
from resources.publish_errors import PublishError, PublishFailedForNow
from warehouse.migrations import UnfitWarehouse
from warehouse.parquet import CorruptWrite

UNUSABLE_WAREHOUSE = (WarehouseError, UnfitWarehouse, OlderWarehouse)
"""What reading a warehouse may raise."""

KNOWN = (*UNUSABLE_WAREHOUSE, DevinAPIError, Incompatible, ClockAhead, CorruptWrite, PublishError, ForeignManifest)
"""Errors whose message goes to the user as it is. None is retried here; the API client and the database did that."""

_PASSING = (Unavailable, SourceDown, WarehouseLocked, WarehouseLost, CorruptWrite, PublishFailedForNow)
"""Known errors after which the same command may succeed later although nobody has done anything."""
_FIX_FIRST = "fix_first"

_INTERRUPTS = (dg.DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__)


@contextmanager
def known_errors_fail_the_step() -> Iterator[None]:
    """Turn a known error into dg.Failure, with its message and without a traceback."""
    try:
        yield
    except KNOWN as error:
        raise failure_of(error) from error


def failure_of(error: Exception) -> dg.Failure:
    """A known error as the failure of a run, with its message."""
    return failure(str(error), must_be_fixed=not isinstance(error, _PASSING))


def failure(message: str, *, must_be_fixed: bool) -> dg.Failure:
    """The failure of a run; `must_be_fixed` as in the function of that name."""
    return dg.Failure(message, {_FIX_FIRST: must_be_fixed}, allow_retries=False)


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


def must_be_fixed(event: dg.DagsterEvent) -> bool:
    """Whether someone has to fix what its message says before a step that failed can succeed."""
    failure = event.step_failure_data.user_failure_data
    return bool(failure and failure.metadata.get(_FIX_FIRST, dg.MetadataValue.bool(False)).value)


def failure_message(event: dg.DagsterEvent, run_id: str) -> str:
    """The message of a step's failure, for the user."""
    failure = event.step_failure_data
    message = failure.user_failure_data.description if failure.user_failure_data else None
    error = failure.error and (failure.error.cause or failure.error)  # Dagster wraps what the step raised
    why = error.message.strip() if error else "no reason given"
    return message or f"{event.step_key}: {why} (details: run {run_id} in Dagster)"
