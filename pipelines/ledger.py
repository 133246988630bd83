"""What the warehouse already holds, read without creating or changing it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import TypeVar

import sqlalchemy as sa
import tenacity

from pipelines.settings import Settings
from resources.database import Database
from resources.engines import engine
from resources.repeating import repeating
from warehouse import migrations, reads, snapshot, tables
from warehouse.dimensions import Dimension

_Result = TypeVar("_Result")


class OlderWarehouse(Exception):
    """An older release wrote the warehouse, and no load has migrated it yet. The message is for the user."""


@contextmanager
def open_read_only(database: Database) -> Iterator[sa.Connection]:
    """The warehouse, opened read-only; if there is none yet, an empty one in memory, so that nothing is written.

    Raises WarehouseError, UnfitWarehouse or OlderWarehouse.
    """
    if not database.is_file or database.exists():
        with database.transaction(read_only=True) as connection:
            snapshot.find_bookkeeping(connection)
            found = migrations.refuse_unfit(connection)
            if found == migrations.VERSION:
                yield connection
                return
            if found:
                raise OlderWarehouse(f"{database.name} was written by an older release. The next backfill migrates it.")
    with engine(sa.make_url("duckdb://"), {}).begin() as connection:
        tables.create_without_comments(connection)
        yield connection


def read(database: Database, function: Callable[[sa.Connection], _Result]) -> _Result:
    """Return what `function` returns when called with the connection of `open_read_only`; raises what that does.

    It is called again if the connection is lost, as in `Database.write`: it must change nothing but what it replaces.
    """

    def once() -> _Result:
        with open_read_only(database) as connection:
            return function(connection)

    result: _Result = repeating(tenacity.Retrying, database)(once)
    return result


def missing_days(connection: sa.Connection, settings: Settings, dimension: Dimension, days: list[date]) -> list[date]:
    """Those of `days` that are not loaded, or lack a count for an id that is to be counted."""
    loaded = reads.loaded_days(connection, dimension, days, settings.chosen(dimension))
    return [day for day in days if day not in loaded]
