"""When a warehouse may not replace what is published: it is empty, or another one than that was published from.

As after a mistake in WAREHOUSE_URL, the loss of the file, or if two jobs have the same DEVIN_PUBLISH_URL.
"""

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pipelines.manifest import Manifest
from resources.publish_errors import PublishError
from resources.publish_places import Place, explained
from warehouse import parquet, reads, tables
from warehouse.dimensions import ORGANIZATIONS


def refuse_another_warehouse(place: Place, before: Manifest, connection: sa.Connection, name: str) -> None:
    """Raise PublishError if the published version can't have been made from this warehouse. `name` is for the message.

    Another one that has all the published days, of the same organizations, is as good.
    """
    read = reads.last_readers(connection, ORGANIZATIONS)
    if any(file.month for file in before.files) and not read:
        raise PublishError(
            f"The warehouse {name} has no counts, but those published to {place.address} do: they stay. Check "
            "WAREHOUSE_URL. If the warehouse is a new one, remove manifest.json there first, then run the same "
            "command again."
        )
    ids = {row["org_id"] for row in _rows(place, before, tables.organizations)}
    if ids and ids == reads.unknown_ids(connection, ORGANIZATIONS, sorted(ids)):
        raise PublishError(
            f"The warehouse {name} has none of the organizations whose counts are published to {place.address}: those "
            "stay. If another job publishes there, set DEVIN_PUBLISH_URL to a folder for this one alone, or "
            "DEVIN_ENTERPRISE. If the warehouse is a new one, remove manifest.json there first, then run the same "
            "command again."
        )
    days = {row["day"]: row["run_id"] for row in _rows(place, before, tables.daily_totals)}
    missing = days.keys() - read.keys()
    if missing and {*days.values()}.isdisjoint(run_id for run_id, _ in read.values()):
        raise PublishError(
            f"The counts published to {place.address} are not from the warehouse {name}, which lacks {len(missing)} of "
            f"their {len(days)} days: they stay. Check WAREHOUSE_URL, and whether another job publishes there. If the "
            "warehouse is a new one, load those days first, or remove manifest.json there, then run the same command "
            "again."
        )


def _rows(place: Place, before: Manifest, table: sa.Table) -> list[dict[str, Any]]:
    """The published rows of a table that is one file; none if that is not there, or damaged."""
    file = before.find(parquet.Part(table))
    with explained(f"read {place.address}", "Everything is stored in the warehouse."):
        content = place.read(file.path) if file else None
    if file is None or content is None or hashlib.sha256(content).hexdigest() != file.sha256:
        return []
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
    return rows
