"""What is stored as Parquet files: the counts in a file a month, any other table in one."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from warehouse import tables
from warehouse.tables import ORGANIZATIONS, USERS, Counted

_FINGERPRINT = b"devin_sessions.fingerprint"
_ONE_FILE = (
    tables.organizations,
    tables.daily_totals,
    tables.session_revisions,
    tables.contradictions,
    *tables.ROLLUPS,
    tables.users,
    tables.user_daily_totals,
    tables.user_session_revisions,
    tables.user_contradictions,
)


LAST_WRITTEN = f"{_ONE_FILE[-1].name}.parquet"


Replacing = Callable[[Path, Path | None], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Exported:
    """How many files were written, and how many were left as they were."""

    written: int
    kept: int


def export(connection: sa.Connection, folder: Path, replacing: Replacing) -> Exported:
    """Bring the files in `folder` up to what this DuckDB holds. Each is replaced whole; an unchanged month is left.

    `replacing` opens a file to take the place of the one at a path, with the rights of the second one if it is new.

    The counts of a month are in daily_sessions/2025-01.parquet, other tables in organizations.parquet and so on.
    One process at a time. Raises OSError.
    """
    written = kept = 0
    for counted in (ORGANIZATIONS, USERS):
        for month, fingerprint in _months(connection, counted).items():
            path = folder / counted.cells.name / f"{month:%Y-%m}.parquet"
            if _fingerprint_of(path) == fingerprint:
                kept += 1
                continue
            of_month = duckdb.FunctionExpression(
                "date_trunc", duckdb.ConstantExpression("month"), duckdb.ColumnExpression("day")
            ) == duckdb.ConstantExpression(month)
            rows = _relation(connection, counted.cells).filter(of_month).order(f"day, {counted.id}")
            _write(replacing, path, rows.to_arrow_table().replace_schema_metadata({_FINGERPRINT: fingerprint}))
            written += 1
    for table in _ONE_FILE:
        _write(replacing, folder / f"{table.name}.parquet", _relation(connection, table).to_arrow_table())
        written += 1
    return Exported(written, kept)


def _months(connection: sa.Connection, counted: Counted) -> dict[date, bytes]:
    """Each month that has counts, and what changes whenever one of them does."""
    cells = counted.cells.c
    month = sa.cast(sa.func.date_trunc("month", cells.day), sa.Date)
    latest, total = sa.func.max(cells.loaded_at), sa.func.sum(cells.sessions_count)
    rows = connection.execute(sa.select(month, sa.func.count(), total, latest).group_by(month).order_by(month))
    return {
        of_month: json.dumps([cells, int(sessions), loaded_at.isoformat()]).encode()
        for of_month, cells, sessions, loaded_at in rows
    }


def _fingerprint_of(path: Path) -> bytes | None:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):  # none yet, or one that something else has spoiled
        return None
    fingerprint: bytes | None = metadata.get(_FINGERPRINT)
    return fingerprint


def _relation(connection: sa.Connection, table: sa.Table) -> duckdb.DuckDBPyRelation:
    driver_connection: Any = connection.connection.driver_connection
    relation: duckdb.DuckDBPyRelation = driver_connection.table(table.name)
    return relation


def _write(replacing: Replacing, path: Path, rows: pa.Table) -> None:
    # A new month may be read by whoever may read another.
    like = max(path.parent.glob("*.parquet"), default=None)
    with replacing(path, like) as file:
        pq.write_table(rows, file, compression="zstd")
