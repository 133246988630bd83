"""Dagster instances in memory, used by one test after another: making one takes as long as loading a day."""

import atexit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dagster as dg
from dagster._core.storage.runs.schema import KeyValueStoreTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

_UNTIL_EXIT = ExitStack()
atexit.register(_UNTIL_EXIT.close)
_unused: list[dg.DagsterInstance] = []


@contextmanager
def empty_instance() -> Iterator[dg.DagsterInstance]:
    """An instance without runs or events. It is emptied afterwards."""
    instance = _unused.pop() if _unused else _UNTIL_EXIT.enter_context(dg.DagsterInstance.ephemeral())
    yield instance
    instance.wipe()
    if instance.schedule_storage:  # made when it is first used
        instance.schedule_storage.wipe()
    assert isinstance(instance.run_storage, SqlRunStorage)
    with instance.run_storage.connect() as connection:
        connection.execute(KeyValueStoreTable.delete())  # cursors, which `wipe` leaves
    _unused.append(instance)
