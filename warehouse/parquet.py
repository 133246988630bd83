"""What is stored as Parquet files: the counts in a file a month, any other table in one."""

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

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
    *tables.ROLLUPS,
    tables.users,
    tables.user_daily_totals,
    tables.user_session_revisions,
)


LAST_WRITTEN = f"{_ONE_FILE[-1].name}.parquet"


@dataclass(frozen=True)
class Exported:
    """How many files were written, and how many were left as they were."""

    written: int
    kept: int


def export(connection: sa.Connection, folder: Path) -> Exported:
    """Bring the files in `folder` up to what this DuckDB holds. Each is replaced whole; an unchanged month is left.

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
            _write(path, rows.to_arrow_table().replace_schema_metadata({_FINGERPRINT: fingerprint}))
            written += 1
    for table in _ONE_FILE:
        _write(folder / f"{table.name}.parquet", _relation(connection, table).to_arrow_table())
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


def _write(path: Path, rows: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")  # what a killed run left is overwritten
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            pq.write_table(rows, file, compression="zstd")
        like = path if path.exists() else max(path.parent.glob("*.parquet"), default=None)
        if like:
            unfinished.chmod(like.stat().st_mode & 0o777)  # whoever was let in stays so, and sees new months too
        unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
